// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Promotions. A record proves that its promotion took effect; nothing removes one.

use stowage_oci::Name;

use super::super::rows::Rows;
use super::super::{LedgerClaim, LedgerFound, Outcome, Scope, Settled};
use super::{count, fate};
use crate::key::Key;
use crate::meta::LedgerRecord;

/// The record of a promotion.
pub(in crate::meta::reconcile) fn ledger_key(repository: &Name, claim: &LedgerClaim) -> Key {
    let LedgerClaim { digest, version, generation } = *claim;
    Key::Ledger { repository: repository.clone(), digest, version, generation }
}

/// Records that no row claims and no push under way has announced.
pub(in crate::meta::reconcile) async fn unclaimed<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    repository: &Name,
    found: &LedgerFound,
) -> Result<Vec<(LedgerClaim, LedgerRecord)>, R::Fault> {
    let keys: Vec<Key> = found.unknown.iter().map(|(claim, _)| ledger_key(repository, claim)).collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let fate = fate(rows, scope.epoch, &keys, &[]).await?;
    let own = found.unknown.iter().zip(&keys).filter(|(_, key)| !fate.is_left_to_others(key));
    Ok(own.map(|(one, _)| one.clone()).collect())
}

pub(super) async fn ledger<R: Rows>(
    rows: &mut R,
    scope: &Scope,
    repository: &Name,
    found: &LedgerFound,
) -> Result<Outcome, R::Fault> {
    let mut settled = Settled::default();
    let unknown = unclaimed(rows, scope, repository, found).await?;
    let inserted = rows.insert_promotions(&unknown).await?;
    let forgotten = rows.forget_promotions(&found.gone).await?;
    count(&mut settled, "insertedPromotions", usize::try_from(inserted).unwrap_or(usize::MAX));
    count(&mut settled, "lostPromotions", usize::try_from(forgotten).unwrap_or(usize::MAX));
    Ok(Outcome::Settled(settled))
}
