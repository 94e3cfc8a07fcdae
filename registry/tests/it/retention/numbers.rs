// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Many tags. How long it takes is said, not judged: other tests run beside. `STOWAGE_RETIRED_TAGS` and
//! `STOWAGE_PLANNED_REPOSITORIES` make more of them, for a measurement by hand.

use std::time::Instant;

use stowage_registry::jobs::RetentionRun;

use super::both_sites;
use super::site::{keeps, policy, settings};
use crate::gc::site::Site;

fn asked(variable: &str, few: u64) -> u64 {
    std::env::var(variable).map_or(few, |text| text.parse().unwrap())
}

/// Tags `t1`, `t2`, … of what `latest` names.
async fn tag(site: &Site, repository: &str, count: u64) {
    let columns = "INSERT INTO tags (repo_id, name, manifest_id, epoch, seq, gen, pushed_at)";
    let from = format!(
        "FROM tags t JOIN repositories r ON r.id = t.repo_id WHERE r.name = '{repository}' AND t.name = 'latest'"
    );
    site.execute(
        &format!(
            "{columns} WITH RECURSIVE n (at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM n WHERE at < {count}) \
             SELECT t.repo_id, 't' || n.at, t.manifest_id, t.epoch, n.at, randomblob(16), t.pushed_at {}",
            from.replacen("FROM tags t", "FROM n CROSS JOIN tags t", 1)
        ),
        &format!(
            "{columns} SELECT t.repo_id, 't' || n, t.manifest_id, t.epoch, nextval('versions'), gen_random_uuid(), t.pushed_at {}",
            from.replacen("FROM tags t", &format!("FROM generate_series(1, {count}) n CROSS JOIN tags t"), 1)
        ),
    )
    .await;
}

async fn many_tags_are_deleted_in_batches(site: Site) {
    let count = asked("STOWAGE_RETIRED_TAGS", 450);
    site.push_image("team/app", "latest", &[b"layer"]).await;
    tag(&site, "team/app", count).await;
    let settings = settings(vec![policy("team", "team/**", vec![keeps(&["latest"])])]);
    site.ran(&settings, "team", None, RetentionRun::Act).await.unwrap();
    let begun = Instant::now();
    let (done, _) = site.ran(&settings, "team", None, RetentionRun::Act).await.unwrap();
    println!("{count} tags planned and deleted in {:?}", begun.elapsed());
    assert_eq!((done.deleted, done.skipped, done.failure), (count, 0, None));
    assert_eq!(site.tags("team/app").await, ["latest"]);
    let tombstones = site.left().await.into_iter().filter(|key| key.ends_with(".-")).count() as u64;
    assert_eq!(tombstones, count);
    assert_eq!(site.meta.backlog().await.unwrap().owed, 0, "nothing is left to the outbox");
}

async fn n3_a_plan_goes_through_all_repositories(site: Site) {
    let repositories = asked("STOWAGE_PLANNED_REPOSITORIES", 20);
    site.push_image("team/app", "latest", &[b"layer"]).await;
    tag(&site, "team/app", 99).await;
    for table in ["repositories", "manifests", "tags"] {
        let of = |numbers: &str, bytes: &str| match table {
            "repositories" => format!("INSERT INTO repositories (name) SELECT 'team/r' || n FROM {numbers}"),
            "manifests" => format!(
                "INSERT INTO manifests (repo_id, digest, state, gen, touched, pushed_at, media_type, size) \
                 SELECT r.id, m.digest, 1, {bytes}, m.touched, m.pushed_at, m.media_type, m.size FROM repositories r \
                 CROSS JOIN manifests m WHERE r.name LIKE 'team/r%' AND m.state = 1"
            ),
            _ => format!(
                "INSERT INTO tags (repo_id, name, manifest_id, epoch, seq, gen, pushed_at) \
                 SELECT r.id, t.name, m.id, t.epoch, t.seq, {bytes}, t.pushed_at FROM repositories r \
                 JOIN manifests m ON m.repo_id = r.id CROSS JOIN tags t JOIN repositories o ON o.id = t.repo_id \
                 WHERE r.name LIKE 'team/r%' AND o.name = 'team/app'"
            ),
        };
        let numbers = format!(
            "(WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {repositories}) SELECT n FROM n) n"
        );
        let series = format!("generate_series(1, {repositories}) n");
        site.execute(&of(&numbers, "randomblob(16)"), &of(&series, "gen_random_uuid()")).await;
    }
    let settings = settings(vec![policy("team", "team/**", vec![keeps(&["latest"])])]);
    let (begun, mut lines) = (Instant::now(), 0_u64);
    let told =
        site.retainer().run(&settings, "team", None, RetentionRun::Tell, &mut |_| lines += 1).await.unwrap();
    println!("{lines} tags in {repositories} repositories planned in {:?}, {}", begun.elapsed(), peak());
    assert_eq!((told.tally.evaluated, lines), (100 * (repositories + 1), 100 * (repositories + 1)));
    assert_eq!(told.tally.unkept, 99 * (repositories + 1));
}

/// The most memory that this process ever had.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned()
}

both_sites!(many_tags_are_deleted_in_batches, n3_a_plan_goes_through_all_repositories);
