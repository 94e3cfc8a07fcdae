// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Paths and methods.

use super::registry::Registry;

super::both_stores!(
    w010_w843_names_of_any_depth_push_and_pull,
    w009_names_that_look_like_routes_push_and_pull,
    w006_w090_w804_w842_malformed_names_and_digests_are_refused,
    w007_w092_w546_a_tag_that_cannot_be_is_an_unknown_manifest,
    w013_w120_w884_nothing_but_the_endpoints_is_served_and_nothing_is_redirected,
    w017_a_wrong_method_is_told_the_right_ones,
    w019_extensions_are_no_names,
    w014_the_slash_after_uploads_may_be_missing,
    w012_a_colon_may_be_escaped,
    w110_w909_a_long_address_is_refused,
    w111_w798_w909_long_headers_are_refused,
    w446_w447_w522_a_repository_of_another_registry_is_not_ours,
);

async fn w010_w843_names_of_any_depth_push_and_pull(registry: Registry) {
    for depth in [1, 2, 3, 8, 30] {
        let name = vec!["a"; depth].join("/");
        let digest = registry.push_image(&name, "v1").await;
        let answer = registry.get(&format!("/v2/{name}/manifests/v1")).send().await;
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(registry.get(&format!("/v2/{name}/tags/list")).send().await.json()["name"], name);
    }
}

async fn w009_names_that_look_like_routes_push_and_pull(registry: Registry) {
    for name in ["a/blobs/uploads", "a/tags/list", "foo/manifests/bar", "v2", "a/referrers", "blobs"] {
        let digest = registry.push_image(name, "latest").await;
        assert_eq!(registry.status(&format!("/v2/{name}/manifests/{digest}")).await, 200, "{name}");
        let layer = super::registry::sha256(format!("layer of {name}:latest").as_bytes());
        assert_eq!(registry.status(&format!("/v2/{name}/blobs/{layer}")).await, 200, "{name}");
        assert_eq!(registry.status(&format!("/v2/{name}/referrers/{digest}")).await, 200, "{name}");
    }
}

async fn w006_w090_w804_w842_malformed_names_and_digests_are_refused(registry: Registry) {
    for name in ["A", "a//b", "a/..", "%2e%2e", "_catalog", "a_", &"a".repeat(256)] {
        for target in [format!("/v2/{name}/manifests/v1"), format!("/v2/{name}/tags/list")] {
            assert_eq!(
                registry.get(&target).send().await.refusal(),
                (400, "NAME_INVALID".into()),
                "{target}"
            );
        }
        let answer = registry.post(&format!("/v2/{name}/blobs/uploads/")).body("x").send().await;
        assert_eq!(answer.refusal(), (400, "NAME_INVALID".into()), "{name}");
    }
    for digest in ["sha256:baddigeststring", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        for target in [format!("/v2/a/manifests/{digest}"), format!("/v2/a/blobs/{digest}")] {
            let answer = registry.get(&target).send().await;
            assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".into()), "{target}");
            assert_eq!(registry.head(&target).send().await.status, 400);
            assert_eq!(registry.delete(&target).send().await.status, 400);
        }
    }
    for path in ["/v2/a%00/tags/list", "/v2/a%2Fb/tags/list"] {
        assert_eq!(registry.get(path).send().await.refusal(), (400, "NAME_INVALID".into()));
    }
}

async fn w007_w092_w546_a_tag_that_cannot_be_is_an_unknown_manifest(registry: Registry) {
    registry.push_image("a", "v1").await;
    let fallback = format!("sha512-{}", "0".repeat(128));
    for target in
        [format!("/v2/a/manifests/{fallback}"), "/v2/a/manifests/v2".into(), "/v2/b/manifests/v1".into()]
    {
        let unknown = (404, "MANIFEST_UNKNOWN".to_owned());
        assert_eq!(registry.get(&target).send().await.refusal(), unknown, "{target}");
        assert_eq!(registry.delete(&target).send().await.refusal(), unknown, "{target}");
        assert_eq!(registry.head(&target).send().await.status, 404);
    }
    let answer = registry.put(&format!("/v2/a/manifests/{fallback}")).body("{}").send().await;
    assert_eq!(answer.refusal(), (400, "MANIFEST_INVALID".into()));
}

async fn w013_w120_w884_nothing_but_the_endpoints_is_served_and_nothing_is_redirected(registry: Registry) {
    registry.push_image("a", "v1").await;
    for path in [
        "/v2//a/tags/list",
        "/v2/a//tags/list",
        "/v2/a/manifests/v1/",
        "/v2/a/../a/tags/list",
        "/v2/a/tags/list/",
    ] {
        let status = registry.status(path).await;
        assert!(status == 400 || status == 404, "{path}: {status}");
    }
    for path in ["/", "/metrics", "/livez", "/admin/v1", "/v3/"] {
        assert_eq!(registry.get(path).start().await.status(), 404, "{path}");
    }
    for path in ["/v2/a", "/v2/admin/gc", "/v2/metrics", "/v2/_gc"] {
        assert_eq!(registry.get(path).send().await.refusal(), (404, "UNSUPPORTED".into()), "{path}");
    }
}

async fn w017_a_wrong_method_is_told_the_right_ones(registry: Registry) {
    for method in ["OPTIONS", "POST", "TRACE"] {
        let answer = registry.ask(method.parse().unwrap(), "/v2/a/tags/list").send().await;
        assert_eq!((answer.refusal(), answer.header("allow")), ((405, "UNSUPPORTED".into()), "GET"));
    }
}

async fn w019_extensions_are_no_names(registry: Registry) {
    assert_eq!(registry.status("/v2/_catalog").await, 200);
    assert_eq!(registry.status("/v2/_catalog/tags/list").await, 400);
    assert_eq!(registry.status("/v2/a/_oci/tags/list").await, 400);
}

async fn w014_the_slash_after_uploads_may_be_missing(registry: Registry) {
    assert_eq!(registry.post("/v2/a/blobs/uploads").send().await.status, 202);
    assert_eq!(registry.status("/v2").await, 200);
    assert_eq!(registry.status("/v2/").await, 200);
}

async fn w012_a_colon_may_be_escaped(registry: Registry) {
    let digest = registry.push_blob("a", b"x").await.to_string();
    let escaped = digest.replace(':', "%3A");
    assert_eq!(registry.status(&format!("/v2/a/blobs/{escaped}")).await, 200);
    let answer = registry.post(&format!("/v2/a/blobs/uploads/?digest={escaped}")).body("x").send().await;
    assert_eq!(answer.status, 201);
}

async fn w110_w909_a_long_address_is_refused(registry: Registry) {
    let address = |length: usize| {
        let start = "/v2/?x=";
        format!("{start}{}", "a".repeat(length - start.len()))
    };
    assert_eq!(registry.status(&address(8192)).await, 200);
    assert_eq!(registry.get(&address(8193)).send().await.refusal(), (414, "UNSUPPORTED".into()));
}

async fn w111_w798_w909_long_headers_are_refused(registry: Registry) {
    // A name of four bytes, and the four that stand around every header.
    let answer = |length: usize| registry.get("/v2/").header("x-id", "a".repeat(length - 8)).send();
    assert_eq!(answer(16_384).await.status, 200);
    assert_eq!(answer(16_385).await.status, 431);
    let dots = registry.get("/v2/").header("authorization", ".".repeat(1_000_000));
    assert_eq!(dots.send().await.status, 431);
}

async fn w446_w447_w522_a_repository_of_another_registry_is_not_ours(registry: Registry) {
    registry.push_image("library/alpine", "latest").await;
    let site = stowage_registry::http::Site { hosts: vec!["registry.example.com".to_owned()] };
    let settings = stowage_registry::http::Settings { site, ..Default::default() };
    let registry = registry.reopened(stowage_registry::Registry::builder().settings(settings)).await;
    let path = "/v2/library/alpine/manifests/latest";
    assert_eq!(registry.status(&format!("{path}?ns=registry.example.com")).await, 200);
    let answer = registry.get(&format!("{path}?ns=docker.io")).send().await;
    assert_eq!(answer.refusal(), (404, "NAME_UNKNOWN".into()));
}
