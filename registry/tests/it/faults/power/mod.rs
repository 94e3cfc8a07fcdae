// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The power goes: the program on a disk with a volatile cache, under load, cut off at any moment.
//!
//! Flow: start, check what clients were told before, load, freeze the disk before an operation, kill the
//! program, drop what was not durable (see `disk`), examine the database, start again.
//! In between the database is thrown away and made again from the files, through cuts as well.
//! Promised: what was acknowledged is there, byte for byte; what was deleted stays deleted; an upload goes on
//! where it was acknowledged; nothing is half visible; the database is in order.
//! The controls show that a disk that lies about being done is found out.

mod actors;
mod check;
mod disk;
mod ledger;
mod mount;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use self::actors::Actor;
use self::disk::{Disk, Honesty};
use self::ledger::Ledger;
use self::mount::Mounted;
use super::client::{noise, sha256};
use super::process::Process;

/// Where the registry's data is on the disk.
const DATA: &str = "data";
/// How many cuts without `$SOAK`.
const CUTS: u64 = 20;
/// How many more where nothing of one kind was acknowledged: each cut leaves less time on a busy machine.
const MORE_CUTS: u64 = 60;
/// What is to be acknowledged before a cut, some time.
const KINDS: [&str; 8] = [
    "tagged",
    "untagged",
    "manifests",
    "manifests deleted",
    "blobs",
    "blobs deleted",
    "uploads gone on",
    "rebuilt",
];

/// After how many of them the database is thrown away.
const BETWEEN_REBUILDS: u64 = 6;

/// A machine whose power is cut again and again.
struct Machine {
    disk: Disk,
    ledger: Ledger,
    rng: StdRng,
}

impl Machine {
    fn new(honesty: Honesty, seed: u64) -> Self {
        // The folder itself is the administrator's.
        let disk = Disk::with_folder(honesty, DATA.as_ref());
        Self { disk, ledger: Ledger::default(), rng: StdRng::seed_from_u64(seed) }
    }

    /// Starts, checks, works, and cuts the power.
    async fn round(mut self) -> Self {
        self.ledger.books().round += 1;
        let Self { disk, ledger, rng } = &mut self;
        let mounted = Mounted::mount(std::mem::replace(disk, Disk::new(Honesty::Honest)));
        if rng.random_bool(0.2) {
            mounted.cut_before(rng.random_range(1..100));
        }
        let mut process = Process::spawn(&mounted.path().join(DATA));
        tokio::select! {
            () = mounted.frozen() => {}
            started = process.ready() => match started {
                Ok(()) => serve(&mounted, &mut process, ledger, rng).await,
                Err(log) => ledger.violation(format!("it does not start: {log}")),
            }
        }
        mounted.freeze();
        process.send_kill();
        mounted.switch_off();
        process.end();
        let seed = self.rng.random();
        self.disk = mounted.take_out(|disk| disk.cut(seed));
        check::database(&self.disk, Path::new(DATA), &self.ledger).await;
        self
    }

    /// Throws the database away and makes it again, through as many cuts as it takes; then one more.
    async fn rebuilt(mut self) -> Self {
        /// Later attempts are left to end.
        const CUT: u32 = 3;
        // Open uploads are in no file but the database's.
        self.ledger.books().uploads.clear();
        let mut ended = false;
        for attempt in 0.. {
            let mounted = Mounted::mount(std::mem::replace(&mut self.disk, Disk::new(Honesty::Honest)));
            let data = mounted.path().join(DATA);
            if attempt == 0 {
                for file in ["meta.sqlite", "meta.sqlite-wal", "meta.sqlite-shm"] {
                    // Not all are there.
                    drop(std::fs::remove_file(data.join(file)));
                }
            }
            if attempt < CUT {
                mounted.cut_before(self.rng.random_range(1..400));
            }
            let log = tempfile::NamedTempFile::new().unwrap();
            let mut rebuild = rebuild(&data, log.reopen().unwrap());
            tokio::select! {
                () = mounted.frozen() => {}
                status = rebuild.wait() => {
                    ended = true;
                    let status = status.unwrap();
                    if !status.success() {
                        let said = std::fs::read_to_string(log.path()).unwrap();
                        self.ledger.violation(format!("the rebuild ends with {status}: {said}"));
                    }
                }
            }
            mounted.freeze();
            // It may have ended.
            drop(rebuild.start_kill());
            mounted.switch_off();
            rebuild.wait().await.unwrap();
            let seed = self.rng.random();
            self.disk = mounted.take_out(|disk| disk.cut(seed));
            check::database(&self.disk, Path::new(DATA), &self.ledger).await;
            if ended {
                *self.ledger.books().acknowledged.entry("rebuilt").or_default() += 1;
                return self;
            }
        }
        unreachable!("it is left to end")
    }

    /// Starts a last time, and checks everything.
    async fn inspect(self) -> Ledger {
        let mounted = Mounted::mount(self.disk);
        let mut process = Process::spawn(&mounted.path().join(DATA));
        match process.ready().await {
            Ok(()) => check_all(&process, &self.ledger, false).await,
            Err(log) => self.ledger.violation(format!("it does not start: {log}")),
        }
        process.send_kill();
        mounted.switch_off();
        process.end();
        self.ledger
    }
}

/// The program, making the database in this folder again.
fn rebuild(data: &Path, log: std::fs::File) -> tokio::process::Child {
    let mut rebuild = tokio::process::Command::new(env!("CARGO_BIN_EXE_stowage-registry"));
    rebuild.args(["rebuild", "--adopt", "--data-dir"]).arg(data).kill_on_drop(true);
    rebuild.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Checks what an earlier cut left, then loads the registry until the power goes.
async fn serve(mounted: &Mounted, process: &mut Process, ledger: &Ledger, rng: &mut StdRng) {
    check_all(process, ledger, true).await;
    let longest = [300, 1500, 6000][rng.random_range(0..3)];
    mounted.cut_before(rng.random_range(1..longest));
    let client = process.client.clone();
    let (readers, writers): (Vec<_>, Vec<_>) =
        actors::at_work(rng).into_iter().partition(|actor| actor.only_reads());
    let mut at_work = |actors: Vec<Actor>| {
        let actors = actors.into_iter().map(|actor| Box::pin(actor.run(&client, ledger, rng.random())));
        join_all(actors.collect::<Vec<_>>())
    };
    let (reads, writes) = (at_work(readers), at_work(writers));
    let load = async {
        // Where nobody writes any more, no write is the one before which the power goes.
        tokio::select! {
            _ = writes => {}
            () = async { reads.await; std::future::pending().await } => {}
        }
        mounted.freeze();
    };
    let cut = async {
        mounted.frozen().await;
        process.send_kill();
        mounted.switch_off();
    };
    tokio::join!(load, cut);
}

async fn check_all(process: &Process, ledger: &Ledger, sample: bool) {
    if check::everything(&process.client, ledger, sample).await.is_err() {
        ledger.violation(format!("it does not answer: {}", process.log()));
    }
}

/// How long to go on: `$SOAK` (`90s`, `10m`, `4h`).
fn soak() -> Option<Duration> {
    let text = std::env::var("SOAK").ok()?;
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let seconds = units.into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * seconds)
    });
    let seconds = seconds.unwrap_or_else(|| panic!("SOAK is {text:?}, which is no length of time"));
    Some(Duration::from_secs(seconds))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_at_any_moment_loses_nothing_acknowledged_and_shows_nothing_half() {
    let (begin, soak) = (Instant::now(), soak());
    // The same disks in every bounded run; others in every long one.
    let seed = if soak.is_some() { rand::random() } else { 1 };
    let mut machine = Machine::new(Honesty::Honest, seed);
    let mut cuts = 0;
    let is_enough =
        |ledger: &Ledger, cuts| cuts >= CUTS && (ledger.has_all(&KINDS) || cuts >= CUTS + MORE_CUTS);
    while soak.map_or_else(|| !is_enough(&machine.ledger, cuts), |length| begin.elapsed() < length) {
        machine = machine.round().await;
        cuts += 1;
        if cuts % BETWEEN_REBUILDS == 0 {
            machine = machine.rebuilt().await;
        }
        let books = machine.ledger.books();
        assert!(books.violations.is_empty(), "seed {seed}, cut {cuts}: {:#?}", books.violations);
    }
    let ledger = machine.inspect().await;
    let books = ledger.books();
    assert!(books.violations.is_empty(), "seed {seed}, {cuts} cuts: {:#?}", books.violations);
    println!("{cuts} cuts in {:?}; acknowledged: {:?}", begin.elapsed(), books.acknowledged);
    drop(books);
    assert!(ledger.has_all(&KINDS), "the load lacks a kind: {:?}", ledger.books().acknowledged);
}

/// The program on a disk; its client.
async fn start(disk: Disk) -> (Mounted, Process) {
    let mounted = Mounted::mount(disk);
    let mut process = Process::spawn(&mounted.path().join(DATA));
    process.ready().await.unwrap();
    (mounted, process)
}

#[tokio::test(flavor = "multi_thread")]
async fn w207_a_large_upload_goes_on_when_the_power_went_after_its_parts_became_an_object() {
    let (mounted, mut process) = start(Disk::with_folder(Honesty::Honest, DATA.as_ref())).await;
    let content = noise(1, 17 << 20);
    let (digest, (first, rest)) = (sha256(&content), content.split_at((17 << 20) - 1000));
    let upload = process.client.open_upload("app").await.unwrap();
    process.client.patch(&upload, first).await.unwrap();
    let object = |path: &Path| path.starts_with("data/v1/up") && path.extension().is_none();
    mounted.cut_when(move |disk| disk.survives(object));
    let close = process.client.close(&upload, &digest, rest);
    tokio::select! {
        closed = close => panic!("it was closed without an object: {closed:?}"),
        () = mounted.frozen() => {}
    }
    process.send_kill();
    mounted.switch_off();
    process.end();
    let (_mounted, process) = start(mounted.take_out(Disk::cut_to_the_bone)).await;
    let offset = process.client.offset(&upload).await.unwrap();
    assert!(offset >= first.len(), "{offset}");
    process.client.close(&upload, &digest, &content[offset..]).await.unwrap();
    assert!(process.client.get(&format!("/v2/app/blobs/{digest}")).await.body == content);
}

/// That the checks find out `honesty`, by a violation that begins with one of `expected`.
async fn assert_found_out(honesty: Honesty, expected: &[&str]) {
    for seed in 0..CUTS {
        let mut machine = Machine::new(honesty, seed);
        for _ in 0..4 {
            machine = machine.round().await;
            let books = machine.ledger.books();
            let found = |violation: &&String| expected.iter().any(|begin| violation.starts_with(begin));
            if let Some(violation) = books.violations.iter().find(found) {
                println!("found out after {} cuts with seed {seed}: {violation}", books.round);
                return;
            }
            if !books.violations.is_empty() {
                break;
            }
        }
    }
    panic!("a disk that is {honesty:?}, and none of {expected:?} was noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_not_flushed_is_found_out() {
    assert_found_out(Honesty::LiesAboutJournal, &["tag:", "manifest:", "blob:", "upload:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_flushed_are_found_out() {
    assert_found_out(Honesty::LiesAboutContent, &["wrong bytes:", "failed:", "it does not answer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_flushed_are_found_out() {
    assert_found_out(Honesty::LiesAboutFolders, &["blob:", "manifest:", "half visible:", "failed:"]).await;
}
