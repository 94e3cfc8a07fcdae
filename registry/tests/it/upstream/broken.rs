// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Lines that break, stall and are slow.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stowage_oci::{Algorithm, Digest};
use stowage_registry::upstream::{Kind, Span, Upstream};

use super::content::{layer, read};
use super::servers::{Asked, Scripted, answer, distribution, impatient, push, settings};
use crate::support::line::{Fault, Line};

const UNAVAILABLE: Kind = Kind::Unavailable { retry_after: None };

/// What comes of a blob: its bytes, and how it ended.
async fn attempt(upstream: &Upstream, digest: &Digest, span: Span) -> (Vec<u8>, Option<Kind>) {
    let mut blob = match upstream.blob(&"app".parse().unwrap(), digest, span).await {
        Ok(answered) => answered.value,
        Err(error) => return (Vec::new(), Some(error.kind)),
    };
    let mut all = Vec::new();
    loop {
        match blob.body.next().await {
            None => return (all, None),
            Some(Ok(bytes)) => all.extend_from_slice(&bytes),
            Some(Err(error)) => {
                assert!(blob.body.next().await.is_none(), "something after the end");
                return (all, Some(error.kind));
            }
        }
    }
}

#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_where_it_was() {
    let server = distribution(&serde_json::Value::Null, &[]).await;
    let image = push(server.address(), "", "app", "1", &layer());
    let line = Line::to(server.address()).await;
    let upstream = Upstream::new(settings(&format!("http://{}", line.address())));
    line.set(Fault::CutAfter(1_200_000));
    assert_eq!(read(&upstream, "app", &image.layer_digest, Span::default()).await, image.layer);
    assert_eq!(line.connections(), 3, "each brought 1.2 of 3 MiB");
    let span = Span { first: 100, last: Some(2_999_999) };
    assert_eq!(read(&upstream, "app", &image.layer_digest, span).await, image.layer[100..3_000_000]);
}

#[tokio::test]
async fn a_blob_that_stalls_goes_on_where_it_was() {
    let server = distribution(&serde_json::Value::Null, &[]).await;
    let image = push(server.address(), "", "app", "1", &layer());
    let line = Line::to(server.address()).await;
    let mut settings = settings(&format!("http://{}", line.address()));
    settings.patience.idle = Duration::from_millis(700);
    let upstream = Upstream::new(settings);
    line.set(Fault::StallAfter(2_000_000));
    assert_eq!(read(&upstream, "app", &image.layer_digest, Span::default()).await, image.layer);
}

#[tokio::test]
async fn a_line_that_never_carries_much_is_given_up() {
    let server = distribution(&serde_json::Value::Null, &[]).await;
    let image = push(server.address(), "", "app", "1", &layer());
    let line = Line::to(server.address()).await;
    let upstream = Upstream::new(impatient(&format!("http://{}", line.address())));
    for fault in [Fault::CutAfter(20_000), Fault::StallAfter(20_000)] {
        line.set(fault);
        let before = line.connections();
        let (bytes, end) = attempt(&upstream, &image.layer_digest, Span::default()).await;
        assert_eq!(end, Some(UNAVAILABLE), "{fault:?}");
        assert_eq!(line.connections() - before, 5, "{fault:?}");
        assert!(!bytes.is_empty() && image.layer.starts_with(&bytes));
    }
    for fault in [Fault::CutAfter(0), Fault::StallAfter(0), Fault::CutAfter(30)] {
        line.set(fault);
        let (bytes, end) = attempt(&upstream, &image.layer_digest, Span::default()).await;
        assert_eq!((bytes.len(), end), (0, Some(UNAVAILABLE)), "{fault:?}");
    }
    line.set(Fault::None);
    assert_eq!(read(&upstream, "app", &image.layer_digest, Span::default()).await, image.layer);
}

const CONTENT: &[u8] = b"0123456789abcdefghij";

fn digest() -> Digest {
    Digest::of(Algorithm::Sha256, CONTENT)
}

fn chunked(pieces: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for piece in pieces {
        body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        body.extend_from_slice(piece);
        body.extend_from_slice(b"\r\n");
    }
    body
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn w878_a_body_may_take_as_long_as_it_likes_if_it_does_not_pause() {
    let server = Scripted::doing(|_, stream| {
        drop(stream.write_all(CHUNKED));
        for byte in CONTENT {
            drop(stream.write_all(&chunked(&[&[*byte]])));
            #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(stream.write_all(b"0\r\n\r\n"));
    });
    // Two seconds in all, by one who waits for 0.7 at a time.
    let upstream = Upstream::new(impatient(&server.origin()));
    assert_eq!(attempt(&upstream, &digest(), Span::default()).await, (CONTENT.to_vec(), None));
    assert_eq!(server.asked().len(), 1);
}

/// Answers the first request with `first`, and the others with `then`.
fn in_turn(first: impl Into<Vec<u8>>, then: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Scripted {
    let (first, count) = (first.into(), Arc::new(AtomicUsize::new(0)));
    Scripted::answering(move |asked| match count.fetch_add(1, Ordering::SeqCst) {
        0 => first.clone(),
        _ => then(asked),
    })
}

fn partial(first: usize, size: usize) -> Vec<u8> {
    let fields = format!("Content-Range: bytes {first}-{}/{size}\r\n", CONTENT.len() - 1);
    answer(206, &fields, &CONTENT[first..])
}

fn short() -> Vec<u8> {
    let whole = answer(200, "", CONTENT);
    whole[..whole.len() - 10].to_vec()
}

#[tokio::test]
async fn a_blob_of_unknown_length_goes_on_where_it_was() {
    let first = [CHUNKED.to_vec(), chunked(&[b"0123"])].concat();
    let server = in_turn(first, |_| partial(4, CONTENT.len()));
    let upstream = Upstream::new(settings(&server.origin()));
    assert_eq!(attempt(&upstream, &digest(), Span::default()).await, (CONTENT.to_vec(), None));
    let asked = server.asked();
    assert_eq!((asked[0].field("range"), asked[1].field("range")), (None, Some("bytes=4-")));
}

#[tokio::test]
async fn a_server_without_ranges_is_listened_to_from_the_beginning() {
    let server = in_turn(short(), |_| answer(200, "", CONTENT));
    let upstream = Upstream::new(settings(&server.origin()));
    assert_eq!(attempt(&upstream, &digest(), Span::default()).await, (CONTENT.to_vec(), None));
    let span = Span { first: 3, last: Some(7) };
    assert_eq!(attempt(&upstream, &digest(), span).await, (CONTENT[3..8].to_vec(), None));
}

#[tokio::test]
async fn a_blob_that_is_another_when_it_goes_on_is_an_error() {
    for (then, why) in [
        (partial(10, CONTENT.len() + 1), "another length"),
        (partial(11, CONTENT.len()), "a gap"),
        (partial(9, CONTENT.len()), "an overlap"),
        (answer(206, "Content-Range: bytes of all sorts\r\n", b"x"), "no range"),
        (answer(200, "", b"short"), "shorter than what came"),
    ] {
        let server = in_turn(short(), move |_| then.clone());
        let upstream = Upstream::new(settings(&server.origin()));
        let outcome = attempt(&upstream, &digest(), Span::default()).await;
        assert_eq!(outcome, (CONTENT[..10].to_vec(), Some(Kind::WrongContent)), "{why}");
    }
}

#[tokio::test]
async fn a_limit_that_is_met_on_the_way_is_told() {
    let server = in_turn(short(), |_| answer(429, "Retry-After: 9\r\n", ""));
    let upstream = Upstream::new(settings(&server.origin()));
    let (_, end) = attempt(&upstream, &digest(), Span::default()).await;
    assert_eq!(end, Some(Kind::RateLimited { retry_after: Some(Duration::from_secs(9)) }));
}
