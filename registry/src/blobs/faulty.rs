// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A store that fails on demand, at a chosen request: what a bucket does to us on a bad day.
//!
//! It can refuse before a request takes effect, lose the answer after it did, delay it, break the content of a
//! read, or hold a request until told otherwise, which makes a race a deterministic test.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};

pub use crate::ops::gate::Gate;

use super::layered::Around;
use super::{ByteStream, Content, Error, Layered, Request, Store};

/// A store with [`Faults`].
pub type Faulty = Layered<Faults>;

impl Faulty {
    /// `inner`, and the handle that makes it fail.
    #[must_use]
    pub fn over(inner: Arc<dyn Store>) -> (Self, Faults) {
        let faults = Faults::default();
        (Self::new(inner, faults.clone()), faults)
    }
}

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are variants of `Error`")]
pub enum Failure {
    Unavailable,
    Full,
    Refused,
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub enum Effect {
    /// It fails and has no effect.
    Fail(Failure),
    /// It takes effect, and the answer is lost.
    LoseAnswer,
    /// It begins later.
    Delay(Duration),
    /// It begins when the gate is released.
    HoldBefore(Gate),
    /// Its answer arrives when the gate is released.
    HoldAfter(Gate),
    /// The content of a `get` ends in an error after so many bytes.
    BreakAfter(u64),
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// At every matching request.
    Always,
    /// At the n-th matching request only, from 1.
    Nth(u64),
    /// At the first n matching requests.
    First(u64),
    /// At the first matching request for each key.
    FirstOfEachKey,
}

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    request: Option<Request>,
    fragment: String,
    occasion: Occasion,
    effect: Effect,
}

impl Fault {
    /// `effect` at every request of this kind.
    #[must_use]
    pub fn at(request: Request, effect: Effect) -> Self {
        Self { request: Some(request), fragment: String::new(), occasion: Occasion::Always, effect }
    }

    /// `effect` at every request of any kind.
    #[must_use]
    pub fn anywhere(effect: Effect) -> Self {
        Self { request: None, fragment: String::new(), occasion: Occasion::Always, effect }
    }

    /// Only for keys that contain `fragment`.
    #[must_use]
    pub fn matching(mut self, fragment: impl Into<String>) -> Self {
        self.fragment = fragment.into();
        self
    }

    /// Only on this occasion.
    #[must_use]
    pub fn on(mut self, occasion: Occasion) -> Self {
        self.occasion = occasion;
        self
    }

    fn concerns(&self, request: Request, key: &str) -> bool {
        self.request.is_none_or(|wanted| wanted == request) && key.contains(&self.fragment)
    }
}

/// What goes wrong, and how often it has. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Armed>>>);

#[derive(Debug)]
struct Armed {
    fault: Fault,
    seen: u64,
    seen_of_key: HashMap<(Request, String), u64>,
    struck: u64,
}

impl Armed {
    fn strikes(&mut self, request: Request, key: &str) -> bool {
        if !self.fault.concerns(request, key) {
            return false;
        }
        self.seen += 1;
        let of_key = self.seen_of_key.entry((request, key.to_owned())).or_default();
        *of_key += 1;
        let strikes = match self.fault.occasion {
            Occasion::Always => true,
            Occasion::Nth(n) => self.seen == n,
            Occasion::First(n) => self.seen <= n,
            Occasion::FirstOfEachKey => *of_key == 1,
        };
        self.struck += u64::from(strikes);
        strikes
    }
}

impl Faults {
    /// Adds a fault. Those added earlier stay and come first.
    pub fn add(&self, fault: Fault) {
        self.armed().push(Armed { fault, seen: 0, seen_of_key: HashMap::new(), struck: 0 });
    }

    /// Removes all faults; held requests stay held.
    pub fn clear(&self) {
        self.armed().clear();
    }

    /// How often the present faults have struck.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.armed().iter().map(|armed| armed.struck).sum()
    }

    fn armed(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn effects(&self, request: Request, key: &str, of_content: bool) -> Vec<Effect> {
        let mut armed = self.armed();
        let armed = armed
            .iter_mut()
            .filter(|armed| matches!(armed.fault.effect, Effect::BreakAfter(_)) == of_content)
            .filter_map(|armed| armed.strikes(request, key).then(|| armed.fault.effect.clone()));
        armed.collect()
    }
}

fn injected(request: Request, key: &str, failure: Failure) -> Error {
    let source = "injected";
    match failure {
        Failure::Unavailable => request.unavailable(key, source),
        Failure::Full => request.full(key, source),
        Failure::Refused => request.refused(key, source),
    }
}

impl Around for Faults {
    async fn around<T: Send>(
        &self,
        request: Request,
        key: &str,
        call: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let effects = self.effects(request, key, false);
        for effect in &effects {
            match effect {
                Effect::Fail(failure) => return Err(injected(request, key, *failure)),
                Effect::Delay(time) => tokio::time::sleep(*time).await,
                Effect::HoldBefore(gate) => gate.pass().await,
                Effect::LoseAnswer | Effect::HoldAfter(_) | Effect::BreakAfter(_) => {}
            }
        }
        let result = call.await;
        for effect in &effects {
            match effect {
                Effect::LoseAnswer => return Err(injected(request, key, Failure::Unavailable)),
                Effect::HoldAfter(gate) => gate.pass().await,
                Effect::Fail(_) | Effect::Delay(_) | Effect::HoldBefore(_) | Effect::BreakAfter(_) => {}
            }
        }
        result
    }

    fn content(&self, key: &str, mut content: Content) -> Content {
        for effect in self.effects(Request::Get, key, true) {
            if let Effect::BreakAfter(bytes) = effect {
                content.stream = broken(key.to_owned(), content.stream, bytes);
            }
        }
        content
    }
}

/// The first `bytes` of the stream, then an error.
fn broken(key: String, stream: ByteStream, bytes: u64) -> ByteStream {
    let left = usize::try_from(bytes).unwrap_or(usize::MAX);
    let cut = stream.scan(left, |left, piece| {
        let piece = match piece {
            _ if *left == 0 => None,
            Ok(piece) => {
                let kept: Bytes = piece.slice(..piece.len().min(*left));
                *left -= kept.len();
                Some(Ok(kept))
            }
            Err(error) => Some(Err(error)),
        };
        futures::future::ready(piece)
    });
    let end = io::Error::from(io::ErrorKind::ConnectionReset);
    let end = stream::once(async move { Err(Request::Get.unavailable(&key, end)) });
    cut.chain(end).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::{Memory, Read, Write, conformance};

    fn faulty() -> (Arc<Faulty>, Faults) {
        let (store, faults) = Faulty::over(Arc::new(Memory::new()));
        (Arc::new(store), faults)
    }

    fn content() -> Vec<Bytes> {
        vec![Bytes::from_static(b"content")]
    }

    #[tokio::test]
    async fn a_failed_put_has_no_effect_and_a_lost_answer_has() {
        let (store, faults) = faulty();
        let nth = |n, effect| Fault::at(Request::Put, effect).on(Occasion::Nth(n));
        faults.add(nth(1, Effect::Fail(Failure::Full)));
        faults.add(nth(2, Effect::LoseAnswer));

        assert!(matches!(store.put("a", content()).await, Err(Error::Full { .. })));
        assert_eq!(store.head("a").await.unwrap(), None);
        assert!(matches!(store.put("a", content()).await, Err(Error::Unavailable { .. })));
        assert_eq!(store.head("a").await.unwrap(), Some(7));
        store.put("a", content()).await.unwrap();
        assert_eq!(faults.struck(), 2);
    }

    #[tokio::test]
    async fn a_held_put_takes_effect_when_it_is_released() {
        let (store, faults) = faulty();
        let gate = Gate::new();
        faults.add(Fault::at(Request::Put, Effect::HoldBefore(gate.clone())).matching("slow"));

        let held = { store.put("slow", content()) };
        let other = async {
            gate.reached().await;
            store.put("fast", content()).await.unwrap();
            assert_eq!(store.head("slow").await.unwrap(), None);
            gate.release();
        };
        let (held, ()) = futures::future::join(held, other).await;
        held.unwrap();
        assert_eq!(store.head("slow").await.unwrap(), Some(7));
    }

    #[tokio::test]
    async fn the_first_attempt_of_each_key_can_fail() {
        let (store, faults) = faulty();
        let fault = Fault::anywhere(Effect::Fail(Failure::Unavailable));
        faults.add(fault.on(Occasion::FirstOfEachKey));
        for key in ["a", "b"] {
            assert!(store.put(key, content()).await.is_err());
            store.put(key, content()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn content_can_break_in_the_middle() {
        let (store, faults) = faulty();
        store.put("a", content()).await.unwrap();
        faults.add(Fault::at(Request::Get, Effect::BreakAfter(3)).on(Occasion::First(1)));
        let pieces: Vec<_> = store.get("a", None).await.unwrap().unwrap().stream.collect().await;
        assert_eq!(pieces.first().unwrap().as_ref().unwrap().as_ref(), b"con");
        assert!(pieces.last().unwrap().is_err());
        let whole = conformance::read(&*store, "a").await;
        assert_eq!(whole, b"content");
    }
}
