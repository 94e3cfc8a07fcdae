// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Removing many objects at once, where the service knows how.

use std::sync::atomic::Ordering;

use aws_sdk_s3::error::BuildError;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures::stream::{self, TryStreamExt};

use super::client::attempt;
use super::error::{classify, is_missing};
use super::{CONTROL, S3};
use crate::blobs::{Error, Request};

/// What one request can name.
const BATCH: usize = 1000;
/// How many requests that name one object run at a time.
const AT_ONCE: usize = 16;

pub(super) async fn delete(s3: &S3, keys: &[String]) -> Result<(), Error> {
    for keys in keys.chunks(BATCH) {
        if keys.len() == 1 || s3.one_by_one.load(Ordering::Relaxed) {
            one_by_one(s3, keys).await?;
        } else {
            at_once(s3, keys).await?;
        }
    }
    Ok(())
}

/// Services differ on the checksum that this request needs, and some do not know it: then one by one.
async fn at_once(s3: &S3, keys: &[String]) -> Result<(), Error> {
    match batch(s3, keys).await {
        Ok(failed) => one_by_one(s3, &failed).await,
        Err(Error::Refused { source, .. }) => {
            one_by_one(s3, keys).await?;
            if !s3.one_by_one.swap(true, Ordering::Relaxed) {
                tracing::info!(error = %source, "object store takes no batch deletes, removing one by one");
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Returns the keys that the service did not remove.
async fn batch(s3: &S3, keys: &[String]) -> Result<Vec<String>, Error> {
    let first = keys.first().map_or("", String::as_str);
    let refused = |error: BuildError| Request::Delete.refused(first, error);
    let objects = keys.iter().map(|key| ObjectIdentifier::builder().key(s3.full_key(key)).build());
    let objects = objects.collect::<Result<_, _>>().map_err(refused)?;
    let objects = Delete::builder().set_objects(Some(objects)).quiet(true).build().map_err(refused)?;
    let request = s3.client.delete_objects().bucket(&*s3.bucket).delete(objects);
    let answer = request.customize().config_override(attempt(CONTROL)).send().await;
    let answer = answer.map_err(|error| classify(Request::Delete, first, error))?;
    let failed = answer.errors().iter().filter_map(|failed| failed.key());
    Ok(failed.filter_map(|key| key.strip_prefix(&*s3.prefix)).map(str::to_owned).collect())
}

async fn one_by_one(s3: &S3, keys: &[String]) -> Result<(), Error> {
    let keys = stream::iter(keys.iter().map(Ok));
    keys.try_for_each_concurrent(AT_ONCE, |key| one(s3, key)).await
}

async fn one(s3: &S3, key: &str) -> Result<(), Error> {
    let request = s3.client.delete_object().bucket(&*s3.bucket).key(s3.full_key(key));
    match request.customize().config_override(attempt(CONTROL)).send().await {
        Ok(_) => Ok(()),
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) => Err(classify(Request::Delete, key, error)),
    }
}
