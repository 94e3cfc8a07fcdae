// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is written through a virtual repository, and where it is then.

use stowage_registry::Registry;

use super::site::{
    NOBODY, Site, get, image, index, json_of, local, push, push_blob, put, send, sha256, text,
};
use crate::mirror::blobs::stored;
use crate::upstream::servers::push as push_upstream;

super::both_stores!(
    w451_h7_what_is_pushed_goes_to_one_member_and_answers_name_the_virtual_repository,
    w451_h7_without_a_member_that_takes_pushes_writes_are_405,
    a_name_that_the_member_for_pushes_excludes_takes_none,
    w451_what_is_deleted_is_deleted_in_the_member_that_takes_pushes,
    w470_w451_what_a_head_promised_a_manifest_may_refer_to,
    w470_w451_the_manifests_of_an_index_come_along_if_they_are_complete,
    w451_a_blob_is_mounted_from_what_a_virtual_name_means,
);

async fn w451_h7_what_is_pushed_goes_to_one_member_and_answers_name_the_virtual_repository(site: Site) {
    let (digest, uploads) = (sha256(b"layer"), "/v2/all/app/blobs/uploads/");
    let opened = send(&site.one, "POST", uploads, &[], b"").await;
    let location = opened.header("location").to_owned();
    assert!(opened.status == 202 && location.starts_with(uploads), "{opened:?}");
    let grown = send(&site.other, "PATCH", &location, &[], b"lay").await;
    assert_eq!((grown.status, grown.header("location"), grown.header("range")), (202, &*location, "0-2"));
    let status = send(&site.one, "GET", &location, &[], b"").await;
    assert_eq!((status.status, status.header("location")), (204, &*location));
    let wrong = send(&site.one, "PATCH", &location, &[("content-range", "0-1")], b"la").await;
    assert_eq!((wrong.status, wrong.header("location")), (416, &*location));
    let closed = send(&site.one, "PUT", &format!("{location}?digest={digest}"), &[], b"er").await;
    assert_eq!((closed.status, closed.header("location")), (201, &*format!("/v2/all/app/blobs/{digest}")));
    push_blob(&site.one, "all/app", b"{}").await;
    let manifest = image(b"layer");
    let pushed = put(&site.other, "all/app", "1.0", &manifest).await;
    let place = format!("/v2/all/app/manifests/{}", sha256(&manifest));
    assert_eq!((pushed.status, pushed.header("location")), (201, &*place));

    for name in ["all/app", "team-a/app"] {
        assert_eq!(&get(&site.one, &format!("/v2/{name}/manifests/1.0")).await.body[..], &manifest[..]);
        assert_eq!(&get(&site.one, &format!("/v2/{name}/blobs/{digest}")).await.body[..], b"layer");
    }
    let catalog = json_of(&get(&site.one, "/v2/_catalog").await);
    assert_eq!(catalog["repositories"], serde_json::json!(["team-a/app"]), "it has nothing of its own");
    assert_eq!(site.asked(), NOBODY);
    let opened = send(&site.one, "POST", uploads, &[], b"").await;
    assert_eq!(send(&site.one, "DELETE", opened.header("location"), &[], b"").await.status, 204);
}

async fn w451_h7_without_a_member_that_takes_pushes_writes_are_405(mut site: Site) {
    let manifest = push(&site.one, "team-a/app", "1.0", b"layer").await;
    site.set(|all| all.members[0].takes_pushes = false);
    let digest = sha256(&manifest);
    for (method, rest) in [
        ("POST", "blobs/uploads/".to_owned()),
        ("PATCH", "blobs/uploads/7d444840-9dc0-41d1-b245-5ffdce74fad2".to_owned()),
        ("PUT", "manifests/2.0".to_owned()),
        ("DELETE", "manifests/1.0".to_owned()),
        ("DELETE", format!("manifests/{digest}")),
        ("DELETE", format!("blobs/{}", sha256(b"layer"))),
    ] {
        let refused = send(&site.one, method, &format!("/v2/all/app/{rest}"), &[], b"").await;
        assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"), "{method} {rest}");
        assert!(text(&refused).contains("UNSUPPORTED"), "{refused:?}");
    }
    assert_eq!(get(&site.one, "/v2/all/app/manifests/1.0").await.status, 200);
}

async fn a_name_that_the_member_for_pushes_excludes_takes_none(mut site: Site) {
    site.set(|all| all.members[0].exclude = vec!["secret/*".parse().unwrap()]);
    assert_eq!(send(&site.one, "POST", "/v2/all/secret/app/blobs/uploads/", &[], b"").await.status, 405);
    assert_eq!(send(&site.one, "POST", "/v2/all/app/blobs/uploads/", &[], b"").await.status, 202);
}

async fn w451_what_is_deleted_is_deleted_in_the_member_that_takes_pushes(mut site: Site) {
    let manifest = push(&site.one, "team-a/app", "1.0", b"layer").await;
    push(&site.one, "team-b/app", "1.0", b"layer").await;
    site.set(|all| all.members.insert(1, local("team-b", false)));
    for target in ["manifests/1.0".to_owned(), format!("manifests/{}", sha256(&manifest))] {
        let deleted = send(&site.one, "DELETE", &format!("/v2/all/app/{target}"), &[], b"").await;
        assert_eq!(deleted.status, 202, "{target}: {deleted:?}");
        assert_eq!(get(&site.one, &format!("/v2/team-a/app/{target}")).await.status, 404);
        assert_eq!(get(&site.one, &format!("/v2/all/app/{target}")).await.status, 200, "the next has it");
    }
    let layer = format!("blobs/{}", sha256(b"layer"));
    assert_eq!(send(&site.one, "DELETE", &format!("/v2/all/app/{layer}"), &[], b"").await.status, 202);
    assert_eq!(get(&site.one, &format!("/v2/team-a/app/{layer}")).await.status, 404);
    assert_eq!(get(&site.one, &format!("/v2/team-b/app/{layer}")).await.status, 200);
}

/// Pulls a layer through the mirror, until it is stored.
async fn fetched(registry: &Registry, repository: &str, layer: &[u8]) {
    let target = format!("/v2/{repository}/blobs/{}", sha256(layer));
    assert_eq!(get(registry, &target).await.status, 200);
    stored(registry, &target).await;
}

async fn w470_w451_what_a_head_promised_a_manifest_may_refer_to(site: Site) {
    push_upstream(site.hub.address(), "", "app", "base", b"fetched");
    push_upstream(site.hub.address(), "", "app", "other", b"not fetched");
    for tag in ["base", "other"] {
        assert_eq!(get(&site.one, &format!("/v2/all/app/manifests/{tag}")).await.status, 200);
    }
    fetched(&site.one, "all/app", b"fetched").await;
    let head = async |content: &[u8]| {
        let target = format!("/v2/all/app/blobs/{}", sha256(content));
        send(&site.other, "HEAD", &target, &[], b"").await.status
    };
    assert_eq!((head(b"fetched").await, head(b"not fetched").await), (200, 404), "only what is stored here");

    push_blob(&site.one, "all/app", b"{}").await;
    let pushed = put(&site.one, "all/app", "1.0", &image(b"fetched")).await;
    assert_eq!(pushed.status, 201, "{pushed:?}");
    let layer = get(&site.one, &format!("/v2/team-a/app/blobs/{}", sha256(b"fetched"))).await;
    assert_eq!((layer.status, &layer.body[..]), (200, &b"fetched"[..]), "the member has it of its own");
    let refused = put(&site.one, "all/app", "2.0", &image(b"not fetched")).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(text(&refused).contains("MANIFEST_BLOB_UNKNOWN"), "{refused:?}");
}

async fn w470_w451_the_manifests_of_an_index_come_along_if_they_are_complete(site: Site) {
    let whole = push_upstream(site.hub.address(), "", "app", "amd64", b"amd64").manifest;
    let part = push_upstream(site.hub.address(), "", "app", "arm64", b"arm64").manifest;
    for child in [&whole, &part] {
        let target = format!("/v2/all/app/manifests/{}", sha256(child));
        assert_eq!(send(&site.one, "HEAD", &target, &[], b"").await.status, 200);
    }
    for content in [&b"amd64"[..], b"{}"] {
        fetched(&site.one, "all/app", content).await;
    }
    let pushed = put(&site.one, "all/app", "1.0", &index(&[&whole, &part])).await;
    assert_eq!(pushed.status, 201, "{pushed:?}");
    let own = async |manifest: &[u8]| {
        get(&site.one, &format!("/v2/team-a/app/manifests/{}", sha256(manifest))).await.status
    };
    assert_eq!((own(&whole).await, own(&part).await), (200, 404));
    assert_eq!(get(&site.one, &format!("/v2/team-a/app/blobs/{}", sha256(b"amd64"))).await.status, 200);
    for child in [&whole, &part] {
        let target = format!("/v2/all/app/manifests/{}", sha256(child));
        assert_eq!(&get(&site.one, &target).await.body[..], &child[..]);
    }
}

async fn w451_a_blob_is_mounted_from_what_a_virtual_name_means(site: Site) {
    push(&site.one, "team-a/app", "1.0", b"layer").await;
    let digest = sha256(b"layer");
    for (to, from) in [("elsewhere/app", "all/app"), ("all/other", "all/app"), ("all/third", "team-a/app")] {
        let target = format!("/v2/{to}/blobs/uploads/?mount={digest}&from={from}");
        let mounted = send(&site.one, "POST", &target, &[], b"").await;
        assert_eq!(mounted.status, 201, "{to} {from}");
        assert_eq!(mounted.header("location"), format!("/v2/{to}/blobs/{digest}"));
    }
    assert_eq!(get(&site.one, &format!("/v2/team-a/third/blobs/{digest}")).await.status, 200);
}
