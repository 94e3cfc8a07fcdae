// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether a gate lets an artifact pass, by what was found about it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stowage_oci::Digest;

use crate::labels::Labels;
use crate::meta::{GateEvidence, LedgerApproval, LedgerEntry};
use crate::signatures::{Attestation, Flaw, Keys};

/// What must hold of an artifact before it is promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// What it is called.
    pub name: String,
    /// What it asks for.
    pub wants: Wanted,
}

/// What a gate asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Signatures by so many of these keys.
    Signature {
        /// The keys.
        keys: Keys,
        /// How many of them.
        required: usize,
    },
    /// A statement about it that one of these keys signed.
    Attestation {
        /// Of which type.
        predicate_type: String,
        /// The keys.
        keys: Keys,
        /// How old the newest one may be.
        max_age: Option<Duration>,
    },
    /// It came so long ago.
    MinimumAge {
        /// How long.
        age: Duration,
        /// Counted from when.
        since: Since,
    },
    /// So many people approved it.
    Approval {
        /// How many.
        required: usize,
    },
    /// It has these labels.
    Labels(BTreeMap<String, String>),
    /// It came to where it is by this policy.
    PromotedBy(String),
}

/// From when an age is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From its push.
    Pushed,
    /// From its last promotion into the repository.
    PromotedToSource,
}

/// What was found about an artifact that one gate asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Who signed, with the manifests of the signatures; what is wrong with one that does not count.
    Signatures { signed: Vec<(String, Digest)>, flaw: Option<String> },
    /// Statements, each with its time; what is wrong with one that does not count.
    Attestations { counted: Vec<(Attestation, u64)>, flaw: Option<Flaw> },
    /// When it came.
    Time(Option<u64>),
    /// Who said yes to what, and who asked.
    Approvals { given: Vec<LedgerApproval>, requested_by: Option<String>, digest: Digest },
    /// What it says of itself.
    Labels(Labels),
    /// How it came to where it is, newest first.
    Promotions(Vec<LedgerEntry>),
}

/// Whether a gate lets it pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Passes,
    /// Not yet.
    Waits,
    /// It never will.
    Fails,
}

/// What a gate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateResult {
    /// The gate.
    pub name: String,
    /// What kind of gate it is, as policies spell it.
    pub kind: &'static str,
    /// Whether it lets the artifact pass.
    pub verdict: Verdict,
    /// Why, in one CamelCase word.
    pub reason: &'static str,
    /// The same for a human.
    pub message: String,
    /// When to ask again, in milliseconds since 1970, if that is known.
    pub not_before: Option<u64>,
    /// What showed it.
    pub evidence: BTreeMap<String, String>,
}

impl Verdict {
    /// The word in a status.
    #[must_use]
    pub const fn status(self) -> &'static str {
        match self {
            Self::Passes => "True",
            Self::Waits => "Unknown",
            Self::Fails => "False",
        }
    }
}

impl GateResult {
    /// What the ledger keeps of it.
    pub(super) fn evidence(&self) -> GateEvidence {
        GateEvidence {
            name: self.name.clone(),
            kind: self.kind.to_owned(),
            result: self.verdict.status().to_owned(),
            reason: self.reason.to_owned(),
            evidence: self.evidence.clone(),
        }
    }
}

impl Wanted {
    /// What kind of gate it is, as policies spell it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Signature { .. } => "signature",
            Self::Attestation { .. } => "attestation",
            Self::MinimumAge { .. } => "minimumAge",
            Self::Approval { .. } => "approval",
            Self::Labels(_) => "labels",
            Self::PromotedBy(_) => "promotedBy",
        }
    }
}

/// A verdict without its gate.
struct Said {
    verdict: Verdict,
    reason: &'static str,
    message: String,
    not_before: Option<u64>,
    evidence: BTreeMap<String, String>,
}

fn said(verdict: Verdict, reason: &'static str, message: impl Into<String>) -> Said {
    Said { verdict, reason, message: message.into(), not_before: None, evidence: BTreeMap::new() }
}

impl Said {
    fn showing(mut self, what: &str, value: impl Into<String>) -> Self {
        self.evidence.insert(what.to_owned(), value.into());
        self
    }

    fn until(mut self, time: u64) -> Self {
        self.not_before = Some(time);
        self
    }
}

/// What a gate says at `now`, in milliseconds since 1970.
pub(super) fn judge(gate: &Gate, found: &Found, now: u64) -> GateResult {
    let said = match (&gate.wants, found) {
        (Wanted::Signature { required, .. }, Found::Signatures { signed, flaw }) => {
            signature(*required, signed, flaw.as_deref())
        }
        (Wanted::Attestation { predicate_type, max_age, .. }, Found::Attestations { counted, flaw }) => {
            attestation(predicate_type, *max_age, counted, flaw.as_ref(), now)
        }
        (Wanted::MinimumAge { age, since }, Found::Time(time)) => minimum_age(*age, *since, *time, now),
        (Wanted::Approval { required }, Found::Approvals { given, requested_by, digest }) => {
            approval(*required, given, requested_by.as_deref(), digest)
        }
        (Wanted::Labels(wanted), Found::Labels(found)) => labels(wanted, found),
        (Wanted::PromotedBy(policy), Found::Promotions(entries)) => promoted_by(policy, entries),
        // What is looked for is what the gate asks for.
        _ => said(Verdict::Waits, "NotLookedFor", "nothing was looked for"),
    };
    let Said { verdict, reason, message, not_before, evidence } = said;
    GateResult {
        name: gate.name.clone(),
        kind: gate.wants.kind(),
        verdict,
        reason,
        message,
        not_before,
        evidence,
    }
}

fn signature(required: usize, signed: &[(String, Digest)], flaw: Option<&str>) -> Said {
    let by: Vec<&str> = signed.iter().map(|(key, _)| key.as_str()).collect();
    if signed.len() >= required {
        let (keys, digests): (Vec<&str>, Vec<String>) =
            signed.iter().map(|(key, digest)| (key.as_str(), digest.to_string())).unzip();
        return said(Verdict::Passes, "SignatureValid", format!("signed by {}", by.join(", ")))
            .showing("key", keys.join(","))
            .showing("digest", digests.join(","));
    }
    match flaw {
        Some(flaw) if by.is_empty() => said(Verdict::Waits, "SignatureInvalid", flaw),
        _ => {
            let have = if by.is_empty() { "none".to_owned() } else { by.join(", ") };
            let message = format!("signatures by {required} of the keys are wanted, there are: {have}");
            said(Verdict::Waits, "SignatureMissing", message)
        }
    }
}

fn attestation(
    predicate_type: &str,
    max_age: Option<Duration>,
    counted: &[(Attestation, u64)],
    flaw: Option<&Flaw>,
    now: u64,
) -> Said {
    let Some((newest, time)) = counted.iter().max_by_key(|(_, time)| *time) else {
        return match flaw {
            Some(flaw) => {
                let message = format!("no attestation of type {predicate_type} counts: one {flaw}");
                said(Verdict::Waits, "AttestationInvalid", message)
            }
            None => said(
                Verdict::Waits,
                "AttestationMissing",
                format!("there is no attestation of type {predicate_type}"),
            ),
        };
    };
    let is_old = max_age.is_some_and(|age| now.saturating_sub(*time) > milliseconds(age));
    let told = if is_old {
        let message = format!("the newest attestation of type {predicate_type} is of {}", shown_time(*time));
        said(Verdict::Waits, "AttestationTooOld", message)
    } else {
        said(
            Verdict::Passes,
            "AttestationValid",
            format!("attested by {} at {}", newest.key, shown_time(*time)),
        )
    };
    told.showing("predicateType", predicate_type)
        .showing("key", &newest.key)
        .showing("digest", newest.manifest.to_string())
        .showing("time", shown_time(*time))
}

fn minimum_age(age: Duration, since: Since, time: Option<u64>, now: u64) -> Said {
    let (what, absent) = match since {
        Since::Pushed => ("pushed", "NotPushed"),
        Since::PromotedToSource => ("promoted to its repository", "NotPromoted"),
    };
    let Some(time) = time else {
        return said(Verdict::Waits, absent, format!("it was never {what}"));
    };
    let due = time.saturating_add(milliseconds(age));
    let told = if now < due {
        said(Verdict::Waits, "TooYoung", format!("it was {what} at {} and must be older", shown_time(time)))
            .until(due)
    } else {
        said(Verdict::Passes, "OldEnough", format!("it was {what} at {}", shown_time(time)))
    };
    told.showing("time", shown_time(time))
}

/// Whether an approval counts: it is of this digest, and not by who asked.
pub(super) fn counts(approval: &LedgerApproval, requested_by: Option<&str>, digest: &Digest) -> bool {
    approval.digest == *digest && Some(approval.user.as_str()) != requested_by
}

fn approval(required: usize, given: &[LedgerApproval], requested_by: Option<&str>, digest: &Digest) -> Said {
    let counted = given.iter().filter(|approval| counts(approval, requested_by, digest));
    let users: BTreeSet<&str> = counted.map(|approval| approval.user.as_str()).collect();
    let by = users.iter().copied().collect::<Vec<_>>().join(", ");
    if users.len() >= required {
        return said(Verdict::Passes, "Approved", format!("approved by {by}"))
            .showing("users", by.replace(", ", ","));
    }
    let have = if by.is_empty() { "nobody".to_owned() } else { by };
    let message = format!("{required} must approve this digest, other than who asked; so far: {have}");
    said(Verdict::Waits, "ApprovalsMissing", message)
}

fn labels(wanted: &BTreeMap<String, String>, found: &Labels) -> Said {
    if *found == Labels::Unknown {
        let message = "its configuration, or that of an image that it lists, is not here or cannot be read";
        return said(Verdict::Waits, "LabelsUnknown", message);
    }
    match found.lacks(wanted) {
        None => said(Verdict::Passes, "LabelsMatch", "it has the labels"),
        Some(missing) => said(
            Verdict::Fails,
            "LabelsDiffer",
            format!("neither a label nor an annotation of it is {missing}"),
        ),
    }
}

fn promoted_by(policy: &str, entries: &[LedgerEntry]) -> Said {
    match entries.iter().find(|entry| entry.record.policy.name == policy) {
        Some(entry) => {
            let message = format!("promoted by {policy} at {}", shown_time(entry.at));
            said(Verdict::Passes, "PromotedBy", message)
                .showing("policy", policy)
                .showing("time", shown_time(entry.at))
        }
        None => said(Verdict::Waits, "NotPromoted", format!("it did not come to its repository by {policy}")),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A time in milliseconds since 1970, as people write it.
#[must_use]
pub fn shown_time(time: u64) -> String {
    let time = i64::try_from(time).ok().and_then(|time| jiff::Timestamp::from_millisecond(time).ok());
    time.unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use stowage_oci::Algorithm;

    use super::*;

    const HOUR: u64 = 3_600_000;
    const NOW: u64 = 1_772_344_800_000;

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn judged(wants: Wanted, found: &Found) -> (Verdict, &'static str) {
        let result = judge(&Gate { name: "g".to_owned(), wants }, found, NOW);
        (result.verdict, result.reason)
    }

    fn keys() -> Keys {
        Keys::new(Vec::new())
    }

    #[test]
    fn p24_as_many_keys_as_are_wanted_must_have_signed() {
        let wants = |required| Wanted::Signature { keys: keys(), required };
        let found = |keys: &[&str], flaw: Option<&str>| Found::Signatures {
            signed: keys.iter().map(|key| ((*key).to_owned(), digest(key))).collect(),
            flaw: flaw.map(str::to_owned),
        };
        assert_eq!(judged(wants(1), &found(&["a"], None)), (Verdict::Passes, "SignatureValid"));
        assert_eq!(judged(wants(2), &found(&["a"], None)), (Verdict::Waits, "SignatureMissing"));
        assert_eq!(judged(wants(2), &found(&["a", "b"], None)).0, Verdict::Passes);
        assert_eq!(judged(wants(1), &found(&[], None)), (Verdict::Waits, "SignatureMissing"));
        assert_eq!(judged(wants(1), &found(&[], Some("other key"))), (Verdict::Waits, "SignatureInvalid"));
    }

    #[test]
    fn p25_the_newest_attestation_that_counts_must_be_young_enough() {
        let wants = |hours| Wanted::Attestation {
            predicate_type: "vuln".to_owned(),
            keys: keys(),
            max_age: Some(Duration::from_hours(hours)),
        };
        let counted = |times: &[u64]| {
            let of = |time: &u64| {
                let manifest = digest("m");
                (Attestation { manifest, key: "a".to_owned(), time: Some(*time) }, *time)
            };
            Found::Attestations { counted: times.iter().map(of).collect(), flaw: None }
        };
        let times = [NOW - 9 * HOUR, NOW - 2 * HOUR];
        assert_eq!(judged(wants(3), &counted(&times)), (Verdict::Passes, "AttestationValid"));
        assert_eq!(judged(wants(1), &counted(&times)), (Verdict::Waits, "AttestationTooOld"));
        assert_eq!(judged(wants(1), &counted(&[])), (Verdict::Waits, "AttestationMissing"));
        let flawed = Found::Attestations { counted: Vec::new(), flaw: Some(Flaw::Key("a".to_owned())) };
        assert_eq!(judged(wants(1), &flawed), (Verdict::Waits, "AttestationInvalid"));
    }

    #[test]
    fn an_age_is_waited_for_until_the_moment_it_is_reached() {
        let age = Duration::from_hours(48);
        let gate = |since| Gate { name: "soaked".to_owned(), wants: Wanted::MinimumAge { age, since } };
        let result = judge(&gate(Since::Pushed), &Found::Time(Some(NOW - HOUR)), NOW);
        assert_eq!((result.reason, result.not_before), ("TooYoung", Some(NOW + 47 * HOUR)));
        let result = judge(&gate(Since::Pushed), &Found::Time(Some(NOW - 48 * HOUR)), NOW);
        assert_eq!((result.verdict, result.not_before), (Verdict::Passes, None));
        let result = judge(&gate(Since::PromotedToSource), &Found::Time(None), NOW);
        assert_eq!((result.verdict, result.reason), (Verdict::Waits, "NotPromoted"));
    }

    #[test]
    fn n5_approvals_count_once_each_for_this_digest_and_never_by_who_asked() {
        let yes = |user: &str, of: &str| LedgerApproval { user: user.to_owned(), digest: digest(of) };
        let found = |given: Vec<LedgerApproval>| Found::Approvals {
            given,
            requested_by: Some("carol".to_owned()),
            digest: digest("x"),
        };
        let wants = || Wanted::Approval { required: 2 };
        let too_few = [
            vec![],
            vec![yes("alice", "x")],
            vec![yes("alice", "x"), yes("alice", "x")],
            vec![yes("alice", "x"), yes("carol", "x")],
            vec![yes("alice", "x"), yes("bob", "y")],
        ];
        for given in too_few {
            assert_eq!(judged(wants(), &found(given)), (Verdict::Waits, "ApprovalsMissing"));
        }
        let given = vec![yes("alice", "x"), yes("bob", "x")];
        assert_eq!(judged(wants(), &found(given)), (Verdict::Passes, "Approved"));
    }

    #[test]
    fn labels_that_are_not_all_known_are_waited_for_and_others_fail() {
        let wants = || {
            let wanted = [("vendor", "acme"), ("tier", "1")];
            Wanted::Labels(wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        };
        let known = |said: &[(&str, &str)]| {
            let said = said.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Found::Labels(Labels::Known(said.collect()))
        };
        let both = known(&[("tier", "1"), ("tier", "2"), ("vendor", "acme")]);
        assert_eq!(judged(wants(), &both), (Verdict::Passes, "LabelsMatch"));
        assert_eq!(judged(wants(), &known(&[("vendor", "acme")])), (Verdict::Fails, "LabelsDiffer"));
        assert_eq!(judged(wants(), &Found::Labels(Labels::Unknown)), (Verdict::Waits, "LabelsUnknown"));
    }
}
