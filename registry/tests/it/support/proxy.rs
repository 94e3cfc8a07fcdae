// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A line to the database server that can go dead: bytes are taken and never arrive, as when a host vanishes.
//! And one that counts how often the server was asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// It works.
    Up,
    /// Connections that are open hear nothing any more, and never will; nor do new ones.
    Dead,
}

/// The line; ends when it is dropped.
pub(crate) struct Proxy {
    port: u16,
    line: watch::Sender<Line>,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    trips: AtomicU64,
    statements: AtomicU64,
}

impl Proxy {
    /// A line to the server that listens on `socket`.
    pub(crate) async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (line, state) = watch::channel(Line::Up);
        let counts = Arc::<Counts>::default();
        let counter = Arc::clone(&counts);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let mut answers = Answers::counted(Arc::clone(&counter));
                connections.spawn(pump(from_client, to_server, state.clone(), |_| {}));
                connections
                    .spawn(pump(from_server, to_client, state.clone(), move |bytes| answers.read(bytes)));
            }
        });
        Self { port, line, counts, _tasks: tasks }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Round trips so far: how often the server said that it waits for the next statement.
    pub(crate) fn trips(&self) -> u64 {
        self.counts.trips.load(Ordering::Relaxed)
    }

    /// Statements that the server carried out so far.
    pub(crate) fn statements(&self) -> u64 {
        self.counts.statements.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

/// What a server says: messages of a letter, a length that counts itself but not the letter, and the rest.
struct Answers {
    counts: Arc<Counts>,
    head: Vec<u8>,
    rest: usize,
}

impl Answers {
    fn counted(counts: Arc<Counts>) -> Self {
        Self { counts, head: Vec::new(), rest: 0 }
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            let Some((first, others)) = bytes.split_first() else { return };
            self.head.push(*first);
            bytes = others;
            if let [letter, length @ ..] = &self.head[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                const READY_FOR_QUERY: u8 = b'Z';
                const COMMAND_COMPLETE: u8 = b'C';
                let Counts { trips, statements } = &*self.counts;
                trips.fetch_add(u64::from(*letter == READY_FOR_QUERY), Ordering::Relaxed);
                statements.fetch_add(u64::from(*letter == COMMAND_COMPLETE), Ordering::Relaxed);
                self.rest = u32::from_be_bytes(length) as usize - 4;
                self.head.clear();
            }
        }
    }
}

/// Carries bytes while the line is up. One that was dead once stays so.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut line: watch::Receiver<Line>,
    mut seen: impl FnMut(&[u8]),
) {
    let carry = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            seen(&buffer[..read]);
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let died = async { line.wait_for(|line| *line == Line::Dead).await.is_ok() };
    let dead = tokio::select! {
        () = carry => false,
        dead = died => dead,
    };
    if dead {
        // Neither side is told.
        std::future::pending::<()>().await;
    }
}
