// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Promotions that nobody asks for: what an automatic policy is for is promoted when its gates let it.
//!
//! A tag is set → it waits → one replica takes it, asks the gates → it is promoted, refused for good, or put off: until
//! a gate's time, until something comes that refers to it, or for a while that grows. What was not noticed (a crash, a
//! database that lost it, a policy that came later) is found among the tags.
//! Guarantees: what is noticed on one replica goes on on any. Two that promote the same at once do it once.
//! Never: promotes what its tag does not name any more; promotes again what its policy has promoted or refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use stowage_oci::{Digest, Name, Tag};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::{Domain, Error};
use super::{Ending, Promotion, PromotionMode, PromotionRequest, PromotionRule, Trigger};
use crate::meta::{Epoch, ManifestFacts, PromotionCandidate, TakenCandidate, Unpromoted};
use crate::ops::clock;
use crate::signatures;

/// For how long nobody else takes what was taken: longer than a promotion takes.
const LEASE: Duration = Duration::from_mins(2);
/// How long it rests before its gates are asked again, if none knows when: first, and at most.
const PAUSE: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// How often it is looked for what other replicas noticed.
const LOOK: Duration = Duration::from_mins(1);
/// How often the tags are searched for what nobody noticed.
const SEARCH: Duration = Duration::from_mins(15);
/// After something failed.
const RETRY: Duration = Duration::from_secs(10);
/// Names on a page.
const PAGE: u32 = 500;

/// The policies in force, and what there is to do for them.
#[derive(Default)]
pub(in super::super) struct Promoting {
    rules: ArcSwap<Vec<PromotionRule>>,
    /// Something began to wait here, or the policies are others.
    woken: Notify,
    /// Something may wait that nobody has noticed.
    is_unsure: AtomicBool,
}

/// Until when the tags have been searched.
type Searched = Option<(Epoch, Instant)>;

impl Domain {
    /// These policies are in force from now on.
    pub fn set_promotions(&self, rules: Vec<PromotionRule>) {
        if **self.promoting.rules.load() != rules {
            self.promoting.rules.store(Arc::new(rules));
            self.promoting.search();
        }
    }

    /// The policy of that name.
    #[must_use]
    pub fn promotion_rule(&self, policy: &str) -> Option<PromotionRule> {
        self.promoting.rules.load().iter().find(|rule| rule.name == policy).cloned()
    }

    /// Promotes what automatic policies are for, until `stopping`. `told` hears how each ended.
    pub async fn keep_promoting(
        &self,
        told: impl Fn(&PromotionCandidate, &Promotion) + Send + Sync,
        stopping: &CancellationToken,
    ) {
        let mut searched = None;
        while !stopping.is_cancelled() {
            let wait = match self.promote_waiting(&mut searched, &told, stopping).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(error = %error, "automatic promotions wait");
                    RETRY
                }
            };
            let woken = self.promoting.woken.notified();
            let rest = async { drop(tokio::time::timeout(wait, woken).await) };
            stopping.run_until_cancelled(rest).await;
        }
    }

    /// Lets these tags, that were just set, wait for what they are promoted by; and whatever waits for something that
    /// refers to it. What goes wrong is found later.
    pub(in super::super) async fn notice_promotable(
        &self,
        repository: &Name,
        facts: &ManifestFacts,
        tags: &[Tag],
    ) {
        let Some(waits) = self.promoting.waits(repository, facts.digest, tags) else { return };
        let subject = facts.subject.or_else(|| tags.iter().find_map(signatures::subject_of));
        let noticed = async {
            for candidate in &waits {
                self.meta.await_promotion(candidate).await?;
            }
            match &subject {
                Some(subject) => self.meta.hasten_promotions(repository, subject).await,
                None => Ok(()),
            }
        };
        match noticed.await {
            Ok(()) => self.promoting.woken.notify_one(),
            Err(error) => {
                tracing::warn!(error = %error, %repository, "a promotion is noticed later");
                self.promoting.search();
            }
        }
    }

    /// Promotes what is due. How long nothing is.
    async fn promote_waiting(
        &self,
        searched: &mut Searched,
        told: &(impl Fn(&PromotionCandidate, &Promotion) + Send + Sync),
        stopping: &CancellationToken,
    ) -> Result<Duration, Error> {
        let epoch = match self.trust.trusted().await {
            // Before all is compared it is not known what was promoted.
            Err(Error::NotCompared) => return Ok(RETRY),
            epoch => epoch?,
        };
        let rules = self.promoting.rules.load_full();
        self.search_promotable(epoch, &rules, searched).await?;
        let names: Vec<String> =
            rules.iter().filter(|rule| rule.is_automatic()).map(|rule| rule.name.clone()).collect();
        if names.is_empty() {
            return Ok(SEARCH);
        }
        while !stopping.is_cancelled()
            && let Some(taken) = self.meta.take_candidate(&names, LEASE).await?
        {
            if let Some(rule) = rules.iter().find(|rule| rule.name == taken.candidate.policy) {
                self.promote_taken(rule, &taken, told).await?;
            }
        }
        Ok(self.meta.next_candidate(&names).await?.unwrap_or(LOOK).min(LOOK))
    }

    async fn promote_taken(
        &self,
        rule: &PromotionRule,
        taken: &TakenCandidate,
        told: &(impl Fn(&PromotionCandidate, &Promotion) + Send + Sync),
    ) -> Result<(), Error> {
        let candidate = &taken.candidate;
        let request = PromotionRequest {
            id: None,
            repository: candidate.repository.clone(),
            tag: Some(candidate.tag.clone()),
            digest: None,
            pinned: Some(candidate.digest),
            requested_by: None,
            actor: "stowage-registry serve".to_owned(),
            approvals: Vec::new(),
            reason: None,
        };
        let is_over = taken.waiting >= rule.deadline;
        let mode = if is_over { PromotionMode::LastTime } else { PromotionMode::Promote };
        let promotion = match Box::pin(self.promote(rule, &request, mode)).await {
            Ok(promotion) => promotion,
            // The database says so again when the next one is taken.
            Err(error) => {
                tracing::warn!(error = %error, policy = rule.name, %candidate.repository, "not promoted; tried again");
                return Ok(self.meta.postpone_candidate(taken, growing(taken.tries)).await?);
            }
        };
        if promotion.ending == Ending::WaitingForGates {
            let pause = pause(&promotion, taken, rule.deadline, clock::milliseconds());
            return Ok(self.meta.postpone_candidate(taken, pause).await?);
        }
        self.meta.end_candidate(taken).await?;
        // Its tag names something else by now, or is gone.
        if !matches!(promotion.ending, Ending::ArtifactChanged | Ending::ArtifactNotFound) {
            told(candidate, &promotion);
        }
        Ok(())
    }

    /// Finds among the tags what should wait and does not, if it is time to; forgets what waits for no policy.
    async fn search_promotable(
        &self,
        epoch: Epoch,
        rules: &[PromotionRule],
        searched: &mut Searched,
    ) -> Result<(), Error> {
        let is_recent = searched.is_some_and(|(within, at)| within == epoch && at.elapsed() < SEARCH);
        if !self.promoting.is_unsure.swap(false, Ordering::Relaxed) && is_recent {
            return Ok(());
        }
        let found = self.search_all(epoch, rules).await;
        match found {
            Ok(()) => *searched = Some((epoch, Instant::now())),
            Err(_) => self.promoting.is_unsure.store(true, Ordering::Relaxed),
        }
        found
    }

    async fn search_all(&self, epoch: Epoch, rules: &[PromotionRule]) -> Result<(), Error> {
        // Of one that is suspended it waits on.
        let known = rules.iter().filter(|rule| rule.trigger != Trigger::Request);
        let known: Vec<String> = known.map(|rule| rule.name.clone()).collect();
        self.meta.forget_candidates(&known).await?;
        let active: Vec<&PromotionRule> = rules.iter().filter(|rule| rule.is_automatic()).collect();
        if active.is_empty() {
            return Ok(());
        }
        let mut after: Option<Name> = None;
        loop {
            let page = self.meta.repositories(epoch, after.as_ref().map(Name::as_str), PAGE).await?;
            for repository in &page {
                for rule in &active {
                    self.search_repository(rule, repository).await?;
                }
            }
            match page.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    async fn search_repository(&self, rule: &PromotionRule, repository: &Name) -> Result<(), Error> {
        let target = rule.pattern_of(repository).and_then(|from| rule.to.expand(from, repository));
        let Some(target) = target else { return Ok(()) };
        let wanted = Unpromoted { repository, policy: &rule.name, hash: &rule.hash, target: &target };
        let mut after: Option<Tag> = None;
        loop {
            let page = self.meta.unpromoted(&wanted, after.as_ref().map(Tag::as_str), PAGE).await?;
            for (tag, digest) in page.iter().filter(|(tag, _)| rule.tags.takes(tag)) {
                self.meta.await_promotion(&candidate(rule, repository, tag, *digest)).await?;
            }
            match page.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => return Ok(()),
            }
        }
    }
}

impl Promoting {
    /// What begins to wait when these tags are set; `None`: nothing of the repository is promoted by itself.
    fn waits(&self, repository: &Name, digest: Digest, tags: &[Tag]) -> Option<Vec<PromotionCandidate>> {
        let rules = self.rules.load();
        let concerned = |rule: &&PromotionRule| rule.is_automatic() && rule.pattern_of(repository).is_some();
        let concerned: Vec<&PromotionRule> = rules.iter().filter(concerned).collect();
        let waits = concerned.iter().flat_map(|rule| {
            let taken = tags.iter().filter(|tag| rule.tags.takes(tag));
            taken.map(|tag| candidate(rule, repository, tag, digest))
        });
        (!concerned.is_empty()).then(|| waits.collect())
    }

    fn search(&self) {
        self.is_unsure.store(true, Ordering::Relaxed);
        self.woken.notify_one();
    }
}

fn candidate(rule: &PromotionRule, repository: &Name, tag: &Tag, digest: Digest) -> PromotionCandidate {
    PromotionCandidate {
        policy: rule.name.clone(),
        repository: repository.clone(),
        tag: tag.clone(),
        digest,
        hash: rule.hash.clone(),
    }
}

/// How long what waits for its gates rests: until the time that they name, and not beyond its deadline.
fn pause(promotion: &Promotion, taken: &TakenCandidate, deadline: Duration, now: u64) -> Duration {
    let known = promotion.not_before().map(|then| Duration::from_millis(then.saturating_sub(now)));
    let left = deadline.saturating_sub(taken.waiting);
    known.unwrap_or_else(|| growing(taken.tries)).min(left).max(Duration::from_secs(1))
}

fn growing(tries: u32) -> Duration {
    PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(6)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::super::gates::{GateResult, Verdict};
    use super::*;

    fn taken(tries: u32, waiting: Duration) -> TakenCandidate {
        let candidate = PromotionCandidate {
            policy: "p".to_owned(),
            repository: "a".parse().unwrap(),
            tag: "1".parse().unwrap(),
            digest: Digest::of(stowage_oci::Algorithm::Sha256, b"x"),
            hash: "sha256:x".to_owned(),
        };
        TakenCandidate { id: 1, candidate, waiting, tries }
    }

    fn waiting(not_before: Option<u64>) -> Promotion {
        let gate = GateResult {
            name: "g".to_owned(),
            kind: "signature",
            verdict: Verdict::Waits,
            reason: "SignatureMissing",
            message: String::new(),
            not_before,
            evidence: std::collections::BTreeMap::new(),
        };
        Promotion { gates: vec![gate], ..Promotion::ended(Ending::WaitingForGates, "") }
    }

    #[test]
    fn what_waits_rests_until_a_gate_says_or_longer_each_time_and_never_beyond_its_deadline() {
        let day = Duration::from_hours(24);
        let pause =
            |not_before, tries, waited| pause(&waiting(not_before), &taken(tries, waited), day, 1_000);
        assert_eq!(pause(Some(61_000), 5, Duration::ZERO), Duration::from_mins(1));
        assert_eq!(pause(Some(500), 5, Duration::ZERO), Duration::from_secs(1), "its time has come");
        let minutes = |tries| pause(None, tries, Duration::ZERO).as_secs() / 60;
        assert_eq!([1, 2, 3, 6, 7, 99].map(minutes), [1, 2, 4, 32, 60, 60]);
        assert_eq!(pause(None, 9, Duration::from_mins(23 * 60 + 55)), Duration::from_mins(5));
        assert_eq!(pause(None, 9, 2 * day), Duration::from_secs(1));
    }
}
