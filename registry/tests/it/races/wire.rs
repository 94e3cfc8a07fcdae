// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A line to PostgreSQL that changes the statements of those who use it: how the controls take a lock or an
//! isolation level away from production code without a switch in it.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

/// The line; ends when it is dropped.
pub(super) struct Rewriter {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Rewriter {
    /// To the server that listens on `socket`.
    pub(super) async fn to(socket: PathBuf, rewrite: fn(&str) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                client.set_nodelay(true).unwrap();
                let server = UnixStream::connect(&socket).await.unwrap();
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, to_server) = server.into_split();
                // A line that breaks ends with its connection.
                connections.spawn(async move { drop(rewritten(from_client, to_server, rewrite).await) });
                connections
                    .spawn(async move { drop(tokio::io::copy(&mut from_server, &mut to_client).await) });
            }
        });
        Self { port, _tasks: tasks }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// Carries messages (protocol 3.0: a type but for the first, a length that counts itself, a body).
async fn rewritten(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rewrite: fn(&str) -> String,
) -> std::io::Result<()> {
    let first = from.read_u32().await?;
    let body = body(&mut from, first).await?;
    to.write_u32(first).await?;
    to.write_all(&body).await?;
    loop {
        let kind = from.read_u8().await?;
        let length = from.read_u32().await?;
        let mut body = self::body(&mut from, length).await?;
        // Parse: a name, the statement, types of parameters. Query: the statement.
        let statement = match kind {
            b'P' => body.iter().position(|byte| *byte == 0).map(|end| end + 1),
            b'Q' => Some(0),
            _ => None,
        };
        if let Some(start) = statement {
            let end = start + body[start..].iter().position(|byte| *byte == 0).expect("it ends in zero");
            let text = rewrite(std::str::from_utf8(&body[start..end]).expect("statements are UTF-8"));
            body.splice(start..end, text.into_bytes());
        }
        let mut message = vec![kind];
        message.extend(u32::try_from(body.len() + 4).expect("a message is short").to_be_bytes());
        message.append(&mut body);
        to.write_all(&message).await?;
    }
}

async fn body(from: &mut OwnedReadHalf, length: u32) -> std::io::Result<Vec<u8>> {
    let mut body = vec![0; usize::try_from(length).expect("it fits").saturating_sub(4)];
    from.read_exact(&mut body).await?;
    Ok(body)
}

/// Takes all row locks out of a statement.
pub(super) fn without_row_locks(statement: &str) -> String {
    const LOCKS: [&str; 4] = ["FOR NO KEY UPDATE", "FOR KEY SHARE", "FOR UPDATE", "FOR SHARE"];
    let mut text = statement.to_owned();
    for lock in LOCKS {
        while let Some((before, after)) = text.split_once(lock) {
            text = format!("{before} {}", without_clauses(after));
        }
    }
    text
}

/// What follows after the clauses of a lock.
fn without_clauses(after: &str) -> &str {
    let mut after = after;
    if let Some(tables) = after.trim_start().strip_prefix("OF ") {
        after = tables.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
    }
    for clause in ["SKIP LOCKED", "NOWAIT"] {
        after = after.trim_start().strip_prefix(clause).unwrap_or(after);
    }
    after
}

/// Makes every transaction see one moment only.
pub(super) fn in_one_snapshot(statement: &str) -> String {
    statement.replace("READ COMMITTED", "REPEATABLE READ")
}

/// Of an upload that ends, nobody asks whether it became a blob.
pub(super) fn without_the_guard_of_uploads(statement: &str) -> String {
    statement.replace("LEFT JOIN blobs b ON b.gen = u.gen AND b.form <> 0", "LEFT JOIN blobs b ON false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_without_locks_still_means_the_same() {
        let locked = "SELECT id FROM l WHERE a FOR KEY SHARE OF l SKIP LOCKED;";
        assert_eq!(without_row_locks(locked), "SELECT id FROM l WHERE a  ;");
        let locked = "(SELECT 1 FOR UPDATE) x, (SELECT 2 FOR NO KEY UPDATE)";
        assert_eq!(without_row_locks(locked), "(SELECT 1  ) x, (SELECT 2  )");
    }
}
