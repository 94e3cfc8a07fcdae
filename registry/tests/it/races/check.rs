// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What must hold when nobody is at work: bucket and database say the same, and what lives is whole.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;
use stowage_oci::Digest;

use super::database::Rows;
use super::reader::Bucket;

/// A digest as it stands in keys.
pub(super) fn dashed(digest: &Digest) -> String {
    digest.to_string().replace(':', "-")
}

/// Everything that is not as it must be. `strict`: repositories whose indexes must have their children.
pub(super) fn differences(rows: &Rows, bucket: &Bucket, strict: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let tags: BTreeMap<_, _> = rows.tags.iter().map(|(at, digest)| (at.clone(), dashed(digest))).collect();
    compare("tag", &tags, &bucket.tags, &mut found);
    let live: BTreeMap<_, _> =
        rows.manifests.keys().map(|(name, digest)| ((name.clone(), dashed(digest)), "lives")).collect();
    let read: BTreeMap<_, _> = bucket.manifests.keys().map(|at| (at.clone(), "lives")).collect();
    compare("manifest", &live, &read, &mut found);
    found.extend(bucket.wrong.iter().map(|key| format!("{key} has other bytes")));
    found.extend(bucket.unknown.iter().map(|key| format!("{key} is no key of ours")));
    for ((repository, digest), generation) in &rows.manifests {
        whole(rows, bucket, strict, (repository, digest), &generation.to_string(), &mut found);
    }
    for ((repository, digest), generation) in &rows.links {
        let records = bucket.links.get(&(repository.clone(), dashed(digest)));
        if !records.is_some_and(|records| records.contains(&generation.to_string())) {
            found.push(format!("link of {repository} to {digest}: no record {generation}"));
        }
    }
    for (digest, data) in &rows.blobs {
        let location = data.location();
        let stored = bucket.data.get(&dashed(digest));
        let key = location.blob_key(*digest).to_string();
        if stored.and_then(|stored| stored.get(&key)) != Some(&location.data_key(*digest).to_string()) {
            found.push(format!("blob {digest}: no data under {key}"));
        }
    }
    let keys = rows.live_keys();
    for (id, steps) in &rows.outbox {
        let doomed = steps.iter().filter_map(|step| step.strip_prefix('-')).filter(|key| keys.contains(*key));
        found.extend(doomed.map(|key| format!("outbox {id} would remove the live {key}")));
    }
    found
}

/// What the ledger lacks: a promotion whose row has no record, or no row, or that was `promised` and has none.
/// `is_forgiven`: that a record has no row.
pub(super) fn ledger(
    rows: &Rows,
    bucket: &Bucket,
    promised: &BTreeSet<String>,
    is_forgiven: impl Fn(&str) -> bool,
) -> Vec<String> {
    let recorded = rows.ledger.keys().filter(|key| !bucket.ledger.contains_key(*key));
    let mut found: Vec<String> = recorded.map(|key| format!("ledger: no record {key}")).collect();
    let known = bucket.ledger.keys().filter(|key| !rows.ledger.contains_key(*key) && !is_forgiven(key));
    found.extend(known.map(|key| format!("ledger: no row of {key}")));
    let names = |record: &[u8]| {
        let record: Value = serde_json::from_slice(record).expect("records are JSON");
        record["promotion"].as_str().map(str::to_owned)
    };
    let in_rows: BTreeSet<String> =
        rows.ledger.values().filter_map(|record| names(record.as_bytes())).collect();
    let in_bucket: BTreeSet<String> = bucket.ledger.values().filter_map(|record| names(record)).collect();
    for (place, names) in [("rows", in_rows), ("records", in_bucket)] {
        let lost = promised.difference(&names);
        found.extend(lost.map(|name| format!("ledger: the {place} lack the promotion {name}")));
    }
    found
}

/// What bucket and queue have of the digests and generations that a difference names.
pub(super) fn evidence(
    difference: &str,
    contents: &BTreeMap<String, Bytes>,
    rows: &Rows,
    is_revived: impl Fn(&str) -> bool,
) -> String {
    let words = difference.split(|c: char| !c.is_ascii_alphanumeric());
    let digests: Vec<&str> = words.filter(|word| matches!(word.len(), 26 | 64)).collect();
    let is_about = |key: &&String| digests.iter().any(|digest| key.contains(digest));
    let keys: Vec<&String> = contents.keys().filter(is_about).collect();
    let revived: Vec<&&String> = keys.iter().filter(|key| is_revived(key)).collect();
    let queued: Vec<&String> = rows.outbox.iter().flat_map(|(_, steps)| steps).filter(is_about).collect();
    format!("keys {keys:?}, of those put late {revived:?}, queued {queued:?}")
}

fn compare<V: PartialEq + std::fmt::Debug>(
    what: &str,
    rows: &BTreeMap<(String, String), V>,
    bucket: &BTreeMap<(String, String), V>,
    found: &mut Vec<String>,
) {
    for at in rows.keys().chain(bucket.keys().filter(|at| !rows.contains_key(*at))) {
        if rows.get(at) != bucket.get(at) {
            found.push(format!("{what} {at:?}: database {:?}, bucket {:?}", rows.get(at), bucket.get(at)));
        }
    }
}

/// What a manifest refers to.
#[derive(Debug, Default)]
pub(super) struct References {
    pub(super) blobs: Vec<Digest>,
    pub(super) children: Vec<Digest>,
    pub(super) subject: Option<Digest>,
}

/// Reads a manifest's references, by no code of ours.
pub(super) fn references(body: &[u8]) -> References {
    let document: Value = serde_json::from_slice(body).expect("manifests are JSON");
    let digest = |descriptor: &Value| descriptor["digest"].as_str().unwrap().parse().unwrap();
    let list = |field: &str| document[field].as_array().into_iter().flatten().map(digest).collect::<Vec<_>>();
    let config = document.get("config").map(digest);
    References {
        blobs: config.into_iter().chain(list("layers")).collect(),
        children: list("manifests"),
        subject: document.get("subject").map(digest),
    }
}

fn whole(
    rows: &Rows,
    bucket: &Bucket,
    strict: &[&str],
    (repository, digest): (&String, &Digest),
    generation: &String,
    found: &mut Vec<String>,
) {
    let of = format!("manifest {digest} of {repository}");
    let at = (repository.clone(), dashed(digest));
    if !bucket.manifests.get(&at).is_some_and(|records| records.contains(generation)) {
        found.push(format!("{of}: no record {generation}"));
    }
    let Some(body) = bucket.bodies.get(&at.1) else { return };
    let References { blobs, children, subject } = references(body);
    for blob in blobs {
        if !rows.links.contains_key(&(repository.clone(), blob)) {
            found.push(format!("{of}: blob {blob} has no link"));
        }
        if !rows.blobs.contains_key(&blob) {
            found.push(format!("{of}: blob {blob} has no data"));
        }
    }
    for child in children.iter().filter(|_| strict.contains(&repository.as_str())) {
        let child = (repository.clone(), *child);
        if !rows.manifests.contains_key(&child) && !rows.links.contains_key(&child) {
            found.push(format!("{of}: child {} is not there", child.1));
        }
    }
    if let Some(subject) = subject {
        let entry = (repository.clone(), dashed(&subject), at.1.clone(), generation.clone());
        if !bucket.referrers.contains(&entry) {
            found.push(format!("{of}: no entry below its subject {subject}"));
        }
    }
}
