// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The program itself: killed, on a full disk, and with more to carry than it may remember.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http::Method;
use stowage_registry::domain::Limits;
use tokio::time::sleep;

use super::client::{Client, Content, Push, noise, sha256};
use super::cluster::Replica;
use crate::support::program::free_port;

const MIB: usize = 1 << 20;

/// A process that serves a folder; killed with its guard.
pub(super) struct Process {
    child: Child,
    pub(super) client: Client,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    async fn serve(folder: &Path) -> Self {
        let mut process = Self::spawn(folder);
        process.ready().await.unwrap();
        process
    }

    pub(super) fn spawn(folder: &Path) -> Self {
        let [data, ops, admin] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
        let mut child = Command::new(env!("CARGO_BIN_EXE_stowage-registry"))
            .args(["--log-format", "json", "serve", "--listen", &data, "--ops-listen", &ops])
            .args(["--admin-listen", &admin, "--data-dir"])
            .arg(folder)
            .env("STOWAGE_LOG", "warn,stowage_registry=info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::<Mutex<VecDeque<String>>>::default();
        let kept = Arc::clone(&log);
        // It must be read to its end, or the process would wait for us.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains(r#""level":"INFO""#) {
                    continue;
                }
                let mut kept = kept.lock().unwrap();
                kept.push_back(line);
                if kept.len() > 20 {
                    kept.pop_front();
                }
            }
        });
        Self { child, client: Client { host: data }, log }
    }

    /// Waits until it answers; else what it said last.
    pub(super) async fn ready(&mut self) -> Result<(), String> {
        for _ in 0..400 {
            if self.client.ask(Method::GET, "/v2/").await.is_ok() {
                return Ok(());
            }
            if self.child.try_wait().unwrap().is_some() {
                break;
            }
            sleep(Duration::from_millis(25)).await;
        }
        Err(self.log())
    }

    /// The last warnings and errors, and whatever else is no plain news.
    pub(super) fn log(&self) -> String {
        Vec::from(self.log.lock().unwrap().clone()).join("\n")
    }

    /// The most memory it ever held, in bytes.
    fn peak_memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }

    fn kill(mut self) {
        self.end();
    }

    /// Sends SIGKILL, and does not wait.
    pub(super) fn send_kill(&mut self) {
        self.child.kill().unwrap();
    }

    pub(super) fn end(&mut self) {
        self.send_kill();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l_35_a_process_killed_at_any_moment_of_a_push_loses_nothing_acknowledged_and_shows_nothing_half() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole: Vec<Push> = Vec::new();
    for round in 0..12_u64 {
        let process = Process::serve(folder.path()).await;
        for push in &whole {
            push.assert_there(&process.client, "after a kill").await;
        }
        let push = Push::large(round);
        let moment = sleep(Duration::from_millis(round * 25));
        let pushed = tokio::select! {
            pushed = push.attempt(&process.client) => { pushed.unwrap(); true }
            () = moment => false,
        };
        process.kill();
        let process = Process::serve(folder.path()).await;
        push.assert_whole_or_absent(&process.client, "killed").await;
        if !pushed {
            push.attempt(&process.client).await.unwrap();
        }
        // Killed right after the last acknowledgement.
        process.kill();
        whole.push(push);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w207_l_35_an_upload_goes_on_where_it_was_durable_when_the_process_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let content = noise(1, 40 * MIB);
    let digest = sha256(&content);
    let process = Process::serve(folder.path()).await;
    let upload = process.client.open_upload("app").await.unwrap();
    process.client.patch(&upload, &content[..20 * MIB]).await.unwrap();
    process.kill();
    let process = Process::serve(folder.path()).await;
    assert_eq!(process.client.offset(&upload).await, Some(20 * MIB));
    process.client.close(&upload, &digest, &content[20 * MIB..]).await.unwrap();
    process.kill();
    let process = Process::serve(folder.path()).await;
    assert!(process.client.get(&format!("/v2/app/blobs/{digest}")).await.body == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_p31_a_layer_of_unknown_length_and_any_size_takes_constant_memory() {
    // At full length where there is time and room for it (`make soak`).
    let pieces = if std::env::var_os("SOAK").is_some() { 10 << 10 } else { 300 };
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path()).await;
    let piece = Bytes::from(noise(1, MIB));
    let mut hasher = stowage_oci::Hasher::new(stowage_oci::Algorithm::Sha256);
    for _ in 0..pieces {
        hasher.update(&piece);
    }
    let digest = hasher.finish();
    let upload = process.client.open_upload("app").await.unwrap();
    let content =
        Content { length: None, pieces: stream::repeat(piece.clone()).take(pieces).map(Ok).boxed() };
    let patched = process.client.send(Method::PATCH, &upload, &[], content).await.unwrap();
    assert_eq!(patched.status, 202, "{patched:?}");
    process.client.close(&upload, &digest, &[]).await.unwrap();
    let pulled = process.client.pull(&format!("/v2/app/blobs/{digest}"), &piece).await.unwrap();
    assert_eq!(pulled, pieces * MIB);
    let peak = process.peak_memory();
    assert!(peak < 160 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn w102_a_blob_over_the_limit_is_refused_and_its_upload_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_blob_size: Some(MIB as u64), ..Limits::default() };
    let Replica { client, .. } = &Replica::embedded(&folder, limits).await;
    client.push_blob("app", &noise(1, MIB)).await.unwrap();
    let upload = client.open_upload("app").await.unwrap();
    client.patch(&upload, &noise(2, MIB)).await.unwrap();
    let failed = client.patch(&upload, b"x").await.unwrap_err();
    assert_eq!((failed.status(), failed.answer.unwrap().code()), (413, "SIZE_INVALID".to_owned()));
    assert_eq!(client.offset(&upload).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn w113_more_uploads_than_may_run_at_once_are_told_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { max_concurrent_uploads: 1, ..Limits::default() };
    let Replica { client, .. } = &Replica::embedded(&folder, limits).await;
    let slow = client.open_upload("app").await.unwrap();
    let content = Content { length: None, pieces: stream::pending().boxed() };
    let hanging = client.send(Method::PATCH, &slow, &[], content);
    let other = async {
        sleep(Duration::from_millis(300)).await;
        client.push_blob("app", b"x").await.unwrap_err()
    };
    let failed = tokio::select! { answer = hanging => panic!("{answer:?}"), failed = other => failed };
    assert_eq!(failed.status(), 429);
    assert!(failed.answer.unwrap().headers.contains_key("retry-after"));
    // The client that hung is gone; its place is free.
    for attempt in 0.. {
        match client.push_blob("app", b"x").await {
            Ok(_) => break,
            Err(failed) => assert!(attempt < 50, "{failed:?}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// A file system of a few mebibytes, while it lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`: we may not mount.
    fn mount(mebibytes: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(ended.is_ok_and(|status| status.success()), "unmount {}", self.0.path().display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l_79_a_full_disk_refuses_pushes_serves_pulls_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(40) else {
        println!("left out: only root can mount a small disk");
        return;
    };
    let ballast = disk.0.path().join("ballast");
    let process = Process::serve(disk.0.path()).await;
    let there = Push::small(1);
    there.attempt(&process.client).await.unwrap();
    for left in [10 * MIB, 0] {
        fill(&ballast, left);
        let push = Push::large(2);
        push.attempt(&process.client).await.unwrap_err().assert_passing("the disk is full");
        push.assert_whole_or_absent(&process.client, "the disk is full").await;
        there.assert_there(&process.client, "the disk is full").await;
        fs::remove_file(&ballast).unwrap();
    }
    let push = Push::small(3);
    push.attempt(&process.client).await.unwrap();
    push.assert_there(&process.client, "there is room again").await;
}

/// Leaves about so many bytes free.
fn fill(ballast: &Path, left: usize) {
    use std::io::Write as _;
    let mut file = fs::File::create(ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(left as u64)).unwrap();
}
