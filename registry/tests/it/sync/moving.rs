// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Tags that the upstream moves in the middle of a run.

use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};
use stowage_registry::domain::Repositories;

use super::site::{IMAGE, INDEX, Site, index, login};
use crate::support::program::ask;
use crate::upstream::servers::{Image, Scripted, Stowage, handed_on, interrupted, push, settings};

super::both_stores!(
    p28_a_tag_that_moves_in_the_middle_of_a_run_is_whole_and_the_next_run_has_the_new_image,
    p28_an_image_that_goes_while_it_is_copied_is_never_seen_and_what_follows_it_is,
    p28_an_index_that_goes_with_its_images_while_it_is_copied_is_never_seen,
    an_index_that_its_registry_has_without_an_image_is_as_incomplete_here,
    f34_a_tag_that_ends_in_the_middle_of_a_run_is_not_found,
    f34_a_tag_that_moves_at_every_look_is_named_and_stays_what_it_was,
);

/// Whether the repository has all of the image.
async fn has_all(site: &Site, repository: &str, image: &Image) -> bool {
    let blob = site.get(&format!("/v2/base/{repository}/blobs/{}", image.layer_digest)).await;
    let manifest = site.manifest(&format!("base/{repository}"), &image.digest.to_string()).await;
    let is_there = manifest.is_some();
    assert!(!is_there || manifest.as_ref() == Some(&image.manifest));
    assert!(!is_there || blob.status == 200 && blob.body == image.layer, "a manifest without its layer");
    is_there
}

async fn p28_a_tag_that_moves_in_the_middle_of_a_run_is_whole_and_the_next_run_has_the_new_image(
    mut site: Site,
) {
    let origin = site.asked.upstream.origin.clone();
    for moment in 0..4 {
        let repository = format!("team/app-{moment}");
        site.asked.artifacts[0].repositories = Repositories::One(repository.parse().unwrap());
        site.asked.upstream.origin = origin.clone();
        let layer = |which: &str| format!("{which} of moment {moment}").into_bytes();
        site.push(&repository, "1.0", &layer("before"));
        assert_eq!(site.copy().await.items, [format!("copied {repository}:1.0")]);
        let old = site.push(&repository, "1.0", &layer("old"));
        let line = match moment {
            0 => format!("HEAD /v2/{repository}/manifests/1.0"),
            1 => format!("GET /v2/{repository}/manifests/{}", old.digest),
            2 => format!("GET /v2/{repository}/blobs/{}", old.layer_digest),
            // What comes after the last blob: whether something refers to the image.
            _ => format!("GET /v2/{repository}/referrers/{}", old.digest),
        };
        let (address, moved, content) =
            (site.upstream.address().to_owned(), repository.clone(), layer("new"));
        let upstream = interrupted(&address.clone(), line.clone(), move || {
            push(&address, &login(), &moved, "1.0", &content);
        });
        site.asked.upstream.origin = upstream.origin().parse().unwrap();
        let first = site.copy().await;
        assert_eq!(first.items, [format!("copied {repository}:1.0")], "{line}");
        let is_asked = |asked: &crate::upstream::servers::Asked| asked.line().starts_with(&line);
        assert!(upstream.asked().iter().any(is_asked), "{line}");

        let (_, _, new) = ask(
            site.upstream.address(),
            "GET",
            &format!("/v2/{repository}/manifests/1.0"),
            &format!("{}Accept: {IMAGE}\r\n", login()),
            b"",
        );
        let here = site.manifest(&format!("base/{repository}"), "1.0").await;
        let expected = if moment == 0 { &new } else { &old.manifest };
        assert_eq!(here.as_ref(), Some(expected), "{line}");
        assert_eq!(has_all(&site, &repository, &old).await, moment != 0, "{line}");
        let new_digest = Digest::of(Algorithm::Sha256, &new).to_string();
        let has_new = site.manifest(&format!("base/{repository}"), &new_digest).await.is_some();
        assert_eq!(has_new, moment == 0, "{line}");

        let fate = if moment == 0 { "unchanged" } else { "copied" };
        assert_eq!(site.copy().await.items, [format!("{fate} {repository}:1.0")], "{line}");
        assert_eq!(site.manifest(&format!("base/{repository}"), "1.0").await, Some(new));
    }
}

/// What a run from here is told of, by `upstream`.
fn of(site: &mut Site, upstream: &str) {
    site.asked.upstream = settings(upstream);
}

fn pushed(address: &str, tag: &str, layer: &[u8]) -> Image {
    push(address, "", "team/app", tag, layer)
}

fn push_index(address: &str, images: &[&Image]) -> Vec<u8> {
    let listed = images
        .iter()
        .map(|image| json!({"mediaType": IMAGE, "digest": image.digest, "size": image.manifest.len()}));
    let body = index(&Value::Array(listed.collect()));
    let fields = format!("Content-Type: {INDEX}\r\n");
    assert_eq!(ask(address, "PUT", "/v2/team/app/manifests/1.0", &fields, &body).0, 201);
    body
}

fn delete(address: &str, reference: impl std::fmt::Display) {
    let (status, head, _) = ask(address, "DELETE", &format!("/v2/team/app/manifests/{reference}"), "", b"");
    assert_eq!(status, 202, "{reference}: {head}");
}

async fn p28_an_image_that_goes_while_it_is_copied_is_never_seen_and_what_follows_it_is(mut site: Site) {
    let stowage = Stowage::open().await;
    let address = stowage.address();
    let old = pushed(&address, "1.0", b"old");
    let (to, gone) = (address.clone(), old.digest);
    let upstream = interrupted(&address, format!("GET /v2/team/app/manifests/{}", old.digest), move || {
        pushed(&to, "1.0", b"new");
        delete(&to, gone);
    });
    of(&mut site, &upstream.origin());
    assert_eq!(site.copy().await.items, ["copied team/app:1.0"]);
    let (_, _, new) = ask(&address, "GET", "/v2/team/app/manifests/1.0", "", b"");
    assert_eq!(site.manifest("base/team/app", "1.0").await, Some(new));
    assert!(!has_all(&site, "team/app", &old).await);
    assert_eq!(site.copy().await.items, ["unchanged team/app:1.0"]);
}

async fn p28_an_index_that_goes_with_its_images_while_it_is_copied_is_never_seen(mut site: Site) {
    let stowage = Stowage::open().await;
    let address = stowage.address();
    let [one, other] = ["one", "other"].map(|layer| pushed(&address, layer, layer.as_bytes()));
    let old = push_index(&address, &[&one, &other]);
    let old_digest = Digest::of(Algorithm::Sha256, &old);
    for tag in ["one", "other"] {
        delete(&address, tag);
    }
    let (to, gone) = (address.clone(), [old_digest, one.digest, other.digest]);
    let upstream = interrupted(&address, format!("GET /v2/team/app/manifests/{}", other.digest), move || {
        let newer = ["newer one", "newer other"].map(|layer| pushed(&to, "newer", layer.as_bytes()));
        push_index(&to, &[&newer[0], &newer[1]]);
        for digest in gone {
            delete(&to, digest);
        }
    });
    of(&mut site, &upstream.origin());
    let told = site.copy().await;
    assert_eq!(told.items, ["copied team/app:1.0"]);
    let (_, _, new) =
        ask(&address, "GET", "/v2/team/app/manifests/1.0", &format!("Accept: {INDEX}\r\n"), b"");
    assert_ne!(new, old);
    assert_eq!(site.manifest("base/team/app", "1.0").await.as_ref(), Some(&new));
    assert_eq!(site.manifest("base/team/app", &old_digest.to_string()).await, None);
    let listed: Value = serde_json::from_slice(&new).unwrap();
    for child in listed["manifests"].as_array().unwrap() {
        let child = site.manifest("base/team/app", child["digest"].as_str().unwrap()).await.unwrap();
        let layer = serde_json::from_slice::<Value>(&child).unwrap()["layers"][0]["digest"].to_string();
        let blob = format!("/v2/base/team/app/blobs/{}", layer.trim_matches('"'));
        assert_eq!(site.get(&blob).await.status, 200);
    }
    assert_eq!(site.copy().await.items, ["copied team/app:newer", "unchanged team/app:1.0"]);
}

async fn an_index_that_its_registry_has_without_an_image_is_as_incomplete_here(mut site: Site) {
    let stowage = Stowage::open().await;
    let address = stowage.address();
    let there = pushed(&address, "there", b"there");
    let lacking = Digest::of(Algorithm::Sha256, b"never pushed");
    let body = index(&json!([
        {"mediaType": IMAGE, "digest": there.digest, "size": there.manifest.len()},
        {"mediaType": IMAGE, "digest": lacking, "size": 12},
    ]));
    let fields = format!("Content-Type: {INDEX}\r\n");
    assert_eq!(ask(&address, "PUT", "/v2/team/app/manifests/1.0", &fields, &body).0, 201);
    of(&mut site, &format!("http://{address}"));
    assert_eq!(site.copy().await.items, ["copied team/app:1.0", "copied team/app:there"]);
    assert_eq!(site.manifest("base/team/app", "1.0").await, Some(body));
    assert!(has_all(&site, "team/app", &there).await);
    assert_eq!(site.copy().await.items, ["unchanged team/app:1.0", "unchanged team/app:there"]);
}

async fn f34_a_tag_that_ends_in_the_middle_of_a_run_is_not_found(mut site: Site) {
    let stowage = Stowage::open().await;
    let address = stowage.address();
    let gone = pushed(&address, "1.0", b"gone");
    pushed(&address, "2.0", b"stays");
    let (to, digest) = (address.clone(), gone.digest);
    let upstream = interrupted(&address, format!("GET /v2/team/app/manifests/{digest}"), move || {
        delete(&to, digest);
    });
    of(&mut site, &upstream.origin());
    let told = site.copy().await;
    assert_eq!(told.items, ["copied team/app:2.0", "failed team/app:1.0"]);
    assert_eq!(told.synced.failures, [("team/app:1.0".to_owned(), "NotFound")]);
    assert_eq!(site.manifest("base/team/app", "1.0").await, None);
    assert!(!has_all(&site, "team/app", &gone).await);
    assert_eq!(site.copy().await.items, ["unchanged team/app:2.0"]);
}

async fn f34_a_tag_that_moves_at_every_look_is_named_and_stays_what_it_was(mut site: Site) {
    let stowage = Stowage::open().await;
    let address = stowage.address();
    let first = pushed(&address, "1.0", b"first");
    of(&mut site, &format!("http://{address}"));
    assert_eq!(site.copy().await.items, ["copied team/app:1.0"]);
    pushed(&address, "1.0", b"second");
    let to = address.clone();
    let restless = Scripted::answering(move |asked| {
        if let Some(digest) = asked.line().strip_prefix("GET /v2/team/app/manifests/sha256:") {
            pushed(&to, "1.0", format!("after {digest}").as_bytes());
            delete(&to, format!("sha256:{digest}"));
        }
        handed_on(asked, &to)
    });
    of(&mut site, &restless.origin());
    let told = site.copy().await;
    assert_eq!(told.synced.failures, [("team/app:1.0".to_owned(), "TagMoves")], "{:?}", told.items);
    assert_eq!(site.manifest("base/team/app", "1.0").await, Some(first.manifest));
    of(&mut site, &format!("http://{address}"));
    assert_eq!(site.copy().await.items, ["copied team/app:1.0"]);
    let (_, _, now) = ask(&address, "GET", "/v2/team/app/manifests/1.0", "", b"");
    assert_eq!(site.manifest("base/team/app", "1.0").await, Some(now));
}
