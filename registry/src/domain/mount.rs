// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Mounting a blob of one repository into another: a link, no bytes.

use stowage_oci::{Digest, Name};

use super::reconcile::Unit;
use super::{Domain, Error};
use crate::key::{Generation, Key};
use crate::ops::clock;

impl Domain {
    /// Links the blob in `to` from the first of `sources` that has it. The caller has checked that the client
    /// may read each of them. `false`: none has it.
    pub async fn mount(&self, to: &Name, digest: &Digest, sources: &[Name]) -> Result<bool, Error> {
        for from in sources {
            if self.link_from(Some(from), to, digest).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Shows a blob again that was deleted from `repository` and is kept for the trash. `false`: there is none.
    pub(super) async fn show_again(&self, repository: &Name, digest: &Digest) -> Result<bool, Error> {
        self.link_from(None, repository, digest).await
    }

    async fn link_from(&self, from: Option<&Name>, to: &Name, digest: &Digest) -> Result<bool, Error> {
        let generation = Generation::at(clock::milliseconds());
        let begin = |epoch| match from {
            Some(from) => self.meta.begin_mount(epoch, from, to, digest, generation),
            None => self.meta.begin_showing(epoch, to, digest, generation),
        };
        let units = [Unit::Link(from.unwrap_or(to).clone(), *digest), Unit::Link(to.clone(), *digest)];
        let Some(mount) = self.write_to(&units, begin).await? else { return Ok(false) };
        let link = Key::Link { repository: to.clone(), digest: *digest, generation };
        self.store.put(&link.to_string(), Vec::new()).await?;
        self.write_to(&units, |epoch| self.meta.finish_mount(epoch, &mount)).await
    }
}
