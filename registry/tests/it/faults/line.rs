// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A line to a server that can fail in every way a network does.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Up,
    /// Connections end, new ones are refused.
    Refused,
    /// Bytes wait until the line is up again.
    Stalled,
    /// Of the n-th answer from now on, half arrives, and its connection ends.
    CutAnswer(u64),
}

/// The line; ends when it is dropped.
pub(super) struct Line {
    state: watch::Sender<State>,
    answers: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Line {
    /// A line to the database at `url`, an address of ours; and the address by way of the line.
    pub(super) async fn to(url: &str) -> (Self, String) {
        let (address, folder) = url.split_once("?host=").expect("an address of ours");
        let socket = PathBuf::from(folder).join(".s.PGSQL.5432");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, watched) = watch::channel(State::Up);
        let answers = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, socket, watched, Arc::clone(&answers)));
        let url = address.replace("@localhost/", &format!("@127.0.0.1:{port}/"));
        (Self { state, answers, _tasks: tasks }, format!("{url}?sslmode=disable"))
    }

    pub(super) fn set(&self, state: State) {
        self.answers.store(0, Ordering::SeqCst);
        self.state.send_replace(state);
    }

    /// How many answers came since the last change.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut listener: TcpListener,
    socket: PathBuf,
    mut state: watch::Receiver<State>,
    answers: Arc<AtomicU64>,
) {
    let address = listener.local_addr().unwrap();
    let mut connections = JoinSet::new();
    loop {
        let mut watched = state.clone();
        let refused = async move { watched.wait_for(|state| *state == State::Refused).await.is_ok() };
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(carry(client, socket.clone(), state.clone(), Arc::clone(&answers)));
            }
            true = refused => {
                drop(listener);
                connections.shutdown().await;
                let up = state.wait_for(|state| *state != State::Refused).await.is_ok();
                if !up {
                    return;
                }
                listener = TcpListener::bind(address).await.unwrap();
            }
        }
    }
}

async fn carry(client: TcpStream, socket: PathBuf, state: watch::Receiver<State>, answers: Arc<AtomicU64>) {
    let Ok(server) = UnixStream::connect(&socket).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = |mut state: watch::Receiver<State>| async move {
        state.wait_for(|state| *state != State::Stalled).await.is_ok()
    };
    let forth = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            if !up(state.clone()).await || to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if !up(state.clone()).await {
                return;
            }
            let answer = answers.fetch_add(1, Ordering::SeqCst) + 1;
            let cut = *state.borrow() == State::CutAnswer(answer);
            let whole = if cut { read / 2 } else { read };
            if to_client.write_all(&buffer[..whole]).await.is_err() || cut {
                return;
            }
        }
    };
    tokio::select! { () = forth => {}, () = back => {} }
}
