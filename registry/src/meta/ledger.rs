// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The role that keeps what was promoted.
//!
//! A promotion that took effect has a record in the bucket, written after the tag record that it set, and a row from
//! the transaction that published it: so the rows can be made again. One that did not has a row alone.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stowage_oci::{Digest, Name, Tag};

use super::Error;

/// The outcome of a promotion that took effect.
pub const PROMOTED: &str = "Promoted";

/// What a promotion was decided by: the JSON of its record in the bucket, and of its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerRecord {
    /// The version of this shape: 1.
    pub v: u32,
    /// The request, as who asked names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<String>,
    /// When it was decided (RFC 3339), by the clock of who decided.
    pub at: String,
    /// What was promoted.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// From where.
    pub source: LedgerSource,
    /// To where.
    pub target: LedgerTarget,
    /// By which policy.
    pub policy: LedgerPolicy,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// Who carried it out.
    pub actor: String,
    /// Who approved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<LedgerApproval>,
    /// What the gates found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateEvidence>,
    /// The manifests that refer to it and came with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<Digest>,
    /// Why it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where something was promoted from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerSource {
    /// The repository.
    pub repository: Name,
    /// The tag that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
}

/// Where something was promoted to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerTarget {
    /// The repository.
    pub repository: Name,
    /// The tag that names it from then on.
    pub tag: Tag,
    /// What the tag named before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_digest: Option<Digest>,
}

/// The policy that a promotion was judged by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerPolicy {
    /// Its name.
    pub name: String,
    /// Which edit of it, where a cluster counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// `sha256:` of its specification.
    pub hash: String,
    /// Its specification, unless that is too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
}

/// An approval that counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerApproval {
    /// Who approved.
    pub user: String,
    /// What.
    pub digest: Digest,
}

/// What a gate found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateEvidence {
    /// The gate's name.
    pub name: String,
    /// What kind of gate it is, as the policy spells it.
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub result: String,
    /// Why, in a word.
    pub reason: String,
    /// What showed it, if anything did: `digest`, `key`, `predicateType`, `time`, `policy`.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub evidence: std::collections::BTreeMap<String, String>,
}

impl LedgerRecord {
    /// The longest record in the bucket, in bytes.
    pub const MOST_BYTES: usize = 64 << 10;

    /// The body of its object.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("maps have text keys").into()
    }

    /// Without the policy's specification, whose hash stays, if it would be too long with it.
    #[must_use]
    pub fn fitted(mut self) -> Self {
        if self.to_bytes().len() > Self::MOST_BYTES {
            self.policy.spec = None;
        }
        self
    }
}

/// A promotion as its row has it. In JSON its record, with the outcome as `result`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LedgerEntry {
    /// When it ended, in milliseconds since 1970, by the database's clock.
    #[serde(skip)]
    pub at: u64,
    /// [`PROMOTED`], or why not.
    #[serde(rename = "result")]
    pub outcome: String,
    /// What it was decided by.
    #[serde(flatten)]
    pub record: LedgerRecord,
}

/// Which promotions are asked for: all that fit everything that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerFilter {
    /// From or to this repository.
    pub repository: Option<Name>,
    /// By this policy.
    pub policy: Option<String>,
    /// Of this artifact.
    pub digest: Option<Digest>,
}

/// The place of a promotion among all, newest first. Also where the next page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerPlace {
    /// When it ended, in microseconds since 1970.
    pub(super) at: i64,
    /// Its row, of those that ended at once.
    pub(super) id: i64,
}

/// The text does not name a place in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the field next of the page before")]
pub struct NotAPlace;

impl LedgerPlace {
    /// Before the newest: the end of the year 9999.
    pub const START: Self = Self { at: 253_402_300_799_999_999, id: i64::MAX };
}

impl fmt::Display for LedgerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at, self.id)
    }
}

impl FromStr for LedgerPlace {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let (at, id) = text.split_once('-').ok_or(NotAPlace)?;
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
        let (Some(at), Some(id)) = (number(at), number(id)) else { return Err(NotAPlace) };
        if at > Self::START.at { Err(NotAPlace) } else { Ok(Self { at, id }) }
    }
}

/// Promotions.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Up to `limit` promotions of the digest into the repository that took effect, newest first.
    async fn promotions_into(
        &self,
        target: &Name,
        digest: &Digest,
        limit: u32,
    ) -> Result<Vec<LedgerEntry>, Error>;

    /// Up to `limit` ended promotions after `after`, newest first, whether they took effect or not.
    async fn list_promotions(
        &self,
        filter: &LedgerFilter,
        after: LedgerPlace,
        limit: u32,
    ) -> Result<Vec<(LedgerPlace, LedgerEntry)>, Error>;

    /// Records the end of a promotion that did not take effect.
    async fn note_promotion(&self, record: &LedgerRecord, outcome: &str) -> Result<(), Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_what_it_is_written_as_and_nothing_else_is_one() {
        for place in [LedgerPlace::START, LedgerPlace { at: 0, id: 0 }] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for text in ["", "1", "-1", "1-", "-1-1", "1--1", "1-1-1", "x-1", "253402300800000000-1"] {
            assert_eq!(text.parse::<LedgerPlace>(), Err(NotAPlace), "{text}");
        }
    }
}
