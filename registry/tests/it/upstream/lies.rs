// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What no real registry says.

use std::io::Write as _;

use stowage_oci::{Algorithm, Digest, Name, Reference};
use stowage_registry::upstream::{Begin, Error, Kind, Span, Upstream};

use super::servers::{Scripted, answer, impatient, settings};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

fn app() -> Name {
    "app".parse().unwrap()
}

fn tag() -> Reference {
    Reference::Tag("1".parse().unwrap())
}

async fn told(fields: &str, body: &'static str, reference: &Reference) -> Result<Digest, Error> {
    let fields = fields.to_owned();
    let server = Scripted::answering(move |_| answer(200, &fields, body));
    let upstream = Upstream::new(settings(&server.origin()));
    Ok(upstream.manifest(&app(), reference).await?.value.digest)
}

#[tokio::test]
async fn w799_a_manifest_with_another_digest_than_it_says_is_not_given_out() {
    let (right, wrong) =
        (Digest::of(Algorithm::Sha256, EMPTY.as_bytes()), Digest::of(Algorithm::Sha256, b""));
    let long = Digest::of(Algorithm::Sha512, EMPTY.as_bytes());
    let said = |digest: &str| format!("Content-Type: {INDEX}\r\nDocker-Content-Digest: {digest}\r\n");
    for good in [said(&right.to_string()), format!("Content-Type: {INDEX}\r\n")] {
        assert_eq!(told(&good, EMPTY, &tag()).await.unwrap(), right);
        assert_eq!(told(&good, EMPTY, &Reference::Digest(right)).await.unwrap(), right);
        assert_eq!(told(&good, EMPTY, &Reference::Digest(long)).await.unwrap(), long);
    }
    assert_eq!(told(&said(&long.to_string()), EMPTY, &tag()).await.unwrap(), long);
    for (fields, reference) in [
        (said(&wrong.to_string()), tag()),
        (said("sha256:abc"), tag()),
        (said("nothing"), tag()),
        (said(&wrong.to_string()), Reference::Digest(right)),
        (said(&right.to_string()), Reference::Digest(wrong)),
        (format!("Content-Type: {INDEX}\r\n"), Reference::Digest(wrong)),
    ] {
        let error = told(&fields, EMPTY, &reference).await.unwrap_err();
        assert_eq!(error.kind, Kind::WrongContent, "{error}");
    }
}

#[tokio::test]
async fn what_is_no_manifest_that_is_stored_is_not_given_out() {
    let prettyjws = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    for (media_type, body, why) in [
        (prettyjws, r#"{"schemaVersion":1,"name":"app"}"#, "schema 1"),
        ("application/json", r#"{"schemaVersion":1,"name":"app"}"#, "schema 1"),
        (INDEX, r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#, "layers"),
        (INDEX, "not JSON", "cannot be read"),
        ("application/vnd.example", EMPTY, "not supported"),
    ] {
        let error = told(&format!("Content-Type: {media_type}\r\n"), body, &tag()).await.unwrap_err();
        assert_eq!(error.kind, Kind::WrongContent, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_without_an_end_is_too_large() {
    let server = Scripted::doing(|_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {INDEX}\r\nTransfer-Encoding: chunked\r\n\r\n");
        drop(stream.write_all(head.as_bytes()));
        let piece = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
        while stream.write_all(&piece).is_ok() {}
    });
    let error = Upstream::new(settings(&server.origin())).manifest(&app(), &tag()).await.unwrap_err();
    assert_eq!(error.kind, Kind::TooLarge, "{error}");
    let declared = Scripted::answering(|_| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {INDEX}\r\nContent-Length: 4194305\r\n\r\n").into_bytes()
    });
    let error = Upstream::new(settings(&declared.origin())).manifest(&app(), &tag()).await.unwrap_err();
    assert_eq!(error.kind, Kind::TooLarge, "{error}");
}

#[tokio::test]
async fn a_page_for_people_is_not_what_a_registry_says_of_its_content() {
    for status in [200, 404] {
        let server = Scripted::answering(move |asked| {
            let body = if asked.line().starts_with("HEAD") { "" } else { "<html>nothing here</html>" };
            answer(status, "Content-Type: text/html; charset=utf-8\r\n", body)
        });
        let upstream = Upstream::new(settings(&server.origin()));
        let digest = Digest::of(Algorithm::Sha256, b"");
        let errors = [
            upstream.ping().await.unwrap_err(),
            upstream.manifest(&app(), &tag()).await.unwrap_err(),
            upstream.manifest_head(&app(), &tag()).await.unwrap_err(),
            upstream.blob(&app(), &digest, Span::default()).await.map(drop).unwrap_err(),
            upstream.blob_head(&app(), &digest).await.unwrap_err(),
            upstream.tags(&app(), Begin::First).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind, Kind::NotARegistry, "{status}: {error}");
        }
    }
}

#[tokio::test]
async fn w799_a_list_goes_on_at_the_same_registry_only() {
    let elsewhere = Scripted::answering(|_| answer(200, "", r#"{"tags":["stolen"]}"#));
    let other = format!("http://localhost:{}/v2/app/tags/list?n=1", elsewhere.port());
    for target in
        [elsewhere.origin(), other, "//hub.example.com/".to_owned(), "/v2/app/tags/list?n=1000".to_owned()]
    {
        let link = format!("Link: <{target}>; rel=\"next\"\r\n");
        let server = Scripted::answering(move |_| answer(200, &link, r#"{"name":"app","tags":["1"]}"#));
        let error = Upstream::new(settings(&server.origin())).tags(&app(), Begin::First).await.unwrap_err();
        assert_eq!(error.kind, Kind::WrongContent, "{target}: {error}");
    }
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn w399_a_list_of_referrers_that_goes_on_for_ever_is_too_large() {
    let next =
        |asked: &str| asked.rsplit('=').next().and_then(|at| at.parse().ok()).map_or(1, |at: u32| at + 1);
    let server = Scripted::answering(move |asked| {
        let link = format!("Link: </v2/app/referrers/x?at={}>; rel=\"next\"\r\n", next(asked.line()));
        answer(200, &format!("Content-Type: {INDEX}\r\n{link}"), EMPTY)
    });
    let subject = Digest::of(Algorithm::Sha256, b"subject");
    let upstream = Upstream::new(settings(&server.origin()));
    let error = upstream.referrers(&app(), &subject, None).await.unwrap_err();
    assert_eq!(error.kind, Kind::TooLarge, "{error}");
    assert_eq!(server.asked().len(), 1001);
}

#[tokio::test]
async fn what_is_no_name_in_a_list_is_counted_and_left_out() {
    let server = Scripted::answering(|asked| {
        let is_tags = asked.line().contains("tags");
        answer(200, "", if is_tags { r#"{"tags":["1","a b","..",""]}"# } else { r#"{"repositories":null}"# })
    });
    let upstream = Upstream::new(settings(&server.origin()));
    let tags = upstream.tags(&app(), Begin::First).await.unwrap().value;
    assert_eq!((tags.items.len(), tags.ignored, tags.next), (1, 3, None));
    assert!(upstream.catalog(Begin::First).await.unwrap().value.items.is_empty());
    let nonsense = Scripted::answering(|_| answer(200, "", "[]"));
    let error = Upstream::new(settings(&nonsense.origin())).tags(&app(), Begin::First).await.unwrap_err();
    assert_eq!(error.kind, Kind::WrongContent, "{error}");
}

#[tokio::test]
async fn w728_redirects_end_after_five() {
    let server = Scripted::answering(|asked| {
        let count: usize = asked.line().rsplit('/').next().unwrap().parse().unwrap_or(0);
        answer(302, &format!("Location: /again/{}\r\n", count + 1), "")
    });
    let error = Upstream::new(settings(&server.origin()))
        .manifest(&app(), &Reference::Tag("x".parse().unwrap()))
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::WrongContent, "{error}");
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn a_blob_that_comes_compressed_or_under_another_digest_is_refused() {
    let other = Digest::of(Algorithm::Sha256, b"other");
    for fields in ["Content-Encoding: gzip\r\n".to_owned(), format!("Docker-Content-Digest: {other}\r\n")] {
        let server = Scripted::answering(move |_| answer(200, &fields, "x"));
        let upstream = Upstream::new(impatient(&server.origin()));
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let error = upstream.blob(&app(), &digest, Span::default()).await.map(drop).unwrap_err();
        assert_eq!(error.kind, Kind::WrongContent, "{error}");
    }
}
