// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is done for each operation on a repository of a mirror.
//!
//! Manifests, blobs and what refers to them may come from the upstream; lists of tags and repositories are of what is
//! here. Nothing is written.

#![deny(clippy::wildcard_enum_match_arm)]

use axum::body::Body;
use axum::response::Response;
use futures::TryStreamExt as _;
use http::HeaderMap;
use http::header::VIA;
use stowage_oci::Reference;

use super::DataPort;
use super::conditions::{self, Selection};
use super::dispatch::{self, Incoming};
use super::error::Failure;
use super::middleware::MirrorFacts;
use super::respond;
use crate::auth::Authorized;
use crate::domain::{Asking, Error, MirrorResult, Mirrored, MirroredBlob, Reader};
use crate::operation::Operation;

pub(super) const NO_WRITES: &str = "this repository mirrors another registry and takes no writes";

/// Does what was authorized.
pub(super) async fn dispatch(
    port: &DataPort,
    authorized: &Authorized,
    at: &Mirrored,
    incoming: Incoming,
) -> Result<Response, Failure> {
    let registry = incoming.named.as_ref().and_then(|named| named.registry.clone());
    let mut response = answered(port, authorized, at, incoming)
        .await
        .unwrap_or_else(|failure| failure.into_response(Some(authorized.operation())));
    if let Some(registry) = registry {
        respond::for_registry(&registry, response.headers_mut());
    }
    Ok(response)
}

async fn answered(
    port: &DataPort,
    authorized: &Authorized,
    at: &Mirrored,
    incoming: Incoming,
) -> Result<Response, Failure> {
    let domain = &port.domain;
    let asking = asking(port, &incoming.headers);
    match authorized.operation() {
        Operation::GetManifest { reference, head, .. } => {
            let (answer, result) = domain.mirrored_manifest(at, reference, *head, asking).await;
            let response = answer.map_err(Failure::from).map(|answer| {
                port.note_pulled(authorized, &answer, *head);
                let not_modified = conditions::is_not_modified(&incoming.headers, &answer.digest);
                respond::manifest(answer, matches!(reference, Reference::Digest(_)), not_modified)
            });
            Ok(noted(port, authorized, at, response, result))
        }
        Operation::GetBlob { digest, head, .. } => {
            let (found, result) = domain.mirrored_blob(at, digest, *head, asking).await;
            let response = match found {
                Ok(found) => blob(port, found, *head, &incoming.headers).await,
                Err(error) => Err(error.into()),
            };
            Ok(noted(port, authorized, at, response, result))
        }
        Operation::ListReferrers { repository, subject: Some(subject), artifact_types, page } => {
            let (list, result) = domain.mirrored_referrers(at, subject, artifact_types, page, asking).await;
            let shown = incoming.named.as_ref().map_or(repository, |named| &named.name);
            let path = respond::referrers_path(shown, subject);
            let is_filtered = !artifact_types.is_empty();
            let response = list.map_err(Failure::from);
            let response =
                response.map(|list| respond::referrers(&path, &list, is_filtered, &incoming.query));
            Ok(noted(port, authorized, at, response, result))
        }
        Operation::OpenUpload { .. }
        | Operation::Append { .. }
        | Operation::CloseUpload { .. }
        | Operation::UploadStatus { .. }
        | Operation::CancelUpload { .. }
        | Operation::PutManifest { .. }
        | Operation::DeleteManifest { .. }
        | Operation::DeleteBlob { .. } => Err(Error::ModeForbids(NO_WRITES).into()),
        Operation::Ping
        | Operation::Catalog { .. }
        | Operation::Discover { .. }
        | Operation::ListTags { .. }
        | Operation::ListReferrers { subject: None, .. } => {
            dispatch::dispatch(port, authorized, incoming).await
        }
    }
}

/// Counts how a request was answered, and says so in the access line.
fn noted(
    port: &DataPort,
    authorized: &Authorized,
    at: &Mirrored,
    response: Result<Response, Failure>,
    result: MirrorResult,
) -> Response {
    let name = at.mirror.settings.name.clone();
    port.domain.mirror_metrics().answered(&name, result.name());
    let mut response = response.unwrap_or_else(|failure| failure.into_response(Some(authorized.operation())));
    response.extensions_mut().insert(MirrorFacts { name, result: result.name() });
    response
}

/// The blob, as the request wants it.
pub(super) async fn blob(
    port: &DataPort,
    found: MirroredBlob,
    head: bool,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    match found {
        MirroredBlob::Known(blob) => Ok(dispatch::blob_head(&blob, headers)),
        MirroredBlob::Stored(blob) if head => Ok(dispatch::blob_head(&blob.head(), headers)),
        MirroredBlob::Stored(blob) => dispatch::send_blob(port, blob, headers).await,
        MirroredBlob::Fetched(reader) => Ok(fetched(port, *reader, headers)),
    }
}

/// Whether we may ask for this request: not if we made it, over mirrors that lead back to us.
pub(super) fn asking(port: &DataPort, headers: &HeaderMap) -> Asking {
    let mirrors = port.domain.mirrors();
    // Every mirror says the same of who we are.
    let registry_id = mirrors.all().next().map(|mirror| mirror.settings.upstream.registry_id.as_str());
    registry_id.map_or(Asking::AsConfigured, |registry_id| asking_as(headers, registry_id))
}

fn asking_as(headers: &HeaderMap, registry_id: &str) -> Asking {
    let hops = headers.get_all(VIA).into_iter().filter_map(|value| value.to_str().ok());
    let mut names = hops.flat_map(|hops| hops.split(',')).filter_map(|hop| hop.split_whitespace().nth(1));
    if names.any(|name| name == registry_id) { Asking::InALoop } else { Asking::AsConfigured }
}

/// The bytes of a blob while it is fetched. Several ranges of it are not worth an answer of their own.
fn fetched(port: &DataPort, reader: Reader, headers: &HeaderMap) -> Response {
    let blob = reader.head();
    let (mut response, range) = match conditions::select(headers, &blob.digest, blob.size) {
        Selection::NotModified => return respond::blob_not_modified(&blob),
        Selection::Unsatisfiable => return respond::blob_out_of_range(&blob),
        Selection::Whole | Selection::Many(_) => (respond::blob(&blob), None),
        Selection::One(range) => (respond::blob_range(&blob, &range), Some(range)),
    };
    let sent = port.metrics.blob_bytes_sent();
    *response.body_mut() = Body::from_stream(reader.into_stream(range).inspect_ok(move |bytes| {
        sent.inc_by(bytes.len() as u64);
    }));
    response
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_request_that_passed_through_us_is_known_by_its_way() {
        let asking = |hops: &'static str| {
            asking_as(&HeaderMap::from_iter([(VIA, HeaderValue::from_static(hops))]), "us")
        };
        assert_eq!(asking("1.1 them"), Asking::AsConfigured);
        assert_eq!(asking("1.1 us"), Asking::InALoop);
        assert_eq!(asking("1.1 them, 1.1 us"), Asking::InALoop);
        assert_eq!(asking_as(&HeaderMap::new(), "us"), Asking::AsConfigured);
    }
}
