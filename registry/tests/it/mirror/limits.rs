// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How often an upstream is asked by all replicas together. Requests are counted where they arrive.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::both_stores;
use super::line::Way;
use super::site::{Site, get};
use crate::upstream::servers::push;

const TAG: &str = "/v2/hub/team/app/manifests/1.0";

both_stores!(
    p18_replicas_ask_no_more_often_together_than_their_mirror_allows,
    p18_f38b_that_few_requests_are_left_holds_for_all_replicas,
    p18_without_the_database_nobody_is_asked_whose_requests_are_counted,
    p18_without_the_database_a_replica_remembers_what_it_was_told,
    p18_f38b_an_upstream_that_says_for_how_long_it_is_away_is_left_alone_by_all_replicas,
);

async fn p18_replicas_ask_no_more_often_together_than_their_mirror_allows(mut site: Site) {
    const PER_SECOND: u32 = 20;
    const TAGS: u32 = 12;
    for number in 0..2 * TAGS {
        push(site.upstream.address(), "", "team/app", &number.to_string(), b"layer");
    }
    site.set(|mirror| mirror.upstream.requests_per_second = NonZeroU32::new(PER_SECOND));
    let begun = Instant::now();
    let pulls = (0..2 * TAGS).map(|number| {
        let replica = if number < TAGS { &site.one } else { &site.other };
        async move { get(replica, &format!("/v2/hub/team/app/manifests/{number}")).await.status }
    });
    assert_eq!(join_all(pulls).await, vec![200; 2 * TAGS as usize]);
    let asked = u32::try_from(site.line.asked().len()).unwrap();
    let took = begun.elapsed();
    assert!(asked >= 2 * TAGS, "{asked}");
    // Each turn is a twentieth of a second after the one before, whoever takes it. A busy machine only asks later.
    let least = Duration::from_secs(1) / PER_SECOND * (asked - 1);
    assert!(
        took >= least,
        "{asked} requests in {took:?}, of which each took its turn alone within {least:?}"
    );

    for number in 0..2 * TAGS {
        assert_eq!(get(&site.one, &format!("/v2/hub/team/app/manifests/{number}")).await.status, 200);
    }
    assert_eq!(site.line.asked(), [""; 0], "what is here takes no turn");
}

async fn p18_f38b_that_few_requests_are_left_holds_for_all_replicas(mut site: Site) {
    push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    let ttl = Duration::from_secs(2);
    site.set(|mirror| mirror.cache.tag_ttl = ttl);
    site.line.set(Way::Scarce);
    assert_eq!(get(&site.one, TAG).await.status, 200);
    site.line.asked();
    tokio::time::sleep(ttl).await;
    for replica in [&site.other, &site.one] {
        assert_eq!(get(replica, TAG).await.header("warning"), "", "it is fresh for ten times as long");
    }
    assert_eq!(site.line.asked(), [""; 0]);

    site.set(|mirror| mirror.cache.tag_ttl = Duration::ZERO);
    site.line.set(Way::Plenty);
    assert_eq!(get(&site.other, TAG).await.status, 200);
    site.set(|mirror| mirror.cache.tag_ttl = Duration::from_millis(1));
    site.line.asked();
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(get(&site.one, TAG).await.status, 200);
    assert_eq!(site.line.asked(), ["HEAD /v2/team/app/manifests/1.0"], "there are enough again, for all");
}

async fn p18_without_the_database_nobody_is_asked_whose_requests_are_counted(mut site: Site) {
    push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    push(site.upstream.address(), "", "team/app", "2.0", b"layer");
    site.set(|mirror| mirror.upstream.requests_per_second = NonZeroU32::new(1000));
    assert_eq!(get(&site.one, TAG).await.status, 200);
    let (replica, faults) = site.newcomer_over_faults().await;
    faults.cut();
    site.line.asked();
    assert_eq!(get(&replica, TAG).await.status, 200, "what is stored is answered");
    let refused = get(&replica, "/v2/hub/team/app/manifests/2.0").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.body).contains("while the database is away"), "{refused:?}");
    assert_ne!(refused.header("retry-after"), "");
    assert_eq!(site.line.asked(), [""; 0]);

    site.mirror.upstream.requests_per_second = None;
    replica.set_mirrors(vec![site.mirror.clone()]);
    assert_eq!(get(&replica, "/v2/hub/team/app/manifests/2.0").await.status, 200);
    assert_eq!(site.line.asked(), ["GET /v2/team/app/manifests/2.0"]);
}

async fn p18_without_the_database_a_replica_remembers_what_it_was_told(site: Site) {
    let (replica, faults) = site.newcomer_over_faults().await;
    faults.cut();
    site.line.set(Way::Later(429));
    assert_eq!(get(&replica, TAG).await.status, 429);
    assert_eq!(site.line.asked().len(), 1);
    site.line.set(Way::Open);
    let refused = get(&replica, "/v2/hub/team/app/manifests/2.0").await;
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(site.line.asked(), [""; 0]);
}

async fn p18_f38b_an_upstream_that_says_for_how_long_it_is_away_is_left_alone_by_all_replicas(site: Site) {
    site.line.set(Way::Later(503));
    assert_eq!(get(&site.one, TAG).await.status, 503);
    site.line.asked();
    site.line.set(Way::Open);
    let refused = get(&site.other, TAG).await;
    assert!((429..=503).contains(&refused.status), "{refused:?}");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{refused:?}");
    assert_eq!(site.line.asked(), [""; 0]);
}
