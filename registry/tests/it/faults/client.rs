// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A client that pushes and pulls over a connection of its own for each request, and keeps what it was told.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};
use tokio::net::TcpStream;

pub(super) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const MIB: usize = 1 << 20;

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The connection ended before the answer did.
#[derive(Debug)]
pub(super) struct Broken;

/// The pieces of a body.
pub(super) type Pieces = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// A body: what comes, and how long it is if that is announced.
pub(super) struct Content {
    pub(super) length: Option<u64>,
    pub(super) pieces: Pieces,
}

impl Content {
    pub(super) fn none() -> Self {
        Self::of(&[])
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        let pieces: Vec<_> = bytes.chunks(64 << 10).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Self { length: Some(bytes.len() as u64), pieces: stream::iter(pieces).boxed() }
    }

    /// Announces `length` and breaks the connection after `bytes`.
    pub(super) fn broken(bytes: &[u8], length: u64) -> Self {
        let broken = stream::once(async { Err(std::io::Error::other("the client goes away")) });
        Self { length: Some(length), pieces: Self::of(bytes).pieces.chain(broken).boxed() }
    }
}

/// Asks one server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) host: String,
}

impl Client {
    pub(super) async fn ask(&self, method: Method, target: &str) -> Result<Answer, Broken> {
        self.send(method, target, &[], Content::none()).await
    }

    pub(super) async fn get(&self, target: &str) -> Answer {
        self.ask(Method::GET, target).await.expect("the replica answers")
    }

    pub(super) async fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        content: Content,
    ) -> Result<Answer, Broken> {
        let mut request = Request::builder().method(method).uri(target).header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(length) = content.length {
            request = request.header("content-length", length);
        }
        let body = StreamBody::new(content.pieces.map(|piece| piece.map(Frame::data)));
        let request = request.body(body).unwrap();
        let socket = TcpStream::connect(&self.host).await.map_err(|_refused| Broken)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = handshake.map_err(|_closed| Broken)?;
        let answer = async move {
            let (head, body) = sender.send_request(request).await.map_err(|_broken| Broken)?.into_parts();
            let body = body.collect().await.map_err(|_broken| Broken)?.to_bytes();
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        let (answer, _) = futures::join!(answer, connection);
        answer
    }

    /// Reads a blob that is `piece` again and again, and keeps nothing of it; its length.
    pub(super) async fn pull(&self, target: &str, piece: &[u8]) -> Result<usize, Broken> {
        let request = Request::get(target).header("host", &self.host).body(Empty::<Bytes>::new()).unwrap();
        let socket = TcpStream::connect(&self.host).await.map_err(|_refused| Broken)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = handshake.map_err(|_closed| Broken)?;
        let read = async move {
            let mut body = sender.send_request(request).await.map_err(|_broken| Broken)?.into_body();
            let mut length = 0;
            while let Some(frame) = body.frame().await {
                let data = frame.map_err(|_broken| Broken)?.into_data().unwrap_or_default();
                let mut rest = &data[..];
                while !rest.is_empty() {
                    let expected = &piece[length % piece.len()..];
                    let (now, later) = rest.split_at(rest.len().min(expected.len()));
                    assert!(now == &expected[..now.len()], "at {length}");
                    (length, rest) = (length + now.len(), later);
                }
            }
            Ok(length)
        };
        let (length, _) = futures::join!(read, connection);
        length
    }

    /// Opens an upload; its path.
    pub(super) async fn open_upload(&self, repository: &str) -> Result<String, Failed> {
        let target = format!("/v2/{repository}/blobs/uploads/");
        let answer = expect("open", 202, self.ask(Method::POST, &target).await)?;
        Ok(answer.header("location").to_owned())
    }

    pub(super) async fn patch(&self, upload: &str, content: &[u8]) -> Result<Answer, Failed> {
        expect("patch", 202, self.send(Method::PATCH, upload, &[], Content::of(content)).await)
    }

    pub(super) async fn close(&self, upload: &str, digest: &Digest, rest: &[u8]) -> Result<Answer, Failed> {
        let target = format!("{upload}?digest={digest}");
        expect("close", 201, self.send(Method::PUT, &target, &[], Content::of(rest)).await)
    }

    pub(super) async fn push_blob(&self, repository: &str, content: &[u8]) -> Result<Digest, Failed> {
        let digest = sha256(content);
        let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        expect("blob", 201, self.send(Method::POST, &target, &[], Content::of(content)).await)?;
        Ok(digest)
    }

    pub(super) async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        manifest: &Value,
    ) -> Result<Answer, Failed> {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let headers = [("content-type", manifest["mediaType"].as_str().unwrap())];
        let content = Content::of(manifest.to_string().as_bytes());
        expect("manifest", 201, self.send(Method::PUT, &target, &headers, content).await)
    }

    /// How many bytes of an upload are durable; `None`: there is no such upload.
    pub(super) async fn offset(&self, upload: &str) -> Option<usize> {
        let answer = self.get(upload).await;
        match answer.status {
            204 => {
                let last: usize = answer.header("range").trim_start_matches("0-").parse().unwrap();
                Some(if last == 0 { 0 } else { last + 1 })
            }
            404 => None,
            _ => panic!("{answer:?}"),
        }
    }
}

/// A step that was not done.
#[derive(Debug)]
pub(super) struct Failed {
    #[expect(dead_code, reason = "is printed")]
    pub(super) step: &'static str,
    /// `None`: the connection broke.
    pub(super) answer: Option<Box<Answer>>,
}

impl Failed {
    pub(super) fn status(&self) -> u16 {
        self.answer.as_ref().map_or(0, |answer| answer.status)
    }

    /// That the client was told to come back, in the right words.
    pub(super) fn assert_passing(&self, occasion: &str) {
        let answer = self.answer.as_ref().unwrap_or_else(|| panic!("{occasion}: {self:?}"));
        assert_eq!(answer.status, 503, "{occasion}: {self:?}");
        assert_eq!(answer.code(), "UNAVAILABLE", "{occasion}");
        assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0, "{occasion}");
    }
}

fn expect(step: &'static str, status: u16, answer: Result<Answer, Broken>) -> Result<Answer, Failed> {
    match answer {
        Ok(answer) if answer.status == status => Ok(answer),
        answer => Err(Failed { step, answer: answer.ok().map(Box::new) }),
    }
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.headers.contains_key("warning")
    }

    pub(super) fn code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        body["errors"][0]["code"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

pub(super) fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

/// `length` bytes that are not those of another `seed`.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut content: Vec<u8> = std::iter::repeat_with(next).take(length / 8 + 1).flatten().collect();
    content.truncate(length);
    content
}

pub(super) fn descriptor(content: &[u8]) -> Value {
    let media_type = "application/vnd.oci.image.layer.v1.tar";
    json!({ "mediaType": media_type, "digest": sha256(content), "size": content.len() })
}

/// An image with the empty configuration and these layers.
pub(super) fn image(layers: &[&[u8]]) -> Value {
    let layers: Vec<Value> = layers.iter().map(|layer| descriptor(layer)).collect();
    let config = json!({
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": sha256(b"{}"),
        "size": 2,
    });
    json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers })
}

/// An image whose layer takes a part, a staged remainder and a last piece to push.
pub(super) struct Push {
    pub(super) repository: String,
    pub(super) layer: Vec<u8>,
    pub(super) manifest: Value,
    first: usize,
}

impl Push {
    /// One that needs a multipart upload.
    pub(super) fn large(seed: u64) -> Self {
        Self::of(seed, 17 * MIB + 100_000, 17 * MIB)
    }

    /// One that fits into memory.
    pub(super) fn small(seed: u64) -> Self {
        Self::of(seed, 200_000, 150_000)
    }

    fn of(seed: u64, length: usize, first: usize) -> Self {
        let layer = noise(seed, length);
        let mut manifest = image(&[&layer]);
        manifest["subject"] = json!({ "digest": sha256(b"subject"), "size": 7, "mediaType": IMAGE });
        Self { repository: format!("app/n{seed}"), layer, manifest, first }
    }

    pub(super) fn digest(&self) -> Digest {
        sha256(self.manifest.to_string().as_bytes())
    }

    /// Pushes all of it, from the beginning.
    pub(super) async fn attempt(&self, client: &Client) -> Result<(), Failed> {
        let (first, rest) = self.layer.split_at(self.first);
        let upload = client.open_upload(&self.repository).await?;
        client.patch(&upload, first).await?;
        client.close(&upload, &sha256(&self.layer), rest).await?;
        client.push_blob(&self.repository, b"{}").await?;
        client.put_manifest(&self.repository, "v1", &self.manifest).await?;
        Ok(())
    }

    /// That all of it can be pulled, byte for byte.
    pub(super) async fn assert_there(&self, client: &Client, occasion: &str) {
        let repository = &self.repository;
        for reference in ["v1".to_owned(), self.digest().to_string()] {
            let answer = client.get(&format!("/v2/{repository}/manifests/{reference}")).await;
            assert_eq!(answer.status, 200, "{occasion}: {answer:?}");
            assert!(answer.body == self.manifest.to_string().as_bytes(), "{occasion}: another manifest");
        }
        let answer = client.get(&format!("/v2/{repository}/blobs/{}", sha256(&self.layer))).await;
        assert_eq!(answer.status, 200, "{occasion}");
        assert!(answer.body == self.layer, "{occasion}: other bytes");
        let target = format!("/v2/{repository}/referrers/{}", sha256(b"subject"));
        let listed: Value = serde_json::from_slice(&client.get(&target).await.body).unwrap();
        assert_eq!(listed["manifests"].as_array().unwrap().len(), 1, "{occasion}: {listed}");
    }

    /// That what is seen of it is whole: bytes that are right, and no manifest whose parts are not there.
    pub(super) async fn assert_whole_or_absent(&self, client: &Client, occasion: &str) {
        let target = format!("/v2/{}/manifests/v1", self.repository);
        match client.get(&target).await.status {
            200 => self.assert_there(client, occasion).await,
            404 => {
                let target = format!("/v2/{}/blobs/{}", self.repository, sha256(&self.layer));
                let blob = client.get(&target).await;
                let whole = blob.status == 200 && blob.body == self.layer;
                assert!(blob.status == 404 || whole, "{occasion}: {}", blob.status);
            }
            status => panic!("{occasion}: {status}"),
        }
    }
}
