// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Lists of an upstream, page by page: the tags of a repository, the repositories of the catalogue.

use std::str::FromStr;

use serde::Deserialize;
use stowage_oci::{Name, Tag};
use url::Url;

use super::budget::Budget;
use super::error::{Error, Kind};
use super::exchange::{Answer, Ask};
use super::manifests::pull;
use super::{Answered, Upstream, link};

/// The longest page in bytes.
const MAX_PAGE: usize = 8 << 20;
/// The longest list in bytes: some millions of names.
const MOST_BYTES: usize = 256 << 20;
/// The most pages of a list, however short they are.
const MOST_PAGES: usize = 100_000;

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// What is on it, in the upstream's order.
    pub items: Vec<T>,
    /// How many more there were whose names are none.
    pub ignored: usize,
    /// Where it goes on; nowhere after the last page.
    pub next: Option<Cursor>,
}

/// Where a list goes on: an address at the same registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Cursor {
    url: Url,
    /// What came before it.
    read: Extent,
}

/// How much of a list was read. An upstream can go on for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) pages: usize,
    pub(super) bytes: usize,
}

/// Not shown: what an upstream puts into it is its own.
impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cursor(..)")
    }
}

/// Where to begin in a list.
#[derive(Clone, Debug)]
pub enum Begin {
    /// At its beginning.
    First,
    /// After an item that is known.
    After(String),
    /// Where the page before ended.
    At(Cursor),
}

#[derive(Deserialize)]
struct Tags {
    // Some say null for none.
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

impl Upstream {
    /// A page of the tags of a repository.
    pub async fn tags(&self, repository: &Name, from: Begin) -> Result<Answered<Page<Tag>>, Error> {
        let repository = self.repository(repository);
        let (path, scope) = (format!("/v2/{repository}/tags/list"), pull(&repository));
        let what = format!("the tags of {repository}");
        self.page(&path, scope, from, what, |list: Tags| list.tags).await
    }

    /// A page of the repositories of the registry. Many do not offer it, or not to everyone.
    pub async fn catalog(&self, from: Begin) -> Result<Answered<Page<Name>>, Error> {
        let (scope, what) = ("registry:catalog:*".to_owned(), "the catalogue".to_owned());
        self.page("/v2/_catalog", scope, from, what, |list: Catalog| list.repositories).await
    }

    async fn page<L: for<'de> Deserialize<'de>, T: FromStr>(
        &self,
        path: &str,
        scope: String,
        from: Begin,
        what: String,
        items: impl Fn(L) -> Option<Vec<String>>,
    ) -> Result<Answered<Page<T>>, Error> {
        let (url, read) = self.first_or_next(path, from);
        let ask = Ask { what: what.clone(), ..Ask::get(url, scope) };
        let answer = self.0.ask(&ask).await?;
        self.refuse_page(&answer)?;
        let next = self.next_page(&ask.url, &answer)?;
        let budget = answer.budget.clone();
        let body = self.body(answer, MAX_PAGE, &what).await?;
        let read = read.and(body.len());
        if next.is_some() {
            self.ensure_ends(read, &what, &budget)?;
        }
        let next = next.map(|url| Cursor { url, read });
        let list: L = serde_json::from_slice(&body).map_err(|error| {
            self.0.error(Kind::WrongContent, format!("{what} cannot be read: {error}")).with(&budget)
        })?;
        let names = items(list).unwrap_or_default();
        let count = names.len();
        let items: Vec<T> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let ignored = count - items.len();
        Ok(Answered { value: Page { items, ignored, next }, budget })
    }

    fn first_or_next(&self, path: &str, from: Begin) -> (Url, Extent) {
        let last = match from {
            Begin::At(Cursor { url, read }) => return (url, read),
            Begin::First => None,
            Begin::After(last) => Some(last),
        };
        let mut url = self.0.settings.origin.at(path);
        url.query_pairs_mut().append_pair("n", &self.0.settings.page.to_string());
        if let Some(last) = last {
            url.query_pairs_mut().append_pair("last", &last);
        }
        (url, Extent::default())
    }

    /// Refuses a list that goes on after so much of it.
    pub(super) fn ensure_ends(&self, read: Extent, what: &str, budget: &Budget) -> Result<(), Error> {
        if read.is_endless() {
            return Err(self.0.error(Kind::TooLarge, format!("{what} go on after {read}")).with(budget));
        }
        Ok(())
    }

    /// Where a list goes on: at the same registry, and not where it is.
    pub(super) fn next_page(&self, from: &Url, answer: &Answer) -> Result<Option<Url>, Error> {
        let Some(target) = link::next(&answer.head.headers) else { return Ok(None) };
        let wrong = |cause: &str| Err(self.0.error(Kind::WrongContent, cause).with(&answer.budget));
        match from.join(&target) {
            Ok(url) if !self.0.settings.origin.is_of(&url) => wrong("continues a list at another host"),
            Ok(url) if url == *from => wrong("continues a list where it began"),
            Ok(url) => Ok(Some(url)),
            Err(_) => wrong("continues a list at what is no address"),
        }
    }
}

impl Extent {
    /// A page more.
    pub(super) const fn and(self, bytes: usize) -> Self {
        Self { pages: self.pages + 1, bytes: self.bytes + bytes }
    }

    const fn is_endless(self) -> bool {
        self.pages >= MOST_PAGES || self.bytes >= MOST_BYTES
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages of {} MiB together", self.pages, self.bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_by_its_pages_and_by_its_bytes() {
        let read = |pages, bytes| (0..pages).fold(Extent::default(), |read, _| read.and(bytes));
        assert!(!read(MOST_PAGES - 1, 0).is_endless() && read(MOST_PAGES, 0).is_endless());
        let large = MOST_BYTES / MAX_PAGE;
        assert!(!read(large - 1, MAX_PAGE).is_endless() && read(large, MAX_PAGE).is_endless());
    }
}
