// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A tag that its upstream moves while a client waits for it.

use std::time::Duration;

use super::site::{Site, get};
use crate::support::program::ask;
use crate::upstream::servers::{Image, Stowage, interrupted, push, settings};

const TAG: &str = "/v2/hub/team/app/manifests/1.0";

super::both_stores!(
    w873_a_tag_that_moves_on_while_it_is_fetched_is_what_it_is_then,
    w873_a_tag_that_ends_while_it_is_fetched_is_ended,
);

fn delete(address: &str, reference: impl std::fmt::Display) {
    let target = format!("/v2/team/app/manifests/{reference}");
    assert_eq!(ask(address, "DELETE", &target, "", b"").0, 202);
}

/// The site has the tag; at the upstream it is another, and `deed` is done between the look at it and the fetch.
async fn interrupt(site: &mut Site, upstream: &Stowage, deed: impl FnOnce(&Image) + Send + 'static) {
    let address = upstream.address();
    push(&address, "", "team/app", "1.0", b"first");
    site.set(|mirror| {
        mirror.upstream = settings(&format!("http://{address}"));
        mirror.cache.tag_ttl = Duration::ZERO;
        mirror.cache.negative_ttl = Duration::ZERO;
    });
    assert_eq!(get(&site.one, TAG).await.status, 200);
    let second = push(&address, "", "team/app", "1.0", b"second");
    let fetch = format!("GET /v2/team/app/manifests/{}", second.digest);
    let between = interrupted(&address, fetch, move || deed(&second));
    site.set(|mirror| mirror.upstream = settings(&between.origin()));
}

async fn w873_a_tag_that_moves_on_while_it_is_fetched_is_what_it_is_then(mut site: Site) {
    let upstream = Stowage::open().await;
    let address = upstream.address();
    let deed = {
        let address = address.clone();
        move |second: &Image| {
            push(&address, "", "team/app", "1.0", b"third");
            delete(&address, second.digest);
        }
    };
    interrupt(&mut site, &upstream, deed).await;
    let now = get(&site.one, TAG).await;
    assert_eq!((now.status, now.header("warning")), (200, ""), "{now:?}");
    let (_, _, there) = ask(&address, "GET", "/v2/team/app/manifests/1.0", "", b"");
    assert_eq!(&now.body[..], &there[..]);
    assert_eq!(&get(&site.other, TAG).await.body[..], &there[..]);
}

async fn w873_a_tag_that_ends_while_it_is_fetched_is_ended(mut site: Site) {
    let upstream = Stowage::open().await;
    let address = upstream.address();
    let deed = move |second: &Image| {
        delete(&address, "1.0");
        delete(&address, second.digest);
    };
    interrupt(&mut site, &upstream, deed).await;
    assert_eq!(get(&site.one, TAG).await.status, 404);
    assert_eq!(get(&site.other, TAG).await.status, 404);
}
