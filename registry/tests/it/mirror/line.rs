// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A line to a real registry that counts what is asked for, and does to the answers what upstreams do.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They are answered.
    Open,
    /// Connections are closed.
    Gone,
    /// They are answered with this status.
    Refused(u16),
    /// The same, and a `Retry-After` of a minute.
    Later(u16),
    /// After so many bytes of a body nothing comes, until the way is another.
    Withheld(usize),
    /// The last byte of a body is another.
    Wrong,
    /// They are answered, and nine of a hundred requests are left.
    Scarce,
    /// They are answered, and ninety of a hundred requests are left.
    Plenty,
}

/// The line; ends when it is dropped.
pub(crate) struct Line {
    pub(crate) address: String,
    way: watch::Sender<Way>,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Line {
    pub(crate) async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (way, state) = watch::channel(Way::Open);
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (record, target) = (Arc::clone(&asked), target.to_owned());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let carrying = carry(client, target.clone(), state.clone(), Arc::clone(&record));
                open.spawn(async move { drop(carrying.await) });
            }
        });
        Self { address, way, asked, _tasks: tasks }
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// The request lines since the last time, without the version.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn carry(
    client: TcpStream,
    target: String,
    mut way: watch::Receiver<Way>,
    asked: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let (from_client, mut to_client) = client.into_split();
    let mut from_client = BufReader::new(from_client);
    let server = TcpStream::connect(&target).await?;
    let (from_server, mut to_server) = server.into_split();
    let mut from_server = BufReader::new(from_server);
    while let Some(head) = head(&mut from_client).await? {
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        asked.lock().unwrap().push(line.clone());
        let now = *way.borrow();
        match now {
            Way::Gone => return Ok(()),
            Way::Refused(status) | Way::Later(status) => {
                let later = if now == Way::Later(status) { "Retry-After: 60\r\n" } else { "" };
                let answer = format!("HTTP/1.1 {status} X\r\n{later}Content-Length: 0\r\n\r\n");
                to_client.write_all(answer.as_bytes()).await?;
                continue;
            }
            Way::Open | Way::Withheld(_) | Way::Wrong | Way::Scarce | Way::Plenty => {}
        }
        to_server.write_all(head.as_bytes()).await?;
        let Some(mut answer) = self::head(&mut from_server).await? else { return Ok(()) };
        if let Some(left) = left(now) {
            let fields =
                format!("RateLimit-Limit: 100;w=21600\r\nRateLimit-Remaining: {left};w=21600\r\n\r\n");
            answer.truncate(answer.len() - "\r\n".len());
            answer.push_str(&fields);
        }
        to_client.write_all(answer.as_bytes()).await?;
        if line.starts_with("HEAD") {
            continue;
        }
        if field(&answer, "transfer-encoding").is_some() {
            chunks(&mut from_server, &mut to_client).await?;
        } else {
            body(&mut from_server, &mut to_client, length(&answer), &mut way).await?;
        }
    }
    Ok(())
}

async fn body(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut OwnedWriteHalf,
    length: usize,
    way: &mut watch::Receiver<Way>,
) -> std::io::Result<()> {
    let (mut buffer, mut carried) = (vec![0; 64 << 10], 0);
    while carried < length {
        let mut most = buffer.len().min(length - carried);
        let now = *way.borrow();
        if let Way::Withheld(limit) = now {
            if carried >= limit {
                drop(way.wait_for(|way| !matches!(way, Way::Withheld(_))).await);
                continue;
            }
            most = most.min(limit - carried);
        }
        let read = from.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Ok(());
        }
        carried += read;
        if carried == length && *way.borrow() == Way::Wrong {
            buffer[read - 1] ^= 1;
        }
        to.write_all(&buffer[..read]).await?;
    }
    Ok(())
}

/// A body in chunks, as lists come that are long; they come whole whatever the way.
async fn chunks(from: &mut BufReader<OwnedReadHalf>, to: &mut OwnedWriteHalf) -> std::io::Result<()> {
    loop {
        let mut size = String::new();
        from.read_line(&mut size).await?;
        to.write_all(size.as_bytes()).await?;
        let size = usize::from_str_radix(size.trim_end(), 16).expect("the size of a chunk");
        let mut chunk = vec![0; size + "\r\n".len()];
        from.read_exact(&mut chunk).await?;
        to.write_all(&chunk).await?;
        if size == 0 {
            return Ok(());
        }
    }
}

async fn head(from: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

/// Requests that are left.
const fn left(way: Way) -> Option<u32> {
    match way {
        Way::Scarce => Some(9),
        Way::Plenty => Some(90),
        Way::Open | Way::Gone | Way::Refused(_) | Way::Later(_) | Way::Withheld(_) | Way::Wrong => None,
    }
}

fn length(head: &str) -> usize {
    field(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}
