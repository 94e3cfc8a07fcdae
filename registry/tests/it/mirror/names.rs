// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How a mirror is addressed, and what it refuses.

use super::blobs::sha256;
use super::line::Way;
use super::site::{Site, ask, get};
use crate::upstream::servers::push;

super::both_stores!(
    w432_w445_w448_w452_f17_o8_all_ways_of_naming_give_the_bytes_of_the_upstream_once,
    w108_w449_o1_a_mirror_takes_no_writes,
    o4_w433_w447_w450_what_is_not_configured_is_never_contacted,
    w433_the_default_takes_what_is_not_ours,
    a_request_that_we_made_ourselves_is_not_sent_on,
);

async fn w432_w445_w448_w452_f17_o8_all_ways_of_naming_give_the_bytes_of_the_upstream_once(site: Site) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", &vec![7; 100_000]);
    for (name, query) in [
        ("hub/team/app", ""),
        ("hub.example.com/team/app", ""),
        ("team/app", "?ns=hub.example.com"),
        ("hub/team/app", "?ns=hub.example.com"),
    ] {
        let manifest = get(&site.one, &format!("/v2/{name}/manifests/1.0{query}")).await;
        assert_eq!((manifest.status, &manifest.body[..]), (200, &image.manifest[..]), "{name}{query}");
        assert_eq!(manifest.header("docker-content-digest"), image.digest.to_string());
        let namespace = if query.is_empty() { "" } else { "hub.example.com" };
        assert_eq!(manifest.header("oci-namespace"), namespace);
        let blob = get(&site.other, &format!("/v2/{name}/blobs/{}{query}", image.layer_digest)).await;
        assert_eq!((blob.status, &blob.body[..]), (200, &image.layer[..]), "{name}{query}");
    }
    let asked = site.line.asked();
    let gets = |what: &str| {
        asked.iter().filter(|line| line.starts_with(&format!("GET /v2/team/app/{what}"))).count()
    };
    assert_eq!((gets("manifests"), gets("blobs"), asked.len()), (1, 1, 2), "{asked:?}");
    let tags = get(&site.one, "/v2/team/app/tags/list?ns=hub.example.com").await;
    assert_eq!(&tags.body[..], br#"{"name":"team/app","tags":["1.0"]}"#);
}

async fn w108_w449_o1_a_mirror_takes_no_writes(site: Site) {
    let digest = push(site.upstream.address(), "", "team/app", "1.0", b"layer").digest;
    assert_eq!(get(&site.one, "/v2/hub/team/app/manifests/1.0").await.status, 200);
    for (name, query) in [("hub/team/app", ""), ("team/app", "?ns=hub.example.com"), ("hub", "")] {
        for (method, rest) in [
            ("POST", "blobs/uploads/".to_owned()),
            ("PUT", "manifests/1.0".to_owned()),
            ("DELETE", "manifests/1.0".to_owned()),
            ("DELETE", format!("manifests/{digest}")),
            ("DELETE", format!("blobs/{digest}")),
        ] {
            let answer = ask(&site.one, method, &format!("/v2/{name}/{rest}{query}"), &[]).await;
            assert_eq!(answer.status, 405, "{method} {name}/{rest}{query}: {answer:?}");
        }
    }
    assert_eq!(get(&site.one, "/v2/hub/team/app/manifests/1.0").await.status, 200);
}

async fn o4_w433_w447_w450_what_is_not_configured_is_never_contacted(site: Site) {
    push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    for target in [
        "/v2/team/app/manifests/1.0",
        "/v2/team/app/manifests/1.0?ns=other.example.com",
        "/v2/other.example.com/team/app/manifests/1.0",
        "/v2/hub/manifests/1.0",
    ] {
        assert_eq!(get(&site.one, target).await.status, 404, "{target}");
    }
    assert_eq!(site.line.asked(), [""; 0]);
}

async fn w433_the_default_takes_what_is_not_ours(mut site: Site) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"theirs");
    site.set(|mirror| mirror.is_default = true);
    let pulled = get(&site.one, "/v2/team/app/manifests/1.0").await;
    assert_eq!((pulled.status, &pulled.body[..]), (200, &image.manifest[..]));
    assert_eq!(get(&site.one, "/v2/hub/team/app/manifests/1.0").await.status, 200, "it is the same");
    // From now on there is one of ours with that name.
    let opened = ask(&site.one, "POST", "/v2/team/app/blobs/uploads/", &[]).await;
    assert_eq!(opened.status, 202);
    assert_eq!(get(&site.other, "/v2/team/app/manifests/1.0").await.status, 404);
}

async fn a_request_that_we_made_ourselves_is_not_sent_on(site: Site) {
    push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    let ours = site.one.mirrors().all().next().unwrap().settings.upstream.registry_id.clone();
    let via = format!("1.1 other, 1.1 {ours}");
    for content in ["manifests/1.0".to_owned(), format!("blobs/{}", sha256(b"layer"))] {
        let target = format!("/v2/hub/team/app/{content}");
        let refused = ask(&site.one, "GET", &target, &[("via", &via)]).await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.body).contains("lead back to it"), "{refused:?}");
    }
    assert_eq!(site.line.asked(), [""; 0]);
    site.line.set(Way::Open);
    assert_eq!(get(&site.one, "/v2/hub/team/app/manifests/1.0").await.status, 200);
}
