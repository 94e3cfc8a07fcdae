// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Signatures and SBOMs, by subject and by tag, and what refers to them.

use serde_json::{Value, json};

use super::both_places;
use super::site::{IMAGE, ends, manifest};
use crate::purge::Place;
use crate::support::program::{Program, serve};
use crate::upstream::servers::{push, push_manifest};

async fn l_46_what_refers_to_an_image_comes_along_when_asked_for(from: Place, to: Place) {
    let source = Program::start(&mut serve(from.path())).await;
    let address = source.address("listen");
    let image = push(address, "", "team/app", "v1", b"a");
    let subject =
        |of: &stowage_oci::Digest, size: usize| json!({"mediaType": IMAGE, "digest": of, "size": size});
    let about = subject(&image.digest, image.manifest.len());
    let signature = push_manifest(address, "", "team/app", "sig", b"signature", &about);
    let about = subject(&signature.digest, signature.manifest.len());
    let witness = push_manifest(address, "", "team/app", "witness", b"seen", &about);
    let old = format!("sha256-{}.sig", image.digest.hex());
    let by_tag = push(address, "", "team/app", &old, b"old signature");

    let file = to.path().join("a.tar");
    let file = file.to_str().unwrap();
    ends(&from, 0, &["export", "team/app:v1", "-o", file]);
    ends(&to, 0, &["import", "a.tar"]);
    let target = Program::start(&mut serve(to.path())).await;
    let list = |of: stowage_oci::Digest| {
        let (status, _, body) = target.ask("GET", &format!("/v2/team/app/referrers/{of}"), "", b"");
        assert_eq!(status, 200);
        let list: Value = serde_json::from_slice(&body).unwrap();
        let digests = list["manifests"].as_array().unwrap().iter();
        digests.map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(list(image.digest).is_empty());

    ends(&from, 0, &["export", "team/app:v1", "--referrers", "-o", file]);
    ends(&to, 0, &["import", "a.tar"]);
    assert_eq!(list(image.digest), [signature.digest.to_string()]);
    assert_eq!(list(signature.digest), [witness.digest.to_string()]);
    assert_eq!(manifest(&target, "team/app", &old), (200, by_tag.manifest));
    assert_eq!(manifest(&target, "team/app", "sig").0, 404, "tags that were not asked for stay behind");
}

both_places!(l_46_what_refers_to_an_image_comes_along_when_asked_for);
