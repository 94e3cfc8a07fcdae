// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Plain loops over blocking sockets, as short as they can be: what a registry is compared with, and a client that
//! knows when its last byte went.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result, bail};

/// What is read and written at once, as by `cat`.
const BUFFER: usize = 128 << 10;
/// More than the head of any answer.
const HEAD: usize = 16 << 10;

/// Reads and writes `length` bytes.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl Write, length: u64) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
        let read = from.read(&mut buffer[..most])?;
        if read == 0 {
            bail!("the content ends {left} bytes early");
        }
        to.write_all(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(())
}

/// Reads to the end.
pub(crate) fn drain(from: &mut impl Read) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    while from.read(&mut buffer)? > 0 {}
    Ok(())
}

/// The two ends of a connection on loopback.
pub(crate) fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
    let there = TcpStream::connect(listener.local_addr()?).context("connect on loopback")?;
    let (here, _) = listener.accept()?;
    Ok((here, there))
}

/// Sends the head of a request with a body of a length; the connection is for it alone.
pub(crate) fn request(address: &str, method: &str, target: &str, length: u64) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    socket.set_nodelay(true)?;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    socket.write_all(head.as_bytes())?;
    Ok(socket)
}

/// Reads the head of the answer, no byte of its body; refuses every status but `status`.
pub(crate) fn expect(socket: &mut TcpStream, status: u16) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match socket.read_exact(&mut byte) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => bail!("no answer"),
            read => read?,
        }
        head.push(byte[0]);
        if head.len() > HEAD {
            bail!("the head of the answer does not end");
        }
    }
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) == Some(&status.to_string()) {
        return Ok(());
    }
    bail!("{line:?} where {status} was expected")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_copy_is_of_the_length_that_is_asked_for() {
        let content: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let mut copied = Vec::new();
        copy(&mut &content[..], &mut copied, 200_000).unwrap();
        assert_eq!(copied, content[..200_000]);
        let short = copy(&mut &content[..], &mut Vec::new(), 300_001).unwrap_err().to_string();
        assert_eq!(short, "the content ends 1 bytes early");
    }

    #[test]
    fn an_answer_is_read_up_to_its_body() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            for status in ["200 OK", "404 Not Found"] {
                let (mut socket, _) = listener.accept().unwrap();
                write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nbody").unwrap();
            }
        });
        let mut socket = request(&address, "GET", "/", 0).unwrap();
        expect(&mut socket, 200).unwrap();
        let mut body = [0; 4];
        socket.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"body");
        let refused = expect(&mut request(&address, "GET", "/", 0).unwrap(), 200).unwrap_err().to_string();
        assert_eq!(refused, "\"HTTP/1.1 404 Not Found\" where 200 was expected");
        server.join().unwrap();
    }
}
