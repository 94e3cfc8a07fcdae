// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the S3 store says on the wire, and what it makes of the answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::TryStreamExt;
use stowage_oci::{Algorithm, Digest};
use stowage_registry::blobs::s3::{Credentials, S3, Settings};
use stowage_registry::blobs::{Error, MultipartId, Part, Read, Sweep, Write, conformance};
use stowage_registry::ops::tasks::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request that the service has got.
#[derive(Clone, Debug, Default)]
struct Heard {
    head: String,
    body: Vec<u8>,
}

impl Heard {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn request_line(&self) -> &str {
        self.head.lines().next().unwrap()
    }
}

/// A service that gives prepared answers, one to a connection.
struct Service {
    endpoint: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    ca: Option<Vec<u8>>,
}

impl Service {
    async fn start(answers: Vec<Vec<u8>>) -> Self {
        Self::start_with(answers, None).await
    }

    /// The service has a certificate that only it trusts itself.
    async fn start_with_tls(answers: Vec<Vec<u8>>) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let pem = made.cert.pem().into_bytes();
        Self { ca: Some(pem), ..Self::start_with(answers, Some(tls)).await }
    }

    async fn start_with(answers: Vec<Vec<u8>>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        Tasks::new().spawn(serve(listener, tls, answers.into(), Arc::clone(&heard)));
        Self { endpoint, heard, ca: None }
    }

    fn settings(&self) -> Settings {
        Settings {
            bucket: "bucket".to_owned(),
            prefix: "prefix".to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some(self.endpoint.clone()),
            force_path_style: true,
            credentials: Credentials::Static {
                access_key_id: "key".to_owned(),
                secret_access_key: "secret".to_owned(),
                session_token: Some("token".to_owned()),
            },
            ca: self.ca.clone(),
        }
    }

    async fn store(&self) -> S3 {
        S3::new(self.settings()).await.unwrap()
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    mut answers: VecDeque<Vec<u8>>,
    heard: Arc<Mutex<Vec<Heard>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        match &tls {
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    converse(stream, &mut answers, &heard).await;
                }
            }
            None => converse(stream, &mut answers, &heard).await,
        }
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    answers: &mut VecDeque<Vec<u8>>,
    heard: &Mutex<Vec<Heard>>,
) {
    let Some(request) = hear(&mut stream).await else { return };
    heard.lock().unwrap().push(request);
    let answer = answers.pop_front().unwrap_or_else(|| answer("410 Gone", "", "the script is over"));
    stream.write_all(&answer).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Heard> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await.unwrap() {
            0 => return None,
            length => bytes.extend_from_slice(&piece[..length]),
        }
    };
    let body = bytes.split_off(end + 4);
    let mut heard = Heard { head: String::from_utf8(bytes).unwrap(), body };
    let length: usize = heard.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut rest = vec![0; length - heard.body.len()];
    stream.read_exact(&mut rest).await.unwrap();
    heard.body.extend(rest);
    Some(heard)
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
        .into()
}

fn failure(status: &str, code: &str) -> Vec<u8> {
    answer(status, "", &format!("<Error><Code>{code}</Code><Message>m</Message></Error>"))
}

fn stored() -> Vec<u8> {
    answer("200 OK", "ETag: \"tag\"\r\n", "")
}

/// The beginning of the content from `from` on, of which `given` bytes arrive.
fn partial(content: &str, from: usize, given: usize) -> Vec<u8> {
    let (last, size) = (content.len() - 1, content.len());
    let length = size - from;
    let given = content.get(from..from + given).unwrap();
    let head = "Connection: close\r\n";
    let range = format!("Content-Range: bytes {from}-{last}/{size}\r\nContent-Length: {length}\r\n");
    format!("HTTP/1.1 206 Partial Content\r\n{head}{range}\r\n{given}").into()
}

fn segments() -> Vec<Bytes> {
    vec![
        Bytes::from_static(b"con"),
        Bytes::new(),
        Bytes::from(vec![b't'; 100_000]),
        Bytes::from_static(b"ent"),
    ]
}

async fn send_object_and_part(service: &Service) -> [Heard; 2] {
    sent_object_and_part(&service.store().await, service).await
}

/// What the service heard of them.
async fn sent_object_and_part(store: &S3, service: &Service) -> [Heard; 2] {
    let before = service.heard().len();
    store.put("v1/a", segments()).await.unwrap();
    let id = MultipartId("id".to_owned());
    let part = store.upload_part("v1/a", &id, 3, 0, segments()).await.unwrap();
    assert_eq!(part, Part { number: 3, size: 100_006, etag: "\"tag\"".to_owned() });
    service.heard().split_off(before).try_into().unwrap()
}

/// What the store must not send, because services refuse it or because it costs a second pass over the bytes.
fn assert_plain(heard: &Heard) {
    assert_eq!(heard.body, segments().concat());
    assert_eq!(heard.header("content-length"), Some("100006"), "{}", heard.head);
    assert_eq!(heard.header("x-amz-security-token"), Some("token"));
    let head = heard.head.to_lowercase();
    for unwanted in
        ["x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer", "aws-chunked", "transfer-encoding"]
    {
        assert!(!head.contains(unwanted), "{unwanted}: {head}");
    }
}

#[tokio::test]
async fn l_32_content_is_neither_hashed_nor_signed_over_tls() {
    let service = Service::start_with_tls(vec![stored(), stored()]).await;
    for heard in send_object_and_part(&service).await {
        assert_plain(&heard);
        assert_eq!(heard.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
    }
}

#[tokio::test]
async fn l_32_content_is_signed_where_nothing_else_protects_it() {
    let service = Service::start(vec![stored(), stored()]).await;
    let hash = Digest::of(Algorithm::Sha256, &segments().concat()).hex();
    for heard in send_object_and_part(&service).await {
        assert_plain(&heard);
        assert_eq!(heard.header("x-amz-content-sha256"), Some(hash.as_str()));
    }
}

/// The answers of a service that is asked whether it looks at checksums: of an object, then of one of parts.
fn explored(object: &[Vec<u8>], part: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let begun = "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>";
    let (begun, aborted) = (answer("200 OK", "", begun), answer("204 No Content", "", ""));
    [object, &[begun], part, &[aborted]].concat()
}

/// Those of one that does.
fn checks() -> [Vec<u8>; 2] {
    [failure("400 Bad Request", "BadDigest"), stored()]
}

/// The same of parts, of which an object is made.
fn checks_of_parts() -> Vec<Vec<u8>> {
    let made = "<CompleteMultipartUploadResult><ETag>tag</ETag></CompleteMultipartUploadResult>";
    [checks().to_vec(), vec![answer("200 OK", "", made)]].concat()
}

#[tokio::test]
async fn l_32_a_checksum_protects_content_where_the_service_looks_at_it() {
    let answers = [explored(&checks(), &checks_of_parts()), vec![stored(), stored()]].concat();
    let service = Service::start(answers).await;
    let store = service.store().await;
    store.explore("v1/probe").await.unwrap();
    assert_eq!(service.heard().len(), 7);
    for heard in sent_object_and_part(&store, &service).await {
        assert_eq!(heard.body, segments().concat());
        assert_eq!(heard.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
        // CRC-64/NVME of the content, by another implementation.
        assert_eq!(heard.header("x-amz-checksum-crc64nvme"), Some("qPsIal7jpTs="));
        assert!(heard.header("authorization").unwrap().contains("x-amz-checksum-crc64nvme"));
    }
}

#[tokio::test]
async fn l_32_content_is_signed_where_checksums_are_not_known_or_not_looked_at() {
    let unknown = [(); 2].map(|()| failure("501 Not Implemented", "NotImplemented"));
    let hash = Digest::of(Algorithm::Sha256, &segments().concat()).hex();
    for (case, answers) in [
        ("the header is not known", unknown.to_vec()),
        ("any object is taken", vec![stored()]),
        ("the header of parts is not known", explored(&checks(), &unknown)),
        ("any part is taken", explored(&checks(), &[stored()])),
        (
            "such parts make no object",
            explored(
                &checks(),
                &[checks().to_vec(), vec![failure("400 Bad Request", "InvalidPart")]].concat(),
            ),
        ),
    ] {
        let asked = answers.len();
        let service = Service::start([answers, vec![stored(), stored()]].concat()).await;
        let store = service.store().await;
        store.explore("v1/probe").await.unwrap();
        assert_eq!(service.heard().len(), asked, "{case}");
        for heard in sent_object_and_part(&store, &service).await {
            assert_plain(&heard);
            assert_eq!(heard.header("x-amz-content-sha256"), Some(hash.as_str()), "{case}");
        }
    }
    let away = Service::start(vec![failure("503 Slow Down", "SlowDown"); 3]).await;
    let explored = away.store().await.explore("v1/probe").await;
    assert!(matches!(explored, Err(Error::Unavailable { .. })), "{explored:?}");
    let tls = Service::start_with_tls(Vec::new()).await;
    tls.store().await.explore("v1/probe").await.unwrap();
    assert!(tls.heard().is_empty(), "the connection protects content already");
}

#[tokio::test]
async fn l_32_a_read_asks_for_no_checksum() {
    let service = Service::start(vec![answer("200 OK", "", "content")]).await;
    assert_eq!(conformance::read(&service.store().await, "v1/a").await, b"content");
    let heard = &service.heard()[0];
    assert!(heard.request_line().starts_with("GET /bucket/prefix/v1/a"), "{}", heard.head);
    assert_eq!(heard.header("x-amz-checksum-mode"), None);
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_not_trusted() {
    let service = Service::start_with_tls(vec![stored()]).await;
    let stranger = Service::start_with_tls(vec![]).await;
    let store = S3::new(Settings { ca: stranger.ca, ..service.settings() }).await.unwrap();
    assert!(matches!(store.put("v1/a", segments()).await, Err(Error::Unavailable { .. })));
    assert!(service.heard().is_empty());
}

#[tokio::test]
async fn settings_that_cannot_be_meant_are_refused() {
    let service = Service::start(vec![]).await;
    let with = |endpoint: &str, ca: &str| {
        let (endpoint, ca) = (Some(endpoint.to_owned()), Some(ca.as_bytes().to_vec()));
        S3::new(Settings { endpoint, ca, ..service.settings() })
    };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (endpoint, ca) in [("s3.example", ""), ("https://s3.example", ""), ("https://s3.example", broken)] {
        assert!(with(endpoint, ca).await.is_err(), "{endpoint} {ca}");
    }
}

#[tokio::test]
async fn a_broken_read_goes_on_where_it_broke() {
    let content = "0123456789";
    let begun = answer("200 OK", "", content);
    let begun = begun[..begun.len() - 6].to_vec();
    let service =
        Service::start(vec![begun, partial(content, 4, 0), partial(content, 4, 3), partial(content, 7, 3)]);
    let service = service.await;
    assert_eq!(conformance::read(&service.store().await, "v1/a").await, content.as_bytes());
    let ranges: Vec<_> =
        service.heard().iter().map(|heard| heard.header("range").map(str::to_owned)).collect();
    let range = |text: &str| Some(text.to_owned());
    assert_eq!(ranges, [None, range("bytes=4-9"), range("bytes=4-9"), range("bytes=7-9")]);
}

#[tokio::test]
async fn a_read_that_comes_no_further_ends_in_an_error() {
    let content = "0123456789";
    let answers =
        vec![partial(content, 2, 1), partial(content, 3, 0), partial(content, 3, 0), partial(content, 3, 0)];
    let service = Service::start(answers).await;
    let found = service.store().await.get("v1/a", Some(2..10)).await.unwrap().unwrap();
    assert_eq!((found.length, found.size), (8, 10));
    let read: Result<Vec<Bytes>, _> = found.stream.try_collect().await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    assert_eq!(service.heard().len(), 4);
}

#[tokio::test]
async fn a_service_that_ignores_a_range_is_not_believed() {
    let service = Service::start(vec![answer("200 OK", "", "0123456789")]).await;
    let read = service.store().await.get("v1/a", Some(2..4)).await.err();
    assert!(matches!(read, Some(Error::Refused { .. })), "{read:?}");
}

#[tokio::test]
async fn a_busy_service_is_asked_again_with_the_same_content() {
    let busy = || failure("503 Slow Down", "SlowDown");
    let service = Service::start(vec![busy(), busy(), stored()]).await;
    service.store().await.put("v1/a", segments()).await.unwrap();
    let heard = service.heard();
    assert_eq!(heard.len(), 3);
    heard.iter().for_each(assert_plain);
}

#[tokio::test]
async fn beginning_a_multipart_upload_is_tried_once() {
    let service = Service::start(vec![failure("503 Slow Down", "SlowDown")]).await;
    let begun = service.store().await.create_multipart("v1/a").await;
    assert!(matches!(begun, Err(Error::Unavailable { .. })));
    assert_eq!(service.heard().len(), 1);
}

#[tokio::test]
async fn answers_are_told_apart() {
    let part = |status: &'static str, code: &'static str| async move {
        let service = Service::start(vec![failure(status, code); 3]).await;
        let id = MultipartId("id".to_owned());
        service.store().await.upload_part("v1/a", &id, 1, 0, segments()).await.unwrap_err()
    };
    for (status, code) in
        [("507 Insufficient Storage", "XMinioStorageFull"), ("403 Forbidden", "QuotaExceeded")]
    {
        assert!(matches!(part(status, code).await, Error::Full { .. }), "{code}");
    }
    for (status, code) in [("403 Forbidden", "AccessDenied"), ("404 Not Found", "NoSuchBucket")] {
        assert!(matches!(part(status, code).await, Error::Refused { .. }), "{code}");
    }
    for (status, code) in [("500 Internal Server Error", "InternalError"), ("503 Slow Down", "SlowDown")] {
        assert!(matches!(part(status, code).await, Error::Unavailable { .. }), "{code}");
    }
    assert!(matches!(part("404 Not Found", "NoSuchUpload").await, Error::UnknownUpload { .. }));
}

#[tokio::test]
async fn an_error_in_an_answer_of_success_is_an_error() {
    let body = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
    let service = Service::start(vec![answer("200 OK", "", body); 3]).await;
    let part = Part { number: 1, size: 1, etag: "\"tag\"".to_owned() };
    let done = service.store().await.complete("v1/a", &MultipartId("id".to_owned()), &[part]).await;
    assert!(matches!(done, Err(Error::Unavailable { .. })), "{done:?}");
}

#[tokio::test]
async fn a_service_without_batch_deletes_is_asked_one_by_one() {
    let gone = || answer("204 No Content", "", "");
    let answers = vec![failure("501 Not Implemented", "NotImplemented"), gone(), gone(), gone(), gone()];
    let service = Service::start(answers).await;
    let store = service.store().await;
    let keys = ["v1/a".to_owned(), "v1/b".to_owned()];
    store.delete(&keys).await.unwrap();
    store.delete(&keys).await.unwrap();
    let heard = service.heard();
    let methods = heard.iter().map(|heard| heard.request_line().split(' ').next().unwrap());
    assert_eq!(methods.collect::<Vec<_>>(), ["POST", "DELETE", "DELETE", "DELETE", "DELETE"]);
}

#[tokio::test]
async fn a_service_that_is_away_is_unavailable() {
    let service = Service::start(vec![]).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = Some(format!("http://{nobody}"));
    let store = S3::new(Settings { endpoint, ..service.settings() }).await.unwrap();
    assert!(matches!(store.head("v1/a").await, Err(Error::Unavailable { .. })));
    assert!(matches!(store.put("v1/a", segments()).await, Err(Error::Unavailable { .. })));
}
