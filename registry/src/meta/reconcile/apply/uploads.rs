// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Objects that uploads left.

use super::super::rows::Rows;
use super::super::{Outcome, Scope, Settled, UploadFound};
use super::{discard, fate};
use crate::key::{Form, Generation, Key};
use crate::meta::steps;

/// Objects below `up/` of no upload and no blob.
pub(in crate::meta::reconcile) async fn spare_uploads<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    found: &[UploadFound],
) -> Result<Vec<Key>, R::Fault> {
    let generations: Vec<Generation> = found.iter().map(|found| found.generation).collect();
    // In this order: an upload becomes a blob, never the other way.
    let uploading = rows.uploading(&generations).await?;
    let stored = rows.stored(&generations).await?;
    let is_used = |found: &&UploadFound| {
        let form = found.lease.map_or(Form::Upload, Form::Tail);
        uploading.contains(&found.generation) || stored.get(&found.generation) == Some(&form)
    };
    let spare = found.iter().filter(|found| !is_used(found)).map(|found| {
        let generation = found.generation;
        found.lease.map_or(Key::Upload { generation }, |lease| Key::UploadTail { generation, lease })
    });
    let mut spare: Vec<Key> = spare.collect();
    if !spare.is_empty() {
        let fate = fate(rows, scope.epoch, &spare, &[]).await?;
        spare.retain(|key| !fate.decided(key));
    }
    Ok(spare)
}

pub(super) async fn uploads<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    found: &[UploadFound],
) -> Result<Outcome, R::Fault> {
    let mut settled = Settled::default();
    let spare = spare_uploads(rows, scope, found).await?;
    discard(rows, scope, &mut settled, spare.iter().map(steps::remove).collect()).await?;
    Ok(Outcome::Settled(settled))
}
