// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Lists of a virtual repository.

use serde_json::json;
use stowage_registry::Registry;
use stowage_registry::domain::{Listing, Shadowing};

use super::site::{NOBODY, Site, get, json_of, local, push, put, referrer, sha256};
use crate::upstream::servers::push as push_upstream;

super::both_stores!(
    w451_tags_are_those_of_the_first_member_that_has_the_name,
    w451_tags_of_all_members_are_merged_page_by_page,
    w451_referrers_of_all_members_are_merged_newest_first_and_once_each,
    what_a_path_hides_is_not_listed_and_is_told,
);

async fn w451_tags_are_those_of_the_first_member_that_has_the_name(mut site: Site) {
    push(&site.one, "team-b/app", "b", b"layer").await;
    site.set(|all| all.members.insert(1, local("team-b", false)));
    let tags = async || json_of(&get(&site.one, "/v2/all/app/tags/list").await);
    assert_eq!(tags().await, json!({ "name": "all/app", "tags": ["b"] }));
    push(&site.one, "team-a/app", "a", b"layer").await;
    assert_eq!(tags().await, json!({ "name": "all/app", "tags": ["a"] }));
    assert_eq!(get(&site.one, "/v2/all/none/tags/list").await.status, 404);
    assert_eq!(site.asked(), NOBODY);
}

async fn w451_tags_of_all_members_are_merged_page_by_page(mut site: Site) {
    push_upstream(site.hub.address(), "", "app", "theirs", b"layer");
    site.set(|all| {
        all.listing = Listing::Merged;
        all.shadowing = Shadowing::Allowed;
        all.members.insert(1, local("team-b", false));
    });
    for (repository, tags) in [("team-a/app", ["1.0", "c", "a"]), ("team-b/app", ["b", "1.0", "d"])] {
        for tag in tags {
            push(&site.one, repository, tag, b"layer").await;
        }
    }
    assert_eq!(get(&site.one, "/v2/all/app/manifests/theirs").await.status, 200);
    let (mut next, mut pages) = ("/v2/all/app/tags/list?n=2".to_owned(), Vec::new());
    loop {
        let page = get(&site.other, &next).await;
        pages.push(json_of(&page)["tags"].clone());
        let link = page.header("link");
        let Some(target) = link.strip_prefix('<').and_then(|rest| rest.split('>').next()) else { break };
        assert!(target.starts_with("/v2/all/app/tags/list?"), "{link}");
        next = target.to_owned();
    }
    assert_eq!(pages, [json!(["1.0", "a"]), json!(["b", "c"]), json!(["d", "theirs"])]);
    site.set(|all| all.shadowing = Shadowing::Forbidden);
    let own = json_of(&get(&site.one, "/v2/all/app/tags/list").await);
    assert_eq!(own["tags"], json!(["1.0", "a", "b", "c", "d"]), "the name is ours");
}

/// What the referrers of an image say, newest first.
async fn said(registry: &Registry, subject: &[u8], query: &str) -> Vec<String> {
    let list = get(registry, &format!("/v2/all/app/referrers/{}{query}", sha256(subject))).await;
    assert_eq!(list.status, 200, "{list:?}");
    let list = json_of(&list);
    let said = list["manifests"].as_array().unwrap().iter().map(|row| row["annotations"]["said"].to_string());
    said.map(|said| said.trim_matches('"').to_owned()).collect()
}

async fn w451_referrers_of_all_members_are_merged_newest_first_and_once_each(mut site: Site) {
    site.set(|all| all.members.insert(1, local("team-b", false)));
    let subject = push(&site.one, "team-a/app", "1.0", b"layer").await;
    push(&site.one, "team-b/app", "1.0", b"layer").await;
    for (repository, words) in
        [("team-a/app", "first"), ("team-b/app", "second"), ("team-a/app", "both"), ("team-b/app", "both")]
    {
        let manifest = referrer(&subject, words);
        let pushed = put(&site.one, repository, &sha256(&manifest).to_string(), &manifest).await;
        assert_eq!(pushed.status, 201, "{pushed:?}");
        // Their order is that of milliseconds.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(said(&site.other, &subject, "").await, ["both", "second", "first"]);
    let some = "?artifactType=application/vnd.example.signature";
    assert_eq!(said(&site.other, &subject, some).await.len(), 3);
    assert!(said(&site.other, &subject, "?artifactType=text/none").await.is_empty());
    assert!(said(&site.other, b"nothing", "").await.is_empty());
}

async fn what_a_path_hides_is_not_listed_and_is_told(mut site: Site) {
    let path = site.all.path.clone();
    site.set(|all| all.path = "elsewhere".parse().unwrap());
    for repository in ["all/app", "all-others/app", "team-a/app"] {
        push(&site.one, repository, "1.0", b"layer").await;
    }
    let listed =
        async |registry: &Registry| json_of(&get(registry, "/v2/_catalog").await)["repositories"].clone();
    assert_eq!(listed(&site.one).await, json!(["all-others/app", "all/app", "team-a/app"]));
    assert!(site.one.hidden_repositories().await.unwrap().is_empty());
    site.set(|all| all.path = path);
    assert_eq!(listed(&site.one).await, json!(["all-others/app", "team-a/app"]));
    let hidden = site.one.hidden_repositories().await.unwrap();
    assert_eq!(hidden, [("all".to_owned(), "all/app".parse().unwrap())]);
}
