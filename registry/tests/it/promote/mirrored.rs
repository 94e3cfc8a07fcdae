// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Promotions from a mirror of a real registry.

use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};
use stowage_registry::domain::{
    Ending, Error, Gate, Promotion, PromotionMode, PromotionRequest, PromotionRule,
};

use super::{gate, labels, request, rule};
use crate::mirror::both_stores;
use crate::mirror::line::Way;
use crate::mirror::site::{Site, get};
use crate::support::program::ask;
use crate::upstream::servers::{Image, push, push_blob};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

both_stores!(
    n5_what_a_mirror_has_not_fetched_comes_with_the_promotion,
    n5_what_cannot_be_fetched_is_not_promoted_and_says_what_to_do,
    n5_labels_that_a_mirror_has_not_fetched_are_fetched,
);

/// From the mirror to `prod/{path}`.
fn from_the_mirror(gates: Vec<Gate>) -> PromotionRule {
    PromotionRule { from: vec!["hub/**".parse().unwrap()], ..rule(gates) }
}

async fn promote(site: &Site, rule: &PromotionRule) -> Result<Promotion, Error> {
    let asked = PromotionRequest { repository: "hub/team/app".parse().unwrap(), ..request("1.0") };
    site.one.domain().promote(rule, &asked, PromotionMode::Promote).await
}

/// The upstream has this manifest.
fn put(site: &Site, tag: &str, media_type: &str, manifest: &Value) -> Digest {
    let body = manifest.to_string();
    let fields = format!("Content-Type: {media_type}\r\n");
    let target = format!("/v2/team/app/manifests/{tag}");
    assert_eq!(ask(site.upstream.address(), "PUT", &target, &fields, body.as_bytes()).0, 201);
    Digest::of(Algorithm::Sha256, body.as_bytes())
}

/// A client asked for the tag, and for nothing that it lists.
async fn pulled(site: &Site) {
    assert_eq!(get(&site.one, "/v2/hub/team/app/manifests/1.0").await.status, 200);
}

fn downloads(site: &Site) -> Vec<String> {
    let asked = site.line.asked();
    asked.into_iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/")).collect()
}

async fn is_whole(site: &Site, image: &Image) {
    let manifest = get(&site.one, &format!("/v2/prod/team/app/manifests/{}", image.digest)).await;
    assert_eq!((manifest.status, &manifest.body[..]), (200, &image.manifest[..]));
    let layer = get(&site.one, &format!("/v2/prod/team/app/blobs/{}", image.layer_digest)).await;
    assert_eq!((layer.status, &layer.body[..]), (200, &image.layer[..]));
}

async fn n5_what_a_mirror_has_not_fetched_comes_with_the_promotion(site: Site) {
    let images = ["amd64", "arm64"].map(|layer| {
        let address = site.upstream.address();
        push(address, "", "team/app", layer, layer.as_bytes())
    });
    let listed = images
        .iter()
        .map(|image| json!({"mediaType": IMAGE, "digest": image.digest, "size": image.manifest.len()}));
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed.collect::<Vec<_>>()});
    let digest = put(&site, "1.0", INDEX, &index);
    pulled(&site).await;
    site.line.asked();
    let promotion = promote(&site, &from_the_mirror(Vec::new())).await.unwrap();
    assert_eq!((promotion.ending, promotion.digest), (Ending::Promoted, Some(digest)), "{promotion:?}");
    let downloads = downloads(&site);
    for image in &images {
        let of_layer = downloads.iter().filter(|line| line.contains(&image.layer_digest.to_string()));
        assert_eq!(of_layer.count(), 1, "{downloads:#?}");
    }
    site.line.set(Way::Gone);
    assert_eq!(get(&site.one, "/v2/prod/team/app/manifests/1.0").await.body, index.to_string());
    for image in &images {
        is_whole(&site, image).await;
    }
}

async fn n5_what_cannot_be_fetched_is_not_promoted_and_says_what_to_do(mut site: Site) {
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    pulled(&site).await;
    let refused = async |site: &Site, why: &str| {
        let error = promote(site, &from_the_mirror(Vec::new())).await.unwrap_err();
        assert!(matches!(&error, Error::NotFetched { mirror, .. } if mirror == "hub"), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(why) && text.contains("stowage-registry load"), "{text}");
        assert_eq!(get(&site.one, "/v2/prod/team/app/manifests/1.0").await.status, 404);
    };
    site.set(|mirror| mirror.asks_upstream = false);
    refused(&site, "suspended or offline").await;
    site.set(|mirror| mirror.asks_upstream = true);
    site.line.set(Way::Gone);
    refused(&site, "hub").await;
    site.line.set(Way::Open);
    let promotion = promote(&site, &from_the_mirror(Vec::new())).await.unwrap();
    assert_eq!(promotion.ending, Ending::Promoted, "{promotion:?}");
    is_whole(&site, &image).await;
}

async fn n5_labels_that_a_mirror_has_not_fetched_are_fetched(site: Site) {
    let config = r#"{"config": {"Labels": {"vendor": "acme"}}}"#;
    let digest = push_blob(site.upstream.address(), "", "team/app", config.as_bytes());
    let config = json!({
        "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": config.len(),
    });
    put(
        &site,
        "1.0",
        IMAGE,
        &json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": []}),
    );
    pulled(&site).await;
    let vendor = |vendor| from_the_mirror(vec![gate("vendor", labels(&[("vendor", vendor)]))]);
    assert_eq!(promote(&site, &vendor("other")).await.unwrap().ending, Ending::GateFailed);
    assert_eq!(promote(&site, &vendor("acme")).await.unwrap().ending, Ending::Promoted);
}
