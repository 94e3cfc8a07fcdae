// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What refers to a manifest of a mirror: as its upstream lists it, and as it is stored.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use stowage_registry::Registry;

use super::blobs::sha256;
use super::line::{Line, Way};
use super::site::{Answer, Site, get};
use crate::support::program;
use crate::upstream::servers::{Image, Stowage, push, push_manifest, settings};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SIGNATURE: &str = "application/vnd.example.signature";

super::both_stores!(
    w399_what_the_upstream_lists_and_what_is_stored_are_listed_together,
    w399_without_the_api_the_tag_in_its_place_is_read,
    w399_while_the_upstream_is_away_what_is_known_is_listed_with_a_warning,
    w399_all_pages_of_the_upstream_are_read_and_shown_page_by_page,
    w399_a_mirror_without_referrers_asks_for_none,
);

super::through_a_virtual_repository!(
    w399_what_the_upstream_lists_and_what_is_stored_are_listed_together,
    w399_without_the_api_the_tag_in_its_place_is_read,
    w399_while_the_upstream_is_away_what_is_known_is_listed_with_a_warning,
    w399_all_pages_of_the_upstream_are_read_and_shown_page_by_page,
);

/// The site mirrors a registry that lists referrers.
async fn with_api(site: &mut Site) -> Stowage {
    let stowage = Stowage::open().await;
    site.line = Line::to(&stowage.address()).await;
    let upstream = settings(&format!("http://{}", site.line.address));
    site.set(|mirror| mirror.upstream = upstream);
    stowage
}

fn subject(image: &Image) -> Value {
    json!({"mediaType": IMAGE, "digest": image.digest, "size": image.manifest.len()})
}

fn sign(address: &str, image: &Image, words: &str) -> Image {
    push_manifest(address, "", "team/app", words, words.as_bytes(), &subject(image))
}

/// Lists at the upstream what refers to an image, by the tag that clients keep where there is no API.
fn list_by_tag(site: &Site, image: &Image, signatures: &[&Image]) {
    let descriptor = |signature: &&Image| {
        json!({
            "mediaType": IMAGE, "digest": signature.digest, "size": signature.manifest.len(),
            "artifactType": SIGNATURE,
        })
    };
    let manifests: Vec<Value> = signatures.iter().map(descriptor).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    let target = format!("/v2/team/app/manifests/sha256-{}", image.digest.hex());
    let fields = format!("Content-Type: {INDEX}\r\n");
    assert_eq!(program::ask(site.upstream.address(), "PUT", &target, &fields, index.as_bytes()).0, 201);
}

fn referrers(image: &Image) -> String {
    format!("/v2/hub/team/app/referrers/{}", image.digest)
}

fn manifest(digest: impl std::fmt::Display) -> String {
    format!("/v2/hub/team/app/manifests/{digest}")
}

fn digests(list: &Answer) -> Vec<String> {
    assert_eq!((list.status, list.header("content-type")), (200, INDEX), "{list:?}");
    let list: Value = serde_json::from_slice(&list.body).unwrap();
    let rows = list["manifests"].as_array().unwrap();
    rows.iter().map(|row| row["digest"].as_str().unwrap().to_owned()).collect()
}

/// What is listed, in no order, and whether it is told to be stale.
async fn listed(registry: &Registry, image: &Image) -> (BTreeSet<String>, bool) {
    let list = get(registry, &referrers(image)).await;
    (digests(&list).into_iter().collect(), list.header("warning").starts_with("110 - "))
}

fn set_of(images: &[&Image]) -> BTreeSet<String> {
    images.iter().map(|image| image.digest.to_string()).collect()
}

async fn w399_what_the_upstream_lists_and_what_is_stored_are_listed_together(mut site: Site) {
    let upstream = with_api(&mut site).await;
    let image = push(&upstream.address(), "", "team/app", "1.0", b"layer");
    let first = sign(&upstream.address(), &image, "first");
    assert_eq!(listed(&site.one, &image).await, (set_of(&[&first]), false));
    assert_eq!(site.line.asked(), [format!("GET /v2/team/app/referrers/{}", image.digest)]);
    for (wanted, count) in [(SIGNATURE, 1), ("text/none", 0)] {
        let list = get(&site.one, &format!("{}?artifactType={wanted}", referrers(&image))).await;
        assert_eq!((digests(&list).len(), list.header("oci-filters-applied")), (count, "artifactType"));
    }
    assert_eq!(site.line.asked(), [""; 0], "within the TTL nobody is asked");
    let pulled = get(&site.one, &manifest(first.digest)).await;
    assert_eq!(&pulled.body[..], &first.manifest[..], "what is listed can be pulled");
    assert_eq!(listed(&site.one, &image).await.0, set_of(&[&first]), "and is listed once");

    let second = sign(&upstream.address(), &image, "second");
    let target = format!("/v2/team/app/manifests/{}", first.digest);
    assert_eq!(program::ask(&upstream.address(), "DELETE", &target, "", b"").0, 202);
    assert_eq!(listed(&site.one, &image).await.0, set_of(&[&first]), "not before the TTL");
    site.set(|mirror| mirror.cache.tag_ttl = Duration::ZERO);
    assert_eq!(
        listed(&site.other, &image).await,
        (set_of(&[&first, &second]), false),
        "what is stored stays"
    );
    let list = get(&site.other, &format!("{}?artifactType={SIGNATURE}", referrers(&image))).await;
    assert_eq!(digests(&list).len(), 2);
    let unseen = get(&site.one, &format!("/v2/hub/team/none/referrers/{}", sha256(b"nothing"))).await;
    assert_eq!((digests(&unseen).len(), unseen.header("warning")), (0, ""), "never a 404");
}

async fn w399_without_the_api_the_tag_in_its_place_is_read(mut site: Site) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    assert_eq!(listed(&site.one, &image).await, (BTreeSet::new(), false), "there is no such tag");
    let signature = sign(site.upstream.address(), &image, "signature");
    list_by_tag(&site, &image, &[&signature]);
    assert_eq!(listed(&site.one, &image).await.0, BTreeSet::new(), "not before the TTL");
    site.set(|mirror| mirror.cache.tag_ttl = Duration::ZERO);
    let list = get(&site.one, &format!("{}?artifactType={SIGNATURE}", referrers(&image))).await;
    assert_eq!(digests(&list), [signature.digest.to_string()]);
    assert_eq!(&get(&site.other, &manifest(signature.digest)).await.body[..], &signature.manifest[..]);
}

async fn w399_while_the_upstream_is_away_what_is_known_is_listed_with_a_warning(mut site: Site) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    let (stored, other) =
        (sign(site.upstream.address(), &image, "stored"), sign(site.upstream.address(), &image, "other"));
    list_by_tag(&site, &image, &[&stored, &other]);
    site.set(|mirror| mirror.cache.tag_ttl = Duration::from_millis(1));
    assert_eq!(get(&site.one, &manifest(stored.digest)).await.status, 200);
    let both = set_of(&[&stored, &other]);
    for way in [Way::Gone, Way::Refused(503), Way::Refused(401), Way::Refused(403), Way::Later(429)] {
        site.line.set(Way::Open);
        let replica = site.newcomer().await;
        assert_eq!(listed(&replica, &image).await, (both.clone(), false), "{way:?}");
        site.line.set(way);
        tokio::time::sleep(Duration::from_millis(2)).await;
        for _ in 0..2 {
            assert_eq!(listed(&replica, &image).await, (both.clone(), true), "what was listed: {way:?}");
        }
        let newcomer = site.newcomer().await;
        assert_eq!(listed(&newcomer, &image).await, (set_of(&[&stored]), true), "what is stored: {way:?}");
    }
    site.set(|mirror| mirror.asks_upstream = false);
    assert_eq!(listed(&site.one, &image).await, (set_of(&[&stored]), false), "it is to ask nobody");
}

async fn w399_all_pages_of_the_upstream_are_read_and_shown_page_by_page(mut site: Site) {
    const SIGNATURES: usize = 6;
    let upstream = with_api(&mut site).await;
    let image = push(&upstream.address(), "", "team/app", "1.0", b"layer");
    let config = crate::upstream::servers::push_blob(&upstream.address(), "", "team/app", b"{}");
    let mut expected = BTreeSet::new();
    for number in 0..SIGNATURES {
        let signature = json!({
            "schemaVersion": 2, "mediaType": IMAGE, "artifactType": SIGNATURE, "layers": [],
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
            "subject": subject(&image), "annotations": {"number": number.to_string(), "long": "x".repeat(900_000)},
        });
        let (signature, fields) = (signature.to_string(), format!("Content-Type: {IMAGE}\r\n"));
        let digest = sha256(signature.as_bytes());
        let target = format!("/v2/team/app/manifests/{digest}");
        assert_eq!(
            program::ask(&upstream.address(), "PUT", &target, &fields, signature.as_bytes()).0,
            201,
            "{number}"
        );
        expected.insert(digest.to_string());
    }
    site.line.asked();
    let (mut next, mut pages, mut found) = (referrers(&image), 0, Vec::new());
    loop {
        let page = get(&site.one, &next).await;
        found.extend(digests(&page));
        pages += 1;
        let link = page.header("link");
        let Some(target) = link.strip_prefix('<').and_then(|rest| rest.split('>').next()) else { break };
        assert!(target.starts_with(&referrers(&image)), "{link}");
        next = target.to_owned();
    }
    assert_eq!((pages, found.len()), (2, SIGNATURES), "{found:?}");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(site.line.asked().len(), 2, "its pages, once");
}

async fn w399_a_mirror_without_referrers_asks_for_none(mut site: Site) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    let signature = sign(site.upstream.address(), &image, "signature");
    list_by_tag(&site, &image, &[&signature]);
    let by_tag = format!("sha256-{}.sig", image.digest.hex());
    push(site.upstream.address(), "", "team/app", &by_tag, b"of the old kind");
    site.set(|mirror| mirror.with_referrers = false);
    assert_eq!(listed(&site.one, &image).await, (BTreeSet::new(), false));
    assert_eq!(get(&site.one, &manifest(&by_tag)).await.status, 404);
    assert_eq!(site.line.asked(), [""; 0]);
    assert_eq!(get(&site.one, &manifest(signature.digest)).await.status, 200, "by digest it is content");
    assert_eq!(listed(&site.one, &image).await.0, set_of(&[&signature]), "what is here is listed");

    site.set(|mirror| mirror.with_referrers = true);
    assert_eq!(get(&site.one, &manifest(&by_tag)).await.status, 200);
    site.set(|mirror| {
        mirror.with_referrers = false;
        mirror.cache.tag_ttl = Duration::ZERO;
    });
    site.line.asked();
    assert_eq!(get(&site.one, &manifest(&by_tag)).await.status, 200, "what is here is answered");
    assert_eq!(site.line.asked(), [""; 0]);
}
