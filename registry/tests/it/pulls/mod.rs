// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! When something was pulled last: what counts, what a pull costs, and what remains when a process is killed or the
//! database is lost.

mod evict;
mod lost;

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode};
use stowage_oci::{Digest, Name};
use stowage_registry::Registry;
use stowage_registry::auth::{Access, Htpasswd, Realms, Rules, SigningKey, Snapshot, Subject};
use stowage_registry::key::Day;
use stowage_registry::meta::MetaStore;
use tower::ServiceExt as _;

use crate::mirror::site::{self, Site};
use crate::rebuild::api::{Api, index};
use crate::rebuild::stand::Stand;
use crate::upstream::servers::push;

on_both!(
    a_get_of_a_manifest_counts_and_nothing_else_does,
    pulls_while_the_database_is_away_are_told_when_it_is_back,
    pulls_of_ignored_subjects_do_not_count,
);

/// The last pulls of these manifests.
async fn last(meta: &dyn MetaStore, repository: &str, digests: &[Digest]) -> Vec<Option<Day>> {
    meta.last_pulls(&repository.parse::<Name>().unwrap(), digests).await.unwrap()
}

async fn today(meta: &dyn MetaStore) -> Option<Day> {
    Some(meta.record_pulls(&[]).await.unwrap().day)
}

async fn a_get_of_a_manifest_counts_and_nothing_else_does(stand: Stand) {
    let replica = stand.start().await;
    let api = &replica.api;
    let mut images = Vec::new();
    for layer in ["pulled", "by digest", "unchanged", "child", "head", "blob", "gone"] {
        images.push(api.push_image("app", Some(&layer.replace(' ', "-")), layer).await);
    }
    let list = index(&[images[3]]);
    assert_eq!(api.put("app", Some("list"), &list).await.status, StatusCode::CREATED);
    api.push_image("other", Some("pulled"), "pulled").await;

    for reference in ["pulled", &images[1].to_string(), "child", "gone"] {
        assert!(api.resolve("app", reference).await.is_some());
    }
    let unchanged = Request::get("/v2/app/manifests/unchanged")
        .header("if-none-match", format!("\"{}\"", images[2]))
        .body(Body::empty())
        .unwrap();
    let answer = api.0.clone().oneshot(unchanged).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(api.head("/v2/app/manifests/head").await.status, StatusCode::OK);
    let blob = stowage_oci::Digest::of(stowage_oci::Algorithm::Sha256, b"blob");
    assert_eq!(api.get(&format!("/v2/app/blobs/{blob}")).await.status, StatusCode::OK);
    assert_eq!(api.get("/v2/app/manifests/none").await.status, StatusCode::NOT_FOUND);
    assert_eq!(api.delete(&format!("/v2/app/manifests/{}", images[6])).await.status, StatusCode::ACCEPTED);

    replica.stop().await;
    let meta = stand.meta().await;
    let day = today(&*meta).await;
    let list = crate::rebuild::api::digest_of(&list);
    let asked = [&images[..], &[list]].concat();
    let expected = [day, day, day, day, None, None, None, day];
    assert_eq!(last(&*meta, "app", &asked).await, expected);
    assert_eq!(last(&*meta, "other", &images[..1]).await, [None]);
}

async fn pulls_while_the_database_is_away_are_told_when_it_is_back(stand: Stand) {
    let replica = stand.start().await;
    let image = replica.api.push_image("app", Some("v1"), "layer").await;
    replica.database.cut();
    let answer = replica.api.get("/v2/app/manifests/v1").await;
    assert!(answer.status == StatusCode::OK && answer.is_degraded(), "{answer:?}");
    replica.database.mend();
    replica.stop().await;
    let meta = stand.meta().await;
    assert_eq!(last(&*meta, "app", &[image]).await, [today(&*meta).await]);
}

async fn pulls_of_ignored_subjects_do_not_count(stand: Stand) {
    let access = Access::new(Snapshot {
        rules: Rules::open().not_counting(vec![Subject::Anonymous]).into(),
        users: Htpasswd::empty(),
        realms: Realms::new("http://localhost", []),
        keys: SigningKey::ephemeral().unwrap(),
    });
    let (meta, store) = (stand.meta().await, stand.store().await);
    let builder = Registry::builder().access(access.into());
    let registry = builder.over(Arc::clone(&meta), Arc::clone(&store)).await.unwrap();
    let api = Api(registry.router());
    let image = api.push_image("app", Some("v1"), "layer").await;
    api.assert_pullable("app", "v1").await;
    registry.close().await;
    assert_eq!(last(&*meta, "app", &[image]).await, [None]);
    let told = store.list("v1/pulls/", None, 10).await.unwrap();
    assert!(told.is_empty(), "{told:?}");
}

async fn through_a_mirror(site: Site) {
    let image = push(site.upstream.address(), "", "library/alpine", "3", b"layer").digest;
    assert_eq!(site::get(&site.one, "/v2/hub/library/alpine/manifests/3").await.status, 200);
    let Site { one, meta, .. } = site;
    one.close().await;
    let stamps = meta.pull_stamps(None, 10).await.unwrap();
    let day = today(&*meta).await;
    let found: Vec<_> = stamps.into_iter().map(|(_, stamp)| (stamp.digest, Some(stamp.day))).collect();
    assert_eq!(found, [(image, day)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_through_mirrors_and_virtual_repositories_count_where_it_is_stored() {
    through_a_mirror(Site::embedded().await).await;
    through_a_mirror(Site::clustered().await.behind_a_virtual_repository()).await;
}
