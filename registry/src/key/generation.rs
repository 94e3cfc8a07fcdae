// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Generations: what makes every key a new one.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use stowage_oci::{Algorithm, Digest};
use ulid::Ulid;
use uuid::Uuid;

/// One upload of a digest, one version of a record: a ULID, written in lower case.
///
/// The time inside serves policies and people, never an order that something depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(Ulid);

/// Which mirror copied something: a part of the hash of its name. It is in the generation of each record of a tag that
/// the mirror set, in the place of random bits: so the bucket alone says whose a tag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark([u8; Mark::BYTES]);

impl Mark {
    /// As many bits stay random; that somebody else's are these happens once in 10¹².
    const BYTES: usize = 5;
    /// Where they begin, after the time.
    const AT: usize = 6;

    /// That of the mirror of this name.
    #[must_use]
    pub fn of_mirror(name: &str) -> Self {
        let hash = Digest::of(Algorithm::Sha256, format!("stowage mirror {name}").as_bytes()).to_bytes();
        // The first byte is the algorithm.
        let mut mark = [0; Self::BYTES];
        for (place, byte) in mark.iter_mut().zip(hash.iter().skip(1)) {
            *place = *byte;
        }
        Self(mark)
    }
}

impl Generation {
    /// A fresh generation at `milliseconds` since 1970, of what a mirror copied.
    #[must_use]
    pub fn marked(milliseconds: u64, mark: Mark) -> Self {
        let mut bytes = Self::at(milliseconds).0.to_bytes();
        for (place, byte) in bytes.iter_mut().skip(Mark::AT).zip(mark.0) {
            *place = byte;
        }
        Self(Ulid::from_bytes(bytes))
    }

    /// Whether it is that of what the mirror copied.
    #[must_use]
    pub fn has(&self, mark: Mark) -> bool {
        self.0.to_bytes().iter().skip(Mark::AT).zip(mark.0).all(|(found, byte)| *found == byte)
    }

    /// A fresh generation at `milliseconds` since 1970.
    #[must_use]
    pub fn at(milliseconds: u64) -> Self {
        Self(Ulid::from_parts(milliseconds, rand::random()))
    }

    /// The same, above all that this process has made so: what one request made after another sorts behind it,
    /// however fast they came.
    #[must_use]
    pub fn next(milliseconds: u64) -> Self {
        static LAST: Mutex<Ulid> = Mutex::new(Ulid::nil());
        // Nothing panics while it is locked.
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let Self(fresh) = Self::at(milliseconds);
        let above = if fresh.timestamp_ms() > last.timestamp_ms() { None } else { last.increment().ok() };
        *last = above.unwrap_or(fresh);
        Self(*last)
    }

    /// That of what has no record here: of its own time, and the same whenever and wherever it is made.
    #[must_use]
    pub fn of_content(milliseconds: u64, digest: &Digest) -> Self {
        let mut bytes = Self(Ulid::from_parts(milliseconds, 0)).0.to_bytes();
        // The first byte of a digest is the algorithm.
        for (place, byte) in bytes.iter_mut().skip(Mark::AT).zip(digest.to_bytes().iter().skip(1)) {
            *place = *byte;
        }
        Self(Ulid::from_bytes(bytes))
    }

    /// When it was made, in milliseconds since 1970.
    #[must_use]
    pub fn milliseconds(&self) -> u64 {
        self.0.timestamp_ms()
    }

    /// The last two characters: one of 1,024 shards.
    #[must_use]
    pub fn shard(&self) -> String {
        self.to_string().chars().skip(24).collect()
    }

    /// The form databases hold.
    #[must_use]
    pub fn to_uuid(self) -> Uuid {
        Uuid::from_bytes(self.0.to_bytes())
    }

    /// The reverse of [`to_uuid`](Self::to_uuid).
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(Ulid::from_bytes(uuid.into_bytes()))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().to_ascii_lowercase())
    }
}

/// The text is not a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a generation")]
pub struct NotAGeneration;

impl FromStr for Generation {
    type Err = NotAGeneration;

    fn from_str(text: &str) -> Result<Self, NotAGeneration> {
        let generation = Ulid::from_string(text).map(Self).ok();
        // One spelling only: a key must read back as exactly the text it was written as.
        generation.filter(|generation| generation.to_string() == text).ok_or(NotAGeneration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_again_and_leaves_the_time_and_the_difference() {
        let (mark, other) = (Mark::of_mirror("base"), Mark::of_mirror("other"));
        let made = [0, 1].map(|_| Generation::marked(1_700_000_000_000, mark));
        assert_ne!(made[0], made[1]);
        for generation in made {
            assert_eq!(generation.milliseconds(), 1_700_000_000_000);
            assert!(generation.has(mark) && !generation.has(other));
            assert_eq!(generation.to_string().parse(), Ok(generation));
        }
        assert!(!Generation::at(5).has(mark));
    }

    #[test]
    fn what_has_no_record_has_the_same_place_each_time() {
        let [one, other] = [b"one", b"two"].map(|content| Digest::of(Algorithm::Sha256, content));
        let made = Generation::of_content(1_700_000_000_000, &one);
        assert_eq!(made, Generation::of_content(1_700_000_000_000, &one));
        assert_eq!(made.milliseconds(), 1_700_000_000_000);
        assert_eq!(made.to_string().parse(), Ok(made));
        assert_ne!(made, Generation::of_content(1_700_000_000_000, &other));
        assert!(Generation::of_content(0, &one) < made);
    }

    #[test]
    fn each_next_one_sorts_behind_the_last_also_when_the_clock_stands_still_or_goes_back() {
        // Later than what other tests make in this process.
        let later = 0x7fff_ffff_ffff;
        let made = [0, 0, 5, 5, 5, 2, 6].map(|millisecond| Generation::next(later + millisecond));
        assert!(made.is_sorted_by(|one, other| one < other), "{made:?}");
    }
}
