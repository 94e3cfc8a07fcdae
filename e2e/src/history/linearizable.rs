// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether there is an order of the steps of one register in which every read sees what was last written.
//!
//! A step takes effect at one instant between its invocation and its end; a [`Step`] without an end may take effect
//! at any time after its invocation, or never. The search goes through the history once and keeps every state that
//! the register may be in (Lowe's just-in-time linearization): nothing takes effect before some step that ends needs
//! it, since whatever could have happened earlier can still happen then. A read that the register's value answers
//! takes effect at once, which forbids nothing. Of two ways to one state, the one that has answered more reads and
//! used up fewer optional steps can do all that the other can. A value that no later read names, and no deletion
//! singles out, counts as [`ANY`] from then on, like all others of which that is true. So the states are as many as
//! the steps that truly overlap allow, few as a rule, and time grows with the length of the history.
//! The search is exact, but for one thing: where more than [`MOST_WAYS`] differ only in which of many optional steps
//! were used, they are joined to one that used the fewest of each. That may excuse a wrong answer in a history full of
//! operations of unknown fate; it never accuses a right one.
//! A read that no state explains is reported and left out, so that one wrong answer does not hide the next.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::record::Moment;

/// What a register holds: a value by its number, or nothing.
pub(super) type Value = Option<u32>;

/// What a step does to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// Sets it.
    Write(Value),
    /// Empties it if it holds this value.
    Clear(u32),
    /// Sees it.
    Read(Expect),
}

/// What a read saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Expect {
    /// Exactly this.
    Value(Value),
    /// Something.
    Something,
}

impl Expect {
    pub(super) fn is_met_by(self, value: Value) -> bool {
        match self {
            Self::Value(expected) => expected == value,
            Self::Something => value.is_some(),
        }
    }
}

/// One step of a register's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The operation it is part of, by its place in the history.
    pub(super) operation: usize,
    pub(super) invoked: Moment,
    /// `None`: it may take effect at any later time, or never. No read is without an end.
    pub(super) ended: Option<Moment>,
    pub(super) effect: Effect,
}

/// There are too many states to tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooTangled;

/// States kept at most. With as many steps overlapping on one register, nothing else tells right from wrong either.
const MOST_STATES: usize = 50_000;

/// A value that nothing tells from others like it any more.
const ANY: u32 = u32::MAX;

/// Ways to one state kept at most, but for those that have answered different reads.
const MOST_WAYS: usize = 32;

/// The reads, by their place in `steps`, that no order explains. Empty: the steps are those of a register that held
/// nothing at first.
pub(super) fn unexplained(steps: &[Step]) -> Result<Vec<usize>, TooTangled> {
    let mut search = Search::over(steps);
    let mut unexplained = Vec::new();
    for (_, event) in events(steps) {
        match event {
            Event::Invoked(step) => search.invoke(step),
            Event::Ended(step) => {
                if !search.end(step)? {
                    unexplained.push(step);
                }
            }
            Event::Settled(value) => drop(search.settled.insert(value)),
            Event::Forgotten(value) => search.forget(value),
        }
    }
    Ok(unexplained)
}

/// In the order in which events of one instant count: steps that touch overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Invoked(usize),
    Ended(usize),
    /// From here on nobody writes this value any more.
    Settled(u32),
    /// From here on nothing tells this value from others.
    Forgotten(u32),
}

fn events(steps: &[Step]) -> Vec<(Moment, Event)> {
    let (mut events, mut writes, mut uses) = (Vec::new(), Last::default(), Last::default());
    for (at, step) in steps.iter().enumerate() {
        events.push((step.invoked, Event::Invoked(at)));
        events.extend(step.ended.map(|ended| (ended, Event::Ended(at))));
        match step.effect {
            Effect::Write(Some(value)) => {
                writes.note(value, step.ended);
                uses.note(value, Some(Moment::default()));
            }
            Effect::Read(Expect::Value(Some(value))) | Effect::Clear(value) => uses.note(value, step.ended),
            Effect::Write(None) | Effect::Read(_) => {}
        }
    }
    events.extend(writes.known().map(|(value, last)| (last, Event::Settled(value))));
    events.extend(uses.known().map(|(value, last)| (last, Event::Forgotten(value))));
    events.sort_unstable();
    events
}

/// When something happens to a value for the last time; `None` if it may happen at any time.
#[derive(Default)]
struct Last(BTreeMap<u32, Option<Moment>>);

impl Last {
    fn note(&mut self, value: u32, ended: Option<Moment>) {
        let last = self.0.entry(value).or_insert(Some(Moment::default()));
        *last = last.zip(ended).map(|(last, ended)| last.max(ended));
    }

    fn known(self) -> impl Iterator<Item = (u32, Moment)> {
        self.0.into_iter().filter_map(|(value, last)| Some((value, last?)))
    }
}

/// A state that the register may be in, at some point of the history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    value: Value,
    /// The writes that have taken effect and have not ended.
    done: BTreeSet<usize>,
}

/// What it took to reach a state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Way {
    /// The reads that were answered and have not ended.
    answered: BTreeSet<usize>,
    /// How many of the optional steps of each effect were used.
    used: BTreeMap<Effect, usize>,
}

impl Way {
    /// Whether everything that is possible after the other way is possible after this one.
    fn is_as_good_as(&self, other: &Self) -> bool {
        let fewer =
            |(effect, used): (&Effect, &usize)| other.used.get(effect).is_some_and(|more| used <= more);
        self.used.iter().all(fewer) && self.answered.is_superset(&other.answered)
    }
}

/// States, each with the best ways to it.
#[derive(Default)]
struct States(BTreeMap<State, Vec<Way>>);

impl States {
    /// Adds a way to a state. `false`: one as good is known.
    fn add(&mut self, state: State, way: Way) -> bool {
        let ways = self.0.entry(state).or_default();
        if ways.iter().any(|known| known.is_as_good_as(&way)) {
            return false;
        }
        ways.retain(|known| !way.is_as_good_as(known));
        ways.push(way);
        true
    }

    fn change(&mut self, change: impl Fn(&mut State, &mut Way)) {
        for (state, ways) in std::mem::take(&mut self.0) {
            for mut way in ways {
                let mut state = state.clone();
                change(&mut state, &mut way);
                self.add(state, way);
            }
        }
        self.0.values_mut().filter(|ways| ways.len() > MOST_WAYS).for_each(join);
    }

    fn are_too_many(&self) -> bool {
        self.0.len() > MOST_STATES
    }
}

/// Joins ways that differ only in what they used: of each effect the least that one of them did.
fn join(ways: &mut Vec<Way>) {
    let mut joined = BTreeMap::<BTreeSet<usize>, BTreeMap<Effect, usize>>::new();
    for Way { answered, used } in ways.drain(..) {
        match joined.entry(answered) {
            Entry::Vacant(place) => drop(place.insert(used)),
            Entry::Occupied(mut place) => place.get_mut().retain(|effect, least| {
                let other = used.get(effect).copied().unwrap_or_default();
                *least = other.min(*least);
                *least > 0
            }),
        }
    }
    ways.extend(joined.into_iter().map(|(answered, used)| Way { answered, used }));
}

struct Search<'a> {
    steps: &'a [Step],
    /// The values that count as [`ANY`].
    forgotten: BTreeSet<u32>,
    /// The values that nobody writes any more.
    settled: BTreeSet<u32>,
    /// Invoked and not ended, those that must take effect.
    pending: Vec<usize>,
    /// How many optional steps of each effect were invoked.
    optional: BTreeMap<Effect, usize>,
    states: States,
}

impl<'a> Search<'a> {
    fn over(steps: &'a [Step]) -> Self {
        let mut states = States::default();
        states.add(State { value: None, done: BTreeSet::new() }, Way::default());
        let (forgotten, settled) = (BTreeSet::new(), BTreeSet::new());
        Self { steps, forgotten, settled, pending: Vec::new(), optional: BTreeMap::new(), states }
    }

    fn invoke(&mut self, step: usize) {
        let effect = self.effect(step);
        if self.steps[step].ended.is_none() {
            *self.optional.entry(effect).or_default() += 1;
            return;
        }
        self.pending.push(step);
        if let Effect::Read(expect) = effect {
            self.states.change(|state, way| {
                if expect.is_met_by(state.value) {
                    way.answered.insert(step);
                }
            });
        }
    }

    /// The step has taken effect by now. `false`: that cannot be, and it is left out.
    fn end(&mut self, step: usize) -> Result<bool, TooTangled> {
        let after = self.after(step)?;
        self.pending.retain(|&pending| pending != step);
        let explained = !after.0.is_empty();
        if explained {
            self.states = after;
        }
        let settled = &self.settled;
        self.states.change(|state, way| {
            state.done.remove(&step);
            way.answered.remove(&step);
            // Whether the deletion of a value was used is of no account when that value will not be seen again.
            let is_over = |value: u32| settled.contains(&value) && state.value != Some(value);
            way.used.retain(|effect, _| !matches!(effect, Effect::Clear(value) if is_over(*value)));
        });
        Ok(explained)
    }

    fn forget(&mut self, value: u32) {
        self.forgotten.insert(value);
        let (own, any) = (Effect::Write(Some(value)), Effect::Write(Some(ANY)));
        if let Some(invoked) = self.optional.remove(&own) {
            *self.optional.entry(any).or_default() += invoked;
        }
        self.states.change(|state, way| {
            if state.value == Some(value) {
                state.value = Some(ANY);
            }
            if let Some(used) = way.used.remove(&own) {
                *way.used.entry(any).or_default() += used;
            }
        });
    }

    fn effect(&self, step: usize) -> Effect {
        match self.steps[step].effect {
            Effect::Write(Some(value)) if self.forgotten.contains(&value) => Effect::Write(Some(ANY)),
            effect => effect,
        }
    }

    /// The states that can follow and in which `step` is the last that took effect.
    fn after(&self, step: usize) -> Result<States, TooTangled> {
        let (mut seen, mut after) = (States::default(), States::default());
        let mut waiting: Vec<(State, Way)> = Vec::new();
        for (state, ways) in &self.states.0 {
            for way in ways {
                seen.add(state.clone(), way.clone());
                waiting.push((state.clone(), way.clone()));
            }
        }
        while let Some((state, way)) = waiting.pop() {
            if state.done.contains(&step) || way.answered.contains(&step) {
                after.add(state, way);
                continue;
            }
            for (state, way) in self.successors(&state, &way) {
                if seen.add(state.clone(), way.clone()) {
                    waiting.push((state, way));
                }
            }
            if seen.are_too_many() {
                return Err(TooTangled);
            }
        }
        Ok(after)
    }

    /// The states one write later.
    fn successors(&self, state: &State, way: &Way) -> Vec<(State, Way)> {
        let mut found = Vec::new();
        for &step in self.pending.iter().filter(|step| !state.done.contains(step)) {
            if let Some(value) = value_after(self.effect(step), state.value) {
                let mut next = State { value, done: state.done.clone() };
                next.done.insert(step);
                found.push((next, way.clone()));
            }
        }
        for effect in self.useful(state, way) {
            let used = way.used.get(&effect).copied().unwrap_or_default();
            let is_left = self.optional.get(&effect).is_some_and(|&invoked| used < invoked);
            if let (true, Some(value)) = (is_left, value_after(effect, state.value)) {
                let mut way = way.clone();
                way.used.insert(effect, used + 1);
                found.push((State { value, done: state.done.clone() }, way));
            }
        }
        for (state, way) in &mut found {
            self.answer_reads(state.value, way);
        }
        found
    }

    fn answer_reads(&self, value: Value, way: &mut Way) {
        let is_met = |step: &&usize| matches!(self.steps[**step].effect, Effect::Read(expect) if expect.is_met_by(value));
        way.answered.extend(self.pending.iter().filter(is_met));
    }

    /// The optional effects worth trying. Nobody has to see one, so it happens only when a read waits for it, or when
    /// a deletion that is about to end would else find another value.
    fn useful(&self, state: &State, way: &Way) -> BTreeSet<Effect> {
        let mut useful = BTreeSet::new();
        let is_open = |step: &&usize| !state.done.contains(step) && !way.answered.contains(step);
        for &step in self.pending.iter().filter(is_open) {
            match self.effect(step) {
                Effect::Read(Expect::Value(None)) => useful.extend(self.ways_to_nothing(state.value)),
                Effect::Read(Expect::Value(value)) => {
                    useful.insert(Effect::Write(value));
                }
                Effect::Read(Expect::Something) => {
                    let writes = Effect::Write(Some(0))..=Effect::Write(Some(ANY));
                    useful.extend(self.optional.range(writes).map(|(&effect, _)| effect));
                }
                Effect::Clear(value) => {
                    useful.insert(Effect::Write(Some(value)));
                }
                Effect::Write(_) => {}
            }
        }
        useful.retain(|&effect| value_after(effect, state.value) != Some(state.value));
        useful
    }

    /// A deletion of what is there, of this value, or of another that would have to be written first.
    fn ways_to_nothing(&self, value: Value) -> impl Iterator<Item = Effect> {
        let clears = self.optional.range(Effect::Clear(0)..=Effect::Clear(ANY));
        let written_first = clears.filter_map(|(effect, _)| match effect {
            Effect::Clear(value) => Some(Effect::Write(Some(*value))),
            _ => None,
        });
        let directly = [Some(Effect::Write(None)), value.map(Effect::Clear)];
        directly
            .into_iter()
            .flatten()
            .chain(written_first)
            .filter(|effect| self.optional.contains_key(effect))
    }
}

/// What the register holds after a write; `None` if the effect is none.
fn value_after(effect: Effect, value: Value) -> Option<Value> {
    match effect {
        Effect::Write(value) => Some(value),
        Effect::Clear(cleared) if value == Some(cleared) => Some(None),
        Effect::Clear(_) => Some(value),
        Effect::Read(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: Effect = Effect::Write(Some(1));
    const TWO: Effect = Effect::Write(Some(2));
    const DELETE: Effect = Effect::Write(None);
    const SEES_ONE: Effect = Effect::Read(Expect::Value(Some(1)));
    const SEES_TWO: Effect = Effect::Read(Expect::Value(Some(2)));
    const SEES_NOTHING: Effect = Effect::Read(Expect::Value(None));
    const SEES_SOMETHING: Effect = Effect::Read(Expect::Something);

    fn step(effect: Effect, invoked: u64, ended: impl Into<Option<u64>>) -> Step {
        Step { operation: 0, invoked: Moment(invoked), ended: ended.into().map(Moment), effect }
    }

    fn unexplained_of(steps: &[Step]) -> Vec<usize> {
        unexplained(steps).unwrap()
    }

    #[test]
    fn a_register_holds_nothing_at_first_and_then_what_was_written_last() {
        let steps =
            [step(SEES_NOTHING, 0, 1), step(ONE, 2, 3), step(SEES_ONE, 4, 5), step(SEES_SOMETHING, 6, 7)];
        assert!(unexplained_of(&steps).is_empty());
        assert_eq!(unexplained_of(&[step(ONE, 2, 3), step(SEES_NOTHING, 4, 5)]), [1]);
        assert_eq!(unexplained_of(&[step(SEES_SOMETHING, 4, 5)]), [0]);
    }

    #[test]
    fn reads_that_overlap_a_write_see_either_but_never_go_back() {
        let both = [step(ONE, 0, 1), step(TWO, 2, 9), step(SEES_ONE, 3, 4), step(SEES_TWO, 5, 6)];
        assert!(unexplained_of(&both).is_empty());
        let back = [step(ONE, 0, 1), step(TWO, 2, 9), step(SEES_TWO, 3, 4), step(SEES_ONE, 5, 6)];
        assert_eq!(unexplained_of(&back), [3]);
    }

    #[test]
    fn what_ended_without_an_answer_may_take_effect_late_once_or_never() {
        let late = [step(ONE, 0, None), step(TWO, 1, 2), step(SEES_TWO, 3, 4), step(SEES_ONE, 5, 6)];
        assert!(unexplained_of(&late).is_empty());
        let twice = [step(ONE, 0, None), step(SEES_ONE, 1, 2), step(TWO, 3, 4), step(SEES_ONE, 5, 6)];
        assert_eq!(unexplained_of(&twice), [3]);
        let never = [step(ONE, 0, None), step(SEES_NOTHING, 1, 2)];
        assert!(unexplained_of(&never).is_empty());
    }

    #[test]
    fn a_conditional_deletion_takes_away_its_own_value_only() {
        let own = [step(ONE, 0, 1), step(Effect::Clear(1), 2, 3), step(SEES_NOTHING, 4, 5)];
        assert!(unexplained_of(&own).is_empty());
        let others = [step(TWO, 0, 1), step(Effect::Clear(1), 2, 3), step(SEES_NOTHING, 4, 5)];
        assert_eq!(unexplained_of(&others), [2]);
        let stays = [step(ONE, 0, 1), step(Effect::Clear(1), 2, 3), step(SEES_ONE, 4, 5)];
        assert_eq!(unexplained_of(&stays), [2]);
        let through =
            [step(TWO, 0, 1), step(ONE, 2, None), step(Effect::Clear(1), 2, None), step(SEES_NOTHING, 4, 5)];
        assert!(unexplained_of(&through).is_empty());
    }

    #[test]
    fn one_wrong_answer_does_not_hide_the_next() {
        let steps = [
            step(ONE, 0, 1),
            step(SEES_NOTHING, 2, 3),
            step(SEES_ONE, 4, 5),
            step(DELETE, 6, 7),
            step(SEES_ONE, 8, 9),
            step(SEES_NOTHING, 10, 11),
        ];
        assert_eq!(unexplained_of(&steps), [1, 4]);
    }

    #[test]
    fn many_steps_that_overlap_are_still_decided() {
        let written = (0..6).map(|value| step(Effect::Write(Some(value)), u64::from(value), 100));
        let lost = (0..50).map(|value| step(Effect::Write(Some(value % 6)), 0, None));
        let read =
            (0..6).map(|value| step(Effect::Read(Expect::Value(Some(value))), 20, 90 + u64::from(value)));
        let mut steps: Vec<Step> = written.chain(lost).chain(read).collect();
        assert!(unexplained_of(&steps).is_empty());
        steps.push(step(SEES_NOTHING, 200, 201));
        assert_eq!(unexplained_of(&steps), [62]);
    }

    /// By trying every order.
    fn has_an_order(steps: &[Step]) -> bool {
        fn go_on(steps: &[Step], left: &[usize], value: Value) -> bool {
            let Some(first_end) = left.iter().filter_map(|&at| steps[at].ended).min() else { return true };
            left.iter().any(|&at| {
                if steps[at].invoked > first_end {
                    return false;
                }
                let next = match steps[at].effect {
                    Effect::Write(value) => value,
                    Effect::Clear(cleared) if value == Some(cleared) => None,
                    Effect::Clear(_) => value,
                    Effect::Read(expect) if expect.is_met_by(value) => value,
                    Effect::Read(_) => return false,
                };
                let left: Vec<usize> = left.iter().copied().filter(|&other| other != at).collect();
                go_on(steps, &left, next)
            })
        }
        go_on(steps, &(0..steps.len()).collect::<Vec<_>>(), None)
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let value = || proptest::option::of(1..3_u32);
        let effect = prop_oneof![
            3 => value().prop_map(Effect::Write),
            1 => (1..3_u32).prop_map(Effect::Clear),
            4 => value().prop_map(|value| Effect::Read(Expect::Value(value))),
            1 => Just(SEES_SOMETHING),
        ];
        (effect, 0..16_u64, 0..8_u64, proptest::bool::weighted(0.2)).prop_map(
            |(effect, invoked, long, lost)| {
                let ended = (!lost || matches!(effect, Effect::Read(_))).then_some(invoked + long);
                step(effect, invoked, ended)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_search_agrees_with_trying_every_order(steps in proptest::collection::vec(any_step(), 1..8)) {
            prop_assert_eq!(unexplained_of(&steps).is_empty(), has_an_order(&steps));
        }
    }
}
