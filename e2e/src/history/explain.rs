// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Why a read cannot be explained, and by which operations it is contradicted.
//!
//! The commonest reason is the rule that one looks at a single value by: a read must return a value written by an
//! operation that no acknowledged operation lies wholly after and wholly before the read. What breaks it is named
//! with the operation that lies in between. The rest are answers that only contradict each other.

use super::check::{Rule, Violation};
use super::index::{Name, Register, Subject};
use super::linearizable::{Effect, Expect, Step, Value};
use super::record::{History, Moment};

/// The read at this place of the register's steps has no explanation: which promise does it break?
pub(super) fn explain(history: &History, name: Name<'_>, register: &Register, read: usize) -> Violation {
    let case = Case { steps: &register.steps, read: register.steps[read] };
    let (rule, others) = case.verdict();
    let steps = std::iter::once(case.read).chain(others);
    let mut operations: Vec<u64> = Vec::new();
    for step in steps {
        let id = history.operations[step.operation].id;
        if !operations.contains(&id) {
            operations.push(id);
        }
    }
    let (repository, subject) = name;
    let place = match subject {
        Subject::Tag(tag) => format!("the tag {repository}:{tag}"),
        Subject::Manifest(digest) => format!("the manifest {digest} of {repository}"),
    };
    Violation { rule, operations, says: format!("{place} {}", words(rule)) }
}

/// Nobody can tell whether the register is linearizable.
pub(super) fn undecided(history: &History, name: Name<'_>, register: &Register) -> Violation {
    let operations =
        register.steps.iter().take(1).map(|step| history.operations[step.operation].id).collect();
    let says = format!("too many operations overlap on {name:?} to tell whether their answers agree");
    Violation { rule: Rule::Undecided, operations, says }
}

fn words(rule: Rule) -> &'static str {
    match rule {
        Rule::Phantom => "shows what nobody had written",
        Rule::StaleRead => "shows what had been overwritten",
        Rule::Resurrected => "shows what had been deleted",
        Rule::LostPush => "shows nothing although a push was acknowledged",
        Rule::WentBack => "went back to what others had seen replaced",
        _ => "gives answers that no order explains",
    }
}

struct Case<'a> {
    steps: &'a [Step],
    read: Step,
}

impl Case<'_> {
    fn verdict(&self) -> (Rule, Vec<Step>) {
        let candidates: Vec<Step> =
            self.steps.iter().filter(|step| self.could_have_written(step)).copied().collect();
        let at_first = matches!(self.expect(), Some(Expect::Value(None)));
        if candidates.is_empty() && !at_first {
            return (Rule::Phantom, Vec::new());
        }
        let alone = candidates.len() == 1 && !at_first;
        let mut between = Vec::new();
        for writer in candidates.iter().map(Some).chain(at_first.then_some(None)) {
            let ended = match writer {
                None => Some(Moment::default()),
                Some(writer) => self.effective_end(*writer, alone),
            };
            match ended.and_then(|ended| self.between(ended)) {
                // No write lies in between: other answers stand against this one.
                None => return self.went_back().unwrap_or_else(|| (Rule::Contradiction, self.nearby())),
                Some(overwriter) => between.push((writer.copied(), overwriter)),
            }
        }
        let latest = between.into_iter().max_by_key(|(_, overwriter)| overwriter.ended);
        let Some((writer, overwriter)) = latest else { return (Rule::Contradiction, self.nearby()) };
        let rule = match (self.expect(), overwriter.effect) {
            (Some(Expect::Value(None)), _) => Rule::LostPush,
            (_, Effect::Write(Some(_))) => Rule::StaleRead,
            _ => Rule::Resurrected,
        };
        (rule, writer.into_iter().chain([overwriter]).collect())
    }

    fn expect(&self) -> Option<Expect> {
        if let Effect::Read(expect) = self.read.effect { Some(expect) } else { None }
    }

    /// Whether the step leaves the register as the read saw it, and began before the read was over.
    fn could_have_written(&self, step: &Step) -> bool {
        let leaves = |value: Value| self.expect().is_some_and(|expect| expect.is_met_by(value));
        let fits = match step.effect {
            Effect::Write(value) => leaves(value),
            Effect::Clear(_) => leaves(None),
            Effect::Read(_) => false,
        };
        fits && step.invoked <= self.read.ended.unwrap_or(step.invoked)
    }

    /// When a write has taken effect at the latest: at its end, or when its value, written once, was seen.
    fn effective_end(&self, writer: Step, alone: bool) -> Option<Moment> {
        let same = |step: &&Step| step.effect == self.read.effect;
        let seen =
            if alone { self.steps.iter().filter(same).filter_map(|step| step.ended).min() } else { None };
        [writer.ended, seen].into_iter().flatten().min()
    }

    /// The last write that lies wholly after `ended` and wholly before the read, and leaves another value. A
    /// deletion of one value only is not among them: nobody knows what it found.
    fn between(&self, ended: Moment) -> Option<Step> {
        let is_between =
            |step: &&Step| step.invoked > ended && step.ended.is_some_and(|end| end < self.read.invoked);
        let overwrites = |step: &&Step| match step.effect {
            Effect::Write(value) => self.expect().is_some_and(|expect| !expect.is_met_by(value)),
            Effect::Clear(cleared) => self.expect() == Some(Expect::Value(Some(cleared))),
            Effect::Read(_) => false,
        };
        self.steps.iter().filter(is_between).filter(overwrites).max_by_key(|step| step.ended).copied()
    }

    /// Two earlier answers, the same as this one and another after it.
    fn went_back(&self) -> Option<(Rule, Vec<Step>)> {
        let earlier = |step: &&Step| {
            matches!(step.effect, Effect::Read(_)) && step.ended.is_some_and(|end| end < self.read.invoked)
        };
        let same = |step: &&Step| step.effect == self.read.effect;
        let first = self.steps.iter().filter(earlier).filter(same).min_by_key(|step| step.ended)?;
        let other = |step: &&Step| !same(step) && Some(step.invoked) > first.ended;
        let other = self.steps.iter().filter(earlier).filter(other).max_by_key(|step| step.invoked)?;
        Some((Rule::WentBack, vec![*first, *other]))
    }

    /// The last answers before this one, and the writes that overlap it.
    fn nearby(&self) -> Vec<Step> {
        const FEW: usize = 4;
        let mut before: Vec<Step> = self
            .steps
            .iter()
            .filter(|step| step.ended.is_some_and(|end| end < self.read.invoked))
            .copied()
            .collect();
        before.sort_by_key(|step| step.ended);
        let overlaps = |step: &&Step| {
            step.invoked <= self.read.ended.unwrap_or(step.invoked)
                && step.ended.is_none_or(|end| end >= self.read.invoked)
                && !matches!(step.effect, Effect::Read(_))
        };
        let last = before.into_iter().rev().take(FEW);
        last.chain(self.steps.iter().filter(overlaps).take(FEW).copied()).collect()
    }
}
