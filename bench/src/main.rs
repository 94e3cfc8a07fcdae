// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The published benchmark: Stowage and its peers side by side, on the same storage, with the same work.
//!
//! `docs/performance.md` says what is measured and how to read it.

mod artifact;
mod counting;
mod floors;
mod large;
mod lists;
mod load;
mod machine;
mod measure;
mod mirror;
mod pace;
mod plot;
mod policies;
mod raw;
mod records;
mod reliability;
mod report;
mod scaling;
mod scene;
mod servers;
mod site;
mod standing;
mod stowage;
mod table;
mod targets;
mod tls;
mod work;

use std::collections::BTreeMap;
use std::fmt;
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
use crate::machine::{Machine, load_average};
use crate::mirror::Mirrors;
use crate::policies::Policies;
use crate::reliability::Reliability;
use crate::report::{About, Results, Settings};
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
    /// Only work whose name holds this text: `filesystem/push`, `s3/manifest-by-tag x8`, `s3/requests`, `reliability`, `mirror`, `policies`, `floors`, `idle`, `memory`, `scale-out`, `growth`
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
    /// How many manifests a registry has grown to, in `growth`; how many tags are planned, in `policies`
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
        policies: Vec::new(),
        floors: Vec::new(),
        idle: Vec::new(),
        loads: Vec::new(),
        last_bytes: Vec::new(),
        scaling: Vec::new(),
    };
    let earlier = arguments.merge.iter().map(|path| Results::read(path)).collect::<Result<Vec<Results>>>()?;
    // Before the work, not after it.
    earlier.iter().try_for_each(|earlier| results.comparable(earlier)).context("cannot merge")?;

    let scenes: Vec<(Ground, Stage)> = Ground::ALL
        .into_iter()
        .flat_map(|ground| Stage::ALL.map(|stage| (ground, stage)))
        .filter(|&(ground, stage)| {
            !arguments.works(ground, stage).is_empty() || arguments.counts(ground, stage)
        })
        .collect();
    let costs = costs(arguments, &kinds);
    ensure!(!scenes.is_empty() || !costs.is_empty(), "no work has a name like {:?}", arguments.only);
    let bench = Bench { arguments, kinds: &kinds, programs: &programs, data: &data };
    // What has failed is not in the results; the rest took too long to be thrown away.
    let mut failures = Vec::new();
    for (ground, stage) in scenes {
        let played = bench.play_scene(ground, stage, &mut results).await;
        failures.extend(played.with_context(|| format!("measure on {}", ground.name())).err());
    }
    for cost in costs {
        let played = bench.play_cost(&cost, &mut results).await;
        failures.extend(played.with_context(|| format!("measure {cost}")).err());
    }
    for earlier in earlier {
        results.merge(earlier).context("cannot merge")?;
    }
    results.write(&arguments.results)?;
    stdout().write_all(results.markdown().as_bytes()).context("print the results")?;
    let failures: Vec<String> = failures.iter().map(|failure| format!("{failure:#}")).collect();
    ensure!(failures.is_empty(), "the results lack what has failed:\n{}", failures.join("\n"));
    Ok(())
}

/// What is no work of clients.
enum Cost {
    Reliability(Ground),
    Mirror(Ground),
    Policies(Ground),
    Floors,
    Idle(Vec<Ground>),
    Memory(Ground),
    ScaleOut,
    Growth,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reliability(ground) => write!(f, "{} on {}", reliability::NAME, ground.name()),
            Self::Mirror(ground) => write!(f, "{} on {}", mirror::NAME, ground.name()),
            Self::Policies(ground) => write!(f, "{} on {}", policies::NAME, ground.name()),
            Self::Floors => f.write_str(floors::NAME),
            Self::Idle(_) => f.write_str(standing::IDLE),
            Self::Memory(ground) => write!(f, "{} on {}", standing::MEMORY, ground.name()),
            Self::ScaleOut => f.write_str(scaling::SCALE_OUT),
            Self::Growth => f.write_str(scaling::GROWTH),
        }
    }
}

/// Those that were asked for.
fn costs(arguments: &Arguments, kinds: &[Kind]) -> Vec<Cost> {
    let grounds = |name| Ground::ALL.into_iter().filter(move |&ground| arguments.wants(ground, name));
    let ours = kinds.contains(&Kind::Stowage);
    // Distribution is the upstream.
    let both = ours && kinds.contains(&Kind::Distribution);
    let floors = arguments.wants(Ground::S3, floors::NAME).then_some(Cost::Floors);
    let idle: Vec<Ground> = grounds(standing::IDLE).collect();
    let grown = |name| ours && arguments.wants(Ground::S3, name);
    grounds(reliability::NAME)
        .filter(|_| ours)
        .map(Cost::Reliability)
        .chain(grounds(mirror::NAME).filter(|_| both).map(Cost::Mirror))
        // Longer than all else of its kind: only where it is asked for.
        .chain(grounds(policies::NAME).filter(|_| ours && !arguments.only.is_empty()).map(Cost::Policies))
        .chain(floors)
        .chain((!idle.is_empty()).then_some(Cost::Idle(idle)))
        .chain(grounds(standing::MEMORY).map(Cost::Memory))
        .chain(grown(scaling::SCALE_OUT).then_some(Cost::ScaleOut))
        .chain(grown(scaling::GROWTH).then_some(Cost::Growth))
        .collect()
}

/// What all parts of a run share.
struct Bench<'a> {
    arguments: &'a Arguments,
    kinds: &'a [Kind],
    programs: &'a Programs,
    data: &'a Data,
}

impl Bench<'_> {
    async fn play_scene(&self, ground: Ground, stage: Stage, results: &mut Results) -> Result<()> {
        let Self { arguments, programs, data, .. } = *self;
        let (works, counts) = (arguments.works(ground, stage), arguments.counts(ground, stage));
        let suits = |kind: &Kind| counts || works.iter().any(|work| work.task.suits(*kind, ground));
        let kinds: Vec<Kind> = self.kinds.iter().copied().filter(suits).collect();
        let scratch = scratch(&arguments.scratch)?;
        let tls = if stage == Stage::Tls { Some(Tls::make()?) } else { None };
        let scene = Scene {
            ground,
            kinds: &kinds,
            // Nothing is known of their certificates, nor of what they keep lists in.
            peers: if stage == Stage::Plain { &arguments.peer } else { &[] },
            programs,
            data,
            stage,
            tls: tls.as_ref(),
            works,
            counts,
            settings: results.settings,
            scratch: scratch.path().to_owned(),
        };
        scene.play(results).await
    }

    async fn play_cost(&self, cost: &Cost, results: &mut Results) -> Result<()> {
        let Self { arguments, kinds, programs, data } = *self;
        let folder = scratch(&arguments.scratch)?;
        let scratch = folder.path().to_owned();
        let (rounds, settings) = (arguments.rounds, results.settings);
        let idle = Duration::from_secs(arguments.idle);
        match cost {
            &Cost::Reliability(ground) => {
                let images = arguments.images;
                Reliability { ground, programs, data, images, scratch }.play(results).await
            }
            &Cost::Mirror(ground) => Mirrors { ground, programs, rounds, scratch }.play(results).await,
            &Cost::Policies(ground) => {
                let (seconds, tags) = (settings.seconds, arguments.grown);
                Policies { ground, programs, data, rounds, seconds, tags, scratch }.play(results).await
            }
            Cost::Floors => Floors { programs, rounds, scratch }.play(results).await,
            Cost::Idle(grounds) => {
                Standing { kinds, programs, data, idle, scratch }.play_idle(grounds, results).await
            }
            &Cost::Memory(ground) => {
                Standing { kinds, programs, data, idle, scratch }.play_memory(ground, results).await
            }
            Cost::ScaleOut => Scaling { programs, data, settings, scratch }.play_scale_out(results).await,
            Cost::Growth => {
                Scaling { programs, data, settings, scratch }.play_growth(arguments.grown, results).await
            }
        }
    }
}

impl Arguments {
    fn wants(&self, ground: Ground, name: &str) -> bool {
        let name = format!("{}/{name}", ground.name());
        self.only.is_empty() || self.only.iter().any(|pattern| name.contains(pattern))
    }

    /// The work of a scene that was asked for.
    fn works(&self, ground: Ground, stage: Stage) -> Vec<Work> {
        let wanted = |work: &Work| work.task.stage() == stage && self.wants(ground, &work.to_string());
        work::all().into_iter().filter(wanted).collect()
    }

    /// Whether requests to the storage are to be counted there.
    fn counts(&self, ground: Ground, stage: Stage) -> bool {
        (ground, stage) == (Ground::S3, Stage::Plain) && self.wants(ground, "requests")
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
