// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Requests byte by byte, over a socket: those that two parsers could read differently, and those in which a
//! client hides another.

use std::net::SocketAddr;

use stowage_registry::Registry;
use stowage_registry::http::connection;
use stowage_registry::server::{End, Listener};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The data port, as `serve` opens it.
struct Port {
    address: SocketAddr,
    end: End,
    _serving: JoinSet<()>,
    _folder: TempDir,
}

impl Port {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::builder().open(folder.path()).await.unwrap();
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, end) = (listener.address().unwrap(), End::default());
        let router = registry.router();
        let serving = listener.serve(move |peer| connection::service(router.clone(), peer), end.clone());
        let mut task = JoinSet::new();
        task.spawn(serving);
        Self { address, end, _serving: task, _folder: folder }
    }

    /// All that comes back for these bytes until the connection ends.
    async fn says(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is reset has said what it had to say.
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.end.drain.cancel();
        self.end.cut.cancel();
    }
}

/// A request that must not be read out of the body of another.
const HIDDEN: &str =
    "GET /v2/_catalog HTTP/1.1\r\nHost: x\r\nX-Request-Id: hidden\r\nConnection: close\r\n\r\n";

fn answers(said: &str) -> usize {
    said.matches("HTTP/1.1 ").count()
}

#[tokio::test]
async fn w726_w802_a_request_that_could_be_read_in_two_ways_is_400_and_the_end() {
    let port = Port::open().await;
    let length = HIDDEN.len();
    let long = "x".repeat(20_000);
    for method in ["POST", "PATCH", "PUT"] {
        for (fields, body) in [
            (format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"), "0\r\n\r\n".to_owned()),
            (format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"), "0\r\n\r\n".to_owned()),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".into(), "0\r\n\r\n".into()),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".into(), String::new()),
            ("Transfer-Encoding: gzip, chunked\r\n".into(), "0\r\n\r\n".into()),
            ("Transfer-Encoding: xchunked\r\n".into(), String::new()),
            ("Transfer-Encoding : chunked\r\n".into(), "0\r\n\r\n".into()),
            ("Transfer-Encoding:\x0bchunked\r\n".into(), "0\r\n\r\n".into()),
            ("Content-Length: 0\r\nContent-Length: 5\r\n".into(), String::new()),
            ("Content-Length: +0\r\n".into(), String::new()),
            ("Content-Length: 0, 0\r\n".into(), String::new()),
            ("X-One: a\nX-Two: b\r\n".into(), String::new()),
            ("X-One: a\r\n b\r\n".into(), String::new()),
            ("X-One: a\rX-Two: b\r\n".into(), String::new()),
        ] {
            let head = format!("{method} /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
            let said = port.says(&format!("{head}{body}{HIDDEN}")).await;
            assert!(said.starts_with("HTTP/1.1 400"), "{head:?}: {said}");
            assert_eq!(answers(&said), 1, "{head:?}: {said}");
        }
        let head = format!("{method} /v2/a/blobs/uploads/ HTTP/1.1\nHost: x\n\n");
        let said = port.says(&format!("{head}{HIDDEN}")).await;
        assert!(said.starts_with("HTTP/1.1 400") && answers(&said) == 1, "{said}");
    }
    // A body is refused where it goes wrong.
    let target = upload(&port).await;
    for body in [
        format!("1;{long}\r\na\r\n0\r\n\r\n"),
        "1\na\n0\n\n".to_owned(),
        "1x\r\na\r\n0\r\n\r\n".to_owned(),
        "-1\r\na\r\n0\r\n\r\n".to_owned(),
        "1\r\nab\r\n0\r\n\r\n".to_owned(),
    ] {
        let head = format!("PATCH {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        let said = port.says(&format!("{head}{body}{HIDDEN}")).await;
        assert!(said.starts_with("HTTP/1.1 400"), "{body:?}: {said}");
        assert_eq!(answers(&said), 1, "{body:?}: {said}");
    }
}

/// The path of a new upload.
async fn upload(port: &Port) -> String {
    let open =
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let said = port.says(open).await;
    let location = said.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
    location.to_owned()
}

#[tokio::test]
async fn w726_the_body_of_a_refused_request_is_never_read_as_the_next_one() {
    let port = Port::open().await;
    let (length, chunk) = (HIDDEN.len(), format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len()));
    for line in [
        "POST /v2/UPPER/blobs/uploads/",
        "PUT /v2/a/manifests/.bad",
        "PATCH /v2/a/blobs/uploads/unknown",
        "PUT /v2/a/tags/list",
        "POST /nowhere",
        "GET /v2/",
    ] {
        for (fields, body) in
            [(format!("Content-Length: {length}"), HIDDEN), ("Transfer-Encoding: chunked".to_owned(), &chunk)]
        {
            let next = "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Request-Id: next\r\nConnection: close\r\n\r\n";
            let said =
                port.says(&format!("{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}{next}")).await;
            assert!(!said.contains("hidden"), "{line} {fields}: {said}");
            // Either the rest was discarded, and the next request is answered, or the connection has ended.
            let expected = 1 + usize::from(said.contains("x-request-id: next"));
            assert_eq!(answers(&said), expected, "{line} {fields}: {said}");
        }
    }
}

#[tokio::test]
async fn requests_that_follow_each_other_on_a_connection_are_all_answered() {
    let port = Port::open().await;
    let body = "not\nlines\r\n\r\n";
    let push = |fields: &str, body: &str| {
        format!("POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}")
    };
    let sized = push(&format!("Content-Length: {}", body.len()), body);
    let chunked = push("Transfer-Encoding: chunked", "4;a=b\r\n\n\n\n\n\r\n0\r\nX-Trailer: x\r\n\r\n");
    let said = port.says(&format!("{chunked}{sized}{chunked}\r\n{HIDDEN}")).await;
    assert_eq!(answers(&said), 4, "{said}");
    assert!(said.contains("x-request-id: hidden"), "{said}");
}
