// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const UPLOAD: &str = "7d444840-9dc0-41d1-b245-5ffdce74fad2";

fn site() -> Site {
    Site { hosts: vec!["registry.example.com".to_owned(), "alias.example.com:5000".to_owned()] }
}

/// `GET /v2/a?n=1` to its meaning.
fn parse(request: &str) -> Result<Operation, Refusal> {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    operation(&site(), &Mirrors::default(), &method.parse().unwrap(), path, &Query::parse(query))
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn digest() -> Digest {
    format!("sha256:{HEX}").parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn repository_of(request: &str) -> String {
    parse(request).expect(request).repository().expect(request).to_string()
}

#[test]
fn w008_each_endpoint_is_recognised() {
    let (repository, upload) = (name("a/b"), UPLOAD.parse().unwrap());
    for (request, expected) in [
        ("GET /v2/", Operation::Ping),
        ("HEAD /v2", Operation::Ping),
        ("GET /v2/_catalog", Operation::Catalog { page: Page::default() }),
        ("GET /v2/_oci/ext/discover", Operation::Discover { repository: None }),
        ("GET /v2/a/b/_oci/ext/discover", Operation::Discover { repository: Some(repository.clone()) }),
        (
            "GET /v2/a/b/manifests/v1",
            Operation::GetManifest {
                repository: repository.clone(),
                reference: Reference::Tag(tag("v1")),
                head: false,
            },
        ),
        (
            &format!("HEAD /v2/a/b/blobs/sha256:{HEX}"),
            Operation::GetBlob { repository: repository.clone(), digest: digest(), head: true },
        ),
        (
            &format!("DELETE /v2/a/b/blobs/sha256:{HEX}"),
            Operation::DeleteBlob { repository: repository.clone(), digest: digest() },
        ),
        (
            &format!("DELETE /v2/a/b/manifests/sha256:{HEX}"),
            Operation::DeleteManifest {
                repository: repository.clone(),
                reference: Reference::Digest(digest()),
            },
        ),
        (
            &format!("PATCH /v2/a/b/blobs/uploads/{UPLOAD}"),
            Operation::Append { repository: repository.clone(), upload },
        ),
        (
            &format!("PUT /v2/a/b/blobs/uploads/{UPLOAD}?digest=sha256%3A{HEX}"),
            Operation::CloseUpload { repository: repository.clone(), upload, digest: digest() },
        ),
        (
            &format!("HEAD /v2/a/b/blobs/uploads/{UPLOAD}?digest=sha256:{HEX}"),
            Operation::UploadStatus { repository: repository.clone(), upload },
        ),
        (
            &format!("DELETE /v2/a/b/blobs/uploads/{UPLOAD}"),
            Operation::CancelUpload { repository: repository.clone(), upload },
        ),
        (
            "GET /v2/a/b/tags/list?n=5&last=x",
            Operation::ListTags { repository, page: Page { limit: Some(5), after: Some("x".to_owned()) } },
        ),
    ] {
        assert_eq!(parse(request), Ok(expected), "{request}");
    }
}

#[test]
fn w009_names_that_look_like_routes_are_names() {
    for repository in [
        "a/blobs/uploads",
        "a/tags/list",
        "foo/manifests/bar",
        "v2",
        "a/referrers",
        "blobs",
        "blobs/uploads",
        "manifests",
        "tags/list",
        "list",
        "uploads",
    ] {
        for request in [
            format!("GET /v2/{repository}/manifests/list"),
            format!("PUT /v2/{repository}/manifests/sha256:{HEX}"),
            format!("GET /v2/{repository}/blobs/sha256:{HEX}"),
            format!("POST /v2/{repository}/blobs/uploads/"),
            format!("POST /v2/{repository}/blobs/uploads"),
            format!("PATCH /v2/{repository}/blobs/uploads/{UPLOAD}"),
            format!("GET /v2/{repository}/tags/list"),
            format!("GET /v2/{repository}/referrers/sha256:{HEX}"),
            format!("GET /v2/{repository}/_oci/ext/discover"),
        ] {
            assert_eq!(repository_of(&request), repository, "{request}");
        }
    }
}

#[test]
fn w006_w804_w842_malformed_names_are_refused_on_every_method() {
    let long = "a".repeat(256);
    for bad in ["A", "a//b", "a/./b", "a/../b", "..", "_a", "a_", "-a", "a b", "_oci", "a\\b", &long] {
        for request in [
            format!("GET /v2/{bad}/manifests/v1"),
            format!("HEAD /v2/{bad}/manifests/sha256:{HEX}"),
            format!("PUT /v2/{bad}/manifests/v1"),
            format!("DELETE /v2/{bad}/blobs/sha256:{HEX}"),
            format!("POST /v2/{bad}/blobs/uploads/"),
            format!("PATCH /v2/{bad}/blobs/uploads/{UPLOAD}"),
            format!("GET /v2/{bad}/tags/list"),
            format!("GET /v2/{bad}/referrers/sha256:{HEX}"),
        ] {
            assert!(matches!(parse(&request), Err(Refusal::Name(_))), "{request}");
        }
    }
}

#[test]
fn w002_a_name_leaves_room_for_the_host() {
    let longest = "a".repeat(255 - "registry.example.com/".len());
    assert!(parse(&format!("GET /v2/{longest}/tags/list")).is_ok());
    assert_eq!(parse(&format!("GET /v2/{longest}a/tags/list")), Err(Refusal::Name(NameError::TooLong)));
}

#[test]
fn w006_malformed_digests_are_refused_on_every_method() {
    for bad in ["sha256:baddigeststring", "md5:abc", "abc", &format!("SHA256:{HEX}"), &HEX.to_uppercase()] {
        for request in [
            format!("GET /v2/a/blobs/{bad}"),
            format!("HEAD /v2/a/blobs/{bad}"),
            format!("DELETE /v2/a/blobs/{bad}"),
            format!("POST /v2/a/blobs/uploads/?digest={bad}"),
            format!("POST /v2/a/blobs/uploads/?mount={bad}&from=b"),
            format!("PUT /v2/a/blobs/uploads/{UPLOAD}?digest={bad}"),
            format!("PUT /v2/a/manifests/v1?digest={bad}"),
        ] {
            assert!(matches!(parse(&request), Err(Refusal::Digest(_))), "{request}");
        }
    }
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        for bad in ["sha256:baddigeststring", "md5:abc"] {
            let request = format!("{method} /v2/a/manifests/{bad}");
            assert!(matches!(parse(&request), Err(Refusal::Digest(_))), "{request}");
        }
    }
}

#[test]
fn w007_w900_a_malformed_tag_is_unknown_to_readers_and_invalid_to_writers() {
    let fallback = format!("sha512-{}", "a".repeat(128));
    for bad in [fallback.as_str(), "a+b", ".a", "-a"] {
        for method in ["GET", "HEAD", "DELETE"] {
            assert_eq!(parse(&format!("{method} /v2/a/manifests/{bad}")), Err(Refusal::ManifestUnknown));
        }
        assert_eq!(parse(&format!("PUT /v2/a/manifests/{bad}")), Err(Refusal::Tag(TagError)));
    }
}

#[test]
fn w011_segments_are_decoded_once_and_an_escape_never_separates() {
    assert_eq!(repository_of("GET /v2/%61/b%2dc/tags/list"), "a/b-c");
    assert!(matches!(parse(&format!("GET /v2/a/blobs/sha256%3A{HEX}")), Ok(Operation::GetBlob { .. })));
    for bad in [
        "a%2Fb",
        "a%2fb",
        "%2e%2e%2fa",
        "a%00",
        "a%25",
        "a%252f",
        "a%",
        "a%4",
        "a%zz",
        "a%c3%a4",
        "a%ff",
        "a%0a",
        "é",
    ] {
        for request in [format!("GET /v2/{bad}/tags/list"), format!("GET /v2/a/manifests/{bad}")] {
            assert_eq!(parse(&request), Err(Refusal::Escape), "{request}");
        }
    }
    assert!(matches!(parse("GET /v2/%2e%2e/tags/list"), Err(Refusal::Name(_))));
}

#[test]
fn w013_nothing_is_normalised() {
    for path in ["/v2//a/tags/list", "/v2/a//tags/list", "/v2/a/tags//list"] {
        assert!(parse(&format!("GET {path}")).is_err(), "{path}");
    }
    for path in [
        "/v2/a/manifests/v1/".to_owned(),
        "/v2/a/manifests/".to_owned(),
        format!("/v2/a/blobs/sha256:{HEX}/"),
        "/v2/a/tags/list/".to_owned(),
        "/v2/_catalog/".to_owned(),
        "/v2//".to_owned(),
        format!("/v2/a/blobs/uploads/{UPLOAD}/"),
    ] {
        assert_eq!(parse(&format!("GET {path}")), Err(Refusal::NoEndpoint), "{path}");
    }
}

#[test]
fn w014_the_slash_after_uploads_may_be_missing() {
    assert_eq!(parse("POST /v2/a/blobs/uploads"), parse("POST /v2/a/blobs/uploads/"));
    assert_eq!(parse("GET /v2"), parse("GET /v2/"));
}

#[test]
fn w015_unknown_parameters_are_ignored() {
    assert!(parse("POST /v2/a/blobs/uploads/?origin=x&account=y&_state=z&").is_ok());
    assert_eq!(parse("GET /v2/a/manifests/v1?foo=1&foo=2"), parse("GET /v2/a/manifests/v1"));
}

#[test]
fn w016_two_values_of_what_has_one_are_refused() {
    let other = "0".repeat(64);
    for (request, parameter) in [
        (format!("POST /v2/a/blobs/uploads/?digest=sha256:{HEX}&digest=sha256:{other}"), "digest"),
        (format!("POST /v2/a/blobs/uploads/?mount=sha256:{HEX}&mount=sha256:{other}"), "mount"),
        (format!("POST /v2/a/blobs/uploads/?mount=sha256:{HEX}&from=b&from=c"), "from"),
        ("GET /v2/a/tags/list?n=1&n=2".to_owned(), "n"),
        ("GET /v2/_catalog?last=1&last=2".to_owned(), "last"),
    ] {
        assert_eq!(parse(&request), Err(Refusal::TwoValues(parameter)), "{request}");
    }
    assert!(parse("GET /v2/a/tags/list?n=1&n=1").is_ok());
}

#[test]
fn w017_other_paths_and_methods_are_refused_with_what_is_allowed() {
    for path in [
        "/v2/a",
        "/v2/a/tags",
        "/v2/tags/list",
        "/v2/manifests/v1",
        "/v2/_catalog/x",
        "/v2/_foo",
        "/v2/a/x/y",
        "/v3/",
    ] {
        assert_eq!(parse(&format!("GET {path}")), Err(Refusal::NoEndpoint), "{path}");
    }
    for (request, allow) in [
        ("POST /v2/".to_owned(), "GET, HEAD"),
        ("OPTIONS /v2/a/tags/list".to_owned(), "GET"),
        ("HEAD /v2/_catalog".to_owned(), "GET"),
        ("GET /v2/a/blobs/uploads/".to_owned(), "POST"),
        ("GET /v2/a/blobs/uploads".to_owned(), "POST"),
        (format!("PUT /v2/a/blobs/sha256:{HEX}"), "GET, HEAD, DELETE"),
        ("PATCH /v2/a/manifests/v1".to_owned(), "GET, HEAD, PUT, DELETE"),
        (format!("OPTIONS /v2/a/blobs/uploads/{UPLOAD}"), "GET, HEAD, PATCH, PUT, DELETE"),
        (format!("DELETE /v2/a/referrers/sha256:{HEX}"), "GET"),
    ] {
        assert_eq!(parse(&request), Err(Refusal::Method { allow }), "{request}");
    }
}

#[test]
fn w094_what_is_no_upload_id_of_ours_is_an_unknown_upload() {
    for id in ["x", &UPLOAD.to_uppercase(), &UPLOAD.replace('-', ""), &format!("{{{UPLOAD}}}")] {
        let id = id.replace('{', "%7B").replace('}', "%7D");
        assert_eq!(parse(&format!("PATCH /v2/a/blobs/uploads/{id}")), Err(Refusal::UploadUnknown));
    }
}

#[test]
fn w099_closing_without_a_digest_is_refused() {
    for query in ["", "?digest=", "?digest"] {
        let request = format!("PUT /v2/a/blobs/uploads/{UPLOAD}{query}");
        assert_eq!(parse(&request), Err(Refusal::DigestMissing), "{request}");
    }
}

#[test]
fn w218_w444_an_upload_is_hashed_as_announced_but_a_mount_decides_for_itself() {
    let opening = |query: &str| match parse(&format!("POST /v2/a/blobs/uploads/{query}")) {
        Ok(Operation::OpenUpload { opening, .. }) => Ok(opening),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal),
    };
    let session = |algorithm| Opening::Session { algorithm };
    assert_eq!(opening(""), Ok(session(Algorithm::Sha256)));
    assert_eq!(opening("?digest-algorithm=sha512"), Ok(session(Algorithm::Sha512)));
    assert_eq!(opening("?digest-algorithm=md5"), Err(Refusal::Digest(DigestError::Unsupported)));
    let mount = |from, or| Ok(Opening::Mount { digest: digest(), from, or: Box::new(or) });
    assert_eq!(
        opening(&format!("?mount=sha256:{HEX}&digest-algorithm=sha512")),
        mount(MountSource::Any, session(Algorithm::Sha256))
    );
}

#[test]
fn w371_w374_a_mount_wins_and_what_it_falls_back_to_is_known() {
    let opening = |query: &str| match parse(&format!("POST /v2/a/blobs/uploads/{query}")) {
        Ok(Operation::OpenUpload { opening, .. }) => opening,
        other => panic!("{other:?}"),
    };
    let monolithic = Opening::Monolithic { digest: digest() };
    assert_eq!(opening(&format!("?digest=sha256:{HEX}")), monolithic);
    for (from, source) in [
        ("&from=b/c", MountSource::Repository(name("b/c"))),
        ("&from=b%2Fc", MountSource::Repository(name("b/c"))),
        ("&from=B", MountSource::Nowhere),
        ("&from=", MountSource::Any),
        ("", MountSource::Any),
    ] {
        assert_eq!(
            opening(&format!("?mount=sha256:{HEX}&digest=sha256:{HEX}{from}")),
            Opening::Mount { digest: digest(), from: source, or: Box::new(monolithic.clone()) },
            "{from}"
        );
    }
}

#[test]
fn w287_w440_w443_tags_go_with_a_digest_and_a_digest_with_a_tag() {
    let put = |target: &str| match parse(&format!("PUT /v2/a/manifests/{target}")) {
        Ok(Operation::PutManifest { digest, tags, .. }) => Ok((digest, tags)),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal),
    };
    assert_eq!(put(&format!("sha256:{HEX}?tag=a&tag=b")), Ok((None, vec![tag("a"), tag("b")])));
    assert_eq!(put(&format!("sha256:{HEX}")), Ok((None, vec![])));
    assert_eq!(put("v1?tag=a+b"), Ok((None, vec![])));
    assert_eq!(put(&format!("v1?digest=sha256:{HEX}")), Ok((Some(digest()), vec![])));
    assert_eq!(put(&format!("sha256:{HEX}?tag=a&tag=a+b")), Err(Refusal::Tag(TagError)));
}

#[test]
fn w110_w904_a_hundred_tags_are_taken_and_one_more_is_not() {
    let put = |count: usize| {
        let tags: Vec<String> = (0..count).map(|n| format!("tag=t{n}")).collect();
        parse(&format!("PUT /v2/a/manifests/sha256:{HEX}?{}", tags.join("&")))
    };
    assert!(matches!(put(100), Ok(Operation::PutManifest { tags, .. }) if tags.len() == 100));
    assert_eq!(put(101), Err(Refusal::TooManyTags));
}

#[test]
fn w321_w420_w771_a_page_is_a_whole_number_however_large() {
    let limit = |n: &str| match parse(&format!("GET /v2/a/tags/list?n={n}")) {
        Ok(Operation::ListTags { page, .. }) => Ok(page.limit),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal),
    };
    for (n, expected) in [("0", 0), ("10", 10), ("2147483648", 1 << 31), ("1000000000000000000", u32::MAX)] {
        assert_eq!(limit(n), Ok(Some(expected)), "{n}");
    }
    for n in ["-1", "x", "1.5", "", "+1", "1e3", "0x1"] {
        assert_eq!(limit(n), Err(Refusal::Parameter("n")), "{n}");
    }
    assert_eq!(parse("GET /v2/_catalog?last=%00"), Err(Refusal::Parameter("last")));
}

#[test]
fn w391_a_referrers_digest_of_an_unknown_algorithm_is_no_error() {
    let subject = |text: &str| match parse(&format!("GET /v2/a/referrers/{text}")) {
        Ok(Operation::ListReferrers { subject, .. }) => Ok(subject),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal),
    };
    assert_eq!(subject(&format!("sha256:{HEX}")), Ok(Some(digest())));
    assert_eq!(subject("blake3:abcdef"), Ok(None));
    assert_eq!(subject("sha256:abc"), Err(Refusal::Digest(DigestError::Malformed)));
    assert_eq!(subject("abc"), Err(Refusal::Digest(DigestError::Malformed)));
}

#[test]
fn w394_w907_up_to_twenty_types_filter_and_a_space_may_be_a_plus() {
    let types = |query: &str| match parse(&format!("GET /v2/a/referrers/sha256:{HEX}?{query}")) {
        Ok(Operation::ListReferrers { artifact_types, .. }) => Ok(artifact_types),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal),
    };
    assert_eq!(types("artifactType=a%2Bjson&artifactType=b"), Ok(vec!["a+json".into(), "b".into()]));
    assert_eq!(types("artifactType=a+json"), Ok(vec!["a json".into(), "a+json".into()]));
    assert_eq!(types("artifactType=&digest=x"), Ok(vec![]));
    let many = |count: usize| types(&vec!["artifactType=a"; count].join("&"));
    assert!(many(20).is_ok());
    assert_eq!(many(21), Err(Refusal::TooManyArtifactTypes));
}

#[test]
fn w446_w447_only_our_own_names_are_answered_for() {
    for own in ["registry.example.com", "Registry.Example.com", "alias.example.com:5000"] {
        assert!(parse(&format!("GET /v2/a/manifests/v1?ns={own}")).is_ok(), "{own}");
    }
    for other in ["docker.io", "alias.example.com", "registry.example.com:443"] {
        for request in ["GET /v2/a/manifests/v1", "POST /v2/a/blobs/uploads/", "GET /v2/a/tags/list"] {
            assert_eq!(parse(&format!("{request}?ns={other}")), Err(Refusal::OtherRegistry), "{other}");
        }
    }
}
