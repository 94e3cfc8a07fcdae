// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Verifies passwords: in few places at once, with a memory for what was right and for who guesses.
//!
//! Guarantees: a hash is computed on the blocking pool, by at most as many threads as there are processors. Ten
//! wrong passwords of one user name from one source within a minute, and that pair is refused for the rest of it.
//! Never: keeps a password; what is remembered is a keyed hash.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::{hmac, rand::SystemRandom};
use tokio::sync::Semaphore;

use super::htpasswd::{Hash, Htpasswd};
use super::identity::Principal;

const REMEMBERED: Duration = Duration::from_mins(1);
const WINDOW: Duration = Duration::from_mins(1);
const FAILURES: u32 = 10;
/// Entries that each of the memories has at most: whoever invents names must not fill ours.
const MOST: usize = 10_000;

/// Why a login was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginError {
    /// No such user, or not the password.
    Wrong,
    /// Too many wrong ones before it.
    Throttled { retry_after: Duration },
}

/// Verifies passwords.
pub(super) struct Logins {
    key: hmac::Key,
    verified: Mutex<HashMap<[u8; 32], Instant>>,
    throttle: Mutex<Throttle>,
    slots: Semaphore,
}

impl Logins {
    pub(super) fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .expect("the system gives random numbers");
        let slots = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            key,
            verified: Mutex::default(),
            throttle: Mutex::new(Throttle::default()),
            slots: Semaphore::new(slots),
        }
    }

    /// The principal whose password this is.
    pub(super) async fn verify(
        &self,
        users: &Htpasswd,
        name: &str,
        password: &str,
        source: IpAddr,
    ) -> Result<Principal, LoginError> {
        lock(&self.throttle).allows(source, name, Instant::now())?;
        let hash = users.hash(name);
        let proof = self.proof(name, password, &hash.text());
        let right = self.remembers(&proof) || self.compare(hash, password, proof).await;
        match users.principal(name) {
            Some(principal) if right => Ok(principal.clone()),
            _ => {
                lock(&self.throttle).failed(source, name, Instant::now());
                Err(LoginError::Wrong)
            }
        }
    }

    async fn compare(&self, hash: &Hash, password: &str, proof: [u8; 32]) -> bool {
        let _slot = self.slots.acquire().await.expect("never closed");
        // Many requests with one new password wait here; the first has found out for all.
        if self.remembers(&proof) {
            return true;
        }
        let (hash, password) = (hash.clone(), password.to_owned());
        let compared = tokio::task::spawn_blocking(move || hash.is_of(&password)).await;
        let right = compared.unwrap_or(false);
        if right {
            self.remember(proof);
        }
        right
    }

    /// Changes with the user's hash, so that a changed password is not remembered as right.
    fn proof(&self, name: &str, password: &str, hash: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name, password, hash] {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign().as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    fn remembers(&self, proof: &[u8; 32]) -> bool {
        lock(&self.verified).get(proof).is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    fn remember(&self, proof: [u8; 32]) {
        let mut verified = lock(&self.verified);
        if verified.len() >= MOST {
            verified.retain(|_, since| since.elapsed() < REMEMBERED);
        }
        if verified.len() < MOST {
            verified.insert(proof, Instant::now());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every change of these maps is whole, so a panic elsewhere leaves them sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who guesses: wrong passwords by source and user name, in windows that open with the first of them.
#[derive(Default)]
struct Throttle {
    hasher: RandomState,
    failures: HashMap<(IpAddr, u64), (Instant, u32)>,
}

impl Throttle {
    fn key(&self, source: IpAddr, name: &str) -> (IpAddr, u64) {
        (source.to_canonical(), self.hasher.hash_one(name))
    }

    fn allows(&self, source: IpAddr, name: &str, now: Instant) -> Result<(), LoginError> {
        let Some((since, count)) = self.failures.get(&self.key(source, name)) else { return Ok(()) };
        match WINDOW.checked_sub(now.duration_since(*since)) {
            Some(retry_after) if *count >= FAILURES => Err(LoginError::Throttled { retry_after }),
            _ => Ok(()),
        }
    }

    fn failed(&mut self, source: IpAddr, name: &str, now: Instant) {
        let fresh = |since: &Instant| now.duration_since(*since) < WINDOW;
        let key = self.key(source, name);
        if self.failures.len() >= MOST && !self.failures.contains_key(&key) {
            self.failures.retain(|_, (since, _)| fresh(since));
            if self.failures.len() >= MOST {
                return;
            }
        }
        let entry = self.failures.entry(key).or_insert((now, 0));
        if !fresh(&entry.0) {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::htpasswd::tests::line;
    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn w610_a_right_password_is_remembered_and_a_changed_hash_forgets_it() {
        let logins = Logins::new();
        let users = Htpasswd::parse("users", &line("alice", "a:b")).unwrap();
        assert_eq!(&*logins.verify(&users, "alice", "a:b", HERE).await.unwrap().name, "alice");
        assert_eq!(lock(&logins.verified).len(), 1);
        assert!(logins.verify(&users, "alice", "a:b", HERE).await.is_ok());
        let changed = Htpasswd::parse("users", &line("alice", "new")).unwrap();
        assert_eq!(logins.verify(&changed, "alice", "a:b", HERE).await, Err(LoginError::Wrong));
    }

    /// How long a comparison takes tells nothing to who cannot compute what is compared.
    #[test]
    fn w734_w793_what_is_compared_with_memory_is_a_hash_that_no_client_can_compute() {
        let proof = |logins: &Logins| logins.proof("alice", "a:b", "hash");
        let logins = Logins::new();
        assert_eq!(proof(&logins), proof(&logins));
        assert_ne!(proof(&logins), proof(&Logins::new()), "the key is this process's own");
        let parted = logins.proof("alicea", ":b", "hash");
        assert_ne!(parted, proof(&logins), "name and password are told apart");
    }

    #[tokio::test]
    async fn w611_the_eleventh_guess_in_a_minute_is_refused_even_if_right() {
        let logins = Logins::new();
        let users = Htpasswd::parse("users", &line("alice", "right")).unwrap();
        for _ in 0..FAILURES {
            assert_eq!(logins.verify(&users, "alice", "wrong", HERE).await, Err(LoginError::Wrong));
        }
        let refused = logins.verify(&users, "alice", "right", HERE).await;
        assert!(matches!(refused, Err(LoginError::Throttled { retry_after }) if retry_after <= WINDOW));
        let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        assert!(logins.verify(&users, "alice", "right", elsewhere).await.is_ok());
    }

    #[test]
    fn w611_a_new_window_forgets_the_old_one() {
        let mut throttle = Throttle::default();
        let start = Instant::now();
        for _ in 0..FAILURES {
            throttle.failed(HERE, "alice", start);
        }
        assert!(throttle.allows(HERE, "alice", start).is_err());
        let later = start + WINDOW + Duration::from_secs(1);
        assert!(throttle.allows(HERE, "alice", later).is_ok());
        throttle.failed(HERE, "alice", later);
        assert!(throttle.allows(HERE, "alice", later).is_ok());
    }

    #[tokio::test]
    async fn w610_an_unknown_user_is_refused_like_a_wrong_password() {
        let users = Htpasswd::parse("users", &line("alice", "right")).unwrap();
        let refused = Logins::new().verify(&users, "bob", "right", HERE).await;
        assert_eq!(refused, Err(LoginError::Wrong));
    }
}
