// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Runs of a mirror that copies signed images only.

use serde_json::json;
use stowage_registry::domain::SyncMode;
use stowage_registry::signatures::Keys;

use super::cosign::{At, Form, IMAGE, Signer};
use crate::sync::site::Site;

crate::sync::both_stores!(
    p24_f24_f39_signed_images_are_copied_and_others_are_named,
    a_signed_index_comes_with_its_children,
);

fn at(site: &Site) -> At<'_> {
    At { address: site.upstream.address(), repository: "team/app", login: Some(("alice", "p:w")) }
}

async fn p24_f24_f39_signed_images_are_copied_and_others_are_named(mut site: Site) {
    let signers = [Signer::new("release"), Signer::rsa("vendor"), Signer::p384("site")];
    let stranger = Signer::new("stranger");
    let keys = Keys::new(signers.iter().map(Signer::key).collect());
    let tags = ["1.0", "1.1", "1.2", "1.3", "2.0", "2.1"];
    let images = tags.map(|tag| site.push("team/app", tag, tag.as_bytes()));
    let [release, vendor, own] = &signers;
    release.sign(at(&site), &images[0].digest, Form::Bundle);
    release.sign(at(&site), &images[1].digest, Form::Tag);
    vendor.sign(at(&site), &images[2].digest, Form::Bundle);
    own.sign(at(&site), &images[3].digest, Form::Tag);
    stranger.sign(at(&site), &images[4].digest, Form::Bundle);
    site.asked.keys = Some(keys);

    let images_of = |items: Vec<String>| -> Vec<String> {
        items.into_iter().filter(|item| !item.contains(":sha256-")).collect()
    };
    let expected = [
        "copied team/app:1.0",
        "copied team/app:1.1",
        "copied team/app:1.2",
        "copied team/app:1.3",
        "failed team/app:2.0",
        "failed team/app:2.1",
    ];
    for mode in [SyncMode::DryRun, SyncMode::Copy] {
        let told = site.run(mode).await;
        assert!(told.failed("team/app:2.0", "SignatureInvalid"), "{:?}", told.synced.failures);
        assert!(told.failed("team/app:2.1", "SignatureMissing"), "{:?}", told.synced.failures);
        assert_eq!(told.synced.failed, 2);
        assert_eq!(images_of(told.items), expected);
    }
    for (tag, image) in tags.iter().zip(&images) {
        let is_signed = tag.starts_with('1');
        assert_eq!(site.manifest("base/team/app", tag).await.is_some(), is_signed, "{tag}");
        let by_digest = site.manifest("base/team/app", &image.digest.to_string()).await;
        assert_eq!(by_digest.is_some(), is_signed, "{tag}");
    }
    // The signatures came with the images: verified again, they are not asked for.
    site.line.asked();
    assert_eq!(site.copy().await.synced.copied, 0);
    let blobs = site.blobs_asked();
    assert!(blobs.len() <= 1, "but for that of the stranger: {blobs:?}");

    site.asked.keys = Some(stranger.only());
    let told = site.copy().await;
    assert!(told.failed("team/app:1.0", "SignatureInvalid"), "{:?}", told.synced.failures);
    assert!(told.items.contains(&"copied team/app:2.0".to_owned()), "{:?}", told.items);
    assert!(site.manifest("base/team/app", "1.0").await.is_some(), "what is here is not taken away");
}

async fn a_signed_index_comes_with_its_children(mut site: Site) {
    let release = Signer::new("release");
    site.asked.keys = Some(release.only());
    let child = site.push("team/app", "child", b"child");
    let descriptor = json!({"mediaType": IMAGE, "digest": child.digest, "size": child.manifest.len()});
    let (index, body) = site.push_index("team/app", "1.0", &json!([descriptor]));
    release.sign(at(&site), &index, Form::Bundle);
    let told = site.copy().await;
    assert!(told.failed("team/app:child", "SignatureMissing"), "by its own tag it is an image like others");
    assert_eq!(site.manifest("base/team/app", "1.0").await, Some(body));
    assert_eq!(site.manifest("base/team/app", &child.digest.to_string()).await, Some(child.manifest));
    assert_eq!(site.manifest("base/team/app", "child").await, None);
}
