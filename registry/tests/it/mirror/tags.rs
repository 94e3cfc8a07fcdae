// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Tags of a mirror: fresh, compared, stale, gone.

use std::time::Duration;

use super::blobs::{sha256, stored};
use super::line::Way;
use super::site::{HOUR, Site, ask, get};
use crate::upstream::servers::push;

const TAG: &str = "/v2/hub/team/app/manifests/1.0";

super::both_stores!(
    w876_f19_f38b_within_the_ttl_nobody_is_asked_and_after_it_by_head,
    w874_a_moved_tag_is_seen_and_one_that_moved_back_is_not_fetched,
    p18_w872_while_the_upstream_is_away_a_tag_is_answered_with_a_warning,
    w873_a_tag_that_the_upstream_ended_is_ended,
    p18_w875_a_limit_that_one_replica_met_holds_for_all,
    w873_while_the_upstream_refuses_us_a_tag_is_answered_with_a_warning,
    o10_an_offline_mirror_asks_nobody,
    o28_what_was_fetched_survives_a_restart_without_the_upstream,
    what_is_not_there_is_not_asked_for_again_at_once,
    w116_what_is_not_here_and_cannot_be_fetched_says_why,
    w453_w877_of_an_index_only_what_is_asked_for_is_fetched,
    p27_a_tag_that_moved_stays_what_it_was_for_so_long,
    p27_a_tag_that_was_never_here_says_from_when_on_it_is,
);

super::through_a_virtual_repository!(
    w876_f19_f38b_within_the_ttl_nobody_is_asked_and_after_it_by_head,
    w874_a_moved_tag_is_seen_and_one_that_moved_back_is_not_fetched,
    p18_w872_while_the_upstream_is_away_a_tag_is_answered_with_a_warning,
    w873_a_tag_that_the_upstream_ended_is_ended,
    p18_w875_a_limit_that_one_replica_met_holds_for_all,
    w873_while_the_upstream_refuses_us_a_tag_is_answered_with_a_warning,
    o10_an_offline_mirror_asks_nobody,
    o28_what_was_fetched_survives_a_restart_without_the_upstream,
    what_is_not_there_is_not_asked_for_again_at_once,
    w116_what_is_not_here_and_cannot_be_fetched_says_why,
    w453_w877_of_an_index_only_what_is_asked_for_is_fetched,
    p27_a_tag_that_moved_stays_what_it_was_for_so_long,
    p27_a_tag_that_was_never_here_says_from_when_on_it_is,
);

async fn w876_f19_f38b_within_the_ttl_nobody_is_asked_and_after_it_by_head(mut site: Site) {
    push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    assert_eq!(get(&site.one, TAG).await.status, 200);
    site.line.asked();
    for _ in 0..5 {
        assert_eq!(get(&site.one, TAG).await.status, 200);
        assert_eq!(ask(&site.other, "HEAD", TAG, &[]).await.status, 200);
    }
    assert_eq!(site.line.asked(), [""; 0]);
    site.set(|mirror| mirror.cache.tag_ttl = Duration::ZERO);
    assert_eq!(get(&site.other, TAG).await.status, 200);
    assert_eq!(site.line.asked(), ["HEAD /v2/team/app/manifests/1.0"]);
}

async fn w874_a_moved_tag_is_seen_and_one_that_moved_back_is_not_fetched(mut site: Site) {
    let first = push(site.upstream.address(), "", "team/app", "1.0", b"first");
    assert_eq!(&get(&site.one, TAG).await.body[..], &first.manifest[..]);
    let second = push(site.upstream.address(), "", "team/app", "1.0", b"second");
    assert_eq!(&get(&site.other, TAG).await.body[..], &first.manifest[..], "not before the TTL");
    site.set(|mirror| mirror.cache.tag_ttl = Duration::ZERO);
    assert_eq!(&get(&site.other, TAG).await.body[..], &second.manifest[..]);
    push(site.upstream.address(), "", "team/app", "1.0", b"first");
    site.line.asked();
    assert_eq!(&get(&site.one, TAG).await.body[..], &first.manifest[..]);
    assert_eq!(site.line.asked(), ["HEAD /v2/team/app/manifests/1.0"]);
}

async fn p18_w872_while_the_upstream_is_away_a_tag_is_answered_with_a_warning(mut site: Site) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    assert_eq!(get(&site.one, TAG).await.status, 200);
    site.set(|mirror| mirror.cache.tag_ttl = Duration::from_millis(1));
    for way in [Way::Gone, Way::Refused(503), Way::Refused(500)] {
        site.line.set(way);
        let newcomer = site.newcomer().await;
        let stale = get(&newcomer, TAG).await;
        assert_eq!((stale.status, &stale.body[..]), (200, &image.manifest[..]), "{way:?}");
        assert!(stale.header("warning").starts_with("110 - "), "{stale:?}");
        let by_digest = get(&newcomer, &format!("/v2/hub/team/app/manifests/{}", image.digest)).await;
        assert_eq!((by_digest.status, by_digest.header("warning")), (200, ""));
        assert!(newcomer.mirrors().all().next().unwrap().trouble().is_some());
    }
    site.set(|mirror| mirror.cache.stale_for = Duration::ZERO);
    assert_eq!(get(&site.newcomer().await, TAG).await.status, 503);
    site.line.set(Way::Open);
    let newcomer = site.newcomer().await;
    assert_eq!(get(&newcomer, TAG).await.header("warning"), "");
    assert!(newcomer.mirrors().all().next().unwrap().trouble().is_none());
}

async fn w873_a_tag_that_the_upstream_ended_is_ended(mut site: Site) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    assert_eq!(get(&site.one, TAG).await.status, 200);
    site.set(|mirror| mirror.cache.tag_ttl = Duration::ZERO);
    site.line.set(Way::Refused(404));
    assert_eq!(get(&site.one, TAG).await.status, 404);
    site.line.asked();
    assert_eq!(get(&site.other, TAG).await.status, 404);
    let digest = format!("/v2/hub/team/app/manifests/{}", image.digest);
    assert_eq!(get(&site.other, &digest).await.status, 200, "what is stored is answered by digest");
}

async fn p18_w875_a_limit_that_one_replica_met_holds_for_all(mut site: Site) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    assert_eq!(get(&site.one, TAG).await.status, 200);
    site.set(|mirror| mirror.cache.tag_ttl = Duration::from_millis(1));
    site.line.set(Way::Later(429));
    site.line.asked();
    let stale = get(&site.one, TAG).await;
    assert_eq!((stale.status, &stale.body[..]), (200, &image.manifest[..]));
    assert!(stale.header("warning").starts_with("110 - "), "{stale:?}");
    assert_eq!(site.line.asked(), ["HEAD /v2/team/app/manifests/1.0"], "no GET after it");
    // The upstream would answer; but it asked to be left alone.
    site.line.set(Way::Open);
    assert!(get(&site.other, TAG).await.header("warning").starts_with("110 - "));
    let limited = get(&site.other, "/v2/hub/team/app/manifests/2.0").await;
    assert_eq!(limited.status, 429);
    let seconds: u64 = limited.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(site.line.asked(), [""; 0]);
}

async fn w873_while_the_upstream_refuses_us_a_tag_is_answered_with_a_warning(mut site: Site) {
    push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    assert_eq!(get(&site.one, TAG).await.status, 200);
    site.set(|mirror| mirror.cache.tag_ttl = Duration::ZERO);
    site.line.set(Way::Refused(403));
    let stale = get(&site.one, TAG).await;
    assert_eq!(stale.status, 200);
    assert!(stale.header("warning").starts_with("110 - "), "{stale:?}");
    assert_eq!(get(&site.one, "/v2/hub/team/app/manifests/2.0").await.status, 404);
}

async fn o10_an_offline_mirror_asks_nobody(mut site: Site) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    let blob = format!("/v2/hub/team/app/blobs/{}", image.layer_digest);
    assert_eq!((get(&site.one, TAG).await.status, get(&site.one, &blob).await.status), (200, 200));
    stored(&site.one, &blob).await;
    site.line.asked();
    site.set(|mirror| {
        mirror.asks_upstream = false;
        mirror.cache.tag_ttl = Duration::ZERO;
    });
    for target in [TAG, &blob] {
        let answer = get(&site.other, target).await;
        assert_eq!((answer.status, answer.header("warning")), (200, ""));
    }
    for missing in ["/v2/hub/team/app/manifests/2.0", "/v2/hub/team/other/manifests/1.0"] {
        assert_eq!(get(&site.other, missing).await.status, 404);
    }
    let config = format!("/v2/hub/team/app/blobs/{}", sha256(b"{}"));
    assert_eq!(get(&site.other, &config).await.status, 404, "it was never fetched");
    assert_eq!(site.line.asked(), [""; 0]);
}

async fn o28_what_was_fetched_survives_a_restart_without_the_upstream(site: Site) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    let blob = format!("/v2/hub/team/app/blobs/{}", image.layer_digest);
    assert_eq!((get(&site.one, TAG).await.status, get(&site.one, &blob).await.status), (200, 200));
    stored(&site.one, &blob).await;
    site.line.set(Way::Gone);
    let newcomer = site.newcomer().await;
    assert_eq!(&get(&newcomer, TAG).await.body[..], &image.manifest[..]);
    assert_eq!(&get(&newcomer, &blob).await.body[..], b"layer");
}

async fn what_is_not_there_is_not_asked_for_again_at_once(mut site: Site) {
    push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    for _ in 0..3 {
        let missing = get(&site.one, "/v2/hub/team/app/manifests/2.0").await;
        assert_eq!(missing.status, 404);
        assert!(String::from_utf8_lossy(&missing.body).contains("MANIFEST_UNKNOWN"), "{missing:?}");
    }
    assert_eq!(site.line.asked(), ["GET /v2/team/app/manifests/2.0"]);
    site.set(|mirror| mirror.cache.negative_ttl = Duration::ZERO);
    for _ in 0..2 {
        assert_eq!(get(&site.one, "/v2/hub/team/app/manifests/2.0").await.status, 404);
    }
    assert_eq!(site.line.asked().len(), 2);
}

async fn w116_what_is_not_here_and_cannot_be_fetched_says_why(mut site: Site) {
    push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    site.set(|mirror| mirror.cache.negative_ttl = Duration::ZERO);
    for (way, status) in [
        (Way::Gone, 503),
        (Way::Refused(500), 503),
        (Way::Refused(404), 404),
        (Way::Refused(401), 404),
        (Way::Refused(403), 404),
        (Way::Wrong, 502),
        (Way::Later(429), 429),
    ] {
        site.line.set(way);
        let answer = get(&site.one, TAG).await;
        assert_eq!(answer.status, status, "{way:?} {answer:?}");
    }
}

async fn w453_w877_of_an_index_only_what_is_asked_for_is_fetched(site: Site) {
    let address = site.upstream.address();
    let (wanted, other) =
        (push(address, "", "team/app", "amd64", b"wanted"), push(address, "", "team/app", "arm64", b"other"));
    let child = |image: &crate::upstream::servers::Image| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": image.digest, "size": image.manifest.len(),
        })
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type, "manifests": [child(&wanted), child(&other)],
    });
    let index = index.to_string();
    let fields = format!("Content-Type: {media_type}\r\n");
    let put =
        crate::support::program::ask(address, "PUT", "/v2/team/app/manifests/1.0", &fields, index.as_bytes());
    assert_eq!(put.0, 201);

    let pulled = get(&site.one, TAG).await;
    assert_eq!((&pulled.body[..], pulled.header("content-type")), (index.as_bytes(), media_type));
    let by_digest =
        |image: &crate::upstream::servers::Image| format!("/v2/hub/team/app/manifests/{}", image.digest);
    assert_eq!(&get(&site.one, &by_digest(&wanted)).await.body[..], &wanted.manifest[..]);
    let asked = site.line.asked();
    let expected = ["1.0".to_owned(), wanted.digest.to_string()];
    assert_eq!(asked, expected.map(|reference| format!("GET /v2/team/app/manifests/{reference}")));
    assert_eq!(
        &get(&site.other, &by_digest(&other)).await.body[..],
        &other.manifest[..],
        "it is still to be had"
    );
}

async fn p27_a_tag_that_moved_stays_what_it_was_for_so_long(mut site: Site) {
    let first = push(site.upstream.address(), "", "team/app", "1.0", b"first");
    assert_eq!(get(&site.one, TAG).await.header("warning"), "");
    site.set(|mirror| {
        mirror.cache.tag_ttl = Duration::ZERO;
        mirror.cache.quarantine = Some(72 * HOUR);
    });
    let second = push(site.upstream.address(), "", "team/app", "1.0", b"second");
    let assert_old = async |site: &Site| {
        for replica in [&site.one, &site.other] {
            let old = get(replica, TAG).await;
            assert_eq!((old.status, &old.body[..]), (200, &first.manifest[..]));
            assert!(old.header("warning").starts_with("110 - "), "{old:?}");
        }
    };
    assert_old(&site).await;
    let by_digest = get(&site.one, &format!("/v2/hub/team/app/manifests/{}", second.digest)).await;
    assert_eq!((&by_digest.body[..], by_digest.header("warning")), (&second.manifest[..], ""));
    assert_old(&site).await;
    // Within the TTL nobody is asked, and it is told all the same.
    site.set(|mirror| mirror.cache.tag_ttl = HOUR);
    site.line.asked();
    assert_old(&site).await;
    assert_eq!(site.line.asked(), [""; 0]);

    // Back again there: nothing is held back.
    site.set(|mirror| mirror.cache.tag_ttl = Duration::ZERO);
    push(site.upstream.address(), "", "team/app", "1.0", b"first");
    assert_eq!(get(&site.one, TAG).await.header("warning"), "");
    push(site.upstream.address(), "", "team/app", "1.0", b"second");
    assert_old(&site).await;
    site.set(|mirror| mirror.cache.quarantine = Some(Duration::from_nanos(1)));
    let new = get(&site.other, TAG).await;
    assert_eq!((&new.body[..], new.header("warning")), (&second.manifest[..], ""));
}

async fn p27_a_tag_that_was_never_here_says_from_when_on_it_is(mut site: Site) {
    site.set(|mirror| mirror.cache.quarantine = Some(72 * HOUR));
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"first");
    for _ in 0..2 {
        let early = get(&site.one, TAG).await;
        let text = String::from_utf8_lossy(&early.body);
        assert_eq!(early.status, 404, "{text}");
        // A virtual repository only says that no member has it.
        let is_told = text.contains(&image.digest.to_string()) && text.contains("it is answered from 2");
        assert!(is_told || !site.is_the_mirrors_own_name(), "{text}");
    }
    assert_eq!(site.line.asked().iter().filter(|asked| asked.ends_with("/manifests/1.0")).count(), 1);
    let by_digest = get(&site.one, &format!("/v2/hub/team/app/manifests/{}", image.digest)).await;
    assert_eq!(&by_digest.body[..], &image.manifest[..]);
    site.set(|mirror| mirror.cache.quarantine = Some(Duration::from_nanos(1)));
    assert_eq!(&get(&site.one, TAG).await.body[..], &image.manifest[..]);
}
