// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The keys that sign our tokens: EC P-256, at most two of them in one PEM file, the first for signing.
//!
//! Rotation without a failed request: a key that appears verifies at once and signs two minutes later, when
//! every replica has it; a key that is gone verifies for fifteen minutes more, the longest life of a token.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

/// Seconds until a new key signs.
const RIPENING: u64 = 120;
/// Seconds that a removed key still verifies.
const FADING: u64 = 900;

/// One key, for signing and verifying.
#[derive(Clone)]
pub struct SigningKey {
    /// RFC 7638 thumbprint of the public key.
    pub(super) id: Arc<str>,
    pub(super) signs: EncodingKey,
    pub(super) verifies: DecodingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The PEM cannot be read.
    #[error("the signing keys are no PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// Another kind of key.
    #[error("a signing key is not an EC private key on P-256")]
    NotP256,
    /// None, or more than two.
    #[error("expected one or two signing keys, found {0}")]
    Count(usize),
    /// The key's parts cannot be used.
    #[error("a signing key cannot be used")]
    Unusable(#[source] jsonwebtoken::errors::Error),
    /// No key could be made.
    #[error("make a signing key")]
    Make(#[source] rcgen::Error),
    /// The file cannot be read or written.
    #[error("keep the signing key in {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        #[source]
        /// What the system said.
        source: io::Error,
    },
}

impl SigningKey {
    fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .ok()
            .ok_or(KeyError::NotP256)?;
        // The uncompressed point: 4, then x, then y.
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        let pkcs8 = pair.to_pkcs8v1().ok().ok_or(KeyError::NotP256)?;
        Ok(Self {
            id: id.into(),
            signs: EncodingKey::from_ec_der(pkcs8.as_ref()),
            verifies: DecodingKey::from_ec_components(&x, &y).map_err(KeyError::Unusable)?,
        })
    }

    /// The one or two keys of a PEM file, in its order.
    pub fn parse(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        let keys: Vec<Self> = PrivateKeyDer::pem_slice_iter(pem)
            .map(|der| Self::from_der(der.map_err(KeyError::Pem)?.secret_der()))
            .collect::<Result<_, _>>()?;
        if (1..=2).contains(&keys.len()) { Ok(keys) } else { Err(KeyError::Count(keys.len())) }
    }

    /// The keys in the file; it is made, readable by its owner alone, when it is not there.
    pub fn load_or_make(path: &Path) -> Result<Vec<Self>, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        match std::fs::read(path) {
            Ok(pem) => Self::parse(&pem),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pem = new_pem()?;
                make(path, &pem).map_err(failed)?;
                // Another process may have been first; the file counts.
                Self::parse(&std::fs::read(path).map_err(failed)?)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// A key for this process only.
    pub fn ephemeral() -> Result<Vec<Self>, KeyError> {
        Self::parse(new_pem()?.as_bytes())
    }
}

pub(super) fn new_pem() -> Result<String, KeyError> {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(KeyError::Make)?;
    Ok(pair.serialize_pem())
}

/// Puts the whole file in place, or leaves the one that is there.
fn make(path: &Path, pem: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // Temporary files are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(pem.as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

/// The keys in force, with what is to be known for their rotation. Times are seconds since 1970.
#[derive(Clone, Debug)]
pub struct Keyring {
    current: Vec<Held>,
    removed: Vec<Held>,
}

#[derive(Clone, Debug)]
struct Held {
    key: SigningKey,
    /// When it appeared, or was removed.
    since: u64,
}

impl Keyring {
    /// The keys that a process begins with. Of two, the first may be new to other replicas: the second signs
    /// until every replica has the first.
    #[must_use]
    pub fn new(keys: Vec<SigningKey>, now: u64) -> Self {
        let last = keys.len().saturating_sub(1);
        let held = |(at, key)| Held { key, since: if at == last { 0 } else { now } };
        Self { current: keys.into_iter().enumerate().map(held).collect(), removed: Vec::new() }
    }

    /// These keys from now on.
    #[must_use]
    pub fn replaced(&self, keys: Vec<SigningKey>, now: u64) -> Self {
        let known = |id: &str| self.current.iter().find(|held| *held.key.id == *id);
        let current: Vec<Held> = keys
            .into_iter()
            .map(|key| Held { since: known(&key.id).map_or(now, |held| held.since), key })
            .collect();
        let gone = |held: &&Held| current.iter().all(|kept| kept.key.id != held.key.id);
        let just_removed = self.current.iter().filter(gone).map(|held| Held { since: now, ..held.clone() });
        let fading = self.removed.iter().filter(gone).filter(|held| !faded(held, now)).cloned();
        let removed = just_removed.chain(fading).collect();
        Self { current, removed }
    }

    /// The key that signs: the first that every replica has. A key that was just removed goes on until then.
    pub(super) fn signing(&self, now: u64) -> Option<&SigningKey> {
        let ripe = self.current.iter().find(|held| now >= held.since.saturating_add(RIPENING));
        let former = self.removed.first().filter(|held| !faded(held, now));
        ripe.or(former).or(self.current.first()).map(|held| &held.key)
    }

    /// The key of this thumbprint, if it is good for verifying.
    pub(super) fn verifying(&self, id: &str, now: u64) -> Option<&SigningKey> {
        let fading = self.removed.iter().filter(|held| !faded(held, now));
        self.current.iter().chain(fading).map(|held| &held.key).find(|key| *key.id == *id)
    }
}

fn faded(held: &Held, now: u64) -> bool {
    now > held.since.saturating_add(FADING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::ephemeral().unwrap().remove(0)
    }

    fn signing(ring: &Keyring, now: u64) -> &str {
        &ring.signing(now).unwrap().id
    }

    #[test]
    fn w624_a_new_key_verifies_at_once_and_signs_two_minutes_later() {
        let (old, new) = (key(), key());
        let ring = Keyring::new(vec![old.clone()], 1000);
        assert_eq!(signing(&ring, 1000), &*old.id);
        let ring = ring.replaced(vec![new.clone(), old.clone()], 2000);
        assert!(ring.verifying(&new.id, 2000).is_some());
        assert_eq!(signing(&ring, 2119), &*old.id);
        assert_eq!(signing(&ring, 2120), &*new.id);
    }

    #[test]
    fn w624_a_removed_key_verifies_fifteen_minutes_longer() {
        let (old, new) = (key(), key());
        let ring = Keyring::new(vec![old.clone()], 0).replaced(vec![new.clone()], 2000);
        assert_eq!(signing(&ring, 2001), &*old.id);
        assert_eq!(signing(&ring, 2120), &*new.id);
        assert!(ring.verifying(&old.id, 2900).is_some());
        assert!(ring.verifying(&old.id, 2901).is_none());
        let again = ring.replaced(vec![new], 2500);
        assert!(again.verifying(&old.id, 2900).is_some() && again.verifying(&old.id, 2901).is_none());
    }

    #[test]
    fn w624_a_process_that_starts_in_mid_rotation_signs_with_the_older_key() {
        let (old, new) = (key(), key());
        let ring = Keyring::new(vec![new.clone(), old.clone()], 1000);
        assert_eq!(signing(&ring, 1001), &*old.id);
        assert_eq!(signing(&ring, 1120), &*new.id);
    }

    #[test]
    fn w621_w863_the_standalone_key_is_made_once_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/token-keys.pem");
        let made = SigningKey::load_or_make(&path).unwrap();
        let read = SigningKey::load_or_make(&path).unwrap();
        assert_eq!(made[0].id, read[0].id);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn only_one_or_two_keys_on_p256_are_taken() {
        assert!(matches!(SigningKey::parse(b""), Err(KeyError::Count(0))));
        let one = new_pem().unwrap();
        assert_eq!(SigningKey::parse(one.repeat(2).as_bytes()).unwrap().len(), 2);
        assert!(matches!(SigningKey::parse(one.repeat(3).as_bytes()), Err(KeyError::Count(3))));
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        assert!(matches!(SigningKey::parse(other.as_bytes()), Err(KeyError::NotP256)));
    }
}
