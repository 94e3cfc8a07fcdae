// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A connection with two deadlines: one for its first words, one for the client to take what we write.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::head::Said;

/// The length of what an HTTP/2 client says first; with it, or with a whole request, it is clear what is spoken.
const PREFACE: u64 = 24;

/// A connection whose client must get on with it.
pub(super) struct Patient<I> {
    io: I,
    /// Until `PREFACE` bytes were read.
    opening: Option<Pin<Box<Sleep>>>,
    said: Said,
    stall: Duration,
    /// While something waits to be written.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I> Patient<I> {
    pub(super) fn new(io: I, said: Said, opening: Duration, stall: Duration) -> Self {
        Self { io, opening: Some(Box::pin(sleep(opening))), said, stall, stalled: None }
    }

    /// Passes on what a write came to; a write that waits too long has failed.
    fn watched<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let stall = self.stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(stalled.as_mut().poll(cx));
        // Whoever asks again gets the same answer, and no future that is already done.
        stalled.as_mut().reset(Instant::now());
        Poll::Ready(Err(too_slow("the client takes nothing of its answer")))
    }
}

fn too_slow(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(done) => {
                let new = (buf.filled().len() - before) as u64;
                if self.said.fetch_add(new, Ordering::Relaxed) + new >= PREFACE {
                    self.opening = None;
                }
                Poll::Ready(done)
            }
            Poll::Pending => {
                let Some(opening) = &mut self.opening else { return Poll::Pending };
                ready!(opening.as_mut().poll(cx));
                opening.as_mut().reset(Instant::now());
                Poll::Ready(Err(too_slow("the client says nothing")))
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watched(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watched(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.watched(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watched(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn w727_an_answer_that_makes_no_progress_is_cut() {
        let (ours, _theirs) = duplex(8);
        let mut patient = Patient::new(ours, Said::default(), LATE, SOON);
        let error = patient.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn w727_a_slow_client_that_makes_progress_is_not_cut() {
        let (ours, mut theirs) = duplex(8);
        let mut patient = Patient::new(ours, Said::default(), LATE, SOON * 5);
        let write = patient.write_all(&[0; 64]);
        let read = async {
            for _ in 0..64 {
                tokio::time::sleep(SOON / 4).await;
                theirs.read_u8().await.unwrap();
            }
        };
        assert!(tokio::join!(write, read).0.is_ok());
    }

    #[tokio::test]
    async fn w727_who_says_too_little_is_cut() {
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b"PRI * HT").await.unwrap();
        let mut patient = Patient::new(ours, Said::default(), SOON, LATE);
        let mut all = Vec::new();
        assert_eq!(patient.read_to_end(&mut all).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(all, b"PRI * HT");
    }
}
