// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Outcomes to status, headers and body. Pure.
//!
//! Every `Location` and `Link` is a path that names the repository as the client did, so that a client stays
//! on the host, and behind the proxy, that it came through. But one: the address of a blob's bytes in the store.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LINK, LOCATION, RANGE,
    WARNING,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use stowage_oci::{Digest, ManifestKind, Name, Tag};
use uuid::Uuid;

use super::conditions::etag;
use super::query::Query;
use crate::domain::{BlobHead, ManifestAnswer, Pushed, ReferrerList, RepositoryList, TagList};
use crate::meta::{Annotations, ReferrerRow};
use crate::operation::Operation;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// When a tag was set, in milliseconds since 1970: by it registries that copy each other agree which of two is later.
const TAG_VERSION: HeaderName = HeaderName::from_static("stowage-tag-version");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

pub(super) const JSON: &str = "application/json";
const OCTETS: &str = "application/octet-stream";
/// What is named by its digest never changes.
const IMMUTABLE: &str = "private, max-age=31536000, immutable";
/// What a tag, a list or an upload is may be different the next time.
const NO_CACHE: &str = "no-cache";
const DEGRADED: &str = r#"299 - "answered from the object store, because the database is not available""#;

/// A header value made of names, digests, numbers and encoded text.
pub(super) fn value(text: impl AsRef<str>) -> HeaderValue {
    HeaderValue::from_str(text.as_ref()).expect("names, digests and encoded text are visible ASCII")
}

const STALE: &str =
    r#"110 - "the registry that is mirrored here could not be asked; this is what it had last""#;
const HELD_BACK: &str = r#"299 - "this tag stays as it is here: the registry that is mirrored has none by this name any more, or one that is not signed as it must be or would move an immutable tag""#;
const PARTIAL: &str = r#"199 - "a member of this virtual repository could not be asked""#;
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

fn fixed(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

/// A response of these headers, without a body.
fn empty<const N: usize>(status: StatusCode, headers: [(HeaderName, HeaderValue); N]) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from(0));
    }
    response
}

pub(super) fn json(media_type: &'static str, document: &impl Serialize) -> Response {
    let body = serde_json::to_vec(document).expect("names, digests and texts are JSON");
    let headers = [
        (CONTENT_TYPE, fixed(media_type)),
        (CACHE_CONTROL, fixed(NO_CACHE)),
        (CONTENT_LENGTH, HeaderValue::from(body.len())),
    ];
    let mut response = empty(StatusCode::OK, headers);
    *response.body_mut() = Body::from(body);
    response
}

/// Lines of JSON.
pub(super) fn lines(body: Body) -> Response {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .extend([(CONTENT_TYPE, fixed("application/x-ndjson")), (CACHE_CONTROL, fixed(NO_CACHE))]);
    response
}

fn warn_if(degraded: bool, headers: &mut HeaderMap) {
    if degraded {
        headers.insert(WARNING, fixed(DEGRADED));
    }
}

/// Says that it might have been another answer.
pub(super) fn partial(headers: &mut HeaderMap) {
    headers.append(WARNING, fixed(PARTIAL));
}

/// Says that `ns` was understood.
pub(super) fn for_registry(host: &str, headers: &mut HeaderMap) {
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(OCI_NAMESPACE, host);
    }
}

/// Whether the answer says that it comes from the bucket alone.
pub(super) fn is_degraded(headers: &HeaderMap) -> bool {
    headers.get(WARNING).is_some_and(|warning| warning == DEGRADED)
}

/// The registry speaks the protocol.
pub(super) fn ping() -> Response {
    json(JSON, &serde_json::json!({}))
}

/// The endpoints beyond the specification.
pub(super) fn discover() -> Response {
    json(
        JSON,
        &serde_json::json!({ "extensions": [
            {
                "name": "_catalog",
                "url": "https://distribution.github.io/distribution/spec/api/#catalog",
                "description": "the repositories that the client may read",
                "endpoints": ["_catalog"],
            },
            {
                "name": "_oci",
                "url": "https://github.com/opencontainers/distribution-spec/tree/main/extensions",
                "description": "the extensions of this registry",
                "endpoints": ["_oci/ext/discover"],
            },
        ]}),
    )
}

fn content(digest: &Digest, cache: &'static str) -> [(HeaderName, HeaderValue); 3] {
    [(CONTENT_DIGEST, value(digest.to_string())), (ETAG, value(etag(digest))), (CACHE_CONTROL, fixed(cache))]
}

/// A manifest, or its head where the answer has no body.
pub(super) fn manifest(answer: ManifestAnswer, by_digest: bool, not_modified: bool) -> Response {
    let cache = if by_digest { IMMUTABLE } else { NO_CACHE };
    let status = if not_modified { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = empty(status, content(&answer.digest, cache));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(answer.size));
    headers.insert(CONTENT_TYPE, value(&answer.media_type));
    if let Some(version) = answer.tag_version {
        headers.insert(TAG_VERSION, HeaderValue::from(version));
    }
    warn_if(answer.degraded, headers);
    if answer.stale {
        headers.insert(WARNING, fixed(STALE));
    }
    if answer.held_back {
        headers.insert(WARNING, fixed(HELD_BACK));
    }
    if let Some(body) = answer.body.filter(|_| !not_modified) {
        *response.body_mut() = Body::from(body);
    }
    response
}

fn blob_part<const N: usize>(
    status: StatusCode,
    blob: &BlobHead,
    length: u64,
    more: [(HeaderName, HeaderValue); N],
) -> Response {
    let mut response = empty(status, content(&blob.digest, IMMUTABLE));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CONTENT_TYPE, fixed(OCTETS));
    headers.insert(ACCEPT_RANGES, fixed("bytes"));
    for (name, value) in more {
        headers.insert(name, value);
    }
    warn_if(blob.degraded, headers);
    response
}

/// The head of a whole blob.
pub(super) fn blob(blob: &BlobHead) -> Response {
    blob_part(StatusCode::OK, blob, blob.size, [])
}

/// The head of some bytes of a blob.
pub(super) fn blob_range(blob: &BlobHead, range: &std::ops::Range<u64>) -> Response {
    let content_range = content_range(range, blob.size);
    let length = range.end - range.start;
    blob_part(StatusCode::PARTIAL_CONTENT, blob, length, [(CONTENT_RANGE, value(content_range))])
}

/// The head of a blob's parts, `length` bytes with what stands between them.
pub(super) fn blob_parts(blob: &BlobHead, boundary: &str, length: u64) -> Response {
    let media_type = format!("multipart/byteranges; boundary={boundary}");
    blob_part(StatusCode::PARTIAL_CONTENT, blob, length, [(CONTENT_TYPE, value(media_type))])
}

/// The client has the blob.
pub(super) fn blob_not_modified(blob: &BlobHead) -> Response {
    blob_part(StatusCode::NOT_MODIFIED, blob, blob.size, [])
}

/// The range asked for has no byte of the blob.
pub(super) fn blob_out_of_range(blob: &BlobHead) -> Response {
    let content_range = value(format!("bytes */{}", blob.size));
    let headers =
        [(CONTENT_RANGE, content_range), (ACCEPT_RANGES, fixed("bytes")), (CACHE_CONTROL, fixed("no-store"))];
    empty(StatusCode::RANGE_NOT_SATISFIABLE, headers)
}

/// The bytes are to be had at `address`, for a while. A client repeats its range there.
pub(super) fn blob_elsewhere(blob: &BlobHead, address: &str) -> Response {
    let headers = [
        (LOCATION, value(address)),
        (CONTENT_DIGEST, value(blob.digest.to_string())),
        (CACHE_CONTROL, fixed("no-store")),
    ];
    let mut response = empty(StatusCode::TEMPORARY_REDIRECT, headers);
    warn_if(blob.degraded, response.headers_mut());
    response
}

/// `bytes <first>-<last>/<size>`
fn content_range(range: &std::ops::Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

/// What stands before a part of several.
pub(super) fn part_head(boundary: &str, is_first: bool, range: &std::ops::Range<u64>, size: u64) -> Bytes {
    let line_break = if is_first { "" } else { "\r\n" };
    let content_range = content_range(range, size);
    format!("{line_break}--{boundary}\r\nContent-Type: {OCTETS}\r\nContent-Range: {content_range}\r\n\r\n")
        .into()
}

/// What stands after the last part.
pub(super) fn part_end(boundary: &str) -> Bytes {
    format!("\r\n--{boundary}--\r\n").into()
}

fn upload_path(repository: &Name, upload: Uuid) -> HeaderValue {
    value(format!("/v2/{repository}/blobs/uploads/{upload}"))
}

/// Where the upload of an operation is.
pub(super) fn upload_location(operation: &Operation) -> Option<HeaderValue> {
    if let Operation::Append { repository, upload }
    | Operation::CloseUpload { repository, upload, .. }
    | Operation::CancelUpload { repository, upload } = operation
    {
        Some(upload_path(repository, *upload))
    } else {
        None
    }
}

/// How much of an upload there is, `0-<last byte>`. Nothing and one byte look alike, but it is what clients read.
pub(super) fn received(offset: u64) -> HeaderValue {
    value(format!("0-{}", offset.saturating_sub(1)))
}

fn upload(status: StatusCode, repository: &Name, id: Uuid, offset: u64) -> Response {
    let headers = [
        (LOCATION, upload_path(repository, id)),
        (UPLOAD_UUID, value(id.to_string())),
        (RANGE, received(offset)),
        (CACHE_CONTROL, fixed(NO_CACHE)),
    ];
    empty(status, headers)
}

/// An upload was begun.
pub(super) fn upload_opened(repository: &Name, id: Uuid, preferred_chunk: Option<u64>) -> Response {
    let mut response = upload(StatusCode::ACCEPTED, repository, id, 0);
    response.headers_mut().extend(preferred_chunk.map(|bytes| (CHUNK_MIN_LENGTH, HeaderValue::from(bytes))));
    response
}

/// An upload has grown.
pub(super) fn upload_appended(repository: &Name, id: Uuid, offset: u64) -> Response {
    upload(StatusCode::ACCEPTED, repository, id, offset)
}

/// How far an upload is.
pub(super) fn upload_status(repository: &Name, id: Uuid, offset: u64) -> Response {
    upload(StatusCode::NO_CONTENT, repository, id, offset)
}

/// An upload is gone.
pub(super) fn upload_cancelled() -> Response {
    empty(StatusCode::NO_CONTENT, [(CACHE_CONTROL, fixed(NO_CACHE))])
}

/// The repository has the blob now.
pub(super) fn blob_stored(repository: &Name, digest: &Digest) -> Response {
    let location = value(format!("/v2/{repository}/blobs/{digest}"));
    let headers =
        [(LOCATION, location), (CONTENT_DIGEST, value(digest.to_string())), (CACHE_CONTROL, fixed(NO_CACHE))];
    empty(StatusCode::CREATED, headers)
}

/// The repository has the manifest now. `tags`: those beside the reference.
pub(super) fn manifest_stored(repository: &Name, pushed: &Pushed, by_digest: bool) -> Response {
    let Pushed { digest, subject, tags, refused } = pushed;
    let headers = [
        (LOCATION, value(format!("/v2/{repository}/manifests/{digest}"))),
        (CONTENT_DIGEST, value(digest.to_string())),
        (CACHE_CONTROL, fixed(NO_CACHE)),
    ];
    let mut response = empty(StatusCode::CREATED, headers);
    let headers = response.headers_mut();
    headers.extend(subject.map(|subject| (OCI_SUBJECT, value(subject.to_string()))));
    if by_digest && !tags.is_empty() {
        let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        headers.insert(OCI_TAG, value(tags.join(", ")));
    }
    if !refused.is_empty() {
        let refused: Vec<&str> = refused.iter().map(Tag::as_str).collect();
        let text = format!(
            "299 - \"not set, as they are immutable and name something else: {}\"",
            refused.join(", ")
        );
        headers.insert(WARNING, value(text));
    }
    response
}

/// What was to go is gone.
pub(super) fn deleted() -> Response {
    empty(StatusCode::ACCEPTED, [(CACHE_CONTROL, fixed(NO_CACHE))])
}

/// Where the next page of a list is: the same request, after `last`.
fn next_page(path: &str, query: &Query, last: &str) -> (HeaderName, HeaderValue) {
    (LINK, value(format!("<{path}?{}>; rel=\"next\"", query.with("last", last))))
}

/// A page of tags.
pub(super) fn tags(repository: &Name, list: &TagList, query: &Query) -> Response {
    #[derive(Serialize)]
    struct Document<'a> {
        name: &'a Name,
        tags: &'a [Tag],
    }

    let mut response = json(JSON, &Document { name: repository, tags: &list.tags });
    if let Some(last) = list.tags.last().filter(|_| list.more) {
        let path = format!("/v2/{repository}/tags/list");
        response.headers_mut().extend([next_page(&path, query, last.as_str())]);
    }
    response
}

/// A page of repositories.
pub(super) fn catalog(list: &RepositoryList, query: &Query) -> Response {
    #[derive(Serialize)]
    struct Document<'a> {
        repositories: &'a [Name],
    }

    let mut response = json(JSON, &Document { repositories: &list.repositories });
    if let Some(last) = list.repositories.last().filter(|_| list.more) {
        response.headers_mut().extend([next_page("/v2/_catalog", query, last.as_str())]);
    }
    response
}

/// No referrers: those of a digest that nothing here can have.
pub(super) fn no_referrers(filtered: bool) -> Response {
    let nothing = ReferrerList { manifests: Vec::new(), next: None, degraded: false, stale: false };
    referrers("", &nothing, filtered, &Query::default())
}

/// A page of referrers, at `path`.
pub(super) fn referrers(path: &str, list: &ReferrerList, filtered: bool, query: &Query) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u8,
        media_type: &'static str,
        manifests: Vec<Descriptor<'a>>,
    }

    let media_type = ManifestKind::OciIndex.media_type();
    let manifests = list.manifests.iter().map(Descriptor::from).collect();
    let mut response = json(media_type, &Index { schema_version: 2, media_type, manifests });
    let headers = response.headers_mut();
    if filtered {
        headers.insert(FILTERS_APPLIED, fixed("artifactType"));
    }
    headers.extend(list.next.as_deref().map(|last| next_page(path, query, last)));
    warn_if(list.degraded, headers);
    if list.stale {
        headers.append(WARNING, fixed(STALE));
    }
    response
}

/// The path of a list of referrers.
pub(super) fn referrers_path(repository: &Name, subject: &Digest) -> String {
    format!("/v2/{repository}/referrers/{subject}")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: Digest,
    size: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a Annotations>,
}

impl<'a> From<&'a ReferrerRow> for Descriptor<'a> {
    fn from(row: &'a ReferrerRow) -> Self {
        Self {
            media_type: &row.media_type,
            digest: row.digest,
            size: row.size,
            artifact_type: row.artifact_type.as_deref(),
            annotations: row.annotations.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w051_w912_a_warning_is_of_the_form_and_short() {
        for (warning, code) in
            [(DEGRADED, "299 - \""), (STALE, "110 - \""), (HELD_BACK, "299 - \""), (PARTIAL, "199 - \"")]
        {
            let text = warning.strip_prefix(code).unwrap().strip_suffix('"').unwrap();
            assert!(!text.contains(['"', '\\']) && warning.len() <= 4096);
        }
    }

    #[test]
    fn w205_nothing_and_one_byte_received_look_alike() {
        assert_eq!((received(0), received(1), received(2)), (value("0-0"), value("0-0"), value("0-1")));
    }
}
