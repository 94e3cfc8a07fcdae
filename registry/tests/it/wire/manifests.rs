// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Pushing and pulling manifests.

use futures::future::join_all;
use serde_json::{Value, json};

use super::registry::{OCI_IMAGE, Registry, descriptor, image, index, sha256, sha512};

super::both_stores!(
    w170_w282_w491_w533_a_manifest_is_answered_as_it_was_pushed,
    w173_w398_a_manifest_belongs_to_its_repository,
    w175_w283_w850_a_tag_moves_in_one_step,
    w100_w271_w274_w275_w770_what_is_no_manifest_is_refused,
    w101_w272_w492_w901_long_manifests,
    w104_schema_1_is_named_in_the_refusal,
    w273_w865_a_manifest_by_digest_has_that_digest,
    w287_a_digest_beside_a_tag_is_verified,
    w103_w278_w471_w846_missing_content_is_named,
    w277_w847_layers_that_need_not_be_here,
    w276_w832_w560_w569_unknown_types_and_fields,
    w022_w279_w280_w537_w561_w864_an_index_may_come_before_its_children,
    w021_w325_a_repository_begins_with_its_first_content,
    w281_w282_w831_a_subject_may_be_missing_and_is_confirmed,
    w440_w442_w559_tags_come_with_a_push_by_digest,
    w443_a_tag_beside_a_tag_is_ignored,
    w284_a_hundred_pushes_of_one_tag,
    w530_a_child_that_is_known_can_be_skipped,
    w521_w568_a_child_that_is_missing_is_404,
    w722_w730_layers_are_bytes_and_their_urls_are_left_alone,
);

const INVALID: &str = "MANIFEST_INVALID";

async fn w170_w282_w491_w533_a_manifest_is_answered_as_it_was_pushed(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let manifest = image(&[]);
    let answer = registry.put_manifest("a", "v1", &manifest).await;
    let digest = sha256(manifest.to_string().as_bytes());
    assert_eq!((answer.status, answer.header("content-length")), (201, "0"));
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    assert_eq!(answer.header("location"), format!("/v2/a/manifests/{digest}"));
    assert!(!answer.has("oci-subject") && !answer.has("oci-tag"));
    let location = answer.header("location").to_owned();
    for target in ["/v2/a/manifests/v1", &location] {
        let answer = registry.get(target).send().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, OCI_IMAGE));
        assert_eq!(answer.body, manifest.to_string().as_bytes());
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    }
}

async fn w173_w398_a_manifest_belongs_to_its_repository(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    registry.push_image("b", "v1").await;
    let answer = registry.get(&format!("/v2/b/manifests/{digest}")).send().await;
    assert_eq!(answer.refusal(), (404, "MANIFEST_UNKNOWN".into()));
}

async fn w175_w283_w850_a_tag_moves_in_one_step(registry: Registry) {
    let mut known = Vec::new();
    for layer in ["one", "two", "three"] {
        registry.push_blob("a", layer.as_bytes()).await;
        registry.push_blob("a", b"{}").await;
        let manifest = image(&[layer.as_bytes()]);
        let push = registry.put_manifest("a", "v1", &manifest);
        let read = async { registry.get("/v2/a/manifests/v1").send().await };
        let (pushed, read) = futures::join!(push, read);
        assert_eq!(pushed.status, 201);
        known.push(manifest.to_string());
        let readable = known.len() > 1 || read.status == 200;
        assert!(!readable || known.iter().any(|text| read.body == text.as_bytes()), "{read:?}");
        let now = registry.get("/v2/a/manifests/v1").send().await;
        assert_eq!(now.body, manifest.to_string().as_bytes());
    }
}

async fn w100_w271_w274_w275_w770_what_is_no_manifest_is_refused(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let config = descriptor("a/b", b"{}");
    for manifest in [
        json!({}).to_string(),
        "{".to_owned(),
        "[]".to_owned(),
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.artifact.manifest.v1+json" })
            .to_string(),
        json!({ "schemaVersion": 2, "mediaType": OCI_IMAGE, "config": config, "manifests": [] }).to_string(),
        json!({ "schemaVersion": 3, "mediaType": OCI_IMAGE, "config": config }).to_string(),
        format!("{}{{}}", image(&[])),
        format!("\u{feff}{}", image(&[])),
    ] {
        let answer = registry.put("/v2/a/manifests/v1").body(&manifest).send().await;
        assert_eq!(answer.refusal(), (400, INVALID.into()), "{manifest}");
    }
    let target = "/v2/a/manifests/v1";
    let mistyped = registry.put(target).header("content-type", super::registry::OCI_INDEX);
    assert_eq!(mistyped.body(image(&[]).to_string()).send().await.refusal(), (400, INVALID.into()));
    assert_eq!(registry.status(target).await, 404);
}

async fn w101_w272_w492_w901_long_manifests(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let of_length = |length: usize| {
        let mut manifest = image(&[]);
        manifest["annotations"] = json!({ "x": "" });
        let missing = length - manifest.to_string().len();
        manifest["annotations"]["x"] = Value::from("x".repeat(missing));
        manifest.to_string()
    };
    let longest = of_length(4_194_304);
    for chunked in [true, false] {
        let put = || registry.put("/v2/a/manifests/v1").header("content-type", OCI_IMAGE);
        let send = |text: &str| if chunked { put().chunked(text) } else { put().body(text) };
        assert_eq!(send(&longest).send().await.status, 201);
        for too_long in [4_194_305, 6_000_000] {
            let answer = send(&of_length(too_long)).send().await;
            assert_eq!(answer.refusal(), (413, INVALID.into()));
        }
    }
    assert!(registry.get("/v2/a/manifests/v1").send().await.body == longest);
}

async fn w104_schema_1_is_named_in_the_refusal(registry: Registry) {
    let manifest = json!({ "schemaVersion": 1, "name": "a", "tag": "v1", "fsLayers": [], "signatures": [] });
    let put = registry.put("/v2/a/manifests/v1");
    let typed = put.header("content-type", "application/vnd.docker.distribution.manifest.v1+prettyjws");
    let answer = typed.body(manifest.to_string()).send().await;
    assert_eq!(answer.refusal(), (400, INVALID.into()));
    assert!(answer.json()["errors"][0]["message"].as_str().unwrap().contains("schema 1"));
}

async fn w273_w865_a_manifest_by_digest_has_that_digest(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let manifest = image(&[]).to_string();
    for digest in [sha256(manifest.as_bytes()), sha512(manifest.as_bytes())] {
        let target = format!("/v2/a/manifests/{digest}");
        for other in [format!("{manifest} "), image(&[]).to_string().replace(':', ": ")] {
            let answer = registry.put(&target).header("content-type", OCI_IMAGE).body(other).send().await;
            assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".into()));
        }
        assert_eq!(registry.status(&target).await, 404);
        let answer = registry.put(&target).header("content-type", OCI_IMAGE).body(&manifest).send().await;
        assert_eq!((answer.status, answer.header("docker-content-digest")), (201, &*digest.to_string()));
        assert_eq!(registry.get(&target).send().await.header("docker-content-digest"), digest.to_string());
    }
}

async fn w287_a_digest_beside_a_tag_is_verified(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let manifest = image(&[]).to_string();
    let put = |digest| {
        let target = format!("/v2/a/manifests/v1?digest={digest}");
        registry.put(&target).header("content-type", OCI_IMAGE).body(&manifest).send()
    };
    assert_eq!(put(sha256(b"other")).await.refusal(), (400, "DIGEST_INVALID".into()));
    let digest = sha512(manifest.as_bytes());
    assert_eq!(put(digest).await.header("docker-content-digest"), digest.to_string());
    let answer = registry.head("/v2/a/manifests/v1").send().await;
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
}

async fn w103_w278_w471_w846_missing_content_is_named(registry: Registry) {
    registry.push_blob("b", b"layer").await;
    registry.push_blob("a", b"{}").await;
    let answer = registry.put_manifest("a", "v1", &image(&[b"layer", b"never pushed"])).await;
    assert_eq!(answer.status, 400);
    let mut missing = Vec::new();
    for error in answer.json()["errors"].as_array().unwrap() {
        assert_eq!(error["code"], "MANIFEST_BLOB_UNKNOWN");
        missing.push(error["detail"]["digest"].as_str().unwrap().to_owned());
    }
    missing.sort();
    let mut expected = [sha256(b"layer").to_string(), sha256(b"never pushed").to_string()];
    expected.sort();
    assert_eq!(missing, expected);
    assert_eq!(registry.status("/v2/a/manifests/v1").await, 404);
}

async fn w277_w847_layers_that_need_not_be_here(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    for media_type in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let mut manifest = image(&[]);
        manifest["layers"] = json!([descriptor(media_type, b"elsewhere")]);
        assert_eq!(registry.put_manifest("a", "v1", &manifest).await.status, 201, "{media_type}");
    }
}

async fn w276_w832_w560_w569_unknown_types_and_fields(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let mut manifest = image(&[]);
    manifest["config"]["mediaType"] = Value::from("application/vnd.example.thing+json");
    manifest["artifactType"] = Value::from("application/vnd.example.artifact");
    manifest["x-own"] = json!({ "a": [1, 2, { "b": null }] });
    let typed = descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", b"{}");
    manifest["layers"] = json!([typed]);
    manifest["layers"][0]["data"] = Value::from("e30=");
    manifest["subject"] = json!({ "mediaType": OCI_IMAGE, "digest": sha256(b"nowhere") });
    let answer = registry.put_manifest("a", "sha256-abc.sig", &manifest).await;
    assert_eq!(answer.status, 201);
    let answer = registry.get("/v2/a/manifests/sha256-abc.sig").send().await;
    assert_eq!(answer.body, manifest.to_string().as_bytes());
}

async fn w022_w279_w280_w537_w561_w864_an_index_may_come_before_its_children(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    registry.push_blob("a", b"cache layer").await;
    let child = image(&[]);
    let mut list = index(&[&child]);
    // A cache index lists layers, and attestations of an unknown platform.
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", b"cache layer");
    let mut attestation = descriptor(OCI_IMAGE, b"attestation");
    attestation["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    list["manifests"].as_array_mut().unwrap().extend([layer, attestation]);
    assert_eq!(registry.put_manifest("a", "v1", &list).await.status, 201);
    let digest = sha256(child.to_string().as_bytes());
    let target = format!("/v2/a/manifests/{digest}");
    assert_eq!(registry.status(&target).await, 404);
    assert_eq!(registry.put_manifest("a", &digest.to_string(), &child).await.status, 201);
    assert_eq!(registry.status(&target).await, 200);
    // The index holds both from now on.
    assert_eq!(registry.delete(&target).send().await.refusal(), (405, "UNSUPPORTED".into()));
    let blob = format!("/v2/a/blobs/{}", sha256(b"cache layer"));
    assert_eq!(registry.delete(&blob).send().await.refusal(), (405, "UNSUPPORTED".into()));
}

async fn w021_w325_a_repository_begins_with_its_first_content(registry: Registry) {
    let list = "/v2/a/tags/list";
    assert_eq!(registry.get(list).send().await.refusal(), (404, "NAME_UNKNOWN".into()));
    let digest = registry.push_image("a", "v1").await;
    assert_eq!(registry.get(list).send().await.json(), json!({ "name": "a", "tags": ["v1"] }));
    assert_eq!(registry.delete(&format!("/v2/a/manifests/{digest}")).send().await.status, 202);
    assert_eq!(registry.get(list).send().await.json(), json!({ "name": "a", "tags": [] }));
}

async fn w281_w282_w831_a_subject_may_be_missing_and_is_confirmed(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let subject = sha256(b"never pushed");
    let mut manifests = [image(&[]), index(&[])];
    for manifest in &mut manifests {
        manifest["subject"] = descriptor(OCI_IMAGE, b"never pushed");
        let digest = sha256(manifest.to_string().as_bytes()).to_string();
        for reference in ["v1", &digest, "v1"] {
            let answer = registry.put_manifest("a", reference, manifest).await;
            assert_eq!((answer.status, answer.header("oci-subject")), (201, &*subject.to_string()));
        }
    }
}

async fn w440_w442_w559_tags_come_with_a_push_by_digest(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let manifest = image(&[]).to_string();
    for digest in [sha256(manifest.as_bytes()), sha512(manifest.as_bytes())] {
        let put = |query: &str| {
            let target = format!("/v2/a/manifests/{digest}?{query}");
            registry.put(&target).header("content-type", OCI_IMAGE).body(&manifest).send()
        };
        let answer = put("tag=b&tag=a&tag=b").await;
        assert_eq!((answer.status, answer.header("oci-tag")), (201, "a, b"));
        for tag in ["a", "b"] {
            let answer = registry.head(&format!("/v2/a/manifests/{tag}")).send().await;
            assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        }
        assert_eq!(put("tag=c&tag=-").await.refusal(), (400, INVALID.into()));
        assert_eq!(registry.status("/v2/a/manifests/c").await, 404);
    }
}

async fn w443_a_tag_beside_a_tag_is_ignored(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let answer = registry.put_manifest("a", "v1?tag=v2", &image(&[])).await;
    assert_eq!((answer.status, answer.has("oci-tag")), (201, false));
    assert_eq!(registry.status("/v2/a/manifests/v2").await, 404);
}

async fn w284_a_hundred_pushes_of_one_tag(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    let manifest = |n: usize| {
        let mut manifest = image(&[]);
        manifest["annotations"] = json!({ "n": n.to_string() });
        manifest
    };
    assert_eq!(registry.put_manifest("a", "v1", &manifest(0)).await.status, 201);
    let pushes = join_all((1..=100).map(|n| {
        let registry = &registry;
        async move { registry.put_manifest("a", "v1", &manifest(n)).await.status }
    }));
    let reads = join_all((0..100).map(|_| async { registry.get("/v2/a/manifests/v1").send().await }));
    let (pushes, reads) = futures::join!(pushes, reads);
    assert_eq!(pushes, [201; 100]);
    for answer in reads {
        let read = answer.json();
        let n = read["annotations"]["n"].as_str().unwrap().parse().unwrap();
        assert_eq!((answer.status, read), (200, manifest(n)));
    }
}

async fn w530_a_child_that_is_known_can_be_skipped(registry: Registry) {
    let digest = registry.push_image("a", "child").await;
    assert_eq!(registry.head(&format!("/v2/a/manifests/{digest}")).send().await.status, 200);
    let child = registry.get("/v2/a/manifests/child").send().await.json();
    assert_eq!(registry.put_manifest("a", "list", &index(&[&child])).await.status, 201);
}

async fn w521_w568_a_child_that_is_missing_is_404(registry: Registry) {
    registry.push_image("a", "v1").await;
    let missing = sha256(b"missing");
    assert_eq!(registry.head(&format!("/v2/a/manifests/{missing}")).send().await.status, 404);
    assert_eq!(registry.head(&format!("/v2/a/blobs/{missing}")).send().await.status, 404);
}

async fn w722_w730_layers_are_bytes_and_their_urls_are_left_alone(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    registry.push_blob("a", b"no archive at all").await;
    let mut manifest = image(&[b"no archive at all"]);
    manifest["layers"][0]["mediaType"] = Value::from("application/vnd.oci.image.layer.v1.tar+gzip");
    manifest["layers"][0]["urls"] = json!(["http://127.0.0.1:1/never-asked"]);
    assert_eq!(registry.put_manifest("a", "v1", &manifest).await.status, 201);
}
