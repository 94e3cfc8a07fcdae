// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Headers. What holds for every answer is checked with every request of every test.

use super::registry::{OCI_IMAGE, Registry, image};

super::both_stores!(
    w040_w041_w045_w048_w054_w056_w784_what_every_answer_has_and_has_not,
    w049_w050_w495_addresses_are_paths_of_the_repository_as_named,
    w042_w043_w171_w520_a_head_says_what_a_get_would_say,
    w044_w057_w170_the_stored_type_is_answered_whatever_is_accepted,
    w046_what_the_client_has_is_not_sent_again,
    w047_what_may_change_is_asked_for_again,
    w055_the_digest_is_over_the_bytes_as_they_come,
    w058_nothing_of_the_hosts_named_is_copied,
    w056_a_plain_request_id_is_taken_over,
    w122_w123_w538_the_ping_of_an_open_registry,
);

async fn w040_w041_w045_w048_w054_w056_w784_what_every_answer_has_and_has_not(registry: Registry) {
    for target in ["/v2/", "/v2/a/tags/list", "/v2/A/tags/list", "/token"] {
        let answer = registry
            .get(target)
            .header("accept-encoding", "gzip, br, zstd")
            .header("origin", "https://evil.example")
            .send()
            .await;
        // The rest is checked by `send`.
        assert!(!answer.has("vary"), "{answer:?}");
    }
    let first = registry.get("/v2/").send().await;
    let second = registry.get("/v2/").send().await;
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

async fn w056_a_plain_request_id_is_taken_over(registry: Registry) {
    let echoed = async |id: &str| {
        let answer = registry.get("/v2/").header("x-request-id", id).send().await;
        answer.header("x-request-id").to_owned()
    };
    assert_eq!(echoed("abc-123").await, "abc-123");
    for other in ["a b", "", "<script>", &"a".repeat(129)] {
        assert_ne!(echoed(other).await, other);
    }
}

async fn w049_w050_w495_addresses_are_paths_of_the_repository_as_named(registry: Registry) {
    let target = "/v2/a/b/blobs/uploads/?digest-algorithm=sha256&origin=x";
    let answer = registry.post(target).header("host", "evil.example").send().await;
    assert!(answer.header("location").starts_with("/v2/a/b/blobs/uploads/"));
    assert!(!answer.header("location").contains('?'));
}

async fn w042_w043_w171_w520_a_head_says_what_a_get_would_say(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    let config = registry.push_blob("a", b"{}").await;
    let empty = registry.push_blob("a", b"").await;
    for target in [
        "/v2/a/manifests/v1".to_owned(),
        format!("/v2/a/manifests/{digest}"),
        format!("/v2/a/blobs/{config}"),
        format!("/v2/a/blobs/{empty}"),
        "/v2/a/manifests/unknown".to_owned(),
    ] {
        let (get, head) = (registry.get(&target).send().await, registry.head(&target).send().await);
        assert_eq!(get.status, head.status, "{target}");
        let mut expected = get.headers.clone();
        expected.insert("x-request-id", head.headers["x-request-id"].clone());
        assert_eq!(head.headers, expected, "{target}");
        assert_eq!(head.header("content-length"), get.body.len().to_string());
    }
    let head = registry.head("/v2/a/manifests/v1").send().await;
    assert_eq!(head.header("docker-content-digest"), digest.to_string());
    assert_eq!(head.header("content-type"), OCI_IMAGE);
}

async fn w044_w057_w170_the_stored_type_is_answered_whatever_is_accepted(registry: Registry) {
    registry.push_blob("a", b"{}").await;
    // White space and field order are part of the content.
    let manifest = image(&[]).to_string().replace("\"config\"", " \n \"config\"");
    let target = "/v2/a/manifests/v1";
    let typed = format!("{OCI_IMAGE}; charset=utf-8");
    assert_eq!(registry.put(target).header("content-type", typed).body(&manifest).send().await.status, 201);
    for accept in ["*/*", "application/vnd.docker.distribution.manifest.v2+json", "text/plain", ""] {
        let answer = registry.get(target).header("accept", accept).send().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, OCI_IMAGE), "{accept}");
        assert_eq!(answer.body, manifest.as_bytes());
    }
}

async fn w046_what_the_client_has_is_not_sent_again(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    let blob = registry.push_blob("a", b"{}").await;
    for (target, digest) in [
        ("/v2/a/manifests/v1".to_owned(), digest),
        (format!("/v2/a/manifests/{digest}"), digest),
        (format!("/v2/a/blobs/{blob}"), blob),
    ] {
        let etag = registry.get(&target).send().await.header("etag").to_owned();
        assert_eq!(etag, format!("\"{digest}\""));
        for value in [etag.as_str(), "*"] {
            let answer = registry.get(&target).header("if-none-match", value).send().await;
            assert_eq!(answer.status, 304, "{target}");
            assert_eq!(answer.header("docker-content-digest"), digest.to_string());
            assert_eq!(registry.head(&target).header("if-none-match", value).send().await.status, 304);
        }
        let other = registry.get(&target).header("if-none-match", "\"sha256:0\"").send().await;
        assert_eq!(other.status, 200);
    }
}

async fn w047_what_may_change_is_asked_for_again(registry: Registry) {
    let digest = registry.push_image("a", "v1").await;
    let immutable = "private, max-age=31536000, immutable";
    for (target, expected) in [
        (format!("/v2/a/manifests/{digest}"), immutable),
        (format!("/v2/a/blobs/{}", registry.push_blob("a", b"{}").await), immutable),
        ("/v2/a/manifests/v1".to_owned(), "no-cache"),
        ("/v2/a/tags/list".to_owned(), "no-cache"),
        ("/v2/_catalog".to_owned(), "no-cache"),
        (format!("/v2/a/referrers/{digest}"), "no-cache"),
        (registry.open_upload("a").await, "no-cache"),
        ("/v2/a/manifests/v2".to_owned(), "no-store"),
    ] {
        assert_eq!(registry.get(&target).send().await.header("cache-control"), expected, "{target}");
    }
}

async fn w055_the_digest_is_over_the_bytes_as_they_come(registry: Registry) {
    let digest = super::registry::sha256(b"not gzip");
    let target = format!("/v2/a/blobs/uploads/?digest={digest}");
    let answer = registry.post(&target).header("content-encoding", "gzip").body("not gzip").send().await;
    assert_eq!(answer.status, 201);
}

async fn w058_nothing_of_the_hosts_named_is_copied(registry: Registry) {
    for target in ["/v2/", "/v2/a/tags/list", "/token?scope=repository:a:pull"] {
        let answer = registry
            .get(target)
            .header("host", "evil.example")
            .header("x-forwarded-host", "evil.example")
            .header("x-forwarded-proto", "https")
            .send()
            .await;
        let text = format!("{:?}{:?}", answer.headers, answer.body);
        assert!(!text.contains("evil.example"), "{text}");
    }
}

async fn w122_w123_w538_the_ping_of_an_open_registry(registry: Registry) {
    for credential in [None, Some("Basic Og=="), Some("Basic YTpi"), Some("Bearer x")] {
        let ask = registry.get("/v2/");
        let ask = match credential {
            Some(credential) => ask.header("authorization", credential),
            None => ask,
        };
        let answer = ask.send().await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        assert_eq!(&answer.body[..], b"{}");
    }
    assert_eq!(registry.head("/v2/").send().await.status, 200);
}
