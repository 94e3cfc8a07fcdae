// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whether the service looks at checksums: some do not know the header, and take anything beside it.

use bytes::Bytes;

use super::S3;
use super::body::Seal;
use crate::blobs::{Error, MultipartId, Write as _};

const CONTENT: &[u8] = b"stowage";
const OTHER: &[u8] = b"other";

/// Whether it takes an object, and one of parts, with their checksums, and neither with that of something else.
pub(super) async fn are_looked_at(store: &S3, key: &str) -> Result<bool, Error> {
    let put = async |seal| taken(store.put_sealed(key, segments(CONTENT), seal).await);
    if put(seal(OTHER)).await? || !put(seal(CONTENT)).await? {
        return Ok(false);
    }
    let id = store.create_multipart(key).await?;
    let are = of_parts(store, key, &id).await;
    store.abort(key, &id).await?;
    are
}

async fn of_parts(store: &S3, key: &str, id: &MultipartId) -> Result<bool, Error> {
    let send = async |seal| store.part_sealed(key, id, 1, segments(CONTENT), seal).await;
    if taken(send(seal(OTHER)).await)? {
        return Ok(false);
    }
    match send(seal(CONTENT)).await {
        Ok(part) => taken(store.complete(key, id, &[part]).await),
        refused => taken(refused),
    }
}

fn segments(content: &'static [u8]) -> Vec<Bytes> {
    vec![Bytes::from_static(content)]
}

fn seal(of: &'static [u8]) -> Seal {
    Seal::checksum(&segments(of))
}

fn taken<T>(answer: Result<T, Error>) -> Result<bool, Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(Error::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
