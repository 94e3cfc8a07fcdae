// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Refusals and faults to status, code and headers: the one table.
//!
//! A client reads [`PublicText`] and nothing else of an error. Faults are logged here, once.

#![deny(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use stowage_oci::{ContentRangeError, Digest, ErrorCode};

use super::parse::Refusal;
use super::respond::{self, value};
use crate::auth;
use crate::domain::{Error, UpstreamError, UpstreamFault};
use crate::operation::Operation;

/// When a client should try again after a fault that passes.
const RETRY: Duration = Duration::from_secs(5);
/// The most digests that one answer names as missing.
const MAX_MISSING: usize = 100;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It is no operation.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is not allowed.
    #[error(transparent)]
    NotAdmitted(#[from] auth::Refusal),
    /// The domain did not do it.
    #[error(transparent)]
    Domain(#[from] Error),
    /// The place of a chunk cannot be read.
    #[error(transparent)]
    ContentRange(#[from] ContentRangeError),
    /// The manifest is too long.
    #[error("manifest is longer than {} bytes", stowage_oci::Manifest::MAX_SIZE)]
    ManifestTooLarge,
    /// The request line is too long.
    #[error("address of the request is longer than {0} bytes")]
    UriTooLong(usize),
    /// The headers are too long.
    #[error("headers of the request are longer than {0} bytes")]
    HeadersTooLarge(usize),
    /// An administrative request does not say what it must.
    #[error("{0}")]
    Unreadable(String),
    /// No run has told anything.
    #[error("no run has told anything yet, or what it told is kept no longer")]
    NothingTold,
    /// This process starts no such run.
    #[error(
        "this process starts no run {0}: there is no such resource, the registry's mode forbids it, or Jobs of the operator \
         run it, which the annotation stowage.dev/run-requested-at asks for"
    )]
    NoRun(Value),
    /// Too many requests are being answered.
    #[error("too many requests at the same time")]
    Busy,
    /// A bug.
    #[error("internal error")]
    Panicked,
}

/// Text that a client may read: what its request broke, or that a fault happened; never what is behind it.
/// Short, whatever the request put into it.
struct PublicText(String);

impl PublicText {
    const LONGEST: usize = 1024;

    fn of(failure: &Failure) -> Self {
        let mut text = failure.to_string();
        text.truncate(text.floor_char_boundary(Self::LONGEST));
        Self(text)
    }
}

#[derive(Serialize)]
struct Document<'a> {
    errors: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    code: ErrorCode,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Detail>,
}

#[derive(Serialize)]
struct Detail {
    digest: Digest,
}

impl Failure {
    /// The answer. `operation` is what was asked for, where that is known.
    pub(super) fn into_response(self, operation: Option<&Operation>) -> Response {
        self.log();
        let (status, code) = self.verdict(operation);
        let PublicText(message) = PublicText::of(&self);
        let entry = |detail| Entry { code, message: &message, detail };
        let errors = match self.missing() {
            [] => vec![entry(None)],
            missing => missing
                .iter()
                .take(MAX_MISSING)
                .map(|digest| entry(Some(Detail { digest: *digest })))
                .collect(),
        };
        let body = serde_json::to_vec(&Document { errors }).expect("texts and digests are JSON");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.add_headers(status, operation, headers);
        response
    }

    fn missing(&self) -> &[Digest] {
        if let Self::Domain(Error::ReferencesMissing(digests)) = self { digests } else { &[] }
    }

    /// Headers by which a client goes on.
    fn add_headers(&self, status: StatusCode, operation: Option<&Operation>, headers: &mut HeaderMap) {
        if let Some(allow) = self.allowed_methods() {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if let Self::NotAdmitted(auth::Refusal::Unauthorized { challenge }) = self {
            headers.insert(WWW_AUTHENTICATE, value(challenge));
        }
        if let Self::Domain(Error::NotAtOffset { offset }) = self {
            headers.insert(RANGE, respond::received(*offset));
            headers.extend(operation.and_then(respond::upload_location).map(|location| (LOCATION, location)));
        }
        if let StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE = status {
            headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_after().as_secs().max(1)));
        }
    }

    const fn allowed_methods(&self) -> Option<&'static str> {
        if let Self::Refused(Refusal::Method { allow }) = self {
            Some(allow)
        } else if let Self::Domain(Error::Referenced | Error::ModeForbids(_)) = self {
            Some("GET, HEAD")
        } else {
            None
        }
    }

    fn retry_after(&self) -> Duration {
        if let Self::NotAdmitted(auth::Refusal::TooManyFailures { retry_after }) = self {
            *retry_after
        } else if let Self::Domain(Error::Upstream(error)) = self {
            upstream_retry(error)
        } else if let Self::Busy = self {
            Duration::from_secs(1)
        } else {
            RETRY
        }
    }

    fn verdict(&self, operation: Option<&Operation>) -> (StatusCode, ErrorCode) {
        match self {
            Self::Refused(refusal) => refusal_verdict(refusal),
            Self::NotAdmitted(refusal) => match refusal {
                auth::Refusal::Unauthorized { .. } => (StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized),
                auth::Refusal::Denied | auth::Refusal::NoAuthentication => {
                    (StatusCode::FORBIDDEN, ErrorCode::Denied)
                }
                auth::Refusal::TooManyFailures { .. } => {
                    (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests)
                }
            },
            Self::Domain(error) => domain_verdict(error, operation),
            Self::ContentRange(_) => (StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid),
            Self::ManifestTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::ManifestInvalid),
            Self::UriTooLong(_) => (StatusCode::URI_TOO_LONG, ErrorCode::Unsupported),
            Self::HeadersTooLarge(_) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, ErrorCode::Unsupported),
            Self::NothingTold | Self::NoRun(_) => (StatusCode::NOT_FOUND, ErrorCode::Unsupported),
            Self::Unreadable(_) => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests),
            Self::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
        }
    }

    fn log(&self) {
        if let Self::Domain(
            error @ (Error::DatabaseAway(_)
            | Error::StoreAway(_)
            | Error::Upstream(_)
            | Error::NotFetched { .. }
            | Error::MirrorLoop),
        ) = self
        {
            tracing::warn!(error = error as &dyn std::error::Error, "request not done");
        } else if let Self::Domain(error @ Error::Internal(_)) = self {
            tracing::error!(error = error as &dyn std::error::Error, "request failed");
        }
    }
}

/// When the upstream of a mirror may be asked again.
fn upstream_retry(error: &UpstreamError) -> Duration {
    match error.kind {
        UpstreamFault::RateLimited { retry_after }
        | UpstreamFault::NotNow { retry_after }
        | UpstreamFault::Unavailable { retry_after } => retry_after.unwrap_or(RETRY),
        UpstreamFault::NotFound
        | UpstreamFault::Refused(_)
        | UpstreamFault::CertificateInvalid
        | UpstreamFault::NotARegistry
        | UpstreamFault::TooLarge
        | UpstreamFault::WrongContent => RETRY,
    }
}

/// What a client is told of an upstream that did not give what a mirror should fetch (W-116).
fn upstream_verdict(error: &UpstreamError, operation: Option<&Operation>) -> (StatusCode, ErrorCode) {
    match error.kind {
        UpstreamFault::NotFound | UpstreamFault::Refused(_) => {
            let of_blob = matches!(operation, Some(Operation::GetBlob { .. }));
            (StatusCode::NOT_FOUND, if of_blob { ErrorCode::BlobUnknown } else { ErrorCode::ManifestUnknown })
        }
        UpstreamFault::RateLimited { .. } | UpstreamFault::NotNow { retry_after: Some(_) } => {
            (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests)
        }
        UpstreamFault::Unavailable { .. }
        | UpstreamFault::NotNow { retry_after: None }
        | UpstreamFault::CertificateInvalid => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable),
        UpstreamFault::NotARegistry | UpstreamFault::TooLarge | UpstreamFault::WrongContent => {
            (StatusCode::BAD_GATEWAY, ErrorCode::Unknown)
        }
    }
}

fn refusal_verdict(refusal: &Refusal) -> (StatusCode, ErrorCode) {
    match refusal {
        Refusal::NoEndpoint => (StatusCode::NOT_FOUND, ErrorCode::Unsupported),
        Refusal::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
        Refusal::Escape | Refusal::Name(_) => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
        Refusal::Digest(_) | Refusal::DigestMissing | Refusal::TwoValues("digest" | "mount") => {
            (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid)
        }
        Refusal::Tag(_) => (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid),
        Refusal::ManifestUnknown => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
        Refusal::UploadUnknown => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
        Refusal::TwoValues(_) | Refusal::Parameter(_) | Refusal::TooManyArtifactTypes => {
            (StatusCode::BAD_REQUEST, ErrorCode::Unsupported)
        }
        Refusal::TooManyTags => (StatusCode::URI_TOO_LONG, ErrorCode::Unsupported),
        Refusal::OtherRegistry => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
    }
}

fn domain_verdict(error: &Error, operation: Option<&Operation>) -> (StatusCode, ErrorCode) {
    let of_manifest = matches!(operation, Some(Operation::PutManifest { .. }));
    let body_code = if of_manifest { ErrorCode::ManifestInvalid } else { ErrorCode::BlobUploadInvalid };
    match error {
        Error::NameUnknown => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
        Error::ManifestUnknown | Error::NotInTrash | Error::Quarantined { .. } => {
            (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown)
        }
        Error::BlobUnknown => (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
        Error::UploadUnknown => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
        Error::NotAtOffset { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid),
        Error::LengthMismatch { .. } => (StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid),
        Error::DigestMismatch { .. } => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
        Error::BlobTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid),
        Error::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid),
        Error::ReferencesMissing(_) => (StatusCode::BAD_REQUEST, ErrorCode::ManifestBlobUnknown),
        Error::TooManyReferrers(_) | Error::Unsigned(_) => (StatusCode::FORBIDDEN, ErrorCode::Denied),
        Error::TagImmutable { .. } => (StatusCode::CONFLICT, ErrorCode::Denied),
        Error::Referenced | Error::ModeForbids(_) => (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported),
        Error::BodyStalled => (StatusCode::REQUEST_TIMEOUT, body_code),
        Error::BodyBroken(_) => (StatusCode::BAD_REQUEST, body_code),
        Error::TooManyUploads => (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests),
        Error::Upstream(error) => upstream_verdict(error, operation),
        Error::DatabaseAway(_)
        | Error::NotFetched { .. }
        | Error::MirrorLoop
        | Error::Suspended
        | Error::RebuildRequired
        | Error::NotCompared
        | Error::StoreAway(_)
        | Error::Stopping
        | Error::Overtaken => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable),
        Error::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};
    use stowage_oci::Algorithm;

    use super::*;

    async fn answer(failure: Failure, operation: Option<&Operation>) -> (StatusCode, HeaderMap, Value) {
        let (parts, body) = failure.into_response(operation).into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn w103_each_missing_digest_is_named_up_to_a_hundred() {
        let digests: Vec<Digest> = (0..150_u8).map(|n| Digest::of(Algorithm::Sha256, &[n])).collect();
        let (status, _, body) = answer(Error::ReferencesMissing(digests.clone()).into(), None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let errors = body["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 100);
        assert_eq!(errors[7]["code"], "MANIFEST_BLOB_UNKNOWN");
        assert_eq!(errors[7]["detail"], json!({ "digest": digests[7] }));
    }

    #[tokio::test]
    async fn w096_w203_a_chunk_in_the_wrong_place_is_told_the_right_one() {
        let upload = "7d444840-9dc0-41d1-b245-5ffdce74fad2";
        let operation =
            Operation::Append { repository: "a/b".parse().unwrap(), upload: upload.parse().unwrap() };
        let (status, headers, body) =
            answer(Error::NotAtOffset { offset: 10 }.into(), Some(&operation)).await;
        assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(headers[RANGE], "0-9");
        assert_eq!(headers[LOCATION], format!("/v2/a/b/blobs/uploads/{upload}"));
        assert_eq!(body["errors"][0]["code"], "BLOB_UPLOAD_INVALID");
    }

    #[tokio::test]
    async fn w052_w114_w544_what_passes_says_when_to_try_again() {
        for (failure, status, seconds) in [
            (Error::Stopping.into(), StatusCode::SERVICE_UNAVAILABLE, "5"),
            (Error::TooManyUploads.into(), StatusCode::TOO_MANY_REQUESTS, "5"),
            (Failure::Busy, StatusCode::TOO_MANY_REQUESTS, "1"),
        ] {
            let (found, headers, _) = answer(failure, None).await;
            assert_eq!((found, headers[RETRY_AFTER].to_str().unwrap()), (status, seconds));
        }
    }

    #[tokio::test]
    async fn w112_a_body_that_stalls_is_408() {
        let (status, _, body) = answer(Error::BodyStalled.into(), None).await;
        assert_eq!(
            (status, &body["errors"][0]["code"]),
            (StatusCode::REQUEST_TIMEOUT, &json!("BLOB_UPLOAD_INVALID"))
        );
    }

    #[tokio::test]
    async fn w115_w848_the_cause_of_a_fault_stays_with_us() {
        let cause = std::io::Error::other("secret of the house");
        let (status, headers, body) = answer(Error::Internal(Box::new(cause)).into(), None).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body, json!({ "errors": [{ "code": "UNKNOWN", "message": "internal error" }] }));
        assert_eq!(headers[CACHE_CONTROL], "no-store");
    }

    #[tokio::test]
    async fn w552_w913_a_message_is_short_whatever_the_request_put_into_it() {
        let manifest = format!(r#"{{"mediaType":"{}","schemaVersion":2}}"#, "ä".repeat(100_000));
        let error = stowage_oci::Manifest::parse(manifest.as_bytes(), None).unwrap_err();
        let (_, _, body) = answer(Error::ManifestInvalid(error).into(), None).await;
        assert!(body["errors"][0]["message"].as_str().unwrap().len() <= PublicText::LONGEST);
    }

    #[tokio::test]
    async fn w017_a_wrong_method_says_what_is_allowed() {
        let (status, headers, body) = answer(Refusal::Method { allow: "GET" }.into(), None).await;
        assert_eq!(
            (status, &headers[ALLOW]),
            (StatusCode::METHOD_NOT_ALLOWED, &HeaderValue::from_static("GET"))
        );
        assert_eq!(body["errors"][0]["code"], "UNSUPPORTED");
    }
}
