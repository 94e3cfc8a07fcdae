// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pulls through a mirror that takes signed images only.

use std::time::Duration;

use serde_json::json;
use stowage_oci::{Algorithm, Digest};
use stowage_registry::Registry;

use super::cosign::{At, Form, IMAGE, Signer, signature, tag_of};
use crate::mirror::line::Way;
use crate::mirror::site::{Answer, Site, get};
use crate::upstream::servers::{Image, push, push_manifest};

crate::mirror::both_stores!(
    p24_f39_what_a_key_signed_is_answered_and_stays_so_without_the_upstream,
    p24_what_no_key_signed_is_denied_and_says_why,
    p24_a_tag_goes_on_with_what_was_signed_last,
    p24_a_signature_of_something_else_does_not_count,
    children_of_a_signed_index_are_answered_by_any_replica,
    other_keys_verify_anew,
);

crate::mirror::through_a_virtual_repository!(
    p24_f39_what_a_key_signed_is_answered_and_stays_so_without_the_upstream,
    p24_what_no_key_signed_is_denied_and_says_why,
    p24_a_tag_goes_on_with_what_was_signed_last,
    children_of_a_signed_index_are_answered_by_any_replica,
);

fn at(site: &Site) -> At<'_> {
    At { address: site.upstream.address(), repository: "team/app", login: None }
}

fn pushed(site: &Site, tag: &str) -> Image {
    push(site.upstream.address(), "", "team/app", tag, tag.as_bytes())
}

async fn pull(registry: &Registry, reference: impl std::fmt::Display) -> Answer {
    get(registry, &format!("/v2/hub/team/app/manifests/{reference}")).await
}

/// The message of a refusal.
async fn denied(registry: &Registry, reference: impl std::fmt::Display) -> String {
    let answer = pull(registry, reference).await;
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(answer.status == 403 && body.contains("\"DENIED\""), "{} {body}", answer.status);
    body
}

async fn p24_f39_what_a_key_signed_is_answered_and_stays_so_without_the_upstream(mut site: Site) {
    let release = Signer::new("release");
    site.set(|mirror| mirror.keys = Some(release.only()));
    let (new, old) = (pushed(&site, "new"), pushed(&site, "old"));
    release.sign(at(&site), &new.digest, Form::Bundle);
    release.sign(at(&site), &old.digest, Form::Tag);
    for (tag, image) in [("new", &new), ("old", &old)] {
        assert_eq!(&pull(&site.one, tag).await.body[..], &image.manifest[..], "{tag}");
        assert_eq!(pull(&site.other, &image.digest).await.status, 200, "{tag}");
    }
    site.line.asked();
    assert_eq!((pull(&site.one, "new").await.status, pull(&site.one, "old").await.status), (200, 200));
    assert_eq!(site.line.asked(), [""; 0], "what was verified is remembered");

    site.line.set(Way::Gone);
    let newcomer = site.newcomer().await;
    for reference in ["new".to_owned(), "old".to_owned(), new.digest.to_string(), old.digest.to_string()] {
        assert_eq!(pull(&newcomer, &reference).await.status, 200, "{reference}: its signature is here");
    }
    assert_eq!(pull(&newcomer, tag_of(&old.digest)).await.status, 200, "whoever wants verifies it again");
}

async fn p24_what_no_key_signed_is_denied_and_says_why(mut site: Site) {
    let (release, other) = (Signer::new("release"), Signer::new("other"));
    site.set(|mirror| mirror.keys = Some(release.only()));
    let (unsigned, theirs) = (pushed(&site, "unsigned"), pushed(&site, "theirs"));
    other.sign(at(&site), &theirs.digest, Form::Bundle);
    other.sign(at(&site), &theirs.digest, Form::Tag);
    release.attest(at(&site), &unsigned);
    for reference in ["unsigned".to_owned(), unsigned.digest.to_string()] {
        let message = denied(&site.one, &reference).await;
        assert!(message.contains(&format!("{} has no signature", unsigned.digest)), "{message}");
    }
    for reference in ["theirs".to_owned(), theirs.digest.to_string()] {
        let message = denied(&site.one, &reference).await;
        assert!(message.contains("verifies with none of the keys release"), "{message}");
    }
    assert_eq!(get(&site.one, "/v2/hub/team/app/tags/list").await.status, 404, "nothing of it is here");
    // What it is taken for, or says of itself, makes no signature of an image.
    let posing = tag_of(&theirs.digest);
    push(site.upstream.address(), "", "team/app", &posing, b"runs");
    denied(&site.one, &posing).await;
    let subject = json!({"mediaType": IMAGE, "digest": theirs.digest, "size": theirs.manifest.len()});
    let referring = push_manifest(site.upstream.address(), "", "team/app", "refers", b"runs too", &subject);
    denied(&site.one, &referring.digest).await;
}

async fn p24_a_tag_goes_on_with_what_was_signed_last(mut site: Site) {
    let release = Signer::new("release");
    site.set(|mirror| {
        mirror.keys = Some(release.only());
        mirror.cache.tag_ttl = Duration::ZERO;
        mirror.cache.negative_ttl = Duration::ZERO;
        mirror.cache.stale_for = Duration::ZERO;
    });
    let first = push(site.upstream.address(), "", "team/app", "1.0", b"first");
    release.sign(at(&site), &first.digest, Form::Bundle);
    assert_eq!(pull(&site.one, "1.0").await.status, 200);
    let second = push(site.upstream.address(), "", "team/app", "1.0", b"second");
    for replica in [&site.one, &site.other] {
        let held = pull(replica, "1.0").await;
        assert_eq!((held.status, &held.body[..]), (200, &first.manifest[..]));
        assert!(held.header("warning").contains("not signed"), "{held:?}");
        denied(replica, &second.digest).await;
    }
    release.sign(at(&site), &second.digest, Form::Bundle);
    let now = pull(&site.other, "1.0").await;
    assert_eq!((&now.body[..], now.header("warning")), (&second.manifest[..], ""));
}

async fn p24_a_signature_of_something_else_does_not_count(mut site: Site) {
    let release = Signer::new("release");
    site.set(|mirror| mirror.keys = Some(release.only()));
    let [signed, lent, tampered, bundled] =
        ["signed", "lent", "tampered", "bundled"].map(|tag| pushed(&site, tag));
    release.sign(at(&site), &signed.digest, Form::Tag);
    release.sign(at(&site), &signed.digest, Form::Bundle);
    let own = at(&site).get(&format!("manifests/{}", tag_of(&signed.digest)));
    let annotations = &own["layers"][0]["annotations"];
    let base64 = annotations["dev.cosignproject.cosign/signature"].as_str().unwrap();
    let payload = at(&site).get(&format!("blobs/{}", own["layers"][0]["digest"].as_str().unwrap()));
    let config = Digest::of(Algorithm::Sha256, b"{}");

    // The payload as it was signed, and one that says what it should.
    at(&site).put(&tag_of(&lent.digest), &own);
    let message = denied(&site.one, "lent").await;
    assert!(message.contains("is about another image"), "{message}");
    let payload = payload.to_string().replace(&signed.digest.to_string(), &tampered.digest.to_string());
    let digest = at(&site).put_blob(payload.as_bytes());
    at(&site).put(&tag_of(&tampered.digest), &signature(&digest, payload.len(), &config, base64));
    let message = denied(&site.one, "tampered").await;
    assert!(message.contains("verifies with none of the keys"), "{message}");

    // distribution has no referrers API: clients keep a list under a tag instead.
    let list = at(&site).get(&format!("manifests/sha256-{}", signed.digest.hex()));
    let mut referrer =
        at(&site).get(&format!("manifests/{}", list["manifests"][0]["digest"].as_str().unwrap()));
    referrer["subject"]["digest"] = json!(bundled.digest);
    let body = referrer.to_string();
    let digest = Digest::of(Algorithm::Sha256, body.as_bytes());
    at(&site).put(&digest.to_string(), &referrer);
    let mut list = list.clone();
    list["manifests"] = json!([{"mediaType": IMAGE, "digest": digest, "size": body.len()}]);
    at(&site).put_index(&format!("sha256-{}", bundled.digest.hex()), &list);
    let message = denied(&site.one, "bundled").await;
    assert!(message.contains("is about another image"), "{message}");
}

async fn children_of_a_signed_index_are_answered_by_any_replica(mut site: Site) {
    let release = Signer::new("release");
    site.set(|mirror| mirror.keys = Some(release.only()));
    let (amd, arm) = (pushed(&site, "amd"), pushed(&site, "arm"));
    let child =
        |image: &Image| json!({"mediaType": IMAGE, "digest": image.digest, "size": image.manifest.len()});
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [child(&amd), child(&arm)],
    });
    let digest = at(&site).put_index("1.0", &index);
    release.sign(at(&site), &digest, Form::Bundle);
    denied(&site.one, &amd.digest).await;
    assert_eq!(pull(&site.one, "1.0").await.status, 200);
    assert_eq!(pull(&site.one, &arm.digest).await.status, 200);
    assert_eq!(pull(&site.other, &amd.digest).await.status, 200, "it did not see the index");
    site.line.set(Way::Gone);
    assert_eq!(pull(&site.newcomer().await, &arm.digest).await.status, 200);
}

async fn other_keys_verify_anew(mut site: Site) {
    let (before, after) = (Signer::new("before"), Signer::new("after"));
    let image = pushed(&site, "1.0");
    assert_eq!(pull(&site.one, "1.0").await.status, 200, "nothing is asked for");
    site.set(|mirror| mirror.keys = Some(before.only()));
    denied(&site.one, "1.0").await;
    site.set(|mirror| {
        mirror.keys = Some(before.only());
        mirror.cache.negative_ttl = Duration::ZERO;
    });
    before.sign(at(&site), &image.digest, Form::Bundle);
    assert_eq!(pull(&site.one, "1.0").await.status, 200);
    site.set(|mirror| mirror.keys = Some(after.only()));
    denied(&site.one, "1.0").await;
    denied(&site.one, &image.digest).await;
    let both = stowage_registry::signatures::Keys::new(vec![after.key(), before.key()]);
    site.set(|mirror| mirror.keys = Some(both));
    assert_eq!(pull(&site.one, &image.digest).await.status, 200);
}
