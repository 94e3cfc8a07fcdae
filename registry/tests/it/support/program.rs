// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The program itself, started on free ports of loopback with its log in a file; it ends with its guard.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

/// A process that serves.
pub(crate) struct Program {
    child: Child,
    log: PathBuf,
    /// What it said when it began to.
    pub(crate) first: Value,
}

/// The program, with the configuration, the secrets and the data of a folder.
pub(crate) fn program(command: &[&str], folder: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_stowage-registry"));
    program.args(["--log-format", "json"]).args(command);
    for (flag, name) in [("--config", "config"), ("--secrets-dir", "secrets"), ("--data-dir", "data")] {
        program.arg(flag).arg(folder.join(name));
    }
    program
}

/// The program, to serve on free ports.
pub(crate) fn serve(folder: &Path) -> Command {
    let mut serve = program(&["serve"], folder);
    serve.args(["--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"]);
    serve.arg("--drain-delay=0");
    serve
}

/// A port that nobody has.
///
/// It lies below those that the system gives to whoever asks for any, so that nobody gets it before it is listened on.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Processes at the same time begin at different places.
        let place = std::process::id().wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + place % COUNT).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// What is true in the end. Waits half a minute for it.
pub(crate) async fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = attempt() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}")
}

impl Program {
    /// Starts it; returns when it serves.
    pub(crate) async fn start(command: &mut Command) -> Self {
        let log = tempfile::Builder::new().prefix("stowage-log-").tempfile().unwrap().keep().unwrap().1;
        let file = File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        let mut program = Self { child, log, first: Value::Null };
        let serving = until("it serves", || {
            let ended = program.child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", program.log());
            program.lines("serving").pop()
        });
        program.first = serving.await;
        program
    }

    /// The address of `listen` or of `ops_listen`.
    pub(crate) fn address(&self, port: &str) -> &str {
        self.first[port].as_str().unwrap()
    }

    /// Ends it in order.
    pub(crate) async fn stop(mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let code = until("it ends", || self.child.try_wait().unwrap()).await;
        assert!(code.success(), "{}", self.log());
    }

    /// All that it said so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// The lines with this message.
    pub(crate) fn lines(&self, message: &str) -> Vec<Value> {
        let whole = |line: &str| serde_json::from_str::<Value>(line).ok();
        self.log().lines().filter_map(whole).filter(|line| line["message"] == message).collect()
    }

    /// Asks the data port over a connection of its own: status, head, body.
    pub(crate) fn ask(
        &self,
        method: &str,
        target: &str,
        fields: &str,
        body: &[u8],
    ) -> (u16, String, Vec<u8>) {
        ask(self.address("listen"), method, target, fields, body)
    }
}

/// Asks over a connection of its own: status, head, body.
pub(crate) fn ask(
    address: &str,
    method: &str,
    target: &str,
    fields: &str,
    body: &[u8],
) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, answer[end + 4..].to_vec())
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_file(&self.log));
    }
}
