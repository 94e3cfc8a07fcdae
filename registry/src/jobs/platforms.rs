// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What an index lists, and what of it is for some platforms. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use stowage_oci::{Digest, Platform};

use crate::archive::is_manifest;

/// Where an attestation of BuildKit says which image it is about.
const ABOUT: &str = "vnd.docker.reference.digest";

#[derive(Deserialize)]
struct Index {
    manifests: Option<Vec<Child>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Child {
    media_type: Option<String>,
    pub(super) digest: Digest,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Child {
    /// Whether the index says that it is no manifest.
    pub(super) fn is_blob(&self) -> bool {
        self.media_type.as_deref().is_some_and(|media_type| !is_manifest(media_type))
    }
}

/// What of an index is for these platforms, with what it says about those.
pub(super) fn chosen<'a>(listed: &'a [Child], platforms: &[Platform]) -> Vec<&'a Child> {
    if platforms.is_empty() {
        return listed.iter().collect();
    }
    let is_wanted = |child: &&Child| {
        child.platform.as_ref().is_some_and(|own| platforms.iter().any(|wanted| wanted.takes(own)))
    };
    let images: Vec<&Child> = listed.iter().filter(is_wanted).collect();
    let about: BTreeSet<String> = images.iter().map(|child| child.digest.to_string()).collect();
    let is_about = |child: &&Child| {
        let subject = child.annotations.as_ref().and_then(|annotations| annotations.get(ABOUT));
        subject.is_some_and(|subject| about.contains(subject))
    };
    let rest: Vec<&Child> = listed.iter().filter(is_about).collect();
    images.into_iter().chain(rest).collect()
}

/// What the index of these bytes lists.
pub(super) fn children(body: &[u8]) -> Result<Vec<Child>, serde_json::Error> {
    Ok(serde_json::from_slice::<Index>(body)?.manifests.unwrap_or_default())
}

/// The platforms that an index lists, in words.
pub(super) fn platforms_of(listed: &[Child]) -> String {
    let platforms = listed.iter().filter_map(|child| Some(child.platform.as_ref()?.to_string()));
    platforms.collect::<BTreeSet<String>>().into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(text: &str, platform: &str, about: Option<&Digest>) -> Child {
        Child {
            media_type: None,
            digest: Digest::of(stowage_oci::Algorithm::Sha256, text.as_bytes()),
            platform: Some(platform.parse().unwrap()),
            annotations: about.map(|digest| BTreeMap::from([(ABOUT.to_owned(), digest.to_string())])),
        }
    }

    #[test]
    fn a_platform_brings_what_is_said_about_it() {
        let amd = child("amd", "linux/amd64", None);
        let arm = child("arm", "linux/arm64/v8", None);
        let [about_amd, about_arm] = [("a", &amd), ("b", &arm)]
            .map(|(text, about)| child(text, "unknown/unknown", Some(&about.digest)));
        let listed = [amd, arm, about_amd, about_arm];
        let chosen = chosen(&listed, &["linux/arm64".parse().unwrap()]);
        let found: Vec<Digest> = chosen.iter().map(|child| child.digest).collect();
        assert_eq!(found, [listed[1].digest, listed[3].digest]);
    }
}
