// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Tags that are immutable here, of an upstream that moves or ends them.

use std::time::Duration;

use serde_json::json;
use stowage_oci::{Digest, TagSelection, TagsWanted};
use stowage_registry::Registry;
use stowage_registry::domain::{Immutability, ImmutabilityRule};

use super::blobs::sha256;
use super::line::Way;
use super::site::{Answer, HOUR, Site, ask, get};
use crate::sync::site::{INDEX, index, request};
use crate::upstream::servers::{Image, push};

const TAG: &str = "/v2/hub/team/app/manifests/1.0";

super::both_stores!(
    w731_an_immutable_tag_that_the_upstream_moves_stays_what_it_was_with_a_warning,
    w731_w876_an_immutable_tag_that_moved_is_compared_by_head_and_within_the_ttl_not_at_all,
    w731_w873_an_immutable_tag_that_the_upstream_ended_stays_and_others_go,
);

super::through_a_virtual_repository!(
    w731_an_immutable_tag_that_the_upstream_moves_stays_what_it_was_with_a_warning,
    w731_w876_an_immutable_tag_that_moved_is_compared_by_head_and_within_the_ttl_not_at_all,
    w731_w873_an_immutable_tag_that_the_upstream_ended_stays_and_others_go,
);

/// All replicas have a rule for versions, or none any more.
fn protect(site: &Site, is_protected: bool) {
    let rule = ImmutabilityRule {
        name: "releases".to_owned(),
        repositories: vec!["**".parse().unwrap()],
        tags: TagSelection { wanted: TagsWanted::Versions("*".parse().unwrap()), ..TagSelection::default() },
        signature_tags: false,
    };
    let rules = if is_protected { vec![rule] } else { Vec::new() };
    for replica in [&site.one, &site.other] {
        replica.domain().set_immutability(Immutability(rules.clone()));
    }
}

fn pushed(site: &Site, tag: &str, layer: &[u8]) -> Image {
    push(site.upstream.address(), "", "team/app", tag, layer)
}

fn assert_kept(answer: &Answer, digest: &Digest) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    let warning = answer.header("warning");
    assert!(warning.starts_with("299 - ") && warning.contains("immutable"), "{answer:?}");
}

async fn content(replica: &Registry, target: &str) -> (Vec<u8>, String) {
    let answer = get(replica, target).await;
    (answer.body.to_vec(), answer.header("warning").to_owned())
}

async fn w731_an_immutable_tag_that_the_upstream_moves_stays_what_it_was_with_a_warning(mut site: Site) {
    protect(&site, true);
    let first = pushed(&site, "1.0", b"first");
    assert_eq!(content(&site.one, TAG).await, (first.manifest.clone(), String::new()), "the first is taken");
    site.set(|mirror| mirror.cache.tag_ttl = Duration::ZERO);
    assert_eq!(content(&site.one, TAG).await, (first.manifest.clone(), String::new()), "it is the same");
    let second = pushed(&site, "1.0", b"second");
    let assert_all_kept = async |site: &Site| {
        for replica in [&site.one, &site.other] {
            let answer = get(replica, TAG).await;
            assert_kept(&answer, &first.digest);
            assert_eq!(&answer.body[..], &first.manifest[..]);
            assert_kept(&ask(replica, "HEAD", TAG, &[]).await, &first.digest);
        }
    };
    assert_all_kept(&site).await;
    let by_digest = format!("/v2/hub/team/app/manifests/{}", second.digest);
    assert_eq!(content(&site.one, &by_digest).await, (second.manifest.clone(), String::new()));
    assert_all_kept(&site).await;

    pushed(&site, "1.0", b"first");
    assert_eq!(content(&site.other, TAG).await, (first.manifest.clone(), String::new()), "it is back there");
    pushed(&site, "1.0", b"second");
    assert_all_kept(&site).await;
    protect(&site, false);
    assert_eq!(content(&site.one, TAG).await, (second.manifest, String::new()), "the rule has gone");
}

async fn w731_w876_an_immutable_tag_that_moved_is_compared_by_head_and_within_the_ttl_not_at_all(
    mut site: Site,
) {
    protect(&site, true);
    // It was pushed before there was a mirror: so nobody knows when it was compared last.
    let (target, body) = (format!("/v2/{}/team/app/manifests/1.0", site.mirror.path), index(&json!([])));
    site.one.set_mirrors(Vec::new());
    assert_eq!(request(&site.one, "PUT", &target, INDEX, body.clone()).await.status, 201);
    site.set(|mirror| mirror.cache.tag_ttl = HOUR);
    pushed(&site, "1.0", b"another");
    for replica in [&site.one, &site.other] {
        site.line.asked();
        assert_kept(&get(replica, TAG).await, &sha256(&body));
        assert_eq!(
            site.line.asked(),
            ["HEAD /v2/team/app/manifests/1.0"],
            "what it may not become is not fetched"
        );
        for _ in 0..3 {
            assert_kept(&get(replica, TAG).await, &sha256(&body));
        }
        assert_eq!(site.line.asked(), [""; 0]);
    }
    protect(&site, false);
    assert_eq!(content(&site.one, TAG).await.1, "", "rules hold at once");
}

async fn w731_w873_an_immutable_tag_that_the_upstream_ended_stays_and_others_go(mut site: Site) {
    protect(&site, true);
    let (kept, ended) = (pushed(&site, "1.0", b"kept"), pushed(&site, "latest", b"ended"));
    let latest = TAG.replace("1.0", "latest");
    for (target, image) in [(TAG, &kept), (&latest, &ended)] {
        assert_eq!(&get(&site.one, target).await.body[..], &image.manifest[..]);
    }
    site.set(|mirror| mirror.cache.tag_ttl = Duration::ZERO);
    site.line.set(Way::Refused(404));
    for replica in [&site.one, &site.other, &site.one] {
        assert_kept(&get(replica, TAG).await, &kept.digest);
        assert_eq!(get(replica, &latest).await.status, 404, "no rule covers it");
    }
    site.line.set(Way::Open);
    pushed(&site, "1.0", b"another, as if it were new");
    assert_kept(&get(&site.other, TAG).await, &kept.digest);
    protect(&site, false);
    site.line.set(Way::Refused(404));
    assert_eq!(get(&site.one, TAG).await.status, 404, "the rule has gone");
}
