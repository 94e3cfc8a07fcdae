// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Sequences of requests as clients and the conformance suite send them.

use std::borrow::Borrow;

use serde_json::{Value, json};

use super::registry::{OCI_IMAGE, Registry, descriptor, image, index, sha256, sha512};

super::both_stores!(
    w498_every_kind_of_artifact_lives_and_dies,
    w525_w520_containerd_pushes_with_one_put,
    w532_w533_docker_pushes_with_one_stream,
    w540_w542_containers_image_pushes_and_deletes,
    w555_w556_oras_pushes_after_a_post,
    w557_regclient_mounts_then_sends_chunks,
    w490_sha512_is_never_announced,
);

/// One data set: what is pushed and what it is called.
struct Artifact {
    blobs: Vec<Vec<u8>>,
    manifests: Vec<Value>,
    tag: &'static str,
}

fn artifact(tag: &'static str, blobs: &[&[u8]], manifests: Vec<Value>) -> Artifact {
    Artifact { blobs: blobs.iter().map(|blob| blob.to_vec()).collect(), manifests, tag }
}

fn with(mut manifest: Value, more: impl Borrow<Value>) -> Value {
    manifest.as_object_mut().unwrap().extend(more.borrow().as_object().unwrap().clone());
    manifest
}

/// The data sets of the conformance suite.
fn artifacts() -> Vec<Artifact> {
    let one = image(&[b"one"]);
    let two = image(&[b"two"]);
    let list = index(&[&one, &two]);
    let subject = |of: &Value| json!({ "subject": descriptor(OCI_IMAGE, of.to_string().as_bytes()) });
    let typed = json!({ "artifactType": "application/vnd.example.thing" });
    let large = json!({ "annotations": { "large": "x".repeat(3_900_000) } });
    let elsewhere = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar", b"elsewhere");
    let inline = with(descriptor("application/octet-stream", b"inline"), json!({ "data": "aW5saW5l" }));
    let no_layers = {
        let mut manifest = with(image(&[]), &typed);
        manifest.as_object_mut().unwrap().remove("layers");
        manifest
    };
    vec![
        artifact("image", &[b"{}", b"one"], vec![one.clone()]),
        artifact("large", &[b"{}", b"one"], vec![with(one.clone(), large)]),
        artifact("index", &[b"{}", b"one", b"two"], vec![one.clone(), two.clone(), list.clone()]),
        artifact(
            "nested",
            &[b"{}", b"one", b"two"],
            vec![one.clone(), two.clone(), list.clone(), index(&[&list, &one])],
        ),
        artifact("empty-index", &[], vec![index(&[])]),
        artifact("artifact", &[b"{}", b"thing"], vec![with(image(&[b"thing"]), &typed)]),
        artifact("artifact-index", &[b"{}", b"one"], vec![one.clone(), with(index(&[&one]), &typed)]),
        artifact("without-layers", &[b"{}"], vec![with(image(&[]), &typed)]),
        artifact("no-layers", &[b"{}"], vec![no_layers]),
        artifact(
            "with-subject",
            &[b"{}", b"one"],
            vec![one.clone(), with(with(image(&[]), &typed), subject(&one))],
        ),
        artifact(
            "index-with-subject",
            &[b"{}", b"one"],
            vec![one.clone(), with(index(&[&one]), subject(&one))],
        ),
        artifact("missing-subject", &[b"{}"], vec![with(image(&[]), subject(&json!("never pushed")))]),
        artifact("data", &[b"{}", b"inline"], vec![with(image(&[]), json!({ "layers": [inline] }))]),
        artifact("non-distributable", &[b"{}"], vec![with(image(&[]), json!({ "layers": [elsewhere] }))]),
        artifact(
            "custom",
            &[b"{}"],
            vec![with(image(&[]), json!({ "org.example": { "a": [1, null, "x"] } }))],
        ),
    ]
}

async fn push_blob(registry: &Registry, form: usize, content: &[u8]) {
    let digest = sha256(content);
    let uploads = "/v2/conformance/blobs/uploads/";
    let status = match form % 3 {
        0 => registry.post(&format!("{uploads}?digest={digest}")).body(content).send().await.status,
        1 => {
            let upload = registry.open_upload("conformance").await;
            registry.put(&format!("{upload}?digest={digest}")).body(content).send().await.status
        }
        _ => {
            let upload = registry.open_upload("conformance").await;
            let answer = registry.patch(&upload).chunked(content).send().await;
            let upload = answer.header("location").to_owned();
            registry.put(&format!("{upload}?digest={digest}")).send().await.status
        }
    };
    assert_eq!(status, 201);
}

async fn w498_every_kind_of_artifact_lives_and_dies(registry: Registry) {
    for artifact in artifacts() {
        live_and_die(&registry, &artifact).await;
    }
    let list = registry.get("/v2/conformance/tags/list").send().await.json();
    assert_eq!(list["tags"], json!([]));
}

async fn live_and_die(registry: &Registry, artifact: &Artifact) {
    let path = |reference: &str| format!("/v2/conformance/manifests/{reference}");
    for (form, blob) in artifact.blobs.iter().enumerate() {
        push_blob(registry, form, blob).await;
    }
    let digests: Vec<String> = artifact
        .manifests
        .iter()
        .map(|manifest| sha256(manifest.to_string().as_bytes()).to_string())
        .collect();
    for (manifest, digest) in artifact.manifests.iter().zip(&digests) {
        let answer = registry.put_manifest("conformance", digest, manifest).await;
        assert_eq!((answer.status, answer.header("location")), (201, &*path(digest)), "{}", artifact.tag);
        assert_eq!(answer.has("oci-subject"), manifest.get("subject").is_some());
    }
    let last = artifact.manifests.last().unwrap();
    assert_eq!(registry.put_manifest("conformance", artifact.tag, last).await.status, 201);
    let list = registry.get("/v2/conformance/tags/list").send().await.json();
    assert_eq!(list["tags"], json!([artifact.tag]));
    for (manifest, digest) in artifact.manifests.iter().zip(&digests) {
        assert_eq!(registry.head(&path(digest)).send().await.status, 200);
        let answer = registry.get(&path(digest)).send().await;
        assert!(answer.body == manifest.to_string());
        assert_eq!(answer.header("content-type"), manifest["mediaType"].as_str().unwrap());
        check_referrer(registry, manifest, digest).await;
    }
    die(registry, artifact, &digests).await;
}

async fn check_referrer(registry: &Registry, manifest: &Value, digest: &str) {
    let Some(subject) = manifest.get("subject") else { return };
    let target = format!("/v2/conformance/referrers/{}", subject["digest"].as_str().unwrap());
    let list = registry.get(&target).send().await.json();
    let listed = list["manifests"].as_array().unwrap();
    assert!(listed.iter().any(|referrer| referrer["digest"] == digest), "{list}");
    if let Some(artifact_type) = manifest.get("artifactType") {
        let filtered = format!("{target}?artifactType={}", artifact_type.as_str().unwrap());
        let list = registry.get(&filtered).send().await.json();
        assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
        let none = registry.get(&format!("{target}?artifactType=none")).send().await.json();
        assert_eq!(none["manifests"], json!([]));
    }
}

async fn die(registry: &Registry, artifact: &Artifact, digests: &[String]) {
    let tag = format!("/v2/conformance/manifests/{}", artifact.tag);
    let manifests = digests.iter().rev().map(|digest| format!("/v2/conformance/manifests/{digest}"));
    let blobs = artifact.blobs.iter().map(|blob| format!("/v2/conformance/blobs/{}", sha256(blob)));
    for target in std::iter::once(tag).chain(manifests).chain(blobs) {
        assert_eq!(registry.delete(&target).send().await.status, 202, "{target}");
        assert_eq!(registry.status(&target).await, 404, "{target}");
    }
}

async fn w525_w520_containerd_pushes_with_one_put(registry: Registry) {
    for content in [&b"{}"[..], b"layer"] {
        let digest = sha256(content);
        let target = format!("/v2/a/blobs/{digest}");
        assert_eq!(registry.head(&target).send().await.status, 404);
        let upload = registry.open_upload("a").await;
        let put = registry.put(&format!("{upload}?digest={digest}"));
        let answer = put.header("content-type", "application/octet-stream").chunked(content).send().await;
        assert_eq!((answer.status, answer.header("docker-content-digest")), (201, &*digest.to_string()));
    }
    assert_eq!(registry.head("/v2/a/manifests/v1").send().await.status, 404);
    assert_eq!(registry.put_manifest("a", "v1", &image(&[b"layer"])).await.status, 201);
    let head = registry.head("/v2/a/manifests/v1").send().await;
    let _digest_type_and_length =
        (head.header("docker-content-digest"), head.header("content-type"), head.header("content-length"));
}

async fn w532_w533_docker_pushes_with_one_stream(registry: Registry) {
    for content in [&b"{}"[..], b"layer"] {
        let digest = sha256(content);
        let post = registry.post(&format!("/v2/a/blobs/uploads/?from=base&mount={digest}")).send().await;
        assert_eq!(post.status, 202);
        let patch = registry.patch(post.header("location")).chunked(content).send().await;
        let (first, last) = patch.header("range").split_once('-').unwrap();
        assert_eq!((first, last.parse::<usize>().unwrap()), ("0", content.len() - 1));
        let put = registry.put(&format!("{}?digest={digest}", patch.header("location"))).send().await;
        assert_eq!(put.status, 201);
        let head = registry.head(&format!("/v2/a/blobs/{digest}")).send().await;
        assert_eq!((head.status, head.header("content-length")), (200, &*content.len().to_string()));
    }
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = with(image(&[b"layer"]), json!({ "mediaType": docker }));
    let answer = registry.put_manifest("a", "v1", &manifest).await;
    let digest = sha256(manifest.to_string().as_bytes()).to_string();
    assert_eq!((answer.status, answer.header("docker-content-digest")), (201, &*digest));
    assert_eq!(registry.get("/v2/a/manifests/v1").send().await.header("content-type"), docker);
}

async fn w540_w542_containers_image_pushes_and_deletes(registry: Registry) {
    assert_eq!(registry.status("/v2/").await, 200);
    let digest = sha256(b"{}");
    assert_eq!(registry.head(&format!("/v2/a/blobs/{digest}")).send().await.status, 404);
    let post = registry.post("/v2/a/blobs/uploads/").send().await;
    let patch = registry.patch(post.header("location")).chunked("{}").send().await;
    assert_eq!(patch.status, 202);
    let put = registry.put(&format!("{}?digest={digest}", patch.header("location"))).send().await;
    assert_eq!(put.status, 201);
    assert_eq!(registry.put_manifest("a", "v1", &image(&[])).await.status, 201);
    let get = registry.get("/v2/a/manifests/v1").send().await;
    let target = format!("/v2/a/manifests/{}", get.header("docker-content-digest"));
    assert_eq!(registry.delete(&target).send().await.status, 202);
}

async fn w555_w556_oras_pushes_after_a_post(registry: Registry) {
    let digest = sha256(b"{}");
    let post = registry.post("/v2/a/blobs/uploads/").send().await;
    let put = registry.put(&format!("{}?digest={digest}", post.header("location"))).body("{}").send().await;
    assert_eq!(put.status, 201);
    let zeros = format!("/v2/a/referrers/sha256:{}", "0".repeat(64));
    assert_eq!(registry.status(&zeros).await, 200);
    let get = registry.get(&format!("/v2/a/blobs/{digest}")).send().await;
    assert_eq!(get.header("accept-ranges"), "bytes");
}

async fn w557_regclient_mounts_then_sends_chunks(registry: Registry) {
    let digest = sha256(b"0123456789");
    let post = registry.post(&format!("/v2/a/blobs/uploads/?mount={digest}")).send().await;
    assert_eq!(post.status, 202);
    let upload = post.header("location").to_owned();
    let patch = |range: &str, body: &'static str| {
        registry.patch(&upload).header("content-range", range).body(body).send()
    };
    assert_eq!(patch("0-4", "01234").await.status, 202);
    // It repeats a chunk, and goes on where it is told.
    let again = patch("0-4", "01234").await;
    assert_eq!((again.status, again.header("range"), again.header("location")), (416, "0-4", &*upload));
    assert_eq!(patch("5-9", "56789").await.status, 202);
    let put = registry.put(&format!("{upload}?digest={digest}")).header("content-range", "10-10");
    assert_eq!(put.send().await.status, 201);
}

async fn w490_sha512_is_never_announced(registry: Registry) {
    let digest = sha512(b"content");
    let upload = registry.open_upload("a").await;
    assert_eq!(registry.patch(&upload).chunked("content").send().await.status, 202);
    let put = registry.put(&format!("{upload}?digest={digest}")).send().await;
    assert_eq!((put.status, put.header("docker-content-digest")), (201, &*digest.to_string()));
}
