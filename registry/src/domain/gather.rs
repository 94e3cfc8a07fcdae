// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Questions that are open at the same time are asked together.
//!
//! Flow: whoever comes while a lane is free asks alone, at once. While every lane is busy, questions wait; a lane
//! that becomes free takes all that wait, equal ones once.
//! Guarantees: an answer is one to a question that was put after its asker had come: what was put is joined by
//! nobody, and no answer is kept. So whoever asks after a change sees it. An asker that goes away takes nobody
//! along: what is asked for others runs in a task of its own.
//! Assumes: a question comes to its end by itself. Those behind it wait as long.
//! Never: caches, or knows what is asked.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

use crate::ops::tasks::Tasks;

/// Puts the questions of these keys; as many answers, in their order.
type Question<K, A> = Box<dyn Fn(Vec<K>) -> BoxFuture<'static, Vec<A>> + Send + Sync>;

/// One kind of question.
pub(super) struct Gather<K: Key, A: Answer>(Arc<Shared<K, A>>);

/// What tells questions apart.
pub(super) trait Key: Clone + Eq + Hash + Send + 'static {}

impl<T: Clone + Eq + Hash + Send + 'static> Key for T {}

/// What several askers can be told.
pub(super) trait Answer: Clone + Send + 'static {}

impl<T: Clone + Send + 'static> Answer for T {}

struct Shared<K: Key, A: Answer> {
    question: Question<K, A>,
    most: usize,
    tasks: Tasks,
    state: Mutex<State<K, A>>,
}

/// While a lane is free nobody waits.
struct State<K, A> {
    free: usize,
    waiting: Vec<Waiting<K, A>>,
}

struct Waiting<K, A> {
    key: K,
    asker: oneshot::Sender<A>,
    /// Of the request that waits: what is asked for several belongs to the first.
    span: Span,
}

/// The right to ask. Given back, it goes to those that wait.
struct Lane<K: Key, A: Answer>(Arc<Shared<K, A>>);

enum Turn<K: Key, A: Answer> {
    Now(Lane<K, A>),
    Later(oneshot::Receiver<A>),
}

impl<K: Key, A: Answer> Gather<K, A> {
    /// Puts at most `lanes` questions at a time, each of at most `most` keys.
    pub(super) fn new(
        lanes: usize,
        most: usize,
        tasks: Tasks,
        question: impl Fn(Vec<K>) -> BoxFuture<'static, Vec<A>> + Send + Sync + 'static,
    ) -> Self {
        let state = Mutex::new(State { free: lanes, waiting: Vec::new() });
        Self(Arc::new(Shared { question: Box::new(question), most, tasks, state }))
    }

    /// The answer for `key`.
    pub(super) async fn ask(&self, key: K) -> A {
        loop {
            match self.turn(&key) {
                Turn::Now(lane) => {
                    let answer = (lane.0.question)(vec![key]).await.pop();
                    return answer.expect("there is an answer to each question");
                }
                Turn::Later(answer) => {
                    if let Ok(answer) = answer.await {
                        return answer;
                    }
                    // The task that asked for us was ended.
                }
            }
        }
    }

    fn turn(&self, key: &K) -> Turn<K, A> {
        let mut state = self.0.state();
        if state.free > 0 {
            state.free -= 1;
            return Turn::Now(Lane(Arc::clone(&self.0)));
        }
        let (asker, answer) = oneshot::channel();
        state.waiting.push(Waiting { key: key.clone(), asker, span: Span::current() });
        Turn::Later(answer)
    }
}

impl<K: Key, A: Answer> Shared<K, A> {
    fn state(&self) -> MutexGuard<'_, State<K, A>> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that wait; if nobody does, the lane is free.
    fn next(&self) -> Option<Vec<Waiting<K, A>>> {
        let mut state = self.state();
        state.waiting.retain(|waiting| !waiting.asker.is_closed());
        if state.waiting.is_empty() {
            state.free += 1;
            return None;
        }
        let count = state.waiting.len().min(self.most);
        Some(state.waiting.drain(..count).collect())
    }

    async fn answer(&self, batch: Vec<Waiting<K, A>>) {
        let mut askers: HashMap<K, Vec<oneshot::Sender<A>>> = HashMap::with_capacity(batch.len());
        for Waiting { key, asker, .. } in batch {
            askers.entry(key).or_default().push(asker);
        }
        let (keys, askers): (Vec<K>, Vec<_>) = askers.into_iter().unzip();
        let answers = (self.question)(keys).await;
        for (answer, askers) in answers.into_iter().zip(askers) {
            for asker in askers {
                // Who went meanwhile needs none.
                drop(asker.send(answer.clone()));
            }
        }
    }
}

impl<K: Key, A: Answer> Drop for Lane<K, A> {
    fn drop(&mut self) {
        let Some(batch) = self.0.next() else { return };
        let span = batch.first().map_or_else(Span::none, |first| first.span.clone());
        let lane = Self(Arc::clone(&self.0));
        // Without a runtime nobody waits any more.
        if Handle::try_current().is_ok() {
            let asked = async move { lane.0.answer(batch).await };
            drop(self.0.tasks.spawn(asked.instrument(span)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Poll;

    use futures::poll;

    use super::*;
    use crate::ops::gate::Gate;

    /// Answers each key with how often anything was asked before, and remembers what was asked together.
    #[derive(Clone, Default)]
    struct Source {
        asked: Arc<Mutex<Vec<Vec<&'static str>>>>,
        count: Arc<AtomicU64>,
        gates: Arc<Mutex<Vec<Gate>>>,
    }

    impl Source {
        fn gather(&self, lanes: usize, most: usize) -> Gather<&'static str, (u64, &'static str)> {
            let source = self.clone();
            Gather::new(lanes, most, Tasks::new(), move |keys| {
                let turn = source.count.fetch_add(1, Ordering::Relaxed);
                let mut asked = keys.clone();
                asked.sort_unstable();
                source.asked.lock().unwrap().push(asked);
                let gate = source.gates.lock().unwrap().get(usize::try_from(turn).unwrap()).cloned();
                Box::pin(async move {
                    if let Some(gate) = gate {
                        gate.pass().await;
                    }
                    keys.into_iter().map(|key| (turn, key)).collect()
                })
            })
        }

        /// The next `count` questions are held.
        fn hold(&self, count: usize) -> Vec<Gate> {
            let gates: Vec<Gate> = (0..count).map(|_| Gate::new()).collect();
            *self.gates.lock().unwrap() = gates.clone();
            gates
        }

        fn asked(&self) -> Vec<Vec<&'static str>> {
            self.asked.lock().unwrap().clone()
        }
    }

    /// Begins to ask.
    macro_rules! asking {
        ($gather:expr, $key:expr) => {{
            let mut asking = Box::pin($gather.ask($key));
            assert!(poll!(&mut asking).is_pending());
            asking
        }};
    }

    #[tokio::test]
    async fn who_comes_alone_asks_at_once_and_nothing_is_kept() {
        let source = Source::default();
        let gather = source.gather(1, 10);
        assert_eq!(gather.ask("a").await, (0, "a"));
        assert_eq!(gather.ask("a").await, (1, "a"));
    }

    #[tokio::test]
    async fn who_comes_after_a_question_was_put_does_not_share_its_answer() {
        let source = Source::default();
        let gates = source.hold(1);
        let gather = source.gather(1, 10);
        let first = asking!(gather, "a");
        let late = [asking!(gather, "a"), asking!(gather, "a")];
        assert_eq!(source.asked().len(), 1, "the late ones wait");
        gates[0].release();
        assert_eq!(first.await, (0, "a"));
        for late in late {
            assert_eq!(late.await, (1, "a"), "one fresh question for both");
        }
        assert_eq!(source.asked().len(), 2);
    }

    #[tokio::test]
    async fn all_that_wait_are_asked_together_and_equal_ones_once() {
        let source = Source::default();
        let gates = source.hold(1);
        let gather = source.gather(1, 10);
        let first = asking!(gather, "a");
        let (b, c, again) = (asking!(gather, "b"), asking!(gather, "c"), asking!(gather, "b"));
        gates[0].release();
        first.await;
        assert_eq!((b.await, c.await, again.await), ((1, "b"), (1, "c"), (1, "b")));
        assert_eq!(source.asked(), [vec!["a"], vec!["b", "c"]]);
    }

    #[tokio::test]
    async fn a_question_has_a_longest_size_and_the_rest_comes_next() {
        let source = Source::default();
        let gates = source.hold(1);
        let gather = source.gather(1, 2);
        let first = asking!(gather, "a");
        let rest = [asking!(gather, "b"), asking!(gather, "c"), asking!(gather, "d")];
        gates[0].release();
        first.await;
        for asking in rest {
            asking.await;
        }
        assert_eq!(source.asked(), [vec!["a"], vec!["b", "c"], vec!["d"]]);
    }

    #[tokio::test]
    async fn as_many_questions_are_put_at_once_as_there_are_lanes() {
        let source = Source::default();
        let gates = source.hold(2);
        let gather = source.gather(2, 10);
        let (a, b, c) = (asking!(gather, "a"), asking!(gather, "b"), asking!(gather, "c"));
        assert_eq!(source.asked().len(), 2);
        gates[1].release();
        assert_eq!((b.await, c.await), ((1, "b"), (2, "c")), "the first lane is still busy");
        gates[0].release();
        a.await;
    }

    #[tokio::test]
    async fn who_goes_while_it_asks_leaves_the_lane_to_those_that_wait() {
        let source = Source::default();
        source.hold(1);
        let gather = source.gather(1, 10);
        let first = asking!(gather, "a");
        let second = asking!(gather, "b");
        drop(first);
        assert_eq!(second.await, (1, "b"));
        assert_eq!(gather.ask("c").await, (2, "c"), "the lane is free again");
    }

    #[tokio::test]
    async fn who_goes_while_others_ask_with_it_does_not_end_their_question() {
        let source = Source::default();
        let gates = source.hold(2);
        let gather = source.gather(1, 10);
        let first = asking!(gather, "a");
        let (mut gone, mut stays) = (asking!(gather, "b"), asking!(gather, "b"));
        gates[0].release();
        first.await;
        gates[1].reached().await;
        assert_eq!((poll!(&mut gone), poll!(&mut stays)), (Poll::Pending, Poll::Pending));
        drop(gone);
        gates[1].release();
        assert_eq!(stays.await, (1, "b"));
        assert_eq!(source.asked().len(), 2);
    }

    #[tokio::test]
    async fn for_those_that_went_before_their_turn_nothing_is_asked() {
        let source = Source::default();
        let gates = source.hold(1);
        let gather = source.gather(1, 10);
        let first = asking!(gather, "a");
        drop((asking!(gather, "b"), asking!(gather, "c")));
        gates[0].release();
        first.await;
        assert_eq!(gather.ask("d").await, (1, "d"));
        assert_eq!(source.asked(), [vec!["a"], vec!["d"]]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thousand_askers_that_come_and_go_leave_every_lane_free() {
        let source = Source::default();
        let gather = source.gather(2, 16);
        let askers = (0..1000_u32).map(|n| {
            let gather = &gather;
            async move {
                let asking = gather.ask(["a", "b", "c"][n as usize % 3]);
                if n % 7 == 0 {
                    drop(futures::future::select(Box::pin(asking), std::future::ready(())).await);
                } else {
                    asking.await;
                }
            }
        });
        futures::future::join_all(askers).await;
        for _ in 0..3 {
            gather.ask("a").await;
        }
        let state = gather.0.state();
        assert_eq!((state.free, state.waiting.len()), (2, 0));
    }
}
