// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a verification looks at beside a walk, and what follows from an inspection.

use std::collections::HashSet;

use bytes::Bytes;
use stowage_oci::{Digest, Name};

use super::super::compare::{Asked, at_once};
use super::super::{Broken, Work};
use crate::blobs;
use crate::domain::Error;
use crate::key::{Generation, Key};
use crate::meta::{
    Difference, Finding, LinkFound, Mode, MultipartFound, ReferrersFound, Restoration, Restore,
    RestoreOutcome, Settled,
};
use crate::ops::clock;
use crate::reports::{self, ReportError};

/// What all objects of this layout are below.
const ROOT: &str = "v1/";
/// Objects of self-tests come and go.
const PROBES: &str = "v1/probe/";
/// Behind all keys that begin like it.
const LAST: char = char::MAX;
/// Objects asked for at once.
const PAGE: usize = 1000;

impl Work {
    fn report(&self, finding: &Finding) {
        if let Some(findings) = &self.findings {
            findings.report(finding);
        }
    }

    /// Of what was found, leaves what is still so: an object without a row may have been removed since it was listed,
    /// and a tombstone, which follows its row, may have been written since it was looked for.
    pub(in crate::domain::reconcile) async fn confirm(&self, settled: &mut Settled) -> Result<(), Broken> {
        let mut confirmed = Vec::with_capacity(settled.findings.len());
        for finding in std::mem::take(&mut settled.findings) {
            let stands = match finding.key.parse::<Key>() {
                Ok(key) if finding.is_orphan() => self.head(&key).await?,
                Ok(key @ Key::Tag { target: None, .. }) => !self.head(&key).await?,
                _ => true,
            };
            if stands {
                confirmed.push(finding);
            }
        }
        settled.findings = confirmed;
        Ok(())
    }

    /// Tells what was found, and does what the transaction could not.
    pub(in crate::domain::reconcile) async fn follow_up(
        &self,
        difference: &Difference<'_>,
        settled: &Settled,
    ) -> Result<(), Broken> {
        for finding in &settled.findings {
            self.report(finding);
        }
        if let Difference::Manifests(repository, _) = difference {
            for restore in &settled.restores {
                self.restore(repository, restore).await?;
            }
        }
        if let Difference::Multiparts(found) = difference {
            for at in &settled.aborts {
                let MultipartFound { id, .. } = &found[*at];
                let id = blobs::MultipartId(id.clone());
                self.comparer.store.abort(&found[*at].key().to_string(), &id).await?;
            }
        }
        Ok(())
    }

    /// A walk remembers a run by its report. One that cannot be read is told, and left alone.
    async fn adopt_run(&self, key: &Key, size: u64) -> Result<(), Broken> {
        if self.scope.mode != Mode::Walk {
            return Ok(());
        }
        let run = {
            let _turn = self.pace.bucket().await;
            reports::read_head(&*self.comparer.store, key, size).await
        };
        match run {
            Ok(Some(run)) => {
                if self.comparer.meta.adopt_run(self.scope.epoch, &run).await? {
                    self.tally.add(&[("adoptedRuns", 1)].into());
                }
            }
            Ok(None) => {}
            Err(ReportError::Store(error)) => return Err(Error::from(error).into()),
            Err(_) => self.leave_alone(&key.to_string()),
        }
        Ok(())
    }

    /// Writes the record of a live manifest again: intend, write, then name it.
    async fn restore(&self, repository: &Name, restore: &Restore) -> Result<(), Broken> {
        let Restore { digest, generation: lost, problem } = *restore;
        let key = Key::Manifest { repository: repository.clone(), digest, generation: lost };
        let finding = |repaired| Finding { problem, key: key.to_string(), repaired };
        if self.scope.mode != Mode::Repair {
            self.report(&finding(false));
            return Ok(());
        }
        let (meta, epoch) = (&self.comparer.meta, self.scope.epoch);
        let generation = Generation::next(clock::milliseconds());
        match meta.begin_restore(epoch, repository, &digest, lost, generation).await? {
            RestoreOutcome::Gone => {}
            RestoreOutcome::Write(restoration)
                if Digest::of(digest.algorithm(), &restoration.body) == digest =>
            {
                self.write_records(&restoration).await?;
                if meta.finish_restore(epoch, &restoration).await? {
                    self.report(&finding(true));
                }
            }
            // What the row has is damaged, too. The intent expires, and what it names was never written.
            RestoreOutcome::Write(_) | RestoreOutcome::NoBytes => self.report(&finding(false)),
        }
        Ok(())
    }

    async fn write_records(&self, restoration: &Restoration) -> Result<(), Broken> {
        let Restoration { repository, digest, subject, body, generation, .. } = restoration;
        let (repository, digest, generation) = (repository.clone(), *digest, *generation);
        let store = &self.comparer.store;
        if let Some(subject) = *subject {
            let entry = Key::Referrer { repository: repository.clone(), subject, digest, generation };
            store.put(&entry.to_string(), vec![Bytes::new()]).await?;
        }
        let record = Key::Manifest { repository, digest, generation };
        store.put(&record.to_string(), vec![body.clone()]).await?;
        Ok(())
    }

    /// Of links that no row claims: whether the bucket has any data of the blob.
    pub(in crate::domain::reconcile) async fn look_for_data(
        &self,
        found: &mut [LinkFound],
        claims: &[(Digest, Generation)],
    ) -> Result<(), Broken> {
        let claimed: HashSet<Digest> = claims.iter().map(|(digest, _)| *digest).collect();
        let unclaimed = found.iter().filter(|found| !claimed.contains(&found.digest));
        let look = |digest: Digest| -> Asked<'_, (Digest, bool)> {
            Box::pin(async move {
                let _turn = self.pace.bucket().await;
                let data = self.comparer.store.list(&Key::blob_prefix(&digest), None, 1).await?;
                Ok((digest, data.is_empty()))
            })
        };
        let looked = at_once(unclaimed.map(|found| look(found.digest)).collect()).await?;
        let empty: HashSet<Digest> =
            looked.into_iter().filter_map(|(digest, is_empty)| is_empty.then_some(digest)).collect();
        for found in found {
            found.lacks_data = empty.contains(&found.digest);
        }
        Ok(())
    }

    /// Entries that were not listed, but are there: they were written later.
    pub(in crate::domain::reconcile) async fn confirm_missing(
        &self,
        repository: &Name,
        found: &mut [ReferrersFound],
    ) -> Result<(), Broken> {
        for ReferrersFound { subject, missing, .. } in found {
            let look = |(digest, generation): (Digest, Generation)| -> Asked<'_, _> {
                let key =
                    Key::Referrer { repository: repository.clone(), subject: *subject, digest, generation };
                Box::pin(async move { Ok(((digest, generation), self.head(&key).await?)) })
            };
            let looked = at_once(missing.drain(..).map(look).collect()).await?;
            missing.extend(looked.into_iter().filter_map(|(entry, there)| (!there).then_some(entry)));
        }
        Ok(())
    }

    /// Everything that no other part lists. `parts`: their prefixes, in byte order.
    pub(in crate::domain::reconcile) async fn rest(&self, parts: &[String]) -> Result<(), Broken> {
        let mut after: Option<String> = None;
        let mut limit = PAGE;
        loop {
            let page = {
                let _turn = self.pace.bucket().await;
                self.comparer.store.list(ROOT, after.as_deref(), limit).await?
            };
            let (is_last, mut jumped) = (page.len() < limit, false);
            for object in page {
                if let Some(part) = covering(parts, &object.key) {
                    let behind = format!("{part}{LAST}");
                    if after.as_ref().is_some_and(|after| *after >= behind) {
                        let fault = format!("the object store lists {:?} out of order", object.key);
                        return Err(Error::Internal(fault.into()).into());
                    }
                    after = Some(behind);
                    jumped = true;
                    break;
                }
                match object.key.parse::<Key>() {
                    Ok(key @ Key::Run { .. }) => self.adopt_run(&key, object.size).await?,
                    Err(_) if !object.key.starts_with(PROBES) => self.leave_alone(&object.key),
                    _ => {}
                }
                after = Some(object.key);
            }
            if is_last && !jumped {
                return Ok(());
            }
            // Behind a part there is mostly another one.
            limit = if jumped { 1 } else { PAGE };
        }
    }

    /// The multipart uploads that the store keeps open.
    pub(super) async fn multiparts(&self) -> Result<(), Broken> {
        let open = {
            let _turn = self.pace.bucket().await;
            self.comparer.store.open_multiparts().await
        };
        let open = match open {
            Err(error @ blobs::Error::Refused { .. }) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "the object store does not list its multipart uploads; they are not verified"
                );
                return Ok(());
            }
            open => open?,
        };
        let mut found = Vec::new();
        for blobs::OpenMultipart { key, id } in open {
            match key.parse() {
                Ok(Key::Upload { generation }) => found.push(MultipartFound { generation, id: id.0 }),
                _ if key.starts_with(PROBES) => {}
                _ => self.leave_alone(&key),
            }
        }
        for found in found.chunks(PAGE) {
            self.settle(Difference::Multiparts(found)).await?;
        }
        Ok(())
    }
}

/// The part that lists a key.
fn covering<'a>(parts: &'a [String], key: &str) -> Option<&'a str> {
    let behind = parts.partition_point(|part| part.as_str() <= key);
    let part = parts.get(behind.checked_sub(1)?)?;
    key.starts_with(part.as_str()).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_listed_by_the_part_that_it_begins_with() {
        let parts = ["rest:", "v1/blob/sha256/aa/", "v1/r/app/", "v1/up/"].map(str::to_owned);
        assert_eq!(covering(&parts, "v1/blob/sha256/aa/x"), Some("v1/blob/sha256/aa/"));
        assert_eq!(covering(&parts, "v1/r/app/~b/x"), Some("v1/r/app/"));
        for key in ["v1/FORMAT", "v1/blob/sha256/ab/x", "v1/r/apps/x", "v1/r/app", "v2/"] {
            assert_eq!(covering(&parts, key), None, "{key}");
        }
    }
}
