// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! From rows to verdicts, one repository at a time.

use std::collections::{HashMap, HashSet};

use stowage_oci::{Digest, Name, Tag};

use super::{Outgoing, Pass, PlanLine, RetentionError};
use crate::meta::{Epoch, MetaStore, OutgoingTag, RetainedTag, RetentionFacts};
use crate::retention::{Facts, Guard, Plan, Policy, Promotion, Verdict, subject_of};
use crate::usage::Usage;

/// How many digests or names are asked for at a time.
const CHUNK: usize = 500;

/// What clusters run by digest, with what the tags name that they run by name.
pub(super) async fn running(
    meta: &dyn MetaStore,
    epoch: Epoch,
    usage: &Usage,
) -> Result<HashSet<Digest>, RetentionError> {
    let mut running = usage.digests.clone();
    let names: Vec<(Name, Tag)> = usage.names.iter().cloned().collect();
    for names in names.chunks(CHUNK) {
        let named = meta.tagged(epoch, names).await?;
        running.extend(named.into_iter().flatten().map(|row| row.digest));
    }
    Ok(running)
}

fn facts(row: &RetainedTag) -> Facts {
    Facts { tag: row.tag.clone(), digest: row.digest, pushed: row.pushed, pulled: row.pulled }
}

/// As a plan says it.
fn reason(policies: &[&Policy], verdict: Verdict) -> String {
    match verdict {
        Verdict::Kept { policy, rule } => {
            let policy = policies.get(usize::from(policy));
            let rule = policy.and_then(|policy| policy.keep.get(usize::from(rule)));
            let name = policy.map_or("", |policy| policy.name.as_str());
            format!("KeptBy {name}/{}", rule.map_or("", |rule| rule.name.as_str()))
        }
        Verdict::Guarded(guard) => guard.name().to_owned(),
        Verdict::Unkept => "NoRuleKeeps".to_owned(),
    }
}

impl Pass<'_> {
    /// Judges the tags of a repository, and notes those that nothing keeps.
    pub(super) async fn judge(
        &mut self,
        repository: &Name,
        tell: &mut (dyn FnMut(&PlanLine<'_>) + Send),
    ) -> Result<(), RetentionError> {
        let RetentionFacts { tags: rows, promotions, pending } =
            self.retainer.meta.retention_facts(repository).await?;
        let policies = self.settings.policies.of(repository);
        self.involved.add(&policies);
        let promotions: Vec<Promotion> = promotions
            .into_iter()
            .map(|found| Promotion { digest: found.digest, to: found.to, at: found.at })
            .collect();
        let tags: Vec<Facts> = rows.iter().map(facts).collect();
        let pinned = self.settings.pinned.iter().filter(|(name, _)| name == repository);
        let subjects = self.subjects(repository, &tags).await?;
        let no_labels = HashMap::new();
        let mut plan = Plan {
            repository,
            policies: &policies,
            now: self.clock.now,
            gap: self.clock.gap,
            tags: &tags,
            promotions: &promotions,
            pending: &pending.into_iter().collect(),
            pinned: &pinned.map(|(_, digest)| *digest).collect(),
            immutable: &self.settings.immutable,
            subjects: &subjects,
            labels: &no_labels,
        };
        let labels = self.labels(repository, plan.wants_labels()).await?;
        plan.labels = &labels;
        let mut verdicts = plan.judge();
        self.guard_what_runs(repository, &rows, &mut verdicts).await?;
        self.note(repository, &policies, &rows, &verdicts, tell)?;
        let unkept = rows.into_iter().zip(verdicts).filter(|(_, verdict)| *verdict == Verdict::Unkept);
        self.collect(repository, unkept.map(|(row, _)| row).collect()).await
    }

    /// What tags of signatures are named after, as far as it is here.
    async fn subjects(&self, repository: &Name, tags: &[Facts]) -> Result<HashSet<Digest>, RetentionError> {
        let named: Vec<Digest> = tags.iter().filter_map(|facts| subject_of(&facts.tag)).collect();
        let mut live = HashSet::new();
        for named in named.chunks(CHUNK) {
            live.extend(self.retainer.meta.live_among(repository, named).await?);
        }
        Ok(live)
    }

    /// Asked last, and only of what would go: it takes a look at all that stands and falls with a tag.
    async fn guard_what_runs(
        &self,
        repository: &Name,
        rows: &[RetainedTag],
        verdicts: &mut [Verdict],
    ) -> Result<(), RetentionError> {
        let Some((usage, _)) = &self.usage else { return Ok(()) };
        let unkept: HashSet<Digest> = rows
            .iter()
            .zip(&*verdicts)
            .filter(|(_, verdict)| **verdict == Verdict::Unkept)
            .map(|(row, _)| row.digest)
            .collect();
        let running = self.running_of(repository, &unkept.into_iter().collect::<Vec<_>>()).await?;
        for (row, verdict) in rows.iter().zip(verdicts) {
            let is_named = || usage.names.contains(&(repository.clone(), row.tag.clone()));
            if *verdict == Verdict::Unkept && (running.contains(&row.digest) || is_named()) {
                *verdict = Verdict::Guarded(Guard::InUse);
            }
        }
        Ok(())
    }

    /// Which of these manifests something runs, or something that stands or falls with them.
    pub(super) async fn running_of(
        &self,
        repository: &Name,
        digests: &[Digest],
    ) -> Result<HashSet<Digest>, RetentionError> {
        let Some((_, running)) = &self.usage else { return Ok(HashSet::new()) };
        let mut found = HashSet::new();
        for digests in digests.chunks(CHUNK) {
            let families = self.retainer.meta.families(repository, digests).await?;
            let in_use = families.into_iter().filter(|(_, member)| running.contains(member));
            found.extend(in_use.map(|(root, _)| root));
        }
        Ok(found)
    }

    fn note(
        &mut self,
        repository: &Name,
        policies: &[&Policy],
        rows: &[RetainedTag],
        verdicts: &[Verdict],
        tell: &mut (dyn FnMut(&PlanLine<'_>) + Send),
    ) -> Result<(), RetentionError> {
        for (row, verdict) in rows.iter().zip(verdicts) {
            self.retained.tally.add(*verdict);
            let line = PlanLine {
                repository,
                tag: &row.tag,
                digest: row.digest,
                keeps: *verdict != Verdict::Unkept,
                reason: reason(policies, *verdict),
            };
            self.lines.push(&line)?;
            tell(&line);
        }
        Ok(())
    }

    /// Remembers what would go, as long as the limits let a run delete that much.
    async fn collect(&mut self, repository: &Name, unkept: Vec<RetainedTag>) -> Result<(), RetentionError> {
        if self.retained.tally.unkept > self.policy.limits.deletions {
            // Nothing of it goes.
            self.outgoing.clear();
            return Ok(());
        }
        if unkept.is_empty() {
            return Ok(());
        }
        let names: Vec<Tag> = unkept.iter().map(|row| row.tag.clone()).collect();
        self.retained.reclaimable += self.retainer.meta.reclaimable(repository, &names).await?;
        let tags = unkept.into_iter().map(|row| OutgoingTag {
            subject: subject_of(&row.tag),
            tag: row.tag,
            generation: row.generation,
            pulled: row.pulled,
        });
        self.outgoing.push(Outgoing { repository: repository.clone(), tags: tags.collect() });
        Ok(())
    }
}
