// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A listing as groups of keys, one a name, in batches: the left side of a merge join with rows.
//!
//! A group's *place* is all of its keys up to the last `/`; places come in byte order, as the rows do.

use std::collections::VecDeque;

use stowage_oci::Name;

use super::{Broken, Work};
use crate::key::Key;

/// Objects asked for at once.
const PAGE: usize = 1000;

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) key: Key,
    /// Its length in bytes.
    pub(super) size: u64,
}

/// The objects of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) place: String,
    pub(super) objects: Vec<Seen>,
}

/// Some groups, and how far they reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) groups: Vec<Group>,
    /// The place up to which rows belong to it; `None`: all that follow do.
    pub(super) through: Option<String>,
}

/// Reads a listing from front to back.
pub(super) struct Listing {
    work: Work,
    prefix: String,
    after: Option<String>,
    page: VecDeque<(String, Seen)>,
    ended: bool,
    /// Complete groups that a shorter batch left over.
    kept: VecDeque<Group>,
}

/// Up to the last `/`, included.
pub(super) fn place(key: &str) -> &str {
    key.rfind('/').and_then(|at| key.get(..=at)).unwrap_or_default()
}

impl Listing {
    pub(super) fn of(work: &Work, prefix: &str) -> Self {
        let page = VecDeque::new();
        Self {
            work: work.clone(),
            prefix: prefix.to_owned(),
            after: None,
            page,
            ended: false,
            kept: VecDeque::new(),
        }
    }

    /// Nothing is listed.
    pub(super) fn empty(work: &Work) -> Self {
        Self { ended: true, ..Self::of(work, "") }
    }

    /// The next repository, and the listing of its records; this one goes on behind them.
    pub(super) async fn repository(&mut self) -> Result<Option<(Name, Self)>, Broken> {
        let name = loop {
            let Some((_, object)) = self.peek().await? else { return Ok(None) };
            if let Some(name) = object.key.repository() {
                break name.clone();
            }
            self.take().await?;
        };
        let is_its = |(_, object): &(String, Seen)| object.key.repository() == Some(&name);
        let count = self.page.iter().take_while(|one| is_its(one)).count();
        let page: VecDeque<_> = self.page.drain(..count).collect();
        let records = format!("{}{name}/~", Key::REPOSITORIES);
        // Whether the page ends in the middle of it.
        let goes_on = self.page.is_empty() && !self.ended;
        let own = Self { page, ended: !goes_on, ..Self::of(&self.work, &records) };
        if !goes_on {
            return Ok(Some((name, own)));
        }
        // Nothing of its records comes after it.
        let behind = Some(format!("{records}\u{7f}")).max(self.after.clone());
        let after = std::mem::replace(&mut self.after, behind);
        Ok(Some((name, Self { after, ..own })))
    }

    /// The next key of this layout. Others are counted, and left alone.
    pub(super) async fn peek(&mut self) -> Result<Option<&(String, Seen)>, Broken> {
        while self.page.is_empty() && !self.ended {
            let page = {
                let _turn = self.work.pace.bucket().await;
                self.work.comparer.store.list(&self.prefix, self.after.as_deref(), PAGE).await?
            };
            self.ended = page.len() < PAGE;
            self.work.tally.listed(page.len());
            self.after = page.last().map(|object| object.key.clone()).or_else(|| self.after.take());
            for object in page {
                match object.key.parse::<Key>() {
                    Ok(key) => self.page.push_back((object.key, Seen { key, size: object.size })),
                    Err(unknown) => self.work.leave_alone(&unknown.0),
                }
            }
        }
        Ok(self.page.front())
    }

    /// Takes the next key.
    pub(super) async fn take(&mut self) -> Result<Option<(String, Seen)>, Broken> {
        self.peek().await?;
        Ok(self.page.pop_front())
    }

    /// The next groups of keys that begin with `section`.
    pub(super) async fn batch(&mut self, section: &str, most: usize) -> Result<Batch, Broken> {
        let mut groups: Vec<Group> = Vec::new();
        while groups.len() < most
            && let Some(group) = self.kept.pop_front()
        {
            groups.push(group);
        }
        while groups.len() < most {
            let Some(group) = self.group(section).await? else {
                return Ok(Batch { groups, through: None });
            };
            groups.push(group);
        }
        let through = groups.last().map(|group| group.place.clone());
        Ok(Batch { groups, through })
    }

    async fn group(&mut self, section: &str) -> Result<Option<Group>, Broken> {
        let mut group: Option<Group> = None;
        while let Some((text, _)) = self.peek().await? {
            let own = place(text);
            let belongs = match &group {
                Some(group) => group.place == own,
                None => text.starts_with(section),
            };
            if !belongs {
                break;
            }
            let own = own.to_owned();
            let Some((_, object)) = self.page.pop_front() else { break };
            group.get_or_insert_with(|| Group { place: own, objects: Vec::new() }).objects.push(object);
        }
        Ok(group)
    }

    /// Keeps what lies behind `through` for the next batch: there were more rows than one batch takes.
    pub(super) fn shorten(&mut self, batch: &mut Batch, through: String) {
        let first_behind = batch.groups.partition_point(|group| group.place <= through);
        for group in batch.groups.drain(first_behind..).rev() {
            self.kept.push_front(group);
        }
        batch.through = Some(through);
    }
}
