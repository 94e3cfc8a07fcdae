// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the service's answers mean for the caller.

use std::error::Error as StdError;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::blobs::{Error, Request};

/// The service's own names for "no room", beside the status that says so.
const FULL: [&str; 5] =
    ["XMinioStorageFull", "StorageFull", "InsufficientStorage", "QuotaExceeded", "NotEnoughSpace"];

/// The service's own names for "not now", whatever their status.
const NOT_NOW: [&str; 6] =
    ["SlowDown", "RequestTimeout", "ServiceUnavailable", "InternalError", "OperationAborted", "Throttling"];

pub(super) fn classify<E>(request: Request, key: &str, error: SdkError<E, HttpResponse>) -> Error
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    let Some((status, code)) = answer(&error) else {
        // The request or its answer was lost. Also when it was not even made: all that can fail before are
        // credentials that the surroundings do not give just now.
        return request.unavailable(key, error);
    };
    match (status, code) {
        (_, "NoSuchUpload") => request.unknown_upload(key),
        (507, _) => request.full(key, error),
        (_, code) if FULL.contains(&code) => request.full(key, error),
        (_, code) if NOT_NOW.contains(&code) => request.unavailable(key, error),
        (501, _) => request.refused(key, error),
        (500.. | 408 | 429, _) => request.unavailable(key, error),
        _ => request.refused(key, error),
    }
}

/// Whether the answer is that there is no such object.
pub(super) fn is_missing<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(answer(error), Some((404, code)) if code != "NoSuchBucket")
}

/// The status and the service's own name for what is wrong.
fn answer<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<(u16, &str)> {
    match error {
        SdkError::ServiceError(answer) => {
            Some((answer.raw().status().as_u16(), answer.err().code().unwrap_or_default()))
        }
        _ => None,
    }
}
