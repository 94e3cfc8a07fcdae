// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Floors: what no registry can do without, measured in plain loops on this machine in the same run.
//!
//! A copy is `read` and `write` on one thread, whose processor time is taken. The other ends of its sockets are
//! other threads, as clients and the S3 server are other processes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::time::{ClockId, clock_gettime};
use sqlx::{Connection as _, PgConnection};
use stowage_oci::{Algorithm, Hasher};

use crate::measure::{percentile, precise};
use crate::progress;
use crate::raw;
use crate::report::{FloorRow, Results};
use crate::servers::{Postgres, Presigned, Programs, S3};

/// What `--only` knows this work by.
pub(crate) const NAME: &str = "floors";
/// The floors, by the names that they have in the report.
pub(crate) const FILE_TO_SOCKET: &str = "file to socket";
pub(crate) const S3_TO_SOCKET: &str = "S3 to socket";
pub(crate) const SOCKET_TO_FILE: &str = "socket to file";
pub(crate) const SOCKET_TO_S3: &str = "socket to S3";
pub(crate) const SHA_256: &str = "SHA-256";
const ROUND_TRIP: &str = "PostgreSQL round trip";
/// What one copy moves.
const VOLUME: u64 = 512 << 20;
const GIB: u64 = 1 << 30;
/// A file is hashed in such pieces.
const PIECE: usize = 1 << 20;
const ROUND_TRIPS: usize = 2000;

/// The loops, and where they have their files.
pub(crate) struct Floors<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) rounds: usize,
    pub(crate) scratch: PathBuf,
}

impl Floors<'_> {
    /// Measures; what it finds out is added to `results`.
    pub(crate) async fn play(&self, results: &mut Results) -> Result<()> {
        const BUCKET: &str = "floors";
        let s3 = S3::start(self.programs, &self.scratch).await?;
        s3.create_bucket(BUCKET)?;
        let object = s3.presigned(BUCKET, "object").await?;
        let postgres = Postgres::start(&self.scratch).await?;
        let mut rows = [FILE_TO_SOCKET, S3_TO_SOCKET, SOCKET_TO_FILE, SOCKET_TO_S3, SHA_256]
            .map(|floor| FloorRow::new(floor, FloorRow::CPU));
        let mut trips = FloorRow::new(ROUND_TRIP, FloorRow::TIME);
        for round in 0..self.rounds {
            progress(&format!("{NAME}, round {}", round + 1));
            let (object, folder) = (object.clone(), self.scratch.clone());
            let used = tokio::task::spawn_blocking(move || loops(&object, &folder)).await??;
            for (row, used) in rows.iter_mut().zip(used) {
                row.rounds.push(used.as_secs_f64() * 1e6 * precise(GIB) / precise(VOLUME));
            }
            trips.rounds.push(round_trip(postgres.url()).await?);
            rustix::fs::sync();
        }
        results.floors.extend(rows);
        results.floors.push(trips);
        Ok(())
    }
}

/// Every loop once, in the order of the rows.
fn loops(object: &Presigned, folder: &Path) -> Result<[Duration; 5]> {
    let path = folder.join("file");
    let socket_to_file = from_socket(&mut File::create(&path)?).context(SOCKET_TO_FILE)?;
    let file_to_socket = to_socket(&mut File::open(&path)?).context(FILE_TO_SOCKET)?;
    let mut upload = raw::request(&object.address, "PUT", &object.put, VOLUME)?;
    let socket_to_s3 = from_socket(&mut upload).context(SOCKET_TO_S3)?;
    raw::expect(&mut upload, 200).context("put the object")?;
    let mut download = raw::request(&object.address, "GET", &object.get, 0)?;
    raw::expect(&mut download, 200).context("get the object")?;
    let s3_to_socket = to_socket(&mut download).context(S3_TO_SOCKET)?;
    Ok([file_to_socket, s3_to_socket, socket_to_file, socket_to_s3, hash()?])
}

/// A client reads what is sent to it.
fn to_socket(from: &mut impl Read) -> Result<Duration> {
    let (mut here, mut there) = raw::pair()?;
    let client = thread::spawn(move || raw::drain(&mut there));
    let used = used(|| raw::copy(from, &mut here, VOLUME))?;
    drop(here);
    joined(client)?;
    Ok(used)
}

/// A client sends.
fn from_socket(to: &mut impl Write) -> Result<Duration> {
    let (mut here, there) = raw::pair()?;
    let client = thread::spawn(move || send(there));
    let used = used(|| raw::copy(&mut here, to, VOLUME))?;
    joined(client)?;
    Ok(used)
}

fn send(mut socket: TcpStream) -> Result<()> {
    let piece = vec![0x5a; PIECE];
    for _ in 0..VOLUME / PIECE as u64 {
        socket.write_all(&piece)?;
    }
    Ok(())
}

/// The product's own hash.
fn hash() -> Result<Duration> {
    let piece = vec![0x5a; PIECE];
    let mut hasher = Hasher::new(Algorithm::Sha256);
    used(|| {
        for _ in 0..VOLUME / PIECE as u64 {
            hasher.update(&piece);
        }
        Ok(())
    })
}

fn joined(client: thread::JoinHandle<Result<()>>) -> Result<()> {
    client.join().map_err(|_panic| anyhow!("the other end of a socket failed"))?
}

/// Processor time that this thread uses.
fn used(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime));
    let before = now()?;
    work()?;
    Ok(now()?.saturating_sub(before))
}

/// The median of many, in microseconds: a prepared statement that does nothing, on one connection.
async fn round_trip(url: &str) -> Result<f64> {
    let mut connection = PgConnection::connect(url).await?;
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        sqlx::query("SELECT 1").execute(&mut connection).await?;
        times.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    times.sort_unstable();
    Ok(precise(percentile(&times, 50)) / 1e3)
}
