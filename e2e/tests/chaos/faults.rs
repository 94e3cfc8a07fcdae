// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is done to the parts. Each fault is an episode: it begins with everything as it should be, and ends so.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::Rng as _;
use rand::rngs::StdRng;
use rustix::process::Signal;
use stowage_e2e::history::Part;
use stowage_e2e::until;
use tokio::time::{Instant, sleep};

use crate::line::{Line, State};
use crate::postgres::Postgres;
use crate::site::{Replica, Site};

/// Something that is done to a part.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Every replica is ended in order and started again, one after the other.
    Rollout,
    /// A replica is killed and started again.
    Kill,
    /// A replica does nothing for a while, and then goes on as if nothing had been.
    Freeze(Duration),
    /// The line to the database is in this state for a while.
    Database(State, Duration),
    /// The line to the bucket is in this state for a while.
    Bucket(State, Duration),
    /// The database's server is ended and started again.
    RestartPostgres,
    /// The database's server crashes and is started again.
    CrashPostgres,
    /// A standby takes over from the database's server, and lacks what that one committed in the time before.
    Failover(Duration),
    /// The bucket's server crashes and is started again.
    CrashS3,
    /// The line to the registry that is mirrored is in this state for a while.
    Upstream(State, Duration),
    /// That registry's server crashes and is started again after a while.
    CrashUpstream(Duration),
}

/// Lets one fault follow another until `end`, in an order by chance, with a pause after each.
pub(crate) async fn storm(site: &Site, faults: &[Fault], rng: &mut StdRng, end: Instant) -> Result<usize> {
    let mut episodes = 0;
    let mut left: Vec<Fault> = Vec::new();
    while Instant::now() < end {
        if left.is_empty() {
            left = faults.to_vec();
        }
        let fault = left.swap_remove(rng.random_range(0..left.len()));
        fault.strike(site, rng).await?;
        episodes += 1;
        sleep(Duration::from_millis(rng.random_range(500..4000))).await;
    }
    Ok(episodes)
}

impl Fault {
    async fn strike(self, site: &Site, rng: &mut StdRng) -> Result<()> {
        let victim = &site.replicas[rng.random_range(0..site.replicas.len())];
        match self {
            Self::Rollout => {
                for replica in &site.replicas {
                    restart(site, replica, "it is replaced", async || replica.stop().await).await?;
                }
                Ok(())
            }
            Self::Kill => restart(site, victim, "it is killed", async || victim.kill().await).await,
            Self::Freeze(time) => freeze(site, victim, time).await,
            Self::Database(state, time) => {
                site.outage(Part::Database, &format!("the line is {state:?}"), async || {
                    site.to_postgres.set(state);
                    sleep(time).await;
                    site.to_postgres.set(State::Up);
                    Ok(())
                })
                .await
            }
            Self::Bucket(state, time) => {
                site.outage(Part::Bucket, &format!("the line is {state:?}"), async || {
                    site.to_s3.set(state);
                    sleep(time).await;
                    site.to_s3.set(State::Up);
                    Ok(())
                })
                .await
            }
            Self::Upstream(state, time) => {
                site.outage(Part::Upstream, &format!("the line is {state:?}"), async || {
                    site.upstream.line.set(state);
                    sleep(time).await;
                    site.upstream.line.set(State::Up);
                    Ok(())
                })
                .await
            }
            Self::CrashUpstream(time) => {
                site.outage(Part::Upstream, "the server crashes", async || site.upstream.crash(time).await)
                    .await
            }
            Self::RestartPostgres => {
                let mut server = site.postgres.lock().await;
                site.outage(Part::Database, "the server is restarted", async || {
                    server.stop().await?;
                    server.start().await
                })
                .await
            }
            Self::CrashPostgres => {
                let mut server = site.postgres.lock().await;
                site.outage(Part::Database, "the server crashes", async || {
                    server.crash().await?;
                    server.start().await
                })
                .await
            }
            Self::Failover(lag) => fail_over(site, lag).await,
            Self::CrashS3 => {
                let mut server = site.s3.lock().await;
                site.outage(Part::Bucket, "the server crashes", async || {
                    server.crash().await?;
                    server.start().await
                })
                .await
            }
        }
    }
}

/// A standby that has caught up is cut off from its primary, which is killed after `lag`; everybody goes on with the
/// standby. Clients must have been acknowledged what it lacks.
async fn fail_over(site: &Site, lag: Duration) -> Result<()> {
    let mut primary = site.postgres.lock().await;
    let replication = Line::to(primary.port()).await?;
    let folder = site.folder().join(format!("postgres-{}", replication.port()));
    let standby = Postgres::start_following(&folder, replication.port()).await?;
    let begun = primary.position().await?;
    let caught_up = async || Ok((standby.position().await? >= begun).then_some(()));
    until("the standby to follow", Duration::from_secs(30), caught_up).await?;
    site.outage(Part::Uploads, "the database takes back their progress", async || {
        replication.set(State::Cut);
        let from = site.recorder.now();
        sleep(lag).await;
        let (lost, position) = (site.acknowledged_since(from), primary.position().await?);
        ensure!(lost > 0, "nothing was pushed while the standby did not follow");
        site.outage(Part::Database, "a standby takes over", async || {
            primary.crash().await?;
            ensure!(standby.position().await? < position, "the standby lacks nothing");
            standby.promote().await?;
            site.to_postgres.lead_to(standby.port());
            Ok(())
        })
        .await?;
        println!("a standby took over that lacked {lost} acknowledged pushes of manifests");
        Ok(())
    })
    .await?;
    *primary = standby;
    Ok(())
}

async fn restart(
    site: &Site,
    replica: &Replica,
    reason: &str,
    end: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    site.outage(Part::Replica(replica.number), reason, async || {
        end().await?;
        replica.start().await
    })
    .await
}

async fn freeze(site: &Site, replica: &Replica, time: Duration) -> Result<()> {
    site.outage(Part::Replica(replica.number), "it is frozen", async || {
        replica.signal(Signal::STOP).await?;
        sleep(time).await;
        replica.signal(Signal::CONT).await
    })
    .await
}
