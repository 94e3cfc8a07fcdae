// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What was deleted goes, to the last object; what is in use stays.

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

super::both_sites! {
    l_24_of_what_was_deleted_nothing_is_left,
    what_is_tagged_stays_whole_however_often_it_is_collected,
}
