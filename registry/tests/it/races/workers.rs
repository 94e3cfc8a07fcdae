// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Collectors and walkers, as production has them; and the ends of runs, when all must go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stowage_oci::{Digest, Name, Reference, Tag};
use stowage_registry::domain::{Error, Verify, VerifyOptions, Walk, WalkError};
use stowage_registry::jobs::{Collected, Collector, GcError};
use stowage_registry::meta::{self, Finding};
use stowage_registry::ops::metrics::CollectionMetrics;

use tokio_util::sync::CancellationToken;

use super::database::Rows;
use super::world::{Actor, World};
use super::{check, clients, reader, releases};

fn collector(world: &World, actor: &Actor) -> Collector {
    let metrics = CollectionMetrics::default();
    Collector::new(Arc::clone(&actor.meta), Arc::clone(&actor.store), metrics)
        .trashing_untagged(world.setting.times.trash)
}

fn note(world: &World, collected: &Collected) {
    world.add("rolled forward", collected.finished);
    world.add("rolled back", collected.withdrawn);
    world.add("uploads expired", collected.uploads);
    world.add("rows removed", collected.drained.rows);
    world.add("objects removed", collected.drained.removed());
    for (kind, count) in &collected.rows {
        world.add(&format!("{kind} swept"), *count);
    }
}

/// What a collector may meet; all else is a violation.
fn judge(world: &World, error: &GcError) {
    match error {
        GcError::Frozen(meta::Error::Untrusted | meta::Error::Superseded) => world.count("collectors frozen"),
        GcError::Database(meta::Error::Unavailable(_)) => world.count("database away"),
        GcError::Store(_) => world.count("bucket away"),
        // Of controls that hide the epochs.
        GcError::Foreign(_) if world.setting.manners.hides_epochs => world.count("collectors frozen"),
        other => world.violation(format!("collector: {other:?}")),
    }
}

/// One pass of somebody who does not die.
pub(super) async fn pass(world: &World, actor: &Actor) {
    match collector(world, actor).collect().await {
        Ok(collected) => note(world, &collected),
        Err(error) => judge(world, &error),
    }
}

/// One pass, and a pause.
pub(super) async fn collect(world: &World, actor: &mut Actor) {
    let wire = actor.wire.clone();
    let collector = collector(world, actor);
    let all = actor.chance(0.7);
    let pass =
        wire.guard(async { if all { collector.collect().await } else { collector.finish_requests().await } });
    match pass.await {
        None => {
            world.count("crashes of collectors");
            actor.reborn = true;
        }
        Some(Ok(collected)) => {
            world.count("passes");
            note(world, &collected);
        }
        Some(Err(error)) => {
            judge(world, &error);
            if let GcError::Frozen(meta::Error::Live { key }) = &error {
                explain(world, key).await;
            }
        }
    }
    actor.think(Duration::from_millis(60)).await;
}

/// What everybody says of a key that is live and queued for removal.
async fn explain(world: &World, key: &str) {
    let (rows, contents) = (world.database.rows().await, world.bucket.contents().await);
    let evidence = check::evidence(key, &contents, &rows, |key| world.bucket.is_revived(key));
    let owner = rows.blobs.iter().find(|(digest, _)| key.contains(&digest.hex()));
    world.violation(format!("{key}: row {owner:?}; {evidence}"));
}

/// Compares the database with the bucket when it is not trusted.
pub(super) async fn walk(world: &World, actor: &mut Actor) {
    let wire = actor.wire.clone();
    match wire.guard(walk_if_untrusted(actor)).await {
        None => {
            world.count("crashes of walkers");
            actor.reborn = true;
        }
        Some(Ok(true)) => world.count("walks"),
        Some(Ok(false)) => {}
        Some(Err(error)) => judge_walk(world, &error),
    }
    actor.think(Duration::from_millis(40)).await;
}

/// Whether there was something to compare, and now is not.
async fn walk_if_untrusted(actor: &Actor) -> Result<bool, WalkError> {
    let trust = actor.domain.trust();
    trust.look_again().await?;
    let token = trust.enter().await?;
    if token.trusted {
        return Ok(false);
    }
    let walk = Walk::new(&actor.domain, Walk::alone(None), CancellationToken::new());
    let walked = walk.run(token.epoch).await?;
    trust.walked(token.epoch);
    Ok(walked.listed > 0)
}

/// Compares all that is trusted and repairs what it finds. Where nothing is lost there is nothing to find.
pub(super) async fn verify(world: &Arc<World>, actor: &mut Actor) {
    let (wire, told) = (actor.wire.clone(), Arc::clone(world));
    let tell = move |finding: &Finding| {
        if told.setting.loses_rows {
            told.count("findings");
        } else {
            told.violation(format!("verify: {finding:?}"));
        }
    };
    let pass = async {
        let trust = actor.domain.trust();
        trust.look_again().await?;
        let token = trust.enter().await?;
        if !token.trusted {
            return Ok(false);
        }
        let options = VerifyOptions { repair: true, ..VerifyOptions::default() };
        Verify::alone(&actor.domain, options, CancellationToken::new(), tell).run(token.epoch).await?;
        Ok(true)
    };
    match wire.guard(pass).await {
        None => {
            world.count("crashes of verifiers");
            actor.reborn = true;
        }
        Some(Ok(true)) => world.count("verifications"),
        Some(Ok(false)) => {}
        Some(Err(error)) => clients::judge(world, "verify", &error),
    }
    actor.think(Duration::from_millis(500)).await;
}

fn judge_walk(world: &World, error: &WalkError) {
    match error {
        WalkError::Domain(error) => clients::judge(world, "walk", error),
        other => world.violation(format!("walk: {other:?}")),
    }
}

/// Compares everything with the bucket, until the database is trusted.
pub(super) async fn compare(world: &World) {
    let actor = world.somebody().await;
    loop {
        match walk_if_untrusted(&actor).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => judge_walk(world, &error),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Nobody else is at work: what was begun is finished or taken back, and evidence that is owed is written.
pub(super) async fn settle(world: &World) {
    let actor = world.somebody().await;
    let collector = collector(world, &actor);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Err(error) = walk_if_untrusted(&actor).await {
            judge_walk(world, &error);
        }
        // Whole passes: in a lane evidence may wait behind removals.
        match collector.collect().await {
            Ok(collected) => note(world, &collected),
            Err(error) => judge(world, &error),
        }
        let rows = world.database.rows().await;
        let mut owed = rows.outbox;
        owed.retain(|(_, steps)| steps.iter().any(|step| step.starts_with('+')));
        if rows.intents == 0 && owed.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            return world.violation(format!("never finished: {} intents, {owed:?}", rows.intents));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Deletes everything there is.
async fn delete_all(world: &World, actor: &Actor, rows: &Rows) {
    for (repository, tag) in rows.tags.keys() {
        let (repository, tag): (Name, Tag) = (repository.parse().unwrap(), tag.parse().unwrap());
        if let Err(error) = actor.domain.delete_tag(&repository, &tag).await {
            world.violation(format!("delete of the last tags: {error:?}"));
        }
    }
    for (repository, digest) in rows.manifests.keys() {
        delete(world, actor, repository, digest).await;
    }
}

async fn delete(world: &World, actor: &Actor, repository: &str, digest: &Digest) {
    let repository: Name = repository.parse().unwrap();
    match actor.domain.delete_manifest(&repository, digest).await {
        // Those that list it go first; those without a tag go by themselves.
        Ok(()) | Err(Error::Referenced | Error::ManifestUnknown) => {}
        Err(error) => world.violation(format!("delete of the last manifests: {error:?}")),
    }
    let found = actor.domain.manifest(&repository, &Reference::Digest(*digest), false).await;
    if let Err(error) = found
        && !matches!(error, Error::ManifestUnknown)
    {
        world.violation(format!("read of a deleted manifest: {error:?}"));
    }
}

/// The end: everything is deleted, and what was stored goes with it.
pub(super) async fn everything_goes(world: &World) {
    let actor = world.somebody().await;
    releases::lift(&actor.domain);
    let collector = collector(world, &actor);
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let rows = world.database.rows().await;
        delete_all(world, &actor, &rows).await;
        match collector.collect().await {
            Ok(collected) => note(world, &collected),
            Err(error) => judge(world, &error),
        }
        let queued = world.database.rows().await.outbox;
        // A walk keeps markers about nothing for a day.
        let waits = |steps: &Vec<String>| steps.iter().all(|step| step.starts_with('-') && is_marker(step));
        let queued = queued.iter().filter(|(_, steps)| !(world.setting.loses_rows && waits(steps))).count();
        if world.database.count(LEFT).await == 0 && queued == 0 {
            break;
        }
        if Instant::now() > deadline {
            let left = world.database.report(REPORT).await;
            return world.violation(format!("never collected: {left:?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    orphans(world).await;
}

fn is_marker(key: &str) -> bool {
    key.rsplit('.').next() == Some("x")
}

/// Rows of content and of queues.
const LEFT: &str = "SELECT (SELECT count(*) FROM tags) + (SELECT count(*) FROM manifests)
    + (SELECT count(*) FROM repo_blobs) + (SELECT count(*) FROM blobs) + (SELECT count(*) FROM uploads)
    + (SELECT count(*) FROM intents)";

/// What the rows are that are left.
const REPORT: &[&str] = &[
    "SELECT CAST('manifest ' || m.id || ' state ' || state || ' parents ' || (SELECT count(*) FROM manifest_children c
       WHERE c.repo_id = m.repo_id AND c.child = m.digest) || ' tags ' || (SELECT count(*) FROM tags t
       WHERE t.manifest_id = m.id) || ' subject ' || (SELECT count(*) FROM manifests s WHERE s.repo_id = m.repo_id
       AND s.digest = m.subject) AS text) FROM manifests m",
    "SELECT CAST('link ' || l.id || ' manifests ' || (SELECT count(*) FROM manifest_blobs b WHERE b.link_id = l.id)
       || ' parents ' || (SELECT count(*) FROM manifest_children c WHERE c.repo_id = l.repo_id
       AND c.child = l.digest) || ' blob ' || blob_id AS text) FROM repo_blobs l",
    "SELECT CAST('queue ' || kind || ' ' || ref || ' due ' || due AS text) FROM gc_queue",
    "SELECT CAST('tag ' || name || ' until ' || coalesce(trashed_until, 0) || ' now ' || now AS text) FROM tags, clock LIMIT 3",
    "SELECT CAST('intent ' || kind || ' ' || keys AS text) FROM intents LIMIT 3",
    "SELECT CAST('outbox ' || id || ' ' || steps AS text) FROM outbox",
];

/// What is left in the bucket must be nothing that could be believed, and nothing that is large.
async fn orphans(world: &World) {
    let contents = world.bucket.contents().await;
    let read = reader::read(&contents);
    for (what, number) in [("tags", read.tags.len()), ("manifests", read.manifests.len())] {
        if number > 0 {
            world.violation(format!("{number} {what} are left in the bucket"));
        }
    }
    for key in contents.keys() {
        let data = key.starts_with("v1/blob/") || key.starts_with("v1/up/");
        let evidence = is_marker(key) || key.ends_with(".-");
        if key == "v1/FORMAT" || key.starts_with("v1/epoch/") {
        } else if world.bucket.is_revived(key) {
            world.count("orphans of late requests");
        } else if evidence {
            world.count("evidence left");
        } else if reader::is_ledger(key) {
            world.count("promotions kept");
        } else if world.setting.loses_rows && !data {
            world.count("orphans of disasters");
        } else {
            world.violation(format!("orphan {key}"));
        }
    }
}
