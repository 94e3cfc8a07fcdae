// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Mounting.

use super::registry::{Registry, sha256, sha512};

super::both_stores!(
    w370_w556_w845_a_blob_is_mounted_without_its_bytes,
    w371_a_source_that_is_not_there_begins_an_upload,
    w372_w496_w557_without_a_source_any_repository_serves,
    w373_a_digest_that_cannot_be_is_refused,
    w374_a_mount_that_fails_is_the_push_it_also_is,
    w721_w724_naming_a_digest_gives_nothing,
);

async fn w370_w556_w845_a_blob_is_mounted_without_its_bytes(registry: Registry) {
    let digest = registry.push_blob("a", b"content").await;
    let answer = registry.post(&format!("/v2/b/c/blobs/uploads/?mount={digest}&from=a")).send().await;
    let location = format!("/v2/b/c/blobs/{digest}");
    assert_eq!((answer.status, answer.header("location")), (201, &*location));
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    assert_eq!(&registry.get(&location).send().await.body[..], b"content");
    // Again, and of itself.
    for from in ["a", "b/c"] {
        let again = registry.post(&format!("/v2/b/c/blobs/uploads/?mount={digest}&from={from}")).send().await;
        assert_eq!(again.status, 201);
    }
}

async fn w371_a_source_that_is_not_there_begins_an_upload(registry: Registry) {
    registry.push_blob("a", b"other").await;
    let digest = sha256(b"content");
    for from in ["a", "never", "NOT-A-NAME", "a%2F..%2Fb"] {
        let answer = registry.post(&format!("/v2/b/blobs/uploads/?mount={digest}&from={from}")).send().await;
        assert_eq!((answer.status, answer.header("range")), (202, "0-0"), "{from}");
        let upload = answer.header("location").to_owned();
        let answer = registry.put(&format!("{upload}?digest={digest}")).body("content").send().await;
        assert_eq!(answer.status, 201);
    }
}

async fn w372_w496_w557_without_a_source_any_repository_serves(registry: Registry) {
    let digest = registry.push_blob("a", b"content").await;
    let answer = registry.post(&format!("/v2/b/blobs/uploads/?mount={digest}")).send().await;
    assert_eq!((answer.status, answer.header("location")), (201, &*format!("/v2/b/blobs/{digest}")));
    let answer = registry.post(&format!("/v2/b/blobs/uploads/?mount={}", sha512(b"content"))).send().await;
    assert_eq!(answer.status, 202);
}

async fn w373_a_digest_that_cannot_be_is_refused(registry: Registry) {
    for digest in ["x", "sha256:x", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        let answer = registry.post(&format!("/v2/b/blobs/uploads/?mount={digest}&from=a")).send().await;
        assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".into()), "{digest}");
    }
}

async fn w374_a_mount_that_fails_is_the_push_it_also_is(registry: Registry) {
    let digest = sha256(b"content");
    let target = format!("/v2/b/blobs/uploads/?mount={digest}&from=a&digest={digest}");
    let answer = registry.post(&target).body("content").send().await;
    assert_eq!((answer.status, answer.header("location")), (201, &*format!("/v2/b/blobs/{digest}")));
    // Now the mount wins, whatever the digest beside it.
    let target = format!("/v2/c/blobs/uploads/?mount={digest}&from=b&digest={}", sha256(b"x"));
    assert_eq!(registry.post(&target).send().await.status, 201);
}

async fn w721_w724_naming_a_digest_gives_nothing(registry: Registry) {
    let digest = registry.push_blob("a", b"secret").await;
    registry.push_blob("b", b"{}").await;
    let manifest = super::registry::image(&[b"secret"]);
    assert_eq!(
        registry.put_manifest("b", "v1", &manifest).await.refusal(),
        (400, "MANIFEST_BLOB_UNKNOWN".into())
    );
    assert_eq!(registry.put_manifest("b", "v1", &super::registry::index(&[&manifest])).await.status, 201);
    assert_eq!(registry.status(&format!("/v2/b/blobs/{digest}")).await, 404);
}
