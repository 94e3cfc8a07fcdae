// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Ports on the machine's loopback, for servers that many tests start at the same time.

use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::net::TcpSocket;

/// A port for something that is started, and perhaps started again: as long as this process runs, the system gives it to
/// nobody who asks for any port, whether something listens on it or not.
pub fn free_port() -> Result<u16> {
    static KEPT: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let socket = TcpSocket::new_v4().context("make a socket")?;
    // Two may be bound to a port where both say so and one of them does not listen.
    socket.set_reuseaddr(true).context("share a port")?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).context("find a free port")?;
    let port = socket.local_addr().context("find a free port")?.port();
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    Ok(port)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use anyhow::Result;

    use super::free_port;

    #[test]
    fn a_port_is_ours_before_something_listens_on_it_and_after() -> Result<()> {
        let port = free_port()?;
        for _ in 0..2 {
            drop(TcpListener::bind(("127.0.0.1", port))?);
            // As many as there are, of every other kind; they are given by chance.
            for _ in 0..20_000 {
                assert_ne!(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port(), port);
            }
        }
        Ok(())
    }
}
