// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether a store is fit to be relied upon, and whose it is.
//!
//! The self-test makes every kind of request that the protocol makes, on objects of its own that it removes.
//! It never touches anything else, and never writes over an owner.

use bytes::Bytes;
use futures::TryStreamExt;
use uuid::Uuid;

use super::{Error, MultipartId, Part, Store};
use crate::key::{Generation, Key};

/// The layout of keys that this version reads and writes.
const LAYOUT: u64 = 1;
/// The smallest part that every store takes.
const PART: usize = 5 << 20;
const CONTENT: &[u8] = b"stowage";

/// Something that the protocol relies upon and the store does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lack {
    /// A new object is not read back as it was written.
    ReadBack,
    /// A range of an object is not read back.
    Range,
    /// An object's size is not known.
    Head,
    /// An object without content is not kept.
    Empty,
    /// A new object is not listed at once.
    ListedWhenWritten,
    /// A removed object is still seen.
    GoneWhenRemoved,
    /// A multipart upload does not make the object.
    Multipart,
    /// A multipart upload can be completed with a part that is not the one named. Objects that were made in
    /// this way are read back before they are trusted.
    PartTags,
}

impl Lack {
    /// Whether the registry cannot do without it.
    #[must_use]
    pub const fn is_fatal(self) -> bool {
        !matches!(self, Self::PartTags)
    }

    /// What the store does not do, for the log and for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::ReadBack => "a new object is not read back as it was written",
            Self::Range => "a range of an object is not read back",
            Self::Head => "the size of an object is not told",
            Self::Empty => "an object without content is not kept",
            Self::ListedWhenWritten => "a new object is not listed at once",
            Self::GoneWhenRemoved => "a removed object is still seen",
            Self::Multipart => "a multipart upload does not make the object",
            Self::PartTags => "a multipart upload can be completed with a part that was replaced",
        }
    }
}

/// Tries everything that is relied upon, on objects below `v1/probe/`. Returns what the store lacks; an error
/// if it could not be tried.
pub async fn probe(store: &dyn Store, generation: Generation) -> Result<Vec<Lack>, Error> {
    let probe = Probe { store, generation };
    let tried = probe.run().await;
    let removed = probe.clean_up().await;
    let mut lacks = tried?;
    lacks.extend(removed?);
    Ok(lacks)
}

struct Probe<'a> {
    store: &'a dyn Store,
    generation: Generation,
}

const EXPLORED: &str = "explored";
const OBJECT: &str = "object";
const EMPTY: &str = "empty";
const PARTS: &str = "parts";
const STALE: &str = "stale";

impl Probe<'_> {
    fn key(&self, step: &'static str) -> String {
        Key::Probe { generation: self.generation, step }.to_string()
    }

    async fn run(&self) -> Result<Vec<Lack>, Error> {
        // What is found out is tried like the rest.
        self.store.explore(&self.key(EXPLORED)).await?;
        let mut lacks = self.object().await?;
        lacks.extend(self.empty().await?);
        lacks.extend(self.multipart().await?);
        lacks.extend(self.stale_part().await?);
        Ok(lacks)
    }

    async fn object(&self) -> Result<Vec<Lack>, Error> {
        let key = self.key(OBJECT);
        self.store.put(&key, vec![Bytes::from_static(CONTENT)]).await?;
        let mut lacks = Vec::new();
        if !self.is_listed(&key, CONTENT.len() as u64).await? {
            lacks.push(Lack::ListedWhenWritten);
        }
        if self.store.head(&key).await? != Some(CONTENT.len() as u64) {
            lacks.push(Lack::Head);
        }
        if self.content(&key, None).await?.as_deref() != Some(CONTENT) {
            lacks.push(Lack::ReadBack);
        }
        if self.content(&key, Some(1..4)).await?.as_deref() != CONTENT.get(1..4) {
            lacks.push(Lack::Range);
        }
        Ok(lacks)
    }

    async fn empty(&self) -> Result<Option<Lack>, Error> {
        let key = self.key(EMPTY);
        self.store.put(&key, Vec::new()).await?;
        let kept = self.is_listed(&key, 0).await? && self.content(&key, None).await?.is_some();
        Ok((!kept).then_some(Lack::Empty))
    }

    async fn multipart(&self) -> Result<Option<Lack>, Error> {
        let key = self.key(PARTS);
        let id = self.store.create_multipart(&key).await?;
        let made = self.complete(&key, &id).await;
        if made.is_err() {
            self.store.abort(&key, &id).await?;
        }
        made?;
        let last = PART as u64 - 1;
        let joint = self.content(&key, Some(last..last + 2)).await?;
        Ok((joint.as_deref() != Some([0, 1].as_slice())).then_some(Lack::Multipart))
    }

    async fn complete(&self, key: &str, id: &MultipartId) -> Result<(), Error> {
        let first = self.store.upload_part(key, id, 1, 0, vec![Bytes::from(vec![0; PART])]).await?;
        let last = self.store.upload_part(key, id, 2, PART as u64, vec![Bytes::from_static(&[1])]).await?;
        self.store.complete(key, id, &[first, last]).await
    }

    /// A writer that lost its lease sends a part again; the other one must not complete with it unknowingly.
    async fn stale_part(&self) -> Result<Option<Lack>, Error> {
        let key = self.key(STALE);
        let id = self.store.create_multipart(&key).await?;
        let named = self.replaced_part(&key, &id).await;
        let accepted = match named {
            Ok(named) => match self.store.complete(&key, &id, &[named]).await {
                Ok(()) => Ok(true),
                Err(Error::Refused { .. } | Error::UnknownUpload { .. }) => Ok(false),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        self.store.abort(&key, &id).await?;
        Ok(accepted?.then_some(Lack::PartTags))
    }

    async fn replaced_part(&self, key: &str, id: &MultipartId) -> Result<Part, Error> {
        let named = self.store.upload_part(key, id, 1, 0, vec![Bytes::from_static(b"a")]).await?;
        self.store.upload_part(key, id, 1, 0, vec![Bytes::from_static(b"b")]).await?;
        Ok(named)
    }

    async fn clean_up(&self) -> Result<Option<Lack>, Error> {
        let keys = [EXPLORED, OBJECT, EMPTY, PARTS, STALE].map(|step| self.key(step));
        self.store.delete(&keys).await?;
        let mut gone = self.listed().await?.is_empty();
        for key in &keys {
            gone &= self.store.head(key).await?.is_none();
        }
        Ok((!gone).then_some(Lack::GoneWhenRemoved))
    }

    async fn is_listed(&self, key: &str, size: u64) -> Result<bool, Error> {
        Ok(self.listed().await?.iter().any(|object| object.key == key && object.size == size))
    }

    async fn listed(&self) -> Result<Vec<super::Object>, Error> {
        self.store.list(&self.key(""), None, 10).await
    }

    async fn content(
        &self,
        key: &str,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<Vec<u8>>, Error> {
        content(self.store, key, range).await
    }
}

async fn content(
    store: &dyn Store,
    key: &str,
    range: Option<std::ops::Range<u64>>,
) -> Result<Option<Vec<u8>>, Error> {
    let Some(found) = store.get(key, range).await? else { return Ok(None) };
    let pieces: Vec<Bytes> = found.stream.try_collect().await?;
    Ok(Some(pieces.concat()))
}

/// What `v1/FORMAT` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Format {
    layout: u64,
    /// Whose prefix it is.
    pub registry: Uuid,
}

/// Why it is not known whose prefix it is. Nothing may be written below it.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] Error),
    /// There is a `v1/FORMAT`, but not one of ours.
    #[error("object v1/FORMAT cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// A later version wrote it.
    #[error("object v1/FORMAT has layout {0}; this version reads layout {LAYOUT}")]
    Layout(u64),
}

/// Whose prefix it is; `None` if nobody's.
pub async fn read_format(store: &dyn Store) -> Result<Option<Format>, FormatError> {
    let Some(content) = content(store, &Key::Format.to_string(), None).await? else { return Ok(None) };
    let format: Format = serde_json::from_slice(&content).map_err(FormatError::Unreadable)?;
    if format.layout == LAYOUT { Ok(Some(format)) } else { Err(FormatError::Layout(format.layout)) }
}

/// Makes the prefix, which is nobody's, the one of `registry`. Replicas of one registry may do so at once.
pub async fn write_format(store: &dyn Store, registry: Uuid) -> Result<Format, Error> {
    let format = Format { layout: LAYOUT, registry };
    let content = format!(r#"{{"layout":{LAYOUT},"registry":"{registry}"}}"#);
    store.put(&Key::Format.to_string(), vec![Bytes::from(content)]).await?;
    Ok(format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::{Memory, Read, Write};

    #[tokio::test]
    async fn the_owner_is_read_back() {
        let store = Memory::new();
        assert_eq!(read_format(&store).await.unwrap(), None);
        let registry = Uuid::from_u128(7);
        let written = write_format(&store, registry).await.unwrap();
        assert_eq!(read_format(&store).await.unwrap(), Some(written));
        let content = content(&store, "v1/FORMAT", None).await.unwrap().unwrap();
        let expected = br#"{"layout":1,"registry":"00000000-0000-0000-0000-000000000007"}"#;
        assert_eq!(content, expected);
    }

    #[tokio::test]
    async fn another_layout_and_foreign_content_are_told_apart() {
        let store = Memory::new();
        let foreign = |text: &'static str| vec![Bytes::from_static(text.as_bytes())];
        let later = r#"{"layout":2,"registry":"00000000-0000-0000-0000-000000000007","more":1}"#;
        store.put("v1/FORMAT", foreign(later)).await.unwrap();
        assert!(matches!(read_format(&store).await, Err(FormatError::Layout(2))));
        store.put("v1/FORMAT", foreign("hello")).await.unwrap();
        assert!(matches!(read_format(&store).await, Err(FormatError::Unreadable(_))));
    }

    #[tokio::test]
    async fn the_self_test_leaves_nothing_behind() {
        let store = Memory::new();
        assert_eq!(probe(&store, Generation::at(0)).await.unwrap(), []);
        assert_eq!(store.list("", None, 1).await.unwrap(), []);
        assert_eq!(store.open_uploads(), 0);
    }
}
