// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A line to a server over TCP that breaks off, or falls silent, after so many bytes of its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It is closed after so many bytes of the server's.
    CutAfter(usize),
    /// After so many bytes nothing comes any more, and it stays open.
    StallAfter(usize),
}

/// The line; ends when it is dropped.
pub(crate) struct Line {
    address: String,
    fault: watch::Sender<Fault>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Line {
    /// A line to the server at `target`.
    pub(crate) async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (fault, state) = watch::channel(Fault::None);
        let connections = Arc::new(AtomicUsize::new(0));
        let (counter, target) = (Arc::clone(&connections), target.to_owned());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                open.spawn(carry(client, server, state.clone()));
            }
        });
        Self { address, fault, connections, _tasks: tasks }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn carry(client: TcpStream, server: TcpStream, fault: watch::Receiver<Fault>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await };
    let down = async {
        let (mut buffer, mut carried) = (vec![0; 16 << 10], 0);
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            let fault = *fault.borrow();
            let (limit, stays) = match fault {
                Fault::None => (usize::MAX, false),
                Fault::CutAfter(limit) => (limit, false),
                Fault::StallAfter(limit) => (limit, true),
            };
            let passed = read.min(limit.saturating_sub(carried));
            carried += passed;
            if to_client.write_all(&buffer[..passed]).await.is_err() {
                return;
            }
            if passed < read {
                if stays {
                    std::future::pending::<()>().await;
                }
                return;
            }
        }
    };
    tokio::select! {
        _ended = up => {}
        () = down => {}
    }
}
