// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a promotion costs.

use std::time::Instant;

use http::StatusCode;
use serde_json::json;
use stowage_registry::domain::Ending;

use super::{promote, request, rule};
use crate::rebuild::api::{IMAGE, attachment, digest_of, index, sha256};
use crate::rebuild::stand::Stand;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n5_a_promotion_asks_once_for_each_manifest_and_each_blob() {
    let stand = Stand::sqlite();
    let replica = stand.start().await;
    replica.walked().await;
    let api = &replica.api;
    api.push_blob("staging/app", b"{}").await;
    let mut children = Vec::new();
    for platform in ["amd64", "arm64"] {
        let mut layers = Vec::new();
        for layer in 0..20 {
            let content = format!("{platform} {layer}");
            let digest = api.push_blob("staging/app", content.as_bytes()).await;
            let kind = "application/vnd.oci.image.layer.v1.tar";
            layers.push(json!({"mediaType": kind, "digest": digest, "size": content.len()}));
        }
        let config =
            json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2});
        let image = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers});
        assert_eq!(api.put("staging/app", None, &image).await.status, StatusCode::CREATED);
        children.push(digest_of(&image));
    }
    let list = index(&children);
    assert_eq!(api.put("staging/app", Some("1.0"), &list).await.status, StatusCode::CREATED);
    for note in 0..4 {
        let note = attachment(digest_of(&list), &format!("note {note}"));
        assert_eq!(api.put("staging/app", None, &note).await.status, StatusCode::CREATED);
    }
    let steps = ["pin_manifest", "publish_manifest", "begin_mount", "finish_mount"];
    let before = steps.map(|step| replica.database.calls(step));
    let objects = async || replica.store.list("", None, 10_000).await.unwrap().len();
    let there = objects().await;
    let begun = Instant::now();
    let promotion = promote(&replica, &rule(Vec::new()), &request("1.0")).await;
    println!("promoted in {:?}", begun.elapsed());
    assert_eq!((promotion.ending, promotion.referrers), (Ending::Promoted, 4));
    let after = steps.map(|step| replica.database.calls(step));
    let asked: Vec<u64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    // Seven manifests, and 41 blobs that they share.
    assert_eq!(asked, [7, 7, 41, 41], "{steps:?}");
    // A link for each blob, a record for each manifest, one more for each referrer, the tag, and the ledger.
    assert_eq!(objects().await - there, 41 + 7 + 4 + 2);
    replica.stop().await;
}
