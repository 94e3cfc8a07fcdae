// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Real replicas over a real database and a real bucket, all of which fail again and again while clients work; their
//! history must be legal, and what was acknowledged must be there at the end.
//!
//! A test takes half a minute, or as long as `$SOAK` says. It prints its seed, by which the same decisions are taken
//! again (`CHAOS_SEED`); a history that is not legal is kept, for `stowage-history check`.

#[cfg(test)]
mod alone;
#[cfg(test)]
mod collector;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod line;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod program;
#[cfg(test)]
mod site;
#[cfg(test)]
mod upstream;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::{Context, Result, ensure};
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    use stowage_e2e::history::{Cause, History, Operation, Outcome, Part, Verdict, check};
    use stowage_e2e::load::Load;
    use stowage_e2e::soak_length;
    use tokio::time::Instant;

    use super::alone::{Alone, fill_again_and_again};
    use super::collector::{Collected, collect, collect_once};
    use super::faults::{Fault, storm};
    use super::line::State;
    use super::site::Site;
    use super::upstream::SETTLING;

    const REPLICAS: usize = 3;

    /// What is done to replicas. A soak has time to freeze them for half a minute.
    fn to_replicas() -> Result<[Fault; 4]> {
        let is_soak = soak_length(Duration::ZERO)? >= seconds(120);
        let frozen = Fault::Freeze(seconds(if is_soak { 30 } else { 3 }));
        Ok([Fault::Rollout, Fault::Kill, Fault::Kill, frozen])
    }

    /// What is done to a registry that is mirrored.
    const UPSTREAM: [Fault; 3] = [
        Fault::Upstream(State::Cut, seconds(3)),
        Fault::Upstream(State::Dead, seconds(3)),
        Fault::CrashUpstream(seconds(2)),
    ];

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seed() -> Result<u64> {
        match std::env::var("CHAOS_SEED") {
            Ok(seed) => seed.parse().context("CHAOS_SEED is no number"),
            Err(_) => Ok(rand::rng().random_range(0..1_000_000)),
        }
    }

    /// What came of a run.
    struct Run {
        episodes: usize,
        collected: Collected,
        verdict: Verdict,
    }

    /// Lets clients work through storms of faults, beside collections; nothing that the registry promises may be broken.
    /// The clock of one replica is off by so many hours.
    async fn withstands(name: &str, hours: i8, clients: u32, storms: &[&[Fault]]) -> Result<()> {
        let seed = seed()?;
        println!("{name}: CHAOS_SEED={seed}");
        let site = Site::start(REPLICAS, hours).await?;
        let is_mirrored = storms.concat().iter().any(|fault| matches!(fault, Fault::Upstream(..)));
        let upstream = is_mirrored.then(|| site.upstream.load());
        let load = Load { clients, upstream, ..site.load(seed) };
        let failure = match run(&site, load, storms).await {
            Ok(run) if run.verdict.is_legal() => {
                let Run { episodes, collected, verdict } = run;
                println!("{name}: {episodes} faults, {collected:?}\n{verdict}");
                match shown(&site, &verdict, &collected) {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                }
            }
            Ok(run) => anyhow::anyhow!("not legal:\n{}", run.verdict),
            Err(failure) => failure,
        };
        let kept = site.keep()?;
        Err(failure.context(format!("CHAOS_SEED={seed}; logs and history are kept in {}", kept.display())))
    }

    /// That the run has shown something: clients read, the collector took away, and the faults were there to be noticed:
    /// without an excuse, what clients met would break promises.
    fn shown(site: &Site, verdict: &Verdict, collected: &Collected) -> Result<()> {
        let counts = verdict.counts.iter();
        let found: usize = counts.filter(|((_, outcome), _)| *outcome == "found").map(|(_, n)| n).sum();
        ensure!(found > 100, "only {found} reads");
        ensure!(collected.runs > 0, "nothing was collected: {collected:?}");
        let inexcusable = History { outages: Vec::new(), ..site.recorder.history() };
        ensure!(!check(&inexcusable).is_legal(), "no client has met a fault");
        Ok(())
    }

    async fn run(site: &Site, load: Load, storms: &[&[Fault]]) -> Result<Run> {
        let (seed, is_mirrored) = (load.seed, load.upstream.is_some());
        let mut clients = load.start(&site.recorder);
        let end = Instant::now() + soak_length(seconds(25))?;
        let storming = storms.iter().enumerate().map(|(number, faults)| {
            let mut rng = StdRng::seed_from_u64(seed + number as u64);
            async move { storm(site, faults, &mut rng, end).await }
        });
        let mut rng = StdRng::seed_from_u64(seed + storms.len() as u64);
        let (episodes, mut collected) = tokio::try_join!(
            futures::future::try_join_all(storming),
            collect(site, &mut rng, end, seconds(3), 4)
        )?;
        // What is read at the end is what the bucket says, and what a collection has left.
        site.compared().await?;
        collect_once(site, &mut rng, &mut collected).await?;
        if is_mirrored {
            // What everybody has had is read again when it is not to be had elsewhere.
            clients.read_all().await?;
            tokio::time::sleep(SETTLING).await;
            site.upstream.line.set(State::Cut);
            site.recorder.outage(Part::Upstream, "it has gone for good");
        }
        let verdict = clients.judge().await?;
        site.verify().await?;
        Ok(Run { episodes: episodes.into_iter().sum(), collected, verdict })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn l_72_replicas_that_are_replaced_killed_or_frozen_break_no_promise() -> Result<()> {
        withstands("replicas", 1, 8, &[&to_replicas()?]).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_pulled_through_a_mirror_is_there_when_replicas_and_the_upstream_come_and_go()
    -> Result<()> {
        withstands("replicas and upstream", 1, 8, &[&to_replicas()?, &UPSTREAM]).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn l_62_a_database_and_a_bucket_that_come_and_go_break_no_promise() -> Result<()> {
        let database = [
            Fault::Database(State::Cut, seconds(2)),
            Fault::Database(State::Dead, seconds(3)),
            Fault::Database(State::Slow(Duration::from_millis(30)), seconds(2)),
            Fault::RestartPostgres,
            Fault::CrashPostgres,
        ];
        let bucket = [
            Fault::Bucket(State::Cut, seconds(2)),
            Fault::Bucket(State::Dead, seconds(3)),
            Fault::Bucket(State::Slow(Duration::from_millis(30)), seconds(2)),
            Fault::CrashS3,
        ];
        // Many are told to come back, or wait for an answer that a dead line never brings.
        withstands("database and bucket", -1, 16, &[&database, &bucket]).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn l_75_a_failover_that_loses_commits_loses_nothing_acknowledged() -> Result<()> {
        withstands("failover", 1, 8, &[&[Fault::Failover(seconds(3))]]).await
    }

    /// Collections without a pause, and all replicas replaced every half minute.
    #[tokio::test(flavor = "multi_thread")]
    async fn l_07_a_soak_with_collections_and_rollouts_fails_no_operation() -> Result<()> {
        let (seed, length) = (seed()?, soak_length(seconds(30))?);
        let site = Site::start(2, 0).await?;
        match soak(&site, seed, length).await {
            Ok(line) => {
                println!("{line}");
                Ok(())
            }
            Err(failure) => {
                let kept = site.keep()?;
                Err(failure.context(format!("CHAOS_SEED={seed}; logs and history are in {}", kept.display())))
            }
        }
    }

    async fn soak(site: &Site, seed: u64, length: Duration) -> Result<String> {
        // Nobody is ended in the middle: each operation has an outcome.
        let mut load = site.load(seed);
        load.odds.crash = 0.0;
        let (clients, end) = (load.start(&site.recorder), Instant::now() + length);
        let rolling = async {
            let mut restarts = 0;
            while Instant::now() + length.min(seconds(30)) / 3 < end {
                let next = Instant::now() + seconds(30).min(length / 3);
                site.roll_out().await?;
                restarts += site.replicas.len();
                tokio::time::sleep_until(next).await;
            }
            Ok(restarts)
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let (restarts, collected) = tokio::try_join!(rolling, collect(site, &mut rng, end, seconds(1), 0))?;
        let verdict = clients.judge().await?;
        site.verify().await?;
        ensure!(verdict.is_legal(), "not legal:\n{verdict}");
        let operations = site.recorder.history().operations;
        let count = |is: fn(&Operation) -> bool| operations.iter().filter(|done| is(done)).count();
        let failed = count(|done| matches!(done.outcome, Outcome::Failed | Outcome::Crashed));
        let broken = count(|done| done.setbacks.iter().any(|setback| !is_told_to_come_back(&setback.cause)));
        let setbacks = operations.iter().flat_map(|done| &done.setbacks);
        let again = setbacks.filter(|setback| is_told_to_come_back(&setback.cause)).count();
        let pushes = count(|done| done.action.kind().starts_with("push"));
        let pulls = count(|done| done.action.is_pull());
        let deletions = count(|done| done.action.kind().starts_with("delete"));
        let line = format!(
            "soak of {length:?}: {} operations ({pushes} pushes, {pulls} pulls, {deletions} deletions), {failed} failed, \
             {broken} saw a broken connection, {again} attempts were told to come back; {restarts} restarts; \
             {} collections removed {} objects",
            operations.len(),
            collected.runs,
            collected.objects,
        );
        ensure!(failed == 0 && broken == 0 && again == 0, "{line}");
        ensure!(restarts > 0 && collected.objects > 0 && operations.len() > 500, "nothing was shown: {line}");
        Ok(line)
    }

    fn is_told_to_come_back(cause: &Cause) -> bool {
        matches!(cause, Cause::Unavailable { retry_after: Some(_), .. })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_is_full_again_and_again_breaks_no_promise() -> Result<()> {
        let seed = seed()?;
        println!("full disk: CHAOS_SEED={seed}");
        let alone = Alone::start(400).await?;
        let judged = async {
            let clients = alone.load(seed).start(&alone.recorder);
            let episodes = fill_again_and_again(&alone, Instant::now() + soak_length(seconds(20))?).await?;
            let verdict = clients.judge().await?;
            ensure!(verdict.is_legal(), "not legal:\n{verdict}");
            alone.verify().await?;
            let inexcusable = History { outages: Vec::new(), ..alone.recorder.history() };
            ensure!(!check(&inexcusable).is_legal(), "no client has met a full disk:\n{verdict}");
            Ok((episodes, verdict))
        };
        match judged.await {
            Ok((episodes, verdict)) => {
                println!("full disk: {episodes} times\n{verdict}");
                Ok(())
            }
            Err(failure) => {
                let kept = alone.keep()?;
                Err(failure.context(format!("CHAOS_SEED={seed}; log and history are in {}", kept.display())))
            }
        }
    }
}
