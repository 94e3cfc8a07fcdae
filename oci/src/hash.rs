// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Hashing whose state can be saved in one process and continued in another.
//!
//! The saved form is ours and does not change with the library: an upload begun by one release is finished
//! by the next. It holds no more than the public intermediate state of the hash and less than one block of
//! content.

use sha2::block_api::{compress256, compress512};

use crate::{Algorithm, Digest};

/// The saved state cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("saved hash state is not of a format this version reads")]
pub struct StateError;

/// The format of [`Hasher::save`]; its first byte.
const FORMAT: u8 = 1;

/// A running hash over content that arrives in pieces.
#[derive(Clone, Debug)]
pub struct Hasher {
    core: Core,
    /// Bytes hashed so far.
    length: u64,
    /// The bytes of the block that is not full yet; fewer than one block.
    tail: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Core {
    Sha256([u32; 8]),
    Sha512([u64; 8]),
}

impl Core {
    /// FIPS 180-4, sections 5.3.3 and 5.3.5.
    const fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256([
                0x6a09_e667,
                0xbb67_ae85,
                0x3c6e_f372,
                0xa54f_f53a,
                0x510e_527f,
                0x9b05_688c,
                0x1f83_d9ab,
                0x5be0_cd19,
            ]),
            Algorithm::Sha512 => Self::Sha512([
                0x6a09_e667_f3bc_c908,
                0xbb67_ae85_84ca_a73b,
                0x3c6e_f372_fe94_f82b,
                0xa54f_f53a_5f1d_36f1,
                0x510e_527f_ade6_82d1,
                0x9b05_688c_2b3e_6c1f,
                0x1f83_d9ab_fb41_bd6b,
                0x5be0_cd19_137e_2179,
            ]),
        }
    }

    const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    const fn block_length(&self) -> usize {
        match self {
            Self::Sha256(_) => 64,
            Self::Sha512(_) => 128,
        }
    }

    /// Takes all whole blocks of `content`; returns the rest.
    fn compress<'a>(&mut self, content: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Sha256(state) => {
                let (blocks, rest) = content.as_chunks::<64>();
                compress256(state, blocks);
                rest
            }
            Self::Sha512(state) => {
                let (blocks, rest) = content.as_chunks::<128>();
                compress512(state, blocks);
                rest
            }
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Sha256(state) => state.iter().flat_map(|word| word.to_be_bytes()).collect(),
            Self::Sha512(state) => state.iter().flat_map(|word| word.to_be_bytes()).collect(),
        }
    }

    fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        let mut core = Self::new(algorithm);
        match &mut core {
            Self::Sha256(state) => {
                let words = bytes.as_chunks::<4>().0;
                (words.len() == 8 && bytes.len() == 32).then_some(())?;
                state.iter_mut().zip(words).for_each(|(word, raw)| *word = u32::from_be_bytes(*raw));
            }
            Self::Sha512(state) => {
                let words = bytes.as_chunks::<8>().0;
                (words.len() == 8 && bytes.len() == 64).then_some(())?;
                state.iter_mut().zip(words).for_each(|(word, raw)| *word = u64::from_be_bytes(*raw));
            }
        }
        Some(core)
    }
}

impl Hasher {
    /// A hash over nothing yet.
    #[must_use]
    pub const fn new(algorithm: Algorithm) -> Self {
        Self { core: Core::new(algorithm), length: 0, tail: Vec::new() }
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.core.algorithm()
    }

    /// How many bytes have been hashed.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Adds `content` to what is hashed.
    pub fn update(&mut self, mut content: &[u8]) {
        self.length += content.len() as u64;
        if !self.tail.is_empty() {
            let wanted = (self.core.block_length() - self.tail.len()).min(content.len());
            let (filling, rest) = content.split_at(wanted);
            self.tail.extend_from_slice(filling);
            content = rest;
            if self.tail.len() < self.core.block_length() {
                return;
            }
            self.core.compress(&self.tail);
            self.tail.clear();
        }
        let rest = self.core.compress(content);
        self.tail.extend_from_slice(rest);
    }

    /// The digest of everything hashed.
    #[must_use]
    pub fn finish(mut self) -> Digest {
        let block = self.core.block_length();
        // FIPS 180-4, section 5.1: a one bit, zeroes, and the length in bits in the last eighth of a block.
        let length_field = block / 8;
        let bits = u128::from(self.length) * 8;
        let mut padding = std::mem::take(&mut self.tail);
        padding.push(0x80);
        let padded = (padding.len() + length_field).next_multiple_of(block) - length_field;
        padding.resize(padded, 0);
        padding.extend_from_slice(&bits.to_be_bytes()[16 - length_field..]);
        self.core.compress(&padding);
        Digest::new(self.algorithm(), &self.core.to_bytes()).expect("the state has the length of the hash")
    }

    /// The state as bytes: format, algorithm, length, state words, tail. At most 202 bytes.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut saved = vec![FORMAT, self.algorithm().code()];
        saved.extend_from_slice(&self.length.to_be_bytes());
        saved.extend_from_slice(&self.core.to_bytes());
        saved.extend_from_slice(&self.tail);
        saved
    }

    /// Continues from a [saved](Self::save) state.
    pub fn restore(saved: &[u8]) -> Result<Self, StateError> {
        let (head, rest) = saved.split_first_chunk::<10>().ok_or(StateError)?;
        let [FORMAT, code, length @ ..] = *head else { return Err(StateError) };
        let algorithm = Algorithm::from_code(code).ok_or(StateError)?;
        let (words, tail) = rest.split_at_checked(algorithm.hash_length()).ok_or(StateError)?;
        let core = Core::from_bytes(algorithm, words).ok_or(StateError)?;
        let length = u64::from_be_bytes(length);
        if tail.len() as u64 != length % core.block_length() as u64 {
            return Err(StateError);
        }
        Ok(Self { core, length, tail: tail.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::Digest as _;

    use super::*;

    proptest! {
        #[test]
        fn a_hash_saved_and_restored_at_any_byte_is_the_hash_of_the_whole(
            content in proptest::collection::vec(any::<u8>(), 0..600), at in 0_usize..600, long: bool,
        ) {
            let (algorithm, expected) = if long {
                (Algorithm::Sha512, sha2::Sha512::digest(&content).to_vec())
            } else {
                (Algorithm::Sha256, sha2::Sha256::digest(&content).to_vec())
            };
            let (first, second) = content.split_at(at.min(content.len()));
            let mut before = Hasher::new(algorithm);
            before.update(first);
            let mut after = Hasher::restore(&before.save()).unwrap();
            after.update(second);
            prop_assert_eq!(after.length(), content.len() as u64);
            let digest = after.finish();
            prop_assert_eq!(digest.hash(), expected.as_slice());
        }
    }

    #[test]
    fn a_state_of_another_format_or_length_is_refused() {
        let saved = Hasher::new(Algorithm::Sha256).save();
        assert!(Hasher::restore(&saved[..saved.len() - 1]).is_err());
        assert!(Hasher::restore(&[&saved[..], b"x"].concat()).is_err());
        assert!(Hasher::restore(&[]).is_err());
        let mut other = saved;
        other[0] = 2;
        assert!(Hasher::restore(&other).is_err());
    }
}
