// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `gc`, started every few seconds as a Job would be, and killed now and then.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, timeout};

use crate::postgres;
use crate::site::Site;

const PATIENCE: Duration = Duration::from_mins(1);

/// The database's clock as if it had gone on, as far as waiting goes that nobody can configure: an hour until data goes
/// and what is queued is carried out, but not the day that markers stay; and ten minutes for pushes, of which a quarter
/// of a minute is left to those that run.
const TIME_PASSES: [&str; 4] = [
    "UPDATE blobs SET freed = freed - interval '1 hour' WHERE id IN \
     (SELECT id FROM blobs WHERE freed > now() - interval '1 hour' FOR NO KEY UPDATE SKIP LOCKED)",
    "UPDATE gc_queue SET due = now() WHERE id IN \
     (SELECT id FROM gc_queue WHERE kind = 'b' AND due > now() FOR UPDATE SKIP LOCKED)",
    "UPDATE outbox SET due = now() WHERE id IN \
     (SELECT id FROM outbox WHERE due BETWEEN now() AND now() + interval '2 hours' FOR UPDATE SKIP LOCKED)",
    "UPDATE intents SET deadline = now() WHERE id IN \
     (SELECT id FROM intents WHERE deadline BETWEEN now() AND now() + interval '585 seconds' FOR UPDATE SKIP LOCKED)",
];

/// What came of all runs.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// Those that came to their end.
    pub(crate) runs: usize,
    /// Those that were killed.
    pub(crate) killed: usize,
    /// Those that were refused by a database that was not trusted, or met a part that was away.
    pub(crate) broken_off: usize,
    /// Objects that went.
    pub(crate) objects: u64,
}

/// Collects until `end`, with a pause of at most `pause` after each run; one of so many is killed.
pub(crate) async fn collect(
    site: &Site,
    rng: &mut StdRng,
    end: Instant,
    pause: Duration,
    killed: u32,
) -> Result<Collected> {
    let mut collected = Collected::default();
    while Instant::now() < end {
        let_time_pass(site).await;
        run(site, rng, killed, &mut collected).await?;
        sleep(pause.mul_f64(rng.random_range(0.5..1.0))).await;
    }
    Ok(collected)
}

/// Collects once more, to the end.
pub(crate) async fn collect_once(site: &Site, rng: &mut StdRng, collected: &mut Collected) -> Result<()> {
    let runs = collected.runs;
    let begun = Instant::now();
    while collected.runs == runs {
        ensure!(begun.elapsed() < PATIENCE, "no collection comes to its end: {collected:?}");
        let_time_pass(site).await;
        run(site, rng, 0, collected).await?;
    }
    Ok(())
}

async fn let_time_pass(site: &Site) {
    for statement in TIME_PASSES {
        // A database that is away lets no time pass.
        let passed = postgres::ask(site.to_postgres.port(), statement);
        drop(timeout(Duration::from_secs(2), passed).await);
    }
}

async fn run(site: &Site, rng: &mut StdRng, killed: u32, collected: &mut Collected) -> Result<()> {
    let (begun, mut program) = (site.recorder.now(), site.registry("gc")?);
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start gc")?;
    if killed > 0 && rng.random_ratio(1, killed) {
        sleep(Duration::from_millis(rng.random_range(50..1500))).await;
        child.kill().await.context("kill gc")?;
        collected.killed += 1;
        return Ok(());
    }
    let ended =
        timeout(PATIENCE, child.wait_with_output()).await.context("gc does not end")?.context("run gc")?;
    let says = String::from_utf8_lossy(&ended.stderr);
    match ended.status.code() {
        Some(0) => collected.runs += 1,
        // It waits for no part longer than a second; the next one goes on.
        Some(1) => collected.broken_off += 1,
        Some(3) if site.was_out_since(begun) => collected.broken_off += 1,
        _ => bail!("nothing excuses that gc ended with {}: {says}", ended.status),
    }
    let counts = String::from_utf8_lossy(&ended.stdout);
    let objects = counts.lines().find_map(|line| line.strip_prefix("deletedObjects "));
    collected.objects += objects.map_or(Ok(0), str::parse::<u64>).context("read what gc counts")?;
    Ok(())
}
