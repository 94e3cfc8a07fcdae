// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Blobs of a mirror: fetched once, for all, whatever their clients do.

use axum::body::to_bytes;
use futures::StreamExt as _;
use stowage_oci::{Algorithm, Digest};
use stowage_registry::Registry;

use super::line::Way;
use super::site::{Answer, Site, ask, get, start};
use crate::upstream::servers::{Image, push};

const MIB: usize = 1 << 20;
const HELD_BACK: usize = 64 << 10;

super::both_stores!(
    w454_w871_n8_o12_fifty_clients_of_two_replicas_cost_one_download,
    w453_w870_l37_n8_while_the_last_byte_is_withheld_clients_have_the_rest,
    l39_f20_slow_and_vanished_clients_hold_up_nobody,
    w145_wrong_bytes_never_end_an_answer_and_are_not_stored,
    l43_a_layer_that_another_repository_has_is_not_fetched_again,
    ranges_and_heads_of_what_is_not_here_yet,
    w880_a_fetch_that_broke_off_begins_anew,
);

super::through_a_virtual_repository!(
    w454_w871_n8_o12_fifty_clients_of_two_replicas_cost_one_download,
    w453_w870_l37_n8_while_the_last_byte_is_withheld_clients_have_the_rest,
    l39_f20_slow_and_vanished_clients_hold_up_nobody,
    w145_wrong_bytes_never_end_an_answer_and_are_not_stored,
    l43_a_layer_that_another_repository_has_is_not_fetched_again,
    ranges_and_heads_of_what_is_not_here_yet,
    w880_a_fetch_that_broke_off_begins_anew,
);

pub(super) fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

fn layer(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]).collect()
}

fn image(site: &Site, length: usize) -> (Image, String) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", &layer(length));
    let target = format!("/v2/hub/team/app/blobs/{}", image.layer_digest);
    (image, target)
}

/// How many blobs the upstream was asked for.
fn downloads(site: &Site) -> usize {
    site.line.asked().iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/")).count()
}

async fn w454_w871_n8_o12_fifty_clients_of_two_replicas_cost_one_download(site: Site) {
    let (image, target) = image(&site, 16 * MIB);
    assert_eq!(get(&site.one, "/v2/hub/team/app/manifests/1.0").await.status, 200);
    site.line.asked();
    let clients = (0..50).map(|at| {
        let registry = if at % 2 == 0 { &site.one } else { &site.other };
        let (target, layer) = (&target, &image.layer);
        async move {
            let answer = start(registry, "GET", target, &[]).await;
            assert_eq!(answer.status(), 200);
            let (mut body, mut at) = (answer.into_body().into_data_stream(), 0);
            while let Some(bytes) = body.next().await {
                let bytes = bytes.unwrap();
                assert!(bytes == layer[at..at + bytes.len()]);
                at += bytes.len();
            }
            assert_eq!(at, layer.len());
        }
    });
    futures::stream::iter(clients).buffer_unordered(50).collect::<Vec<()>>().await;
    assert_eq!(downloads(&site), 1);
}

async fn w453_w870_l37_n8_while_the_last_byte_is_withheld_clients_have_the_rest(site: Site) {
    let length = 4 * MIB;
    let (image, target) = image(&site, length);
    site.line.set(Way::Withheld(length - 1));
    let mut body = start(&site.one, "GET", &target, &[]).await.into_body().into_data_stream();
    let mut came = Vec::new();
    while came.len() < length - HELD_BACK {
        came.extend_from_slice(&body.next().await.unwrap().unwrap());
    }
    assert_eq!(came.len(), length - HELD_BACK, "what is not known to be right is held back");
    site.line.set(Way::Open);
    while let Some(bytes) = body.next().await {
        came.extend_from_slice(&bytes.unwrap());
    }
    assert!(came == image.layer);
}

async fn l39_f20_slow_and_vanished_clients_hold_up_nobody(site: Site) {
    let length = 24 * MIB;
    let (image, target) = image(&site, length);
    let slow = start(&site.one, "GET", &target, &[]).await;
    let mut slow = slow.into_body().into_data_stream();
    let first = slow.next().await.unwrap().unwrap();
    let mut vanished = start(&site.one, "GET", &target, &[]).await.into_body().into_data_stream();
    drop(vanished.next().await);
    drop(vanished);
    assert!(get(&site.one, &target).await.body == image.layer, "the third has all of it");
    stored(&site.other, &target).await;
    let mut came = first.to_vec();
    while let Some(bytes) = slow.next().await {
        came.extend_from_slice(&bytes.unwrap());
    }
    assert!(came == image.layer, "the slow one too, in its time");
}

/// Waits until a replica has the blob without asking.
pub(crate) async fn stored(registry: &Registry, target: &str) -> Answer {
    for _ in 0..200 {
        let via = registry.mirrors().all().next().unwrap().settings.upstream.registry_id.clone();
        let answer = ask(registry, "GET", target, &[("via", &format!("1.1 {via}"))]).await;
        if answer.status == 200 {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("never stored: {target}")
}

async fn w145_wrong_bytes_never_end_an_answer_and_are_not_stored(site: Site) {
    for length in [MIB, 1000] {
        let (image, target) = image(&site, length);
        assert_eq!(get(&site.one, "/v2/hub/team/app/manifests/1.0").await.status, 200);
        site.line.set(Way::Wrong);
        let answer = start(&site.one, "GET", &target, &[]).await;
        if length > HELD_BACK {
            assert_eq!(answer.status(), 200);
            assert!(to_bytes(answer.into_body(), usize::MAX).await.is_err(), "it ends as if it were right");
        } else {
            assert_eq!(answer.status(), 502, "nothing was promised yet");
        }
        site.line.asked();
        assert_eq!(get(&site.one, &target).await.status, 502);
        assert_eq!(site.line.asked(), [""; 0], "not at once again");
        site.line.set(Way::Open);
        assert!(get(&site.other, &target).await.body == image.layer, "and nothing of it was stored");
    }
}

async fn l43_a_layer_that_another_repository_has_is_not_fetched_again(site: Site) {
    let (image, target) = image(&site, 100_000);
    push(site.upstream.address(), "", "team/other", "1.0", &image.layer);
    let other = target.replace("app", "other");
    for name in ["app", "other"] {
        assert_eq!(get(&site.one, &format!("/v2/hub/team/{name}/manifests/1.0")).await.status, 200);
    }
    assert!(get(&site.one, &target).await.body == image.layer);
    stored(&site.one, &target).await;
    site.line.asked();
    assert!(get(&site.other, &other).await.body == image.layer);
    // A repository of which no manifest lists it is asked about.
    assert_eq!(get(&site.other, &target.replace("app", "third")).await.status, 404);
    assert_eq!(site.line.asked(), [format!("GET /v2/team/third/blobs/{}", image.layer_digest)]);
}

async fn ranges_and_heads_of_what_is_not_here_yet(site: Site) {
    let (image, target) = image(&site, MIB);
    assert_eq!(get(&site.one, "/v2/hub/team/app/manifests/1.0").await.status, 200);
    site.line.asked();
    let head = ask(&site.one, "HEAD", &target, &[]).await;
    assert_eq!((head.status, head.header("content-length")), (200, "1048576"));
    assert_eq!(site.line.asked(), [""; 0], "its manifest says how long it is");
    let range = ask(&site.one, "GET", &target, &[("range", "bytes=70000-1000000")]).await;
    assert_eq!((range.status, range.header("content-range")), (206, "bytes 70000-1000000/1048576"));
    assert!(range.body == image.layer[70_000..=1_000_000]);
    let beyond = ask(&site.other, "GET", &target, &[("range", "bytes=2000000-")]).await;
    assert_eq!(beyond.status, 416);
}

async fn w880_a_fetch_that_broke_off_begins_anew(site: Site) {
    let (image, target) = image(&site, 2 * MIB);
    site.line.set(Way::Refused(503));
    assert_eq!(get(&site.one, &target).await.status, 503);
    site.line.set(Way::Open);
    assert!(get(&site.one, &target).await.body == image.layer);
    let blob = stored(&site.other, &target).await;
    assert!(blob.body == image.layer);
}
