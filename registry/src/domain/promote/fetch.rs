// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is promoted from a repository of a mirror, and the mirror has not fetched yet. It fetches it as for a client.

use stowage_oci::{Digest, Name, Reference};

use super::super::mirror::{Asking, Mirrored};
use super::super::{Domain, Error, ManifestAnswer};

impl Domain {
    /// A manifest of the repository; `None`: there is none, nor at the upstream.
    pub(super) async fn promotable_manifest(
        &self,
        repository: &Name,
        digest: Digest,
    ) -> Result<Option<ManifestAnswer>, Error> {
        let reference = Reference::Digest(digest);
        let answer = match self.mirrors().of_stored(repository) {
            Some(at) => {
                let (answer, _) = self.mirrored_manifest(&at, &reference, false, Asking::AsConfigured).await;
                answer.map_err(|error| not_fetched(&at, digest, error))
            }
            None => self.manifest(repository, &reference, false).await,
        };
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Error::ManifestUnknown | Error::NameUnknown) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings a blob that the repository lists and does not have, if that is a mirror's.
    pub(super) async fn fetch_promotable(&self, repository: &Name, digest: Digest) -> Result<(), Error> {
        let Some(at) = self.mirrors().of_stored(repository) else { return Ok(()) };
        let stored = self.store_mirrored_blob(&at, &digest).await;
        stored.map(drop).map_err(|error| not_fetched(&at, digest, error))
    }
}

/// What to do about something that cannot be fetched now. Other errors are what they were.
fn not_fetched(at: &Mirrored, digest: Digest, error: Error) -> Error {
    let why = match error {
        Error::BlobUnknown if !at.mirror.settings.asks_upstream => {
            "it is suspended or offline, and asks its upstream for nothing".to_owned()
        }
        Error::BlobUnknown => "its upstream does not have it".to_owned(),
        Error::Upstream(error) => error.to_string(),
        other => return other,
    };
    Error::NotFetched { mirror: at.mirror.settings.name.clone(), digest: Box::new(digest), why }
}
