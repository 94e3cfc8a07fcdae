// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What was deleted goes, to the last object; what is in use stays.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::site::{INDEX, Site, image, sha256};
use crate::faults::client::noise;

async fn l_24_of_what_was_deleted_nothing_is_left(site: Site) {
    let (large, rest) = (noise(1, 17 << 20), noise(2, 1000));
    site.push_blob_in_pieces("a/b", &large, &rest).await;
    site.push_blob_in_pieces("a/b", b"staged", b"").await;
    site.push_blob_in_pieces("a/b", b"joined ", b"up").await;
    // The same content once more, and by a mount.
    site.push_blob("a/b", b"layer").await;
    site.push_blob("a/c", b"layer").await;
    let mounted = format!("/v2/d/blobs/uploads/?mount={}&from=a/b", sha256(b"layer"));
    let mount = site.send(http::Method::POST, &mounted, "text/plain", b"").await;
    assert_eq!(mount.status, StatusCode::CREATED);
    for tag in ["v1", "v2"] {
        site.push_image("a/b", tag, &[b"layer", tag.as_bytes()]).await;
    }
    // Moved tags, an index, a signature.
    let child = site.push_image("a/b", "v1", &[b"layer"]).await;
    let descriptor = json!({ "mediaType": super::site::IMAGE, "digest": child, "size": 1 });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor] });
    let index = site.put_manifest("a/b", "multi", &index).await;
    let mut signature = image(&[b"layer"]);
    signature["subject"] = json!({ "mediaType": INDEX, "digest": index, "size": 1 });
    let signature =
        site.put_manifest("a/b", &sha256(signature.to_string().as_bytes()).to_string(), &signature).await;
    // An upload that nobody ends.
    let upload = site.open_upload("a/b").await;
    site.patch(&upload, &large).await;
    site.patch(&upload, b"more").await;

    site.delete("/v2/a/b/manifests/v2").await;
    for manifest in [signature, index, child] {
        site.delete(&format!("/v2/a/b/manifests/{manifest}")).await;
    }
    for text in ["v1", "v2"] {
        let digest = sha256(image(&[b"layer", text.as_bytes()]).to_string().as_bytes());
        site.delete(&format!("/v2/a/b/manifests/{digest}")).await;
    }
    site.collect_all().await;
    assert_eq!(site.left().await, Vec::<String>::new());
    let backlog = site.meta.backlog().await.unwrap();
    assert_eq!(backlog.pending(), 0, "{backlog:?}");
    assert_eq!(site.get("/v2/a/b/manifests/v1").await.status, StatusCode::NOT_FOUND);
}

async fn what_is_tagged_stays_whole_however_often_it_is_collected(site: Site) {
    site.push_image("a", "v1", &[b"kept", b"shared"]).await;
    site.push_image("a", "v2", &[b"dropped", b"shared"]).await;
    let digest = sha256(image(&[b"dropped", b"shared"]).to_string().as_bytes());
    site.delete(&format!("/v2/a/manifests/{digest}")).await;
    site.collect_all().await;
    assert_eq!(site.get("/v2/a/manifests/v1").await.status, StatusCode::OK);
    for (layer, status) in
        [("kept", StatusCode::OK), ("shared", StatusCode::OK), ("dropped", StatusCode::NOT_FOUND)]
    {
        let answer = site.get(&format!("/v2/a/blobs/{}", sha256(layer.as_bytes()))).await;
        assert_eq!(answer.status, status, "{layer}");
        assert!(status != StatusCode::OK || answer.body == layer.as_bytes());
    }
    let left = site.left().await;
    let of = |kind: &str| left.iter().filter(|key| key.contains(kind)).count();
    assert_eq!((of("/blob/"), of("/~b/"), of("/~m/"), of("/~t/")), (3, 3, 1, 1), "{left:?}");
}

async fn w778_w852_what_is_pushed_again_while_it_is_collected_stays(site: Site) {
    let blob = format!("/v2/a/blobs/{}", sha256(b"again and again"));
    for _ in 0..10 {
        let push = site.push_blob("a", b"again and again");
        let (_, collected) = tokio::join!(push, site.collect());
        collected.unwrap();
        // Held from here on by a manifest, or refused.
        site.push_blob("a", b"{}").await;
        let manifest = image(&[b"again and again"]).to_string();
        let put =
            site.send(http::Method::PUT, "/v2/a/manifests/v1", super::site::IMAGE, manifest.as_bytes()).await;
        if put.status == StatusCode::CREATED {
            site.collect_some().await;
            assert_eq!(site.get(&blob).await.body, b"again and again"[..]);
            site.delete(&format!("/v2/a/manifests/{}", sha256(manifest.as_bytes()))).await;
        } else {
            assert_eq!(put.status, StatusCode::BAD_REQUEST, "{:?}", put.body);
        }
        site.collect_some().await;
    }
}

async fn w805_w853_a_manifest_put_while_its_blob_is_swept_is_whole_or_refused(site: Site) {
    for round in 0..20 {
        let layer = format!("layer {round}");
        site.push_blob("a", b"{}").await;
        let digest = site.push_blob("a", layer.as_bytes()).await;
        let blob = format!("/v2/a/blobs/{digest}");
        let known = site.send(http::Method::HEAD, &blob, "text/plain", b"").await.status;
        assert!(known == StatusCode::OK || known == StatusCode::NOT_FOUND);
        let (target, manifest) =
            (format!("/v2/a/manifests/v{round}"), image(&[layer.as_bytes()]).to_string());
        let put = site.send(http::Method::PUT, &target, super::site::IMAGE, manifest.as_bytes());
        let (put, collected) = tokio::join!(put, site.collect());
        collected.unwrap();
        site.collect_some().await;
        if put.status == StatusCode::CREATED {
            assert_eq!(site.get(&target).await.status, StatusCode::OK);
            assert_eq!(site.get(&blob).await.body, layer.as_bytes());
        } else {
            assert_eq!(put.status, StatusCode::BAD_REQUEST, "{:?}", put.body);
        }
    }
}

async fn w854_an_untagged_signature_lives_as_long_as_its_subject(site: Site) {
    let subject = site.push_image("a", "v1", &[b"layer"]).await;
    let mut signature = image(&[b"layer"]);
    signature["subject"] = json!({ "mediaType": super::site::IMAGE, "digest": subject, "size": 1 });
    let digest = sha256(signature.to_string().as_bytes());
    site.put_manifest("a", &digest.to_string(), &signature).await;
    // Even where untagged manifests go.
    let collector = site.collector().trashing_untagged(Duration::ZERO);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        collector.collect().await.unwrap();
    }
    assert_eq!(site.get(&format!("/v2/a/manifests/{digest}")).await.status, StatusCode::OK);
    site.delete(&format!("/v2/a/manifests/{subject}")).await;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        collector.collect().await.unwrap();
        if site.get(&format!("/v2/a/manifests/{digest}")).await.status == StatusCode::NOT_FOUND {
            return;
        }
    }
    panic!("it outlives its subject");
}

super::both_sites! {
    w778_w852_what_is_pushed_again_while_it_is_collected_stays,
    w805_w853_a_manifest_put_while_its_blob_is_swept_is_whole_or_refused,
    w854_an_untagged_signature_lives_as_long_as_its_subject,
    l_24_of_what_was_deleted_nothing_is_left,
    what_is_tagged_stays_whole_however_often_it_is_collected,
}
