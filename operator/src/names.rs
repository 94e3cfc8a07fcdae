// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The names, labels and annotations of everything the operator makes.
//!
//! Guarantees: a derived name is legal where it is used and never changes for the same input; two different inputs
//! never share a name (what is too long is cut and ends in eight digits of its hash).
//! Never: asks the API server whether a name is free; that is [`crate::apply`]'s question.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// The field manager of everything the operator applies, and the value of `managed-by`.
pub const MANAGER: &str = "stowage-operator";
/// The field manager that holds `spec.replicas` for the moment between us and an autoscaler.
pub const HANDOVER_MANAGER: &str = "stowage-operator-handover";
/// Which Registry an object belongs to.
pub const REGISTRY_LABEL: &str = "stowage.dev/registry";
/// Which Mirror a run and its pod are for.
pub const MIRROR_LABEL: &str = "stowage.dev/mirror";
/// Which Promotion a run and its pod are for.
pub const PROMOTION_LABEL: &str = "stowage.dev/promotion";
/// Which `RetentionPolicy` a run and its pod are for.
pub const RETENTION_LABEL: &str = "stowage.dev/retentionpolicy";
/// What part of the registry an object is.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Namespaces with this label may scrape the operations port.
pub const MONITORING_LABEL: &str = "stowage.dev/monitoring";
/// Reconcile now; the value is echoed in `status.lastHandledReconcileAt`.
pub const RECONCILE_REQUESTED_AT: &str = "stowage.dev/reconcile-requested-at";
/// One more run now, of a Registry's collector, a Mirror or a `RetentionPolicy`; the value is echoed in `status.lastHandledRunAt`.
pub const RUN_REQUESTED_AT: &str = "stowage.dev/run-requested-at";
/// Its value is the id of the bucket's registry: an empty database is made again from that bucket.
pub const REBUILD: &str = "stowage.dev/rebuild";
/// `disabled` acts as `spec.suspend: true`.
pub const RECONCILE: &str = "stowage.dev/reconcile";
/// Releases a migration under `migrations.policy: Manual`; its value is the version to migrate to.
pub const APPROVE_MIGRATION: &str = "stowage.dev/approve-migration";
/// `"true"` lets a deletion go on without removing the data.
pub const ABANDON_DATA: &str = "stowage.dev/abandon-data";
/// On the pod template: the hash of what a running process cannot swap.
pub const RESTART_HASH: &str = "stowage.dev/restart-hash";
/// On a Job: which state of its Registry it was made for, so that a failed one is retried after an edit.
pub const MADE_FOR: &str = "stowage.dev/made-for";
/// On a Job: it asks what runs in the cluster before it deletes.
pub const USAGE_LABEL: &str = "stowage.dev/asks-usage";
/// Keeps a Registry until its data are purged; present only under `deletionPolicy: Delete`.
pub const DATA_FINALIZER: &str = "stowage.dev/data";

/// A Service, Job or label value lives with 63 characters at the most.
const LABEL_LIMIT: usize = 63;
/// A `CronJob` with these: the names of its Jobs are longer.
const CRON_LIMIT: usize = 52;
const HASH_DIGITS: usize = 8;

/// The first eight hex digits of the SHA-256 of `input`.
#[must_use]
pub fn short_hash(input: &str) -> String {
    hex::encode(Sha256::digest(input.as_bytes()).iter().take(HASH_DIGITS / 2).copied().collect::<Vec<u8>>())
}

/// `sha256:` and the full hash of `bytes`.
#[must_use]
pub fn long_hash(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// `name` if it fits into `limit` characters, else its beginning and a hash of the whole.
#[must_use]
pub fn fit(name: &str, limit: usize) -> String {
    if name.len() <= limit {
        return name.to_owned();
    }
    let head: String = name.chars().take(limit.saturating_sub(HASH_DIGITS + 1)).collect();
    format!("{}-{}", head.trim_end_matches(['-', '.']), short_hash(name))
}

/// A DNS label made of an arbitrary object name, as volume names must be: dots become dashes and a hash keeps two
/// names apart that differ in them only.
#[must_use]
pub fn dns_label(name: &str) -> String {
    let plain = name.replace('.', "-");
    if plain == name {
        fit(name, LABEL_LIMIT)
    } else {
        fit(&format!("{plain}-{}", short_hash(name)), LABEL_LIMIT)
    }
}

/// A legal label value that shows `text` as well as the alphabet allows.
#[must_use]
pub fn label_value(text: &str) -> String {
    let legal: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    fit(legal.trim_matches(['-', '_', '.']), LABEL_LIMIT)
}

/// The part of a registry that an object or a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// The replicas that serve.
    Registry,
    /// The Job that brings the database to the schema of the image.
    Migrate,
    /// The collector.
    GarbageCollection,
    /// The runs of a Mirror that copy.
    Sync,
    /// The evaluations of a Promotion.
    Promote,
    /// The runs of a `RetentionPolicy`.
    Retention,
    /// The Job that makes the database again from the bucket.
    Rebuild,
    /// The Job that removes all data before the Registry goes.
    Purge,
    /// What watches it.
    Monitoring,
}

impl Component {
    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Migrate => "migrate",
            Self::GarbageCollection => "gc",
            Self::Sync => "sync",
            Self::Promote => "promote",
            Self::Retention => "retention",
            Self::Rebuild => "rebuild",
            Self::Purge => "purge",
            Self::Monitoring => "monitoring",
        }
    }
}

/// The names of the objects of one Registry.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a>(&'a str);

impl<'a> Names<'a> {
    /// Names of the Registry `registry`, itself at most 40 characters long.
    #[must_use]
    pub fn of(registry: &'a str) -> Self {
        Self(registry)
    }

    fn with(self, suffix: &str) -> String {
        fit(&format!("{}-{suffix}", self.0), LABEL_LIMIT)
    }

    /// Deployment, Service, `ServiceAccount` and whatever there is only one of.
    #[must_use]
    pub fn main(self) -> String {
        self.0.to_owned()
    }

    /// The `ConfigMap` with the policy document.
    #[must_use]
    pub fn config(self) -> String {
        self.with("config")
    }

    /// The headless Service of the operations port.
    #[must_use]
    pub fn ops(self) -> String {
        self.with("ops")
    }

    /// The Service of the type the user asked for.
    #[must_use]
    pub fn public(self) -> String {
        self.with("public")
    }

    /// The `NetworkPolicy` that closes the pods of Jobs.
    #[must_use]
    pub fn jobs(self) -> String {
        self.with("jobs")
    }

    /// The volume of a registry that keeps blobs or database on disk.
    #[must_use]
    pub fn data(self) -> String {
        self.with("data")
    }

    /// The migration Job for one image and database.
    #[must_use]
    pub fn migration(self, image_and_database: &str) -> String {
        self.with(&format!("migrate-{}", short_hash(image_and_database)))
    }

    /// The `CronJob` of the collector.
    #[must_use]
    pub fn garbage_collection(self) -> String {
        fit(&format!("{}-gc", self.0), CRON_LIMIT)
    }

    /// The Job of one collection that was asked for, told apart by what it was asked with and after.
    #[must_use]
    pub fn collection_run(self, asked: &str) -> String {
        self.with(&format!("gc-run-{}", short_hash(asked)))
    }

    /// The Job that makes the database again.
    #[must_use]
    pub fn rebuild(self) -> String {
        self.with("rebuild")
    }

    /// The Job that removes all data.
    #[must_use]
    pub fn purge(self) -> String {
        self.with("purge")
    }

    /// The `ConfigMap` with what runs in the cluster.
    #[must_use]
    pub fn usage(self) -> String {
        self.with("usage")
    }

    /// The `ConfigMap` with the Grafana dashboard.
    #[must_use]
    pub fn dashboard(self) -> String {
        self.with("dashboard")
    }

    /// The labels that select the pods of a component. They never change.
    #[must_use]
    pub fn selector(self, component: Component) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/name", "stowage"),
            ("app.kubernetes.io/instance", self.0),
            (COMPONENT_LABEL, component.as_str()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// Every label of an object.
    #[must_use]
    pub fn labels(self, component: Component, version: &str) -> BTreeMap<String, String> {
        let mut labels = self.selector(component);
        labels.extend(
            [
                ("app.kubernetes.io/part-of", "stowage"),
                ("app.kubernetes.io/managed-by", MANAGER),
                ("app.kubernetes.io/version", version),
                (REGISTRY_LABEL, self.0),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        labels
    }
}

/// The names of the objects of one Mirror.
#[derive(Debug, Clone, Copy)]
pub struct MirrorNames<'a>(&'a str);

impl<'a> MirrorNames<'a> {
    /// Names of the Mirror `mirror`.
    #[must_use]
    pub fn of(mirror: &'a str) -> Self {
        Self(mirror)
    }

    /// The `CronJob` of its runs.
    #[must_use]
    pub fn schedule(self) -> String {
        fit(&format!("{}-sync", self.0), CRON_LIMIT)
    }

    /// The Job of one run, told apart by what made it due.
    #[must_use]
    pub fn run(self, due: &str) -> String {
        fit(&format!("{}-sync-{}", self.0, short_hash(due)), LABEL_LIMIT)
    }

    /// The value of [`MIRROR_LABEL`].
    #[must_use]
    pub fn label(self) -> String {
        label_value(self.0)
    }
}

/// The names of the objects of one Promotion.
#[derive(Debug, Clone, Copy)]
pub struct PromotionNames<'a>(&'a str);

impl<'a> PromotionNames<'a> {
    /// Names of the Promotion `promotion`.
    #[must_use]
    pub fn of(promotion: &'a str) -> Self {
        Self(promotion)
    }

    /// The `ConfigMap` with what is asked for.
    #[must_use]
    pub fn request(self) -> String {
        fit(&format!("{}-request", self.0), LABEL_LIMIT)
    }

    /// The Job of one evaluation.
    #[must_use]
    pub fn run(self, number: i32) -> String {
        fit(&format!("{}-promote-{number}", self.0), LABEL_LIMIT)
    }

    /// The value of [`PROMOTION_LABEL`].
    #[must_use]
    pub fn label(self) -> String {
        label_value(self.0)
    }
}

/// The names of the objects of one `RetentionPolicy`.
#[derive(Debug, Clone, Copy)]
pub struct RetentionNames<'a>(&'a str);

impl<'a> RetentionNames<'a> {
    /// Names of the `RetentionPolicy` `policy`.
    #[must_use]
    pub fn of(policy: &'a str) -> Self {
        Self(policy)
    }

    /// The `CronJob` of its runs.
    #[must_use]
    pub fn schedule(self) -> String {
        fit(&format!("{}-retention", self.0), CRON_LIMIT)
    }

    /// The Job of one run that was asked for, told apart by what it was asked with and after.
    #[must_use]
    pub fn run(self, asked: &str) -> String {
        fit(&format!("{}-retention-{}", self.0, short_hash(asked)), LABEL_LIMIT)
    }

    /// The value of [`RETENTION_LABEL`].
    #[must_use]
    pub fn label(self) -> String {
        label_value(self.0)
    }
}

/// `key=value,…`, as `status.selector` and label selectors write it.
#[must_use]
pub fn selector_text(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_label(name: &str) -> bool {
        name.len() <= 63
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !name.starts_with('-')
            && !name.ends_with('-')
    }

    #[test]
    fn every_derived_name_of_the_longest_registry_is_a_legal_label() {
        let longest = "a".repeat(40);
        let names = Names::of(&longest);
        for name in [
            names.main(),
            names.config(),
            names.ops(),
            names.public(),
            names.jobs(),
            names.data(),
            names.migration("image|database"),
            names.garbage_collection(),
            names.collection_run("2026-01-01T00:00:00Z"),
            names.rebuild(),
            names.purge(),
            names.dashboard(),
        ] {
            assert!(is_label(&name), "{name}");
        }
        assert!(names.garbage_collection().len() <= 52);
        let longest = "a".repeat(253);
        let names = MirrorNames::of(&longest);
        assert!(is_label(&names.schedule()) && names.schedule().len() <= 52);
        assert!(is_label(&names.run("2026-01-01T00:00:00Z")) && is_label(&names.label()));
        let names = PromotionNames::of(&longest);
        assert!(is_label(&names.request()) && is_label(&names.run(i32::MAX)) && is_label(&names.label()));
    }

    #[test]
    fn what_is_too_long_keeps_its_beginning_and_stays_apart_from_its_neighbour() {
        let (one, other) = (fit(&"x".repeat(70), 63), fit(&"x".repeat(71), 63));
        assert_eq!(one.len(), 63);
        assert_ne!(one, other);
        assert!(one.starts_with("xxxx"));
    }

    #[test]
    fn names_that_differ_in_a_dot_only_give_different_labels() {
        assert_ne!(dns_label("a.b"), dns_label("a-b"));
        assert!(is_label(&dns_label(&format!("{}.b", "a".repeat(250)))));
        assert_eq!(dns_label("plain"), "plain");
    }

    #[test]
    fn a_label_value_keeps_what_it_can() {
        assert_eq!(label_value("1.2.3+build"), "1.2.3_build");
        assert_eq!(label_value("sha256:abc"), "sha256_abc");
        assert_eq!(label_value("-x-"), "x");
    }
}
