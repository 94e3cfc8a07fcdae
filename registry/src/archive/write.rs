// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Writes an OCI image layout as a tar file: `oci-layout`, `index.json`, then each blob once.
//!
//! Guarantees: the same content gives the same bytes. No member has a time, an owner or anything else of the machine.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use stowage_oci::Digest;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

const BLOCK: usize = 512;
/// What a size field can hold.
const LARGEST_IN_OCTAL: u64 = 0o777_7777_7777;
/// What a name field can hold.
const LONGEST_NAME: usize = 100;
const VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// What an index says of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    #[serde(default)]
    pub size: u64,
    /// What it is called, among others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: &'a [Descriptor],
}

/// The document that lists the images of a layout.
pub fn index(manifests: &[Descriptor]) -> Result<Vec<u8>, serde_json::Error> {
    let media_type = "application/vnd.oci.image.index.v1+json";
    serde_json::to_vec(&Index { schema_version: 2, media_type, manifests })
}

/// Where a layout has what this digest names.
#[must_use]
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// Writes members one after the other.
pub struct Writer<W>(W);

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Begins a layout whose images `index` lists.
    pub async fn begin(out: W, index: &[u8]) -> io::Result<Self> {
        let mut writer = Self(out);
        writer.member("oci-layout", VERSION.as_bytes()).await?;
        writer.member("index.json", index).await?;
        Ok(writer)
    }

    /// Writes a member as a whole.
    pub async fn member(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.head(name, content.len() as u64).await?;
        self.0.write_all(content).await?;
        self.pad(content.len() as u64).await
    }

    /// Writes a member of `size` bytes as they come. Another number of them is an error.
    pub async fn stream<E: From<io::Error>>(
        &mut self,
        name: &str,
        size: u64,
        content: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), E> {
        self.head(name, size).await?;
        let mut left = size;
        let mut content = std::pin::pin!(content);
        while let Some(bytes) = content.try_next().await? {
            left = left.checked_sub(bytes.len() as u64).ok_or_else(|| wrong_length(name))?;
            self.0.write_all(&bytes).await?;
        }
        if left > 0 {
            return Err(wrong_length(name).into());
        }
        Ok(self.pad(size).await?)
    }

    /// Ends the file; gives back what it was written to.
    pub async fn end(mut self) -> io::Result<W> {
        self.0.write_all(&[0; 2 * BLOCK]).await?;
        self.0.flush().await?;
        Ok(self.0)
    }

    async fn head(&mut self, name: &str, size: u64) -> io::Result<()> {
        let mut records = String::new();
        if name.len() > LONGEST_NAME {
            records += &record("path", name);
        }
        if size > LARGEST_IN_OCTAL {
            records += &record("size", &size.to_string());
        }
        if !records.is_empty() {
            self.0.write_all(&head("extended", records.len() as u64, b'x')).await?;
            self.0.write_all(records.as_bytes()).await?;
            self.pad(records.len() as u64).await?;
        }
        self.0.write_all(&head(name, size, b'0')).await
    }

    async fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
        self.0.write_all(&[0; BLOCK][..(BLOCK - over) % BLOCK]).await
    }
}

fn wrong_length(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{name} is of another length than was said"))
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    format!("{length} {key}={value}\n")
}

/// A head of ustar. What does not fit stands in an extended head before it.
fn head(name: &str, size: u64, kind: u8) -> [u8; BLOCK] {
    let mut head = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| head[at..at + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.len().min(LONGEST_NAME)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", size.min(LARGEST_IN_OCTAL)).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = head.iter().copied().map(u32::from).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(record("path", "abc"), "12 path=abc\n");
        for length in 1..1200 {
            let record = record("path", &"a".repeat(length));
            let said: usize = record.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, record.len());
        }
    }
}
