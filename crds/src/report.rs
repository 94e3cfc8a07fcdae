// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a replica says about itself: the body of `GET /config` on its operations port.
//!
//! The operator reads it from every pod, so it is read across versions: fields that a reader does not know are
//! ignored, and what a writer of an older version leaves out has a default. It never holds a secret.

use serde::{Deserialize, Serialize};

use crate::{LastPromotion, Summary, Termination, document::DocumentVersion};

/// What a replica says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of the program.
    pub version: String,
    /// Owner of the bucket's prefix; absent until storage answered once.
    #[serde(rename = "registryID", default)]
    pub registry_id: Option<String>,
    /// Hash of the document in force; absent before the first.
    #[serde(default)]
    pub hash: Option<String>,
    /// The highest version of a document that it understands.
    pub max_version: DocumentVersion,
    /// The newest document, if it was refused; the one in force stays.
    #[serde(default)]
    pub rejected: Option<Rejection>,
    /// Field paths whose change takes effect at the next start only.
    #[serde(default)]
    pub pending_restart: Vec<String>,
    /// The schema of the database; absent until the database answered once.
    #[serde(default)]
    pub schema: Option<SchemaReport>,
    /// What it depends on.
    #[serde(default)]
    pub checks: Checks,
    /// The newest run of each command that this process starts by itself: those of a schedule, where no Jobs do.
    #[serde(default)]
    pub runs: Vec<Summary>,
    /// The run of this process that waits to be told what the cluster runs, by an id that it made up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_wanted: Option<String>,
    /// Every resource of the document in force.
    #[serde(default)]
    pub resources: Vec<ResourceReport>,
}

/// A document that a replica refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rejection {
    /// Its hash, as far as it could be known.
    #[serde(default)]
    pub hash: Option<String>,
    /// Why, for a human.
    pub message: String,
}

/// The schema of the database, as a replica sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SchemaReport {
    /// The version found.
    pub applied: i32,
    /// The lowest and the highest version that this program can work with.
    pub supported: [i32; 2],
}

/// What a replica depends on, as it last found it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Checks {
    /// The bucket or folder.
    pub storage: Check,
    /// The database.
    pub database: Check,
    /// Whether collection may trust the database.
    pub collector: Check,
}

/// One thing that a replica depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Check {
    /// It answers.
    Ok,
    /// It does not.
    Unreachable,
    /// The database answers and is empty, although the bucket is not: it must be restored or rebuilt.
    Empty,
    /// Collection waits until the database is trusted again.
    Frozen,
    /// Not looked at yet, or a word of a newer version.
    #[default]
    #[serde(other)]
    Unknown,
}

/// One resource of the document in force.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ResourceReport {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The generation in force.
    #[serde(default)]
    pub generation: i64,
    /// Why it does not work as written; absent when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for a human.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its newest run, where this process starts them by itself and no Job does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Termination>,
    /// What this process has promoted last by it, without being asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<LastPromotion>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_another_version_is_read() {
        let text = r#"{
            "version": "0.9.0", "maxVersion": "1.7", "usageWanted": null,
            "checks": {"storage": "Ok", "database": "Melting", "upstreams": "Ok"},
            "resources": [{"kind": "Mirror", "name": "hub", "generation": 2, "reason": "SecretNotFound"}]
        }"#;
        let report: Report = serde_json::from_str(text).unwrap();
        assert_eq!(report.checks, Checks { storage: Check::Ok, ..Checks::default() });
        assert_eq!(report.max_version, DocumentVersion { major: 1, minor: 7 });
        assert_eq!(report.resources[0].reason.as_deref(), Some("SecretNotFound"));
    }

    #[test]
    fn a_report_survives_the_wire() {
        let report = Report {
            version: "0.1.0".to_owned(),
            registry_id: Some("6f1c".to_owned()),
            hash: None,
            max_version: DocumentVersion::SUPPORTED,
            rejected: Some(Rejection { hash: None, message: "newer major".to_owned() }),
            pending_restart: vec!["spec.storage.s3.endpoint".to_owned()],
            schema: Some(SchemaReport { applied: 1, supported: [1, 1] }),
            checks: Checks { storage: Check::Ok, database: Check::Unreachable, collector: Check::Frozen },
            runs: vec![Summary::new("gc", crate::Outcome::Succeeded)],
            usage_wanted: None,
            resources: Vec::new(),
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
