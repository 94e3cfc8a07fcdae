// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Objects of rows are lost, cut and overwritten.

use http::StatusCode;
use stowage_oci::Digest;
use stowage_registry::key::Key;

use super::site::{DEEP, DEEP_REPAIR, REPAIR, SHALLOW, Site};
use crate::rebuild::api::{attachment, digest_of, sha256};
use crate::rebuild::equality::live;
use crate::rebuild::stand::Stand;

on_both!(
    what_is_whole_is_clean_after_any_traffic,
    l_16_lost_cut_and_emptied_data_is_found_and_the_next_push_heals_it,
    l_16_data_behind_a_pointer_is_found_when_it_is_lost_or_cut,
    data_of_other_content_is_found_by_reading_it,
    a_lost_record_is_written_again_and_the_bucket_alone_shows_it,
    a_lost_tombstone_is_written_again,
    a_manifest_record_that_is_cut_or_overwritten_is_written_again,
    l_75_a_live_manifest_that_a_lost_deletion_marks_is_written_again,
    a_long_manifest_that_is_lost_is_told_and_left,
    an_absent_blob_is_no_finding,
);

async fn what_is_whole_is_clean_after_any_traffic(stand: Stand) {
    let site = Site::on(stand).await;
    live(&site.replica.api, 11, 120).await;
    site.assert_clean().await;
    site.collect().await;
    site.assert_clean().await;
    site.wait_a_week().await;
    assert_eq!(site.found(DEEP_REPAIR).await, Vec::<String>::new());
    let (verified, _) = site.verify(DEEP).await;
    let verified = verified.unwrap();
    assert!(verified.objects > 50 && verified.bytes > 100, "{verified:?}");
    site.replica.stop().await;
}

/// A blob whose data is damaged by `damage` is found as `problem`, answers 404 once repaired, and is whole again
/// after a push.
async fn heals(site: &Site, content: &[u8], problem: &str, damage: impl AsyncFn(&Site, &str)) {
    let api = &site.replica.api;
    let digest = api.push_blob("app", content).await;
    let key = site.only(&Key::blob_prefix(&digest), |_| true).await;
    damage(site, &key).await;
    let name = format!("{problem} {key}");
    for _ in 0..2 {
        assert_eq!(site.found(DEEP).await, std::slice::from_ref(&name), "it is only told");
    }
    assert_eq!(site.found(DEEP_REPAIR).await, [format!("{name}!")]);
    let target = format!("/v2/app/blobs/{digest}");
    assert_eq!(api.head(&target).await.status, StatusCode::NOT_FOUND);
    site.assert_clean().await;
    api.push_blob("app", content).await;
    let answer = api.get(&target).await;
    assert_eq!((answer.status, sha256(&answer.body)), (StatusCode::OK, digest));
    site.assert_clean().await;
    // What says that the damaged object is data goes in time, and is not believed until then.
    assert!(site.queued().await.contains(&format!("-{key}")));
}

async fn l_16_lost_cut_and_emptied_data_is_found_and_the_next_push_heals_it(stand: Stand) {
    let site = Site::on(stand).await;
    heals(&site, b"lost", "missing", async |site: &Site, key: &str| site.remove(key).await).await;
    heals(&site, b"cut short", "wrong_length", async |site: &Site, key: &str| site.put(key, b"cut").await)
        .await;
    heals(&site, b"emptied", "wrong_length", async |site: &Site, key: &str| site.put(key, b"").await).await;
    site.replica.stop().await;
}

/// Content that is uploaded in parts.
fn long(byte: u8) -> Vec<u8> {
    vec![byte; (16 << 20) + 5]
}

async fn data_key(site: &Site, pointer: &str) -> String {
    let Ok(Key::Blob { generation, .. }) = pointer.parse() else { panic!("{pointer}") };
    site.only("v1/up/", |key| matches!(key, Key::Upload { generation: own } if *own == generation)).await
}

async fn l_16_data_behind_a_pointer_is_found_when_it_is_lost_or_cut(stand: Stand) {
    let site = Site::on(stand).await;
    let lose = async |site: &Site, pointer: &str| site.remove(&data_key(site, pointer).await).await;
    heals(&site, &long(1), "missing", lose).await;
    let cut = async |site: &Site, pointer: &str| site.put(&data_key(site, pointer).await, b"cut").await;
    heals(&site, &long(2), "wrong_length", cut).await;
    let change = async |site: &Site, pointer: &str| site.put(&data_key(site, pointer).await, &long(9)).await;
    heals(&site, &long(3), "wrong_content", change).await;
    site.replica.stop().await;
}

async fn data_of_other_content_is_found_by_reading_it(stand: Stand) {
    let site = Site::on(stand).await;
    let change = async |site: &Site, key: &str| {
        site.put(key, b"wrong").await;
        assert_eq!(site.found(SHALLOW).await, Vec::<String>::new(), "nobody has read it");
    };
    heals(&site, b"right", "wrong_content", change).await;
    site.replica.stop().await;
}

/// An image with a note about it; both digests.
async fn noted(site: &Site) -> (Digest, Digest) {
    let api = &site.replica.api;
    let image = api.push_image("app", Some("v1"), "layer").await;
    let note = attachment(image, "signed");
    assert_eq!(api.put("app", None, &note).await.status, StatusCode::CREATED);
    (image, digest_of(&note))
}

async fn a_lost_record_is_written_again_and_the_bucket_alone_shows_it(stand: Stand) {
    let mut site = Site::on(stand).await;
    let (image, note) = noted(&site).await;
    let layer = sha256(b"layer");
    let kinds: [fn(&Key) -> bool; 4] = [
        |key| matches!(key, Key::Link { .. }),
        |key| matches!(key, Key::Tag { .. }),
        |key| matches!(key, Key::Referrer { .. }),
        |key| matches!(key, Key::Manifest { .. }),
    ];
    let prefixes = [
        Key::link_prefix(&"app".parse().unwrap(), &layer),
        Key::tag_prefix(&"app".parse().unwrap(), &"v1".parse().unwrap()),
        Key::referrer_prefix(&"app".parse().unwrap(), &image),
        // One that refers to a subject: its entry has the generation of its record.
        Key::manifest_prefix(&"app".parse().unwrap(), &note),
    ];
    for (prefix, kind) in prefixes.iter().zip(kinds) {
        let key = site.only(prefix, kind).await;
        site.remove(&key).await;
        assert_eq!(site.found(SHALLOW).await, [format!("missing {key}")]);
        assert_eq!(site.found(REPAIR).await, [format!("missing {key}!")]);
        let again = site.only(prefix, kind).await;
        assert!(again != key || kind(&key.parse().unwrap()) && again.contains("/~s/"), "{again}");
        site.assert_clean().await;
    }
    site.replica.api.assert_pullable("app", "v1").await;
    assert_eq!(site.replica.api.referrers("app", image).await, [note.to_string()]);

    site.replica.stop().await;
    site.stand.lose().await;
    site.stand.adopt().await;
    let site = Site::on(site.stand).await;
    site.replica.api.assert_pullable("app", "v1").await;
    assert_eq!(site.replica.api.resolve("app", "v1").await, Some(image));
    assert_eq!(site.replica.api.referrers("app", image).await, [note.to_string()]);
    site.replica.stop().await;
}

async fn a_lost_tombstone_is_written_again(stand: Stand) {
    let mut site = Site::on(stand).await;
    site.replica.api.push_image("app", Some("v1"), "layer").await;
    assert_eq!(site.replica.api.delete("/v2/app/manifests/v1").await.status, StatusCode::ACCEPTED);
    let prefix = Key::tag_prefix(&"app".parse().unwrap(), &"v1".parse().unwrap());
    let tombstone = site.only(&prefix, |key| matches!(key, Key::Tag { target: None, .. })).await;
    site.remove(&tombstone).await;
    assert_eq!(site.found(REPAIR).await, [format!("missing {tombstone}!")]);
    site.assert_clean().await;
    site.replica.stop().await;
    site.stand.lose().await;
    site.stand.adopt().await;
    let site = Site::on(site.stand).await;
    assert_eq!(site.replica.api.resolve("app", "v1").await, None, "it stays deleted");
    site.replica.stop().await;
}

async fn a_manifest_record_that_is_cut_or_overwritten_is_written_again(stand: Stand) {
    let site = Site::on(stand).await;
    let (image, note) = noted(&site).await;
    for digest in [image, note] {
        let prefix = Key::manifest_prefix(&"app".parse().unwrap(), &digest);
        let record = |key: &Key| matches!(key, Key::Manifest { .. });
        let key = site.only(&prefix, record).await;
        let body = site.read(&key).await;
        site.put(&key, &body[1..]).await;
        assert_eq!(site.found(SHALLOW).await, [format!("wrong_length {key}")]);
        site.put(&key, &vec![b' '; body.len()]).await;
        assert_eq!(site.found(SHALLOW).await, Vec::<String>::new());
        assert_eq!(site.found(DEEP).await, [format!("wrong_content {key}")]);
        assert_eq!(site.found(DEEP_REPAIR).await, [format!("wrong_content {key}!")]);
        let keys = site.keys(&prefix).await;
        let again = keys
            .iter()
            .find(|other| **other != key && other.parse().is_ok_and(|other| record(&other)))
            .unwrap();
        assert_eq!(site.read(again).await, body);
        // The damaged one is queued, behind its marker.
        assert!(site.queued().await.contains(&format!("-{key}")));
        site.assert_clean().await;
    }
    site.replica.api.assert_pullable("app", "v1").await;
    assert_eq!(site.replica.api.referrers("app", image).await, [note.to_string()]);
    site.replica.stop().await;
}

/// Its database was lost with the deletion, and pushed to again, before the marker came.
async fn l_75_a_live_manifest_that_a_lost_deletion_marks_is_written_again(stand: Stand) {
    let mut site = Site::on(stand).await;
    let (image, _) = noted(&site).await;
    let prefix = Key::manifest_prefix(&"app".parse().unwrap(), &image);
    let key = site.only(&prefix, |key| matches!(key, Key::Manifest { .. })).await;
    let Ok(Key::Manifest { repository, digest, generation }) = key.parse() else { panic!("{key}") };
    site.put(&Key::ManifestDeleted { repository, digest, generation }.to_string(), b"").await;
    assert_eq!(site.found(SHALLOW).await, [format!("marked {key}")]);
    assert_eq!(site.found(REPAIR).await, [format!("marked {key}!")]);
    site.assert_clean().await;
    site.replica.stop().await;
    site.stand.lose().await;
    site.stand.adopt().await;
    let site = Site::on(site.stand).await;
    site.replica.api.assert_pullable("app", "v1").await;
    assert_eq!(site.replica.api.resolve("app", "v1").await, Some(image));
    site.replica.stop().await;
}

async fn a_long_manifest_that_is_lost_is_told_and_left(stand: Stand) {
    let site = Site::on(stand).await;
    let api = &site.replica.api;
    api.push_blob("app", b"{}").await;
    let subject = sha256(b"anything");
    let manifest = attachment(subject, &"long ".repeat(20_000));
    assert_eq!(api.put("app", Some("long"), &manifest).await.status, StatusCode::CREATED);
    let prefix = Key::manifest_prefix(&"app".parse().unwrap(), &digest_of(&manifest));
    let key = site.only(&prefix, |_| true).await;
    site.remove(&key).await;
    for options in [SHALLOW, REPAIR, SHALLOW] {
        assert_eq!(site.found(options).await, [format!("missing {key}")], "nobody has its bytes");
    }
    site.replica.stop().await;
}

async fn an_absent_blob_is_no_finding(stand: Stand) {
    let site = Site::on(stand).await;
    let digest = site.replica.api.push_blob("app", b"content").await;
    site.remove(&site.only(&Key::blob_prefix(&digest), |_| true).await).await;
    // A pull notices it, too.
    let target = format!("/v2/app/blobs/{digest}");
    assert_eq!(site.replica.api.get(&target).await.status, StatusCode::NOT_FOUND);
    site.assert_clean().await;
    site.replica.stop().await;
}
