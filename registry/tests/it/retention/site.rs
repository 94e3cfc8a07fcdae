// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Policies over a registry, and time that passes in its rows.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};
use stowage_oci::{Algorithm, Digest, TagSelection, TagsWanted};
use stowage_registry::config::Retention;
use stowage_registry::jobs::{PlanLine, Retained, Retainer, RetentionError, RetentionRun};
use stowage_registry::operation::Mode;
use stowage_registry::ops::metrics::RetentionMetrics;
use stowage_registry::retention::{Limits, Policies, Policy, PolicyMode, Referrers, Rule};
use stowage_registry::usage::Usage;

use crate::gc::site::Site;

pub(crate) const DAY: Duration = Duration::from_hours(24);

pub(crate) fn policy(name: &str, include: &str, keep: Vec<Rule>) -> Policy {
    let hash = Digest::of(Algorithm::Sha256, format!("{name} {include} {keep:?}").as_bytes());
    Policy {
        name: name.to_owned(),
        include: vec![include.parse().unwrap()],
        exclude: Vec::new(),
        mode: PolicyMode::Enforce,
        suspended: false,
        keep,
        min_age: Duration::ZERO,
        untagged: None,
        referrers: Referrers::FollowSubject,
        limits: Limits { deletions: 1_000_000, percent: 100 },
        hash,
    }
}

/// Keeps these tags.
pub(crate) fn keeps(tags: &[&str]) -> Rule {
    let wanted = TagsWanted::Exactly(tags.iter().map(|tag| tag.parse().unwrap()).collect());
    Rule { name: "kept".to_owned(), tags: TagSelection { wanted, exclude: Vec::new() }, ..Rule::default() }
}

pub(crate) fn settings(policies: Vec<Policy>) -> Retention {
    Retention {
        policies: Policies::new(policies),
        pinned: HashSet::new(),
        immutable: Vec::new(),
        fetched: Vec::new(),
        copied: Vec::new(),
        retain_for: DAY,
        mode: Mode::ReadWrite,
        due: Vec::new(),
    }
}

/// A plan, by repository and tag.
pub(crate) type Plan = BTreeMap<String, String>;

impl Site {
    pub(crate) fn retainer(&self) -> Retainer {
        Retainer::new(Arc::clone(&self.meta), Arc::clone(&self.store), RetentionMetrics::default())
    }

    /// One run, with its plan.
    pub(crate) async fn ran(
        &self,
        settings: &Retention,
        name: &str,
        usage: Option<Usage>,
        run: RetentionRun,
    ) -> Result<(Retained, Plan), RetentionError> {
        let (mut plan, retainer) = (Plan::new(), self.retainer());
        let mut tell = |line: &PlanLine<'_>| {
            plan.insert(format!("{}:{}", line.repository, line.tag), line.reason.clone());
        };
        let retained = retainer.run(settings, name, usage, run, &mut tell).await?;
        Ok((retained, plan))
    }

    /// Runs until the rules were told, and then once more.
    pub(crate) async fn enforced(&self, settings: &Retention, name: &str) -> (Retained, Plan) {
        let (told, _) = self.ran(settings, name, None, RetentionRun::Act).await.unwrap();
        assert_eq!(told.held.map(|held| held.reason()), Some("FirstRunOfRules"));
        self.ran(settings, name, None, RetentionRun::Act).await.unwrap()
    }

    /// The tags of a repository.
    pub(crate) async fn tags(&self, repository: &str) -> Vec<String> {
        let answer = self.get(&format!("/v2/{repository}/tags/list")).await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        serde_json::from_value(body["tags"].clone()).unwrap_or_default()
    }

    /// Changes rows behind the registry's back.
    pub(crate) async fn execute(&self, sqlite: &str, postgres: &str) {
        if self.address.starts_with("sqlite:") {
            let mut connection = SqliteConnection::connect(&self.address).await.unwrap();
            connection.execute(AssertSqlSafe(sqlite.to_owned())).await.unwrap();
            connection.close().await.unwrap();
        } else {
            let mut connection = PgConnection::connect(&self.address).await.unwrap();
            connection.execute(AssertSqlSafe(postgres.to_owned())).await.unwrap();
            connection.close().await.unwrap();
        }
    }

    /// A tag was pushed so many days ago.
    pub(crate) async fn age(&self, tag: &str, days: u64) {
        let micros = days * 24 * 3600 * 1_000_000;
        self.execute(
            &format!("UPDATE tags SET pushed_at = pushed_at - {micros} WHERE name = '{tag}'"),
            &format!("UPDATE tags SET pushed_at = pushed_at - interval '{days} days' WHERE name = '{tag}'"),
        )
        .await;
    }

    /// A digest was promoted so many days ago.
    pub(crate) async fn promoted(&self, digest: &Digest, from: &str, to: &str, days: u64) {
        let bytes: Vec<String> = digest.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let bytes = bytes.concat();
        let columns =
            "INSERT INTO promotions (digest, source_repo, target_repo, policy, outcome, actor, at, evidence)";
        let micros = days * 24 * 3600 * 1_000_000;
        self.execute(
            &format!("{columns} SELECT x'{bytes}', '{from}', '{to}', 'p', 'Promoted', 'me', now - {micros}, '{{}}' FROM clock"),
            &format!("{columns} VALUES ('\\x{bytes}', '{from}', '{to}', 'p', 'Promoted', 'me', now() - interval '{days} days', '{{}}')"),
        )
        .await;
    }
}
