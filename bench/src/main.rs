// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The published benchmark: Stowage and its peers side by side, on the same storage, with the same work.
//!
//! `docs/performance.md` says what is measured and how to read it.

mod counting;
mod floors;
mod large;
mod lists;
mod load;
mod measure;
mod mirror;
mod pace;
mod plot;
mod raw;
mod records;
mod reliability;
mod report;
mod scaling;
mod scene;
mod servers;
mod standing;
mod table;
mod targets;
mod tls;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Write, stderr, stdout};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use stowage_oci::{Algorithm, Digest};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::floors::Floors;
use crate::mirror::Mirrors;
use crate::reliability::Reliability;
use crate::report::{About, Machine, Results, Settings, load_average};
use crate::scaling::Scaling;
use crate::scene::{Ground, Peer, Scene};
use crate::servers::{Kind, Programs};
use crate::standing::Standing;
use crate::tls::Tls;
use crate::work::{Data, Stage, Work};

/// Measure registries side by side.
#[derive(Debug, Parser)]
#[command(name = "stowage-bench")]
struct Arguments {
    /// Only work whose name holds this text: `filesystem/push`, `s3/manifest-by-tag x8`, `s3/requests`, `reliability`, `mirror`, `floors`, `idle`, `memory`, `scale-out`, `growth`
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// How often each piece of work is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each piece of work is repeated in a round
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How many images a rebuild brings back, in `reliability`
    #[arg(long, default_value_t = 10_000)]
    images: u64,
    /// How many seconds nobody asks for anything, in `idle`
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// How many manifests a registry has grown to, in `growth`
    #[arg(long, default_value_t = 1_000_000)]
    grown: u64,
    /// A registry at hand that takes part: it must let anybody push
    #[arg(long, value_name = "NAME=URL", value_parser = peer)]
    peer: Vec<Peer>,
    /// Leave one of `stowage`, `distribution` and `docker-registry` out
    #[arg(long, value_name = "NAME", value_parser = kind)]
    without: Vec<Kind>,
    /// Earlier results to keep where this run measures nothing new
    #[arg(long, value_name = "FILE")]
    merge: Vec<PathBuf>,
    /// Where the results go
    #[arg(long, value_name = "FOLDER", default_value = "bench/results")]
    results: PathBuf,
    /// Where all storage lies while the benchmark runs; not a file system in memory
    #[arg(long, value_name = "FOLDER", default_value = "/var/tmp")]
    scratch: PathBuf,
    /// The program of Stowage
    #[arg(long, value_name = "FILE", default_value = "target/release/stowage-registry")]
    stowage: PathBuf,
    /// The folder of the programs `registry` (distribution) and `versitygw`; Debian's packages are unpacked beside it
    #[arg(long, value_name = "FOLDER", env = "STOWAGE_TOOLS", default_value = "target/tools/bin")]
    tools: PathBuf,
}

fn peer(text: &str) -> Result<Peer, String> {
    let address = |url: &str| {
        let host = url.strip_prefix("http://")?.trim_end_matches('/');
        let host = Some(host).filter(|host| !host.is_empty() && !host.contains(['/', '@', '?']))?;
        Some(if host.contains(':') { host.to_owned() } else { format!("{host}:80") })
    };
    let parse = |text: &str| {
        let (name, url) = text.split_once('=')?;
        Some(Peer { name: name.to_owned(), address: address(url)? })
    };
    parse(text).ok_or_else(|| "must be NAME=http://HOST[:PORT]".to_owned())
}

fn kind(text: &str) -> Result<Kind, String> {
    let known = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    known.ok_or_else(|| format!("must be one of {}", Kind::ALL.map(Kind::name).join(", ")))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate()).context("listen for signals")?;
    tokio::select! {
        done = bench(&arguments) => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted: all servers were ended, no results written"),
        _ = terminate.recv() => bail!("terminated: all servers were ended, no results written"),
    }
}

async fn bench(arguments: &Arguments) -> Result<()> {
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !arguments.without.contains(kind)).collect();
    let programs = Programs {
        stowage: arguments.stowage.clone(),
        distribution: arguments.tools.join("registry"),
        docker_registry: arguments.tools.join("../docker/usr/bin/docker-registry"),
        versitygw: arguments.tools.join("versitygw"),
    };
    let begun = now();
    // A run makes far fewer than a million pushes a second.
    let data = Data::make(begun.as_second().unsigned_abs() << 20);
    let mut results = Results {
        taken: begun.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        load: load_average()?,
        data: data.fingerprint(),
        machine: Machine::read(&arguments.scratch)?,
        settings: Settings { rounds: arguments.rounds, seconds: arguments.seconds },
        registries: registries(&kinds, &arguments.peer, &programs)?,
        rows: Vec::new(),
        processes: Vec::new(),
        requests: Vec::new(),
        reliability: Vec::new(),
        mirrors: Vec::new(),
        floors: Vec::new(),
        idle: Vec::new(),
        loads: Vec::new(),
        last_bytes: Vec::new(),
        scaling: Vec::new(),
    };
    let earlier = arguments.merge.iter().map(|path| Results::read(path)).collect::<Result<Vec<Results>>>()?;
    // Before the work, not after it.
    earlier.iter().try_for_each(|earlier| results.comparable(earlier)).context("cannot merge")?;

    let mut nothing = true;
    let stages = Ground::ALL.into_iter().flat_map(|ground| Stage::ALL.map(|stage| (ground, stage)));
    for (ground, stage) in stages {
        let wanted = |work: &Work| work.task.stage() == stage && arguments.wants(ground, &work.to_string());
        let works: Vec<Work> = work::all().into_iter().filter(wanted).collect();
        let counts = (ground, stage) == (Ground::S3, Stage::Plain) && arguments.wants(ground, "requests");
        if works.is_empty() && !counts {
            continue;
        }
        nothing = false;
        let suits = |kind: &Kind| counts || works.iter().any(|work| work.task.suits(*kind, ground));
        let kinds: Vec<Kind> = kinds.iter().copied().filter(suits).collect();
        let scratch = scratch(&arguments.scratch)?;
        let tls = if stage == Stage::Tls { Some(Tls::make()?) } else { None };
        let scene = Scene {
            ground,
            kinds: &kinds,
            // Nothing is known of their certificates, nor of what they keep lists in.
            peers: if stage == Stage::Plain { &arguments.peer } else { &[] },
            programs: &programs,
            data: &data,
            stage,
            tls: tls.as_ref(),
            works,
            counts,
            settings: results.settings,
            scratch: scratch.path().to_owned(),
        };
        scene.play(&mut results).await.with_context(|| format!("measure on {}", ground.name()))?;
    }
    nothing &= !costs(arguments, &kinds, &programs, &data, &mut results).await?;
    ensure!(!nothing, "no work has a name like {:?}", arguments.only);
    for earlier in earlier {
        results.merge(earlier).context("cannot merge")?;
    }
    results.write(&arguments.results)?;
    stdout().write_all(results.markdown().as_bytes()).context("print the results")
}

/// All that is not work of clients, repeated in rounds; whether anything was asked for.
async fn costs(
    arguments: &Arguments,
    kinds: &[Kind],
    programs: &Programs,
    data: &Data,
    results: &mut Results,
) -> Result<bool> {
    let grounds = |name| Ground::ALL.into_iter().filter(move |&ground| arguments.wants(ground, name));
    let ours = kinds.contains(&Kind::Stowage);
    let mut anything = false;
    for ground in grounds(reliability::NAME).filter(|_| ours) {
        anything = true;
        let scratch = scratch(&arguments.scratch)?;
        let images = arguments.images;
        let upkeep = Reliability { ground, programs, data, images, scratch: scratch.path().to_owned() };
        upkeep.play(results).await.with_context(|| format!("measure on {}", ground.name()))?;
    }
    // Distribution is the upstream.
    let both = ours && kinds.contains(&Kind::Distribution);
    for ground in grounds(mirror::NAME).filter(|_| both) {
        anything = true;
        let scratch = scratch(&arguments.scratch)?;
        let rounds = arguments.rounds;
        let mirrors = Mirrors { ground, programs, rounds, scratch: scratch.path().to_owned() };
        mirrors.play(results).await.with_context(|| format!("measure on {}", ground.name()))?;
    }
    if arguments.wants(Ground::S3, floors::NAME) {
        anything = true;
        let scratch = scratch(&arguments.scratch)?;
        let floors = Floors { programs, rounds: arguments.rounds, scratch: scratch.path().to_owned() };
        floors.play(results).await.context("measure the floors")?;
    }
    let idle = Duration::from_secs(arguments.idle);
    let standing = |scratch: &TempDir| {
        let scratch = scratch.path().to_owned();
        Standing { kinds, programs, data, idle, scratch }
    };
    let still: Vec<Ground> = grounds(standing::IDLE).collect();
    if !still.is_empty() {
        anything = true;
        let scratch = scratch(&arguments.scratch)?;
        standing(&scratch).play_idle(&still, results).await.context("measure what is idle")?;
    }
    for ground in grounds(standing::MEMORY) {
        anything = true;
        let scratch = scratch(&arguments.scratch)?;
        let played = standing(&scratch).play_memory(ground, results).await;
        played.with_context(|| format!("measure memory on {}", ground.name()))?;
    }
    let settings = results.settings;
    let scaling =
        |scratch: &TempDir| Scaling { programs, data, settings, scratch: scratch.path().to_owned() };
    if ours && arguments.wants(Ground::S3, scaling::SCALE_OUT) {
        anything = true;
        let scratch = scratch(&arguments.scratch)?;
        scaling(&scratch).play_scale_out(results).await.context("measure two replicas")?;
    }
    if ours && arguments.wants(Ground::S3, scaling::GROWTH) {
        anything = true;
        let scratch = scratch(&arguments.scratch)?;
        let played = scaling(&scratch).play_growth(arguments.grown, results).await;
        played.context("measure a registry that has grown")?;
    }
    Ok(anything)
}

impl Arguments {
    fn wants(&self, ground: Ground, name: &str) -> bool {
        let name = format!("{}/{name}", ground.name());
        self.only.is_empty() || self.only.iter().any(|pattern| name.contains(pattern))
    }
}

fn registries(kinds: &[Kind], peers: &[Peer], programs: &Programs) -> Result<BTreeMap<String, About>> {
    let own = kinds.iter().map(|kind| Ok((kind.name().to_owned(), about(kind.program(programs))?)));
    let others = peers.iter().map(|peer| {
        let about = About { version: format!("at http://{}", peer.address), digest: None, bytes: None };
        Ok((peer.name.clone(), about))
    });
    own.chain(others).collect()
}

fn about(program: &Path) -> Result<About> {
    let bytes = fs::read(program).with_context(|| format!("read {}: is it built?", program.display()))?;
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("run {} --version", program.display()))?;
    // Some programs say first by what path they were called.
    let printed = String::from_utf8_lossy(&output.stdout);
    let words = printed.lines().next().unwrap_or_default().split(' ');
    let version: Vec<&str> = words.filter(|word| Path::new(word) != program).collect();
    Ok(About {
        version: version.join(" "),
        digest: Some(Digest::of(Algorithm::Sha256, &bytes).to_string()),
        bytes: Some(bytes.len() as u64),
    })
}

/// A folder that ends with its value. The user `postgres` must be able to pass through it.
fn scratch(parent: &Path) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("stowage-bench-").tempdir_in(parent);
    let folder = folder.with_context(|| format!("make a folder in {}", parent.display()))?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
        .context("open the scratch folder")?;
    Ok(folder)
}

#[expect(clippy::disallowed_methods, reason = "the date of a report is read once, here")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Says what goes on; a standard error that is closed is no reason to stop.
fn progress(text: &str) {
    drop(writeln!(stderr(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_and_an_address() {
        let parsed = peer("zot=http://127.0.0.1:5050/").unwrap();
        assert_eq!((parsed.name.as_str(), parsed.address.as_str()), ("zot", "127.0.0.1:5050"));
        assert_eq!(peer("zot=http://example.org").unwrap().address, "example.org:80");
        for bad in ["zot", "zot=https://example.org", "zot=http://", "zot=http://u:p@h", "zot=http://h/v2"] {
            assert!(peer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arguments_are_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
