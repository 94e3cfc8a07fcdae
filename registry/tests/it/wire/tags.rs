// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Lists of tags.

use serde_json::json;
use stowage_registry::key::Generation;
use stowage_registry::meta::{ManifestFacts, Pin, PinOutcome, PublishOutcome};

use super::registry::{OCI_IMAGE, Registry, image, sha256};

super::both_stores!(
    w320_w834_tags_come_in_byte_order,
    w321_w323_w547_w549_w562_w563_w777_pages_link_to_the_next,
    w321_w771_a_page_of_none_and_pages_that_cannot_be,
    w322_w496_last_is_exclusive_and_need_not_exist,
    w326_tags_that_begin_alike_are_all_listed,
    w325_w093_w841_an_unknown_repository_is_404,
    w323_other_parameters_stay_in_the_link,
    w324_w905_a_page_has_ten_thousand_tags_whatever_is_asked_for,
);

/// One image under many tags.
async fn tagged(registry: &Registry, tags: &[&str]) {
    registry.push_blob("a", b"{}").await;
    for tag in tags {
        assert_eq!(registry.put_manifest("a", tag, &image(&[])).await.status, 201);
    }
}

async fn list(registry: &Registry, query: &str) -> Vec<String> {
    let answer = registry.get(&format!("/v2/a/tags/list{query}")).send().await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    serde_json::from_value(answer.json()["tags"].clone()).unwrap()
}

/// The tags of all pages, as a client that follows `Link` sees them.
async fn all_pages(registry: &Registry, query: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut target = Some(format!("/v2/a/tags/list{query}"));
    while let Some(next) = target {
        let answer = registry.get(&next).send().await;
        pages.push(serde_json::from_value(answer.json()["tags"].clone()).unwrap());
        target = answer.has("link").then(|| {
            let link = answer.header("link");
            link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned()
        });
    }
    pages
}

async fn w320_w834_tags_come_in_byte_order(registry: Registry) {
    tagged(&registry, &["b", "a", "B", "_", "1", "a-b", "a.b", "aa"]).await;
    let answer = registry.get("/v2/a/tags/list").send().await;
    let tags = ["1", "B", "_", "a", "a-b", "a.b", "aa", "b"];
    assert_eq!(answer.json(), json!({ "name": "a", "tags": tags }));
    for tag in tags {
        assert_eq!(registry.delete(&format!("/v2/a/manifests/{tag}")).send().await.status, 202);
    }
    assert_eq!(registry.get("/v2/a/tags/list").send().await.json(), json!({ "name": "a", "tags": [] }));
}

async fn w321_w323_w547_w549_w562_w563_w777_pages_link_to_the_next(registry: Registry) {
    tagged(&registry, &["1", "2", "3", "4", "5"]).await;
    assert_eq!(all_pages(&registry, "?n=2").await, [vec!["1", "2"], vec!["3", "4"], vec!["5"]]);
    assert_eq!(all_pages(&registry, "?n=5").await, [["1", "2", "3", "4", "5"]]);
    assert_eq!(all_pages(&registry, "?n=1000&last=2").await, [["3", "4", "5"]]);
    assert_eq!(all_pages(&registry, "").await.len(), 1);
    let link = registry.get("/v2/a/tags/list?n=2").send().await;
    assert_eq!(link.header("link"), "</v2/a/tags/list?n=2&last=2>; rel=\"next\"");
}

async fn w321_w771_a_page_of_none_and_pages_that_cannot_be(registry: Registry) {
    tagged(&registry, &["1", "2"]).await;
    assert_eq!(all_pages(&registry, "?n=0").await, [Vec::<String>::new()]);
    for n in ["2147483648", "1000000000000000000"] {
        assert_eq!(list(&registry, &format!("?n={n}")).await, ["1", "2"]);
    }
    for n in ["-1", "x", "1.5", ""] {
        assert_eq!(registry.status(&format!("/v2/a/tags/list?n={n}")).await, 400, "{n}");
        assert_eq!(registry.status(&format!("/v2/_catalog?n={n}")).await, 400, "{n}");
    }
}

async fn w322_w496_last_is_exclusive_and_need_not_exist(registry: Registry) {
    tagged(&registry, &["a", "c", "e"]).await;
    assert_eq!(list(&registry, "?last=a").await, ["c", "e"]);
    assert_eq!(list(&registry, "?last=b").await, ["c", "e"]);
    assert_eq!(list(&registry, "?last=b&n=1").await, ["c"]);
    assert_eq!(list(&registry, "?last=z").await, Vec::<String>::new());
    assert_eq!(list(&registry, "?last=%C3%A4").await, Vec::<String>::new());
}

async fn w326_tags_that_begin_alike_are_all_listed(registry: Registry) {
    let tags = ["1", "1.0", "1.0.0", "1.0.0-rc", "1.0.0-rc.1"];
    tagged(&registry, &tags).await;
    for n in 1..=5 {
        assert_eq!(all_pages(&registry, &format!("?n={n}")).await.concat(), tags, "{n}");
    }
}

async fn w325_w093_w841_an_unknown_repository_is_404(registry: Registry) {
    let answer = registry.get("/v2/never/tags/list").send().await;
    assert_eq!(answer.refusal(), (404, "NAME_UNKNOWN".into()));
}

async fn w323_other_parameters_stay_in_the_link(registry: Registry) {
    tagged(&registry, &["a", "b"]).await;
    let answer = registry.get("/v2/a/tags/list?x=1%202&n=1&last=%21").send().await;
    assert_eq!(answer.header("link"), "</v2/a/tags/list?x=1%202&n=1&last=a>; rel=\"next\"");
    assert_eq!(registry.get("/v2/a/manifests/a").send().await.header("content-type"), OCI_IMAGE);
}

/// The tags of the image beside those it has, in the database alone: lists ask nobody else.
async fn tagged_in_the_database(registry: &Registry, tags: impl Iterator<Item = String>) {
    let body = image(&[]).to_string();
    let facts = ManifestFacts {
        digest: sha256(body.as_bytes()),
        media_type: OCI_IMAGE.to_owned(),
        artifact_type: None,
        subject: None,
        annotations: None,
        size: body.len().try_into().unwrap(),
        body: Some(body.into()),
        blobs: Vec::new(),
        children: Vec::new(),
    };
    let tags = tags.map(|tag| tag.parse().unwrap()).collect();
    let generation = Generation::at(1);
    let pin = Pin {
        repository: "a".parse().unwrap(),
        facts,
        tags,
        immutable: Vec::new(),
        strict: false,
        awaited: Vec::new(),
        generation,
        copied: None,
        ledger: None,
    };
    let epoch = registry.meta.envelope().await.unwrap().unwrap().epoch;
    let PinOutcome::Pinned(pinned) = registry.meta.pin_manifest(epoch, &pin).await.unwrap() else {
        panic!("the image refers to nothing that is missing")
    };
    assert_eq!(registry.meta.publish_manifest(&pinned).await.unwrap(), PublishOutcome::Published);
}

async fn w324_w905_a_page_has_ten_thousand_tags_whatever_is_asked_for(registry: Registry) {
    tagged(&registry, &["00000"]).await;
    let names = || (0..10_003).map(|number| format!("{number:05}"));
    tagged_in_the_database(&registry, names().skip(1)).await;
    let all: Vec<String> = names().collect();
    for query in ["", "?n=10001", "?n=2147483648"] {
        let pages = all_pages(&registry, query).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10_000, 3], "{query}");
        assert_eq!(pages.concat(), all, "{query}");
    }
    assert_eq!(all_pages(&registry, "?n=10000").await.len(), 2);
}
