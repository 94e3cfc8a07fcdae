// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Real replicas over a real database and a real bucket, all of which fail again and again while clients work; their
//! history must be legal, and what was acknowledged must be there at the end.
//!
//! A test takes half a minute, or as long as `$SOAK` says. It prints its seed, by which the same decisions are taken
//! again (`CHAOS_SEED`); a history that is not legal is kept, for `stowage-history check`.

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
mod tests {
    use std::time::Duration;

    use anyhow::{Context, Result, ensure};
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    use stowage_e2e::history::{History, Verdict, check};
    use stowage_e2e::soak_length;
    use tokio::time::Instant;

    use super::faults::{Fault, storm};
    use super::line::State;
    use super::site::Site;

    const REPLICAS: usize = 3;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seed() -> Result<u64> {
        match std::env::var("CHAOS_SEED") {
            Ok(seed) => seed.parse().context("CHAOS_SEED is no number"),
            Err(_) => Ok(rand::rng().random_range(0..1_000_000)),
        }
    }

    /// Lets clients work through storms of faults; nothing that the registry promises may be broken.
    async fn withstands(name: &str, storms: &[&[Fault]]) -> Result<()> {
        let seed = seed()?;
        println!("{name}: CHAOS_SEED={seed}");
        let site = Site::start(REPLICAS).await?;
        let judged = judged(&site, seed, storms).await;
        let failure = match judged {
            Ok((episodes, verdict)) if verdict.is_legal() => {
                println!("{name}: {episodes} faults\n{verdict}");
                let counts = verdict.counts.iter();
                let found: usize =
                    counts.filter(|((_, outcome), _)| *outcome == "found").map(|(_, n)| n).sum();
                ensure!(found > 30, "this run has shown nothing: {found} reads");
                return noticed(&site);
            }
            Ok((_, verdict)) => anyhow::anyhow!("not legal:\n{verdict}"),
            Err(failure) => failure,
        };
        let kept = site.keep()?;
        Err(failure.context(format!("CHAOS_SEED={seed}; logs and history are kept in {}", kept.display())))
    }

    /// That the faults were there to be noticed: without an excuse, what clients met would break promises.
    fn noticed(site: &Site) -> Result<()> {
        let inexcusable = History { outages: Vec::new(), ..site.recorder.history() };
        ensure!(!check(&inexcusable).is_legal(), "no client has met a fault");
        Ok(())
    }

    async fn judged(site: &Site, seed: u64, storms: &[&[Fault]]) -> Result<(usize, Verdict)> {
        let clients = site.load(seed).start(&site.recorder);
        let end = Instant::now() + soak_length(seconds(25))?;
        let storms = storms.iter().enumerate().map(|(number, faults)| {
            let mut rng = StdRng::seed_from_u64(seed + number as u64);
            async move { storm(site, faults, &mut rng, end).await }
        });
        let episodes = futures::future::try_join_all(storms).await?.into_iter().sum();
        Ok((episodes, clients.judge().await?))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn l_72_replicas_that_are_replaced_killed_or_frozen_break_no_promise() -> Result<()> {
        let faults = [Fault::Rollout, Fault::Kill, Fault::Kill, Fault::Freeze(seconds(3))];
        withstands("replicas", &[&faults]).await
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
        withstands("database and bucket", &[&database, &bucket]).await
    }
}
