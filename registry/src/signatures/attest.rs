// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Looks for what was said of an image: statements of in-toto of one type, signed by one of some keys. Anybody with push
//! can attach more; what none of the keys signed does not count.

use stowage_oci::{Algorithm, Digest, Reference};

use super::layers::{Attached, attestations as layers};
use super::seek::{MOST, tag_of};
use super::{Flaw, Keys, Source, bundle};

/// A statement that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// The manifest that holds it.
    pub manifest: Digest,
    /// Which key signed it.
    pub key: String,
    /// When it was made, in milliseconds since 1970, as it says itself; `None`: of its type nobody knows where it would.
    pub time: Option<u64>,
}

/// What looking came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attested {
    /// All that count.
    pub counted: Vec<Attestation>,
    /// What is wrong with one that does not.
    pub flaw: Option<Flaw>,
}

/// Looks for statements of `predicate_type` about `image` by one of `keys`.
pub async fn attestations<S: Source>(
    source: &S,
    image: &Digest,
    predicate_type: &str,
    keys: &Keys,
) -> Result<Attested, S::Error> {
    let mut found = Attested::default();
    let referrers = source.referrers(image).await?;
    let places = referrers.into_iter().filter(|referrer| referrer.may_attest(predicate_type)).take(MOST);
    let places = places
        .map(|referrer| Reference::Digest(referrer.digest))
        .chain(tag_of(image, ".att").map(Reference::Tag));
    for reference in places {
        let Some(manifest) = source.manifest(&reference).await? else { continue };
        let digest = match &reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(_) => Digest::of(Algorithm::Sha256, &manifest),
        };
        for layer in layers(&manifest) {
            let Some(content) = source.blob(&layer.digest).await? else {
                found.flaw = Some(Flaw::Unreadable("it is not there, or too long"));
                continue;
            };
            match judged(&layer, &content, image, (predicate_type, keys)) {
                Ok(Some((key, time))) => found.counted.push(Attestation { manifest: digest, key, time }),
                Ok(None) => {}
                Err(flaw) => found.flaw = Some(flaw),
            }
        }
    }
    Ok(found)
}

/// Which key says it, and when. `None`: it is of another type.
fn judged(
    layer: &Attached,
    content: &[u8],
    image: &Digest,
    (predicate_type, keys): (&str, &Keys),
) -> Result<Option<(String, Option<u64>)>, Flaw> {
    if Digest::of(layer.digest.algorithm(), content) != layer.digest {
        return Err(Flaw::Unreadable("its content is not that of its digest"));
    }
    let said = if layer.is_bundle {
        bundle::attested(content, image, predicate_type, keys)?
    } else {
        bundle::attested_alone(content, image, predicate_type, keys)?
    };
    Ok(said.map(|said| (said.key.to_owned(), made(&said.predicate))))
}

/// When a statement was made, where its type says so: vulnerability scans, SPDX, `CycloneDX`, SLSA, and what cosign
/// calls custom.
fn made(predicate: &serde_json::Value) -> Option<u64> {
    const PLACES: [&str; 7] = [
        "/metadata/scanFinishedOn",
        "/metadata/scanStartedOn",
        "/creationInfo/created",
        "/metadata/timestamp",
        "/runDetails/metadata/finishedOn",
        "/metadata/buildFinishedOn",
        "/Timestamp",
    ];
    let text = PLACES.into_iter().find_map(|place| predicate.pointer(place)?.as_str())?;
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_statement_tells_when_it_was_made_where_its_type_has_a_place_for_it() {
        let at = "2026-03-01T06:00:00Z";
        for predicate in [
            json!({"metadata": {"scanFinishedOn": at}}),
            json!({"creationInfo": {"created": at}}),
            json!({"Data": "x", "Timestamp": at}),
            json!({"runDetails": {"metadata": {"finishedOn": at}}}),
        ] {
            assert_eq!(made(&predicate), Some(1_772_344_800_000), "{predicate}");
        }
        for predicate in [json!({"created": at}), json!({"Timestamp": "yesterday"}), json!(null)] {
            assert_eq!(made(&predicate), None, "{predicate}");
        }
    }
}
