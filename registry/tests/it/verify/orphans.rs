// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Objects without rows: what a request may be at is left, what is old is told, and what a rebuild would discard can
//! be queued.

use http::StatusCode;
use stowage_registry::key::{Form, Generation, Key, Version};

use super::site::{DEEP, REPAIR, SHALLOW, Site, fresh};
use crate::rebuild::api::{image, sha256};
use crate::rebuild::stand::Stand;

on_both!(
    l_19_what_is_not_ours_is_told_and_never_touched,
    what_a_rebuild_would_discard_is_told_after_a_week_and_queued_by_a_repair,
    what_a_rebuild_would_adopt_is_only_told,
    a_row_that_went_behind_our_back_comes_again_by_a_rebuild,
    an_orphan_that_is_named_again_starts_anew,
    what_an_open_upload_has_staged_is_never_told,
    a_multipart_upload_that_nobody_needs_is_aborted_after_two_days,
    damaged_data_that_no_row_names_is_discarded,
);

const NONE: [&str; 0] = [];

async fn l_19_what_is_not_ours_is_told_and_never_touched(stand: Stand) {
    let site = Site::on(stand).await;
    site.replica.api.push_image("app", Some("v1"), "layer").await;
    let strange = [
        "v1/blob/md5/aa/x",
        "v1/blob/sha256/aa/nothing",
        "v1/later/x",
        "v1/r/UPPER/x",
        "v1/r/app/~q/x/y",
        "v1/up/aa/nothing",
        "v1/zzz",
    ];
    for key in strange {
        site.put(key, b"not ours").await;
    }
    // Beside the layout nothing is looked at.
    site.put("v2/other", b"not ours").await;
    let told: Vec<String> = strange.iter().map(|key| format!("foreign {key}")).collect();
    for options in [SHALLOW, REPAIR] {
        site.wait_a_week().await;
        assert_eq!(site.found(options).await, told);
    }
    assert_eq!(site.queued().await, NONE);
    for key in strange {
        assert_eq!(site.read(key).await, b"not ours");
    }
    site.replica.stop().await;
}

/// Objects of every kind that a rebuild would discard.
async fn spares(site: &Site) -> Vec<String> {
    let api = &site.replica.api;
    let digest = api.push_image("app", Some("v1"), "layer").await;
    let (repository, tag) = (|| "app".parse().unwrap(), || "v1".parse().unwrap());
    let layer = sha256(b"layer");
    let (unknown, subject) = (sha256(b"unknown"), sha256(b"subject"));
    let below = Version { epoch: 0, seq: 1 };
    let spares = [
        Key::Blob { digest: layer, generation: fresh(), size: 5, form: Form::Inline },
        Key::Link { repository: repository(), digest: layer, generation: fresh() },
        Key::Link { repository: repository(), digest: unknown, generation: fresh() },
        Key::Upload { generation: fresh() },
        Key::UploadTail { generation: fresh(), lease: 3 },
        Key::ManifestDeleted { repository: repository(), digest, generation: fresh() },
        Key::Referrer { repository: repository(), subject, digest, generation: fresh() },
        Key::Tag {
            repository: repository(),
            tag: tag(),
            version: below,
            generation: fresh(),
            target: Some(digest),
        },
        Key::Link { repository: "nobody/has/it".parse().unwrap(), digest: unknown, generation: fresh() },
    ];
    for key in &spares {
        let content: &[u8] = if matches!(key, Key::Blob { .. }) { b"layer" } else { b"" };
        site.put(&key.to_string(), content).await;
    }
    // A second record of a live manifest needs its bytes.
    let second = Key::Manifest { repository: repository(), digest, generation: Generation::at(1) };
    site.put(&second.to_string(), image("layer").to_string().as_bytes()).await;
    let mut keys: Vec<String> = spares.iter().chain([&second]).map(ToString::to_string).collect();
    keys.sort();
    keys
}

async fn what_a_rebuild_would_discard_is_told_after_a_week_and_queued_by_a_repair(stand: Stand) {
    let site = Site::on(stand).await;
    let spares = spares(&site).await;
    for options in [SHALLOW, REPAIR] {
        assert_eq!(site.found(options).await, NONE, "somebody may be at them");
    }
    site.wait_a_week().await;
    let told: Vec<String> = spares.iter().map(|key| format!("spare {key}")).collect();
    assert_eq!(site.found(SHALLOW).await, told);
    assert_eq!(site.queued().await, NONE);
    let repaired: Vec<String> = told.iter().map(|told| format!("{told}!")).collect();
    assert_eq!(site.found(REPAIR).await, repaired);
    let queued = site.queued().await;
    for key in &spares {
        assert!(queued.contains(&format!("-{key}")), "{key} is not in {queued:?}");
        assert!(site.exists(key).await, "only the outbox removes");
    }
    site.assert_clean().await;
    site.replica.api.assert_pullable("app", "v1").await;
    site.replica.stop().await;
}

async fn what_a_rebuild_would_adopt_is_only_told(stand: Stand) {
    let site = Site::on(stand).await;
    let digest = site.replica.api.push_image("app", Some("v1"), "layer").await;
    let data = sha256(b"new data");
    let body = image("layer two").to_string();
    let manifest = sha256(body.as_bytes());
    let repository = || "app".parse().unwrap();
    let higher = Version { epoch: 1, seq: 1 << 40 };
    let tag = "v1".parse().unwrap();
    let unknown: [(Key, &[u8]); 4] = [
        (Key::Blob { digest: data, generation: fresh(), size: 8, form: Form::Inline }, b"new data"),
        (Key::Link { repository: repository(), digest: data, generation: fresh() }, b""),
        (Key::Manifest { repository: repository(), digest: manifest, generation: fresh() }, body.as_bytes()),
        (
            Key::Tag {
                repository: repository(),
                tag,
                version: higher,
                generation: fresh(),
                target: Some(digest),
            },
            b"",
        ),
    ];
    for (key, content) in &unknown {
        site.put(&key.to_string(), content).await;
    }
    assert_eq!(site.found(REPAIR).await, NONE);
    site.wait_a_week().await;
    let mut told: Vec<String> = unknown.iter().map(|(key, _)| format!("unknown {key}")).collect();
    told.sort();
    for options in [SHALLOW, REPAIR] {
        assert_eq!(site.found(options).await, told);
    }
    assert_eq!(site.queued().await, NONE);
    site.replica.stop().await;
}

async fn a_row_that_went_behind_our_back_comes_again_by_a_rebuild(stand: Stand) {
    let site = Site::on(stand).await;
    let digest = site.replica.api.push_image("app", Some("v1"), "layer").await;
    let prefix = Key::tag_prefix(&"app".parse().unwrap(), &"v1".parse().unwrap());
    let key = site.only(&prefix, |_| true).await;
    site.stand.execute("DELETE FROM tags", "DELETE FROM tags").await;
    assert_eq!(site.found(REPAIR).await, NONE);
    site.wait_a_week().await;
    assert_eq!(site.found(REPAIR).await, [format!("unknown {key}")]);
    assert_eq!(site.replica.api.resolve("app", "v1").await, None);
    let stand = site.stand;
    site.replica.stop().await;
    stand.rebuild(stowage_registry::jobs::RebuildOptions::default()).await.unwrap();
    let site = Site::on(stand).await;
    assert_eq!(site.replica.api.resolve("app", "v1").await, Some(digest));
    site.wait_a_week().await;
    site.assert_clean().await;
    site.replica.stop().await;
}

async fn an_orphan_that_is_named_again_starts_anew(stand: Stand) {
    let site = Site::on(stand).await;
    let key = Key::Upload { generation: fresh() }.to_string();
    site.put(&key, b"bytes").await;
    assert_eq!(site.found(SHALLOW).await, NONE);
    site.wait_a_week().await;
    site.remove(&key).await;
    assert_eq!(site.found(SHALLOW).await, NONE, "it is gone, and forgotten");
    site.put(&key, b"bytes").await;
    assert_eq!(site.found(SHALLOW).await, NONE, "it was not seen for a week");
    site.replica.stop().await;
}

async fn what_an_open_upload_has_staged_is_never_told(stand: Stand) {
    let site = Site::on(stand).await;
    let api = &site.replica.api;
    let answer = api.send(http::Method::POST, "/v2/app/blobs/uploads/", "", b"").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let answer = api.send(http::Method::PATCH, &location, "application/octet-stream", b"first").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    assert!(!site.keys("v1/up/").await.is_empty());
    for _ in 0..2 {
        assert_eq!(site.found(REPAIR).await, NONE);
        site.wait_a_week().await;
    }
    let close =
        format!("{location}{}digest={}", if location.contains('?') { "&" } else { "?" }, sha256(b"first"));
    let answer = api.send(http::Method::PUT, &close, "", b"").await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    site.replica.stop().await;
}

async fn a_multipart_upload_that_nobody_needs_is_aborted_after_two_days(stand: Stand) {
    let site = Site::on(stand).await;
    let store = &site.replica.store;
    let key = Key::Upload { generation: fresh() }.to_string();
    store.create_multipart(&key).await.unwrap();
    assert_eq!(site.found(REPAIR).await, NONE);
    let postgres = "UPDATE orphans SET first_seen = first_seen - interval '49 hours'";
    let sqlite = "UPDATE orphans SET first_seen = first_seen - 176400000000";
    site.stand.execute(postgres, sqlite).await;
    assert_eq!(site.found(SHALLOW).await, [format!("multipart {key}")]);
    assert_eq!(store.open_multiparts().await.unwrap().len(), 1);
    assert_eq!(site.found(REPAIR).await, [format!("multipart {key}!")]);
    assert_eq!(store.open_multiparts().await.unwrap(), []);
    site.assert_clean().await;
    site.replica.stop().await;
}

async fn damaged_data_that_no_row_names_is_discarded(stand: Stand) {
    let site = Site::on(stand).await;
    let digest = sha256(b"content");
    let cut = Key::Blob { digest, generation: fresh(), size: 7, form: Form::Inline }.to_string();
    let empty = Key::Blob { digest, generation: fresh(), size: 7, form: Form::Upload }.to_string();
    site.put(&cut, b"cut").await;
    site.put(&empty, b"").await;
    assert_eq!(site.found(DEEP).await, NONE);
    site.wait_a_week().await;
    let mut told = [format!("spare {empty}!"), format!("wrong_length {cut}!")];
    told.sort();
    assert_eq!(site.found(REPAIR).await, told);
    let queued = site.queued().await;
    assert!(queued.contains(&format!("-{cut}")) && queued.contains(&format!("-{empty}")), "{queued:?}");
    site.assert_clean().await;
    // Nobody has been told that it is there.
    assert_eq!(site.replica.api.push_blob("app", b"content").await, digest);
    site.replica.api.get(&format!("/v2/app/blobs/{digest}")).await;
    site.replica.stop().await;
}
