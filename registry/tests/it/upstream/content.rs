// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What registries have, byte for byte.

use serde_json::json;
use stowage_oci::{Digest, Name, Reference, Tag};
use stowage_registry::upstream::{Begin, Kind, Span, Upstream};

use super::servers::{Image, Stowage, distribution, push, push_manifest, settings};
use crate::support::program::ask;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn tag(text: &str) -> Reference {
    Reference::Tag(text.parse().unwrap())
}

/// All bytes of a span.
pub(super) async fn read(upstream: &Upstream, repository: &str, digest: &Digest, span: Span) -> Vec<u8> {
    let mut blob = upstream.blob(&name(repository), digest, span).await.unwrap().value;
    let mut all = Vec::new();
    while let Some(bytes) = blob.body.next().await {
        all.extend_from_slice(&bytes.unwrap());
    }
    all
}

/// An image with a layer that a reader does not get in one piece.
pub(super) fn layer() -> Vec<u8> {
    (0..3 << 20).map(|at: u32| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]).collect()
}

async fn all_is_read(address: &str) {
    let image = push(address, "", "team/app", "1.0", &layer());
    let upstream = Upstream::new(settings(&format!("http://{address}")));
    upstream.ping().await.unwrap();
    manifests_are_read(&upstream, &image).await;
    blobs_are_read(&upstream, &image).await;
}

async fn manifests_are_read(upstream: &Upstream, image: &Image) {
    for reference in [tag("1.0"), Reference::Digest(image.digest)] {
        let head = upstream.manifest_head(&name("team/app"), &reference).await.unwrap().value;
        assert_eq!(head.digest, Some(image.digest));
        assert_eq!(head.size, Some(image.manifest.len() as u64));
        assert_eq!(head.media_type.as_deref(), Some("application/vnd.oci.image.manifest.v1+json"));
        let manifest = upstream.manifest(&name("team/app"), &reference).await.unwrap().value;
        assert_eq!((manifest.bytes.as_ref(), manifest.digest), (&image.manifest[..], image.digest));
        assert!(manifest.document.blobs.contains(&image.layer_digest));
    }
    for missing in [tag("2.0"), Reference::Digest(image.layer_digest)] {
        let error = upstream.manifest(&name("team/app"), &missing).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound, "{error}");
        assert_eq!(
            upstream.manifest_head(&name("no/such"), &missing).await.unwrap_err().kind,
            Kind::NotFound
        );
    }
}

async fn blobs_are_read(upstream: &Upstream, image: &Image) {
    let (team, size) = (name("team/app"), image.layer.len() as u64);
    let digest = &image.layer_digest;
    assert_eq!(upstream.blob_head(&team, digest).await.unwrap().value, Some(size));
    let blob = upstream.blob(&team, digest, Span::default()).await.unwrap().value;
    assert_eq!(blob.size, Some(size));
    drop(blob);
    assert_eq!(read(upstream, "team/app", digest, Span::default()).await, image.layer);
    for (first, last) in
        [(0, Some(0)), (7, Some(70_000)), (size - 5, None), (3, Some(size + 9)), (0, Some(99))]
    {
        let to = last.map_or(size, |last| (last + 1).min(size));
        let wanted = &image.layer[usize::try_from(first).unwrap()..usize::try_from(to).unwrap()];
        assert_eq!(
            read(upstream, "team/app", digest, Span { first, last }).await,
            wanted,
            "{first} {last:?}"
        );
    }
    let missing = upstream.blob(&team, &image.digest, Span::default()).await.unwrap_err();
    assert_eq!(missing.kind, Kind::NotFound, "{missing}");
    assert_eq!(upstream.blob_head(&team, &image.digest).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn f17_everything_of_distribution_is_read_as_it_is() {
    let server = distribution(&serde_json::Value::Null, &[]).await;
    all_is_read(server.address()).await;
}

#[tokio::test]
async fn f17_everything_of_another_stowage_is_read_as_it_is() {
    let server = Stowage::open().await;
    all_is_read(&server.address()).await;
}

/// Tags and repositories, page by page.
async fn lists_are_read(address: &str) {
    let image = push(address, "", "team/app", "t0", b"layer");
    let fields = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
    for number in 1..5 {
        let target = format!("/v2/team/app/manifests/t{number}");
        assert_eq!(ask(address, "PUT", &target, fields, &image.manifest).0, 201);
    }
    push(address, "", "team/other", "1", b"layer");
    push(address, "", "zoo", "1", b"layer");
    let mut settings = settings(&format!("http://{address}"));
    settings.page = 2;
    let upstream = Upstream::new(settings);

    let (mut tags, mut pages, mut from) = (Vec::<Tag>::new(), 0, Begin::First);
    loop {
        let page = upstream.tags(&name("team/app"), from).await.unwrap().value;
        assert!(page.items.len() <= 2 && page.ignored == 0);
        tags.extend(page.items);
        pages += 1;
        let Some(next) = page.next else { break };
        from = Begin::At(next);
    }
    let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
    assert_eq!((tags.as_slice(), pages), (&["t0", "t1", "t2", "t3", "t4"][..], 3));
    let after = upstream.tags(&name("team/app"), Begin::After("t2".to_owned())).await.unwrap().value;
    assert_eq!(after.items.iter().map(Tag::as_str).collect::<Vec<_>>(), ["t3", "t4"]);
    assert_eq!(upstream.tags(&name("no/such"), Begin::First).await.unwrap_err().kind, Kind::NotFound);

    let first = upstream.catalog(Begin::First).await.unwrap().value;
    let second = upstream.catalog(Begin::At(first.next.unwrap())).await.unwrap().value;
    let all: Vec<String> = first.items.iter().chain(&second.items).map(ToString::to_string).collect();
    assert_eq!(all, ["team/app", "team/other", "zoo"]);
}

#[tokio::test]
async fn f22_p39_lists_of_distribution_are_read_page_by_page() {
    let server = distribution(&serde_json::Value::Null, &[]).await;
    lists_are_read(server.address()).await;
}

#[tokio::test]
async fn f22_p39_lists_of_another_stowage_are_read_page_by_page() {
    let server = Stowage::open().await;
    lists_are_read(&server.address()).await;
}

fn subject(image: &Image) -> serde_json::Value {
    json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.digest, "size": image.manifest.len(),
    })
}

#[tokio::test]
async fn referrers_are_read_by_the_api_where_there_is_one() {
    let server = Stowage::open().await;
    let image = push(&server.address(), "", "app", "1", b"layer");
    let signature = push_manifest(&server.address(), "", "app", "signature", b"signed", &subject(&image));
    let upstream = Upstream::new(settings(&format!("http://{}", server.address())));
    let app = name("app");
    let referrers = |artifact_type| upstream.referrers(&app, &image.digest, artifact_type);
    let found = referrers(None).await.unwrap().value;
    assert!(found.by_api);
    assert_eq!(found.manifests.iter().map(|one| one.digest).collect::<Vec<_>>(), [signature.digest]);
    assert_eq!(found.manifests[0].artifact_type.as_deref(), Some("application/vnd.example.signature"));
    let same = referrers(Some("application/vnd.example.signature")).await.unwrap().value;
    assert_eq!(same, found);
    assert!(referrers(Some("application/x")).await.unwrap().value.manifests.is_empty());
    let none = upstream.referrers(&name("app"), &signature.digest, None).await.unwrap().value;
    assert!(none.by_api && none.manifests.is_empty());
}

#[tokio::test]
async fn referrers_are_read_from_their_tag_where_there_is_no_api() {
    let server = distribution(&serde_json::Value::Null, &[]).await;
    let image = push(server.address(), "", "app", "1", b"layer");
    let upstream = Upstream::new(settings(&server.origin()));
    let none = upstream.referrers(&name("app"), &image.digest, None).await.unwrap().value;
    assert!(!none.by_api && none.manifests.is_empty());

    let signature = push_manifest(server.address(), "", "app", "signature", b"signed", &subject(&image));
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({
        "schemaVersion": 2, "mediaType": kind,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": signature.digest,
            "size": signature.manifest.len(), "artifactType": "application/vnd.example.signature",
            "annotations": {"of": "somebody"},
        }],
    });
    let target = format!("/v2/app/manifests/sha256-{}", image.digest.hex());
    let fields = format!("Content-Type: {kind}\r\n");
    assert_eq!(ask(server.address(), "PUT", &target, &fields, index.to_string().as_bytes()).0, 201);
    let found = upstream.referrers(&name("app"), &image.digest, None).await.unwrap().value;
    assert!(!found.by_api);
    assert_eq!(found.manifests[0].digest, signature.digest);
    assert_eq!(found.manifests[0].annotations["of"], "somebody");
    let others = upstream.referrers(&name("app"), &image.digest, Some("application/x")).await.unwrap().value;
    assert!(others.manifests.is_empty());
}
