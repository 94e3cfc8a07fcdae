// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is done for each operation: one arm and one call of the domain.
//!
//! Takes an [`Authorized`], so nothing is reached that was not decided. No arm decides about content.

#![deny(clippy::wildcard_enum_match_arm)]

use std::ops::Range;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http::HeaderMap;
use http::header::{CONTENT_RANGE, CONTENT_TYPE};
use stowage_oci::{Algorithm, ContentRange, ContentRangeError, Digest, Name, Reference};
use uuid::Uuid;

use super::DataPort;
use super::body::RequestBody;
use super::conditions::{self, Selection};
use super::error::Failure;
use super::query::Query;
use super::respond;
use crate::auth::Authorized;
use crate::blobs::ByteStream;
use crate::domain::{Blob, BlobHead, Chunk, Domain, Error, PutManifest};
use crate::meta::UploadKey;
use crate::operation::{MountSource, Opening, Operation};

/// What of a request is read once its right is known.
pub(super) struct Incoming {
    pub(super) headers: HeaderMap,
    pub(super) query: Query,
    pub(super) body: RequestBody,
    /// The repository as the client named it.
    pub(super) named: Option<Named>,
    /// Repositories that the client may read, whose content a manifest may refer to as well.
    pub(super) beside: Vec<Name>,
}

/// A repository in the words of a client.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: Name,
    /// The registry that the client meant, if it said so.
    pub(super) registry: Option<String>,
}

/// Does what was authorized.
pub(super) async fn dispatch(
    port: &DataPort,
    authorized: &Authorized,
    incoming: Incoming,
) -> Result<Response, Failure> {
    let domain = &port.domain;
    let Incoming { headers, query, body, named, beside } = incoming;
    let shown =
        |repository: &Name| named.as_ref().map_or_else(|| repository.clone(), |named| named.name.clone());
    let own = |repository: &Name, upload: Uuid| key(authorized, repository, upload);
    match authorized.operation() {
        Operation::Ping => Ok(respond::ping()),
        Operation::GetBlob { repository, digest, head: true } => {
            head_blob(domain, repository, digest, &headers).await
        }
        Operation::GetBlob { repository, digest, head: false } => {
            get_blob(port, repository, digest, &headers).await
        }
        Operation::GetManifest { repository, reference, head } => {
            let answer = domain.manifest(repository, reference, *head).await?;
            port.note_pulled(authorized, &answer, *head);
            let not_modified = conditions::is_not_modified(&headers, &answer.digest);
            Ok(respond::manifest(answer, matches!(reference, Reference::Digest(_)), not_modified))
        }
        Operation::OpenUpload { repository, opening } => {
            open(port, authorized, (repository, &shown(repository)), opening, body).await
        }
        Operation::Append { repository, upload } => {
            let offset = domain.append(&own(repository, *upload), chunk(port, &headers, body)?).await?;
            Ok(respond::upload_appended(&shown(repository), *upload, offset))
        }
        Operation::CloseUpload { repository, upload, digest } => {
            domain.close(&own(repository, *upload), digest, chunk(port, &headers, body)?).await?;
            Ok(respond::blob_stored(&shown(repository), digest))
        }
        Operation::UploadStatus { repository, upload } => {
            let offset = domain.upload_offset(&own(repository, *upload)).await?;
            Ok(respond::upload_status(&shown(repository), *upload, offset))
        }
        Operation::CancelUpload { repository, upload } => {
            domain.cancel(&own(repository, *upload)).await?;
            Ok(respond::upload_cancelled())
        }
        Operation::PutManifest { repository, reference, digest, tags } => {
            let put = PutManifest {
                repository: repository.clone(),
                reference: reference.clone(),
                claimed: *digest,
                tags: tags.clone(),
                content_type: content_type(&headers),
                body: body.read_manifest().await?,
            };
            let pushed = domain.put_manifest_beside(put, &beside).await?;
            let by_digest = matches!(reference, Reference::Digest(_));
            Ok(respond::manifest_stored(&shown(repository), &pushed, by_digest))
        }
        Operation::ListTags { repository, page } => {
            Ok(respond::tags(&shown(repository), &domain.tags(repository, page).await?, &query))
        }
        Operation::DeleteManifest { repository, reference } => {
            match reference {
                Reference::Tag(tag) => domain.delete_tag(repository, tag).await?,
                Reference::Digest(digest) => domain.delete_manifest(repository, digest).await?,
            }
            Ok(respond::deleted())
        }
        Operation::DeleteBlob { repository, digest } => {
            domain.delete_blob(repository, digest).await?;
            Ok(respond::deleted())
        }
        Operation::ListReferrers { repository, subject: Some(subject), artifact_types, page } => {
            let list = domain.referrers(repository, subject, artifact_types, page).await?;
            let path = respond::referrers_path(&shown(repository), subject);
            Ok(respond::referrers(&path, &list, !artifact_types.is_empty(), &query))
        }
        Operation::ListReferrers { subject: None, artifact_types, .. } => {
            Ok(respond::no_referrers(!artifact_types.is_empty()))
        }
        Operation::Catalog { page } => {
            let list = {
                let virtuals = domain.virtuals();
                let visible = |name: &Name| authorized.may_read(name) && !virtuals.hides(name);
                domain.catalog(page, visible).await?
            };
            Ok(respond::catalog(&list, &query))
        }
        Operation::Discover { .. } => Ok(respond::discover()),
    }
}

/// Uploads are seen by who began them. The anonymous share the empty name, which no principal has.
fn principal(authorized: &Authorized) -> &str {
    authorized.subject().unwrap_or_default()
}

fn key(authorized: &Authorized, repository: &Name, id: Uuid) -> UploadKey {
    UploadKey { id, repository: repository.clone(), principal: principal(authorized).to_owned() }
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The body as a chunk, at the place and of the length that the request names.
fn chunk(port: &DataPort, headers: &HeaderMap, body: RequestBody) -> Result<Chunk, Failure> {
    let range = headers.get(CONTENT_RANGE).map(|value| {
        let text = value.to_str().map_err(|_not_ascii| ContentRangeError)?;
        text.parse::<ContentRange>()
    });
    let range = range.transpose()?;
    // Some clients close with the range of the last byte and no body.
    let is_close = body.length() == Some(0);
    let length = range.filter(|_| !is_close).map(|range| range.length()).or(body.length());
    Ok(Chunk { start: range.map(|range| range.start()), length, body: counted(port, body) })
}

fn counted(port: &DataPort, body: RequestBody) -> crate::domain::Body {
    let received = port.metrics.blob_bytes_received();
    body.into_stream(move |bytes| {
        received.inc_by(bytes);
    })
}

async fn head_blob(
    domain: &Domain,
    repository: &Name,
    digest: &Digest,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let blob = domain.blob(repository, digest, true).await?;
    Ok(blob_head(&blob.head(), headers))
}

/// The answer to `HEAD`.
pub(super) fn blob_head(blob: &BlobHead, headers: &HeaderMap) -> Response {
    if conditions::is_not_modified(headers, &blob.digest) {
        return respond::blob_not_modified(blob);
    }
    respond::blob(blob)
}

async fn get_blob(
    port: &DataPort,
    repository: &Name,
    digest: &Digest,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let blob = port.domain.blob(repository, digest, false).await?;
    send_blob(port, blob, headers).await
}

/// The bytes of a stored blob, as the request wants them.
pub(super) async fn send_blob(port: &DataPort, blob: Blob, headers: &HeaderMap) -> Result<Response, Failure> {
    let (domain, told, size) = (&port.domain, blob.head(), blob.location.size);
    let selection = conditions::select(headers, &blob.digest, size);
    if matches!(selection, Selection::Whole | Selection::One(_))
        && port.settings.load().redirect.as_ref().is_some_and(|redirect| redirect.fits(headers, size))
        && let Some(address) = domain.direct_address(&blob).await?
    {
        return Ok(respond::blob_elsewhere(&told, &address));
    }
    let (mut response, content) = match selection {
        Selection::NotModified => return Ok(respond::blob_not_modified(&told)),
        Selection::Unsatisfiable => return Ok(respond::blob_out_of_range(&told)),
        Selection::Whole => (respond::blob(&told), domain.read_blob(&blob, None).await?),
        Selection::One(range) => {
            (respond::blob_range(&told, &range), domain.read_blob(&blob, Some(range)).await?)
        }
        Selection::Many(ranges) => parts(domain, blob, ranges).await?,
    };
    let sent = port.metrics.blob_bytes_sent();
    *response.body_mut() = Body::from_stream(content.inspect_ok(move |bytes| {
        sent.inc_by(bytes.len() as u64);
    }));
    Ok(response)
}

/// Several parts of a blob, read one after the other. The first is opened now: what is missing is a 404.
async fn parts(
    domain: &Domain,
    blob: Blob,
    ranges: Vec<Range<u64>>,
) -> Result<(Response, ByteStream), Failure> {
    let boundary = Uuid::new_v4().simple().to_string();
    let size = blob.location.size;
    let head = |(at, range): (usize, &Range<u64>)| respond::part_head(&boundary, at == 0, range, size);
    let heads: Vec<Bytes> = ranges.iter().enumerate().map(head).collect();
    let end = respond::part_end(&boundary);
    let framing = heads.iter().chain([&end]).map(|text| text.len() as u64).sum::<u64>();
    let length = framing + ranges.iter().map(|range| range.end - range.start).sum::<u64>();
    let response = respond::blob_parts(&blob.head(), &boundary, length);

    let first = domain.read_blob(&blob, ranges.first().cloned()).await?;
    let domain = domain.clone();
    let rest = stream::iter(ranges.into_iter().skip(1)).then(move |range| {
        let domain = domain.clone();
        async move { domain.read_blob(&blob, Some(range)).await }
    });
    let contents = stream::once(async move { Ok(first) }).chain(rest);
    let parts = stream::iter(heads).zip(contents).map(|(head, content)| framed(head, content)).flatten();
    Ok((response, parts.chain(stream::once(async move { Ok(end) })).boxed()))
}

/// A part and what stands before it. One that cannot be opened ends the answer with an error.
fn framed(
    head: Bytes,
    content: Result<ByteStream, Error>,
) -> impl Stream<Item = Result<Bytes, crate::blobs::Error>> {
    let content = content.unwrap_or_else(|error| {
        let source = Box::new(error);
        let (operation, key) = ("get", String::new());
        stream::once(async move { Err(crate::blobs::Error::Unavailable { operation, key, source }) }).boxed()
    });
    stream::once(async move { Ok(head) }).chain(content)
}

/// Begins an upload, or does in one request what it is for.
async fn open(
    port: &DataPort,
    authorized: &Authorized,
    (repository, shown): (&Name, &Name),
    opening: &Opening,
    body: RequestBody,
) -> Result<Response, Failure> {
    match opening {
        Opening::Mount { digest, from, or } => {
            let sources = sources(port, authorized, digest, from).await?;
            if port.domain.mount(repository, digest, &sources).await? {
                return Ok(respond::blob_stored(shown, digest));
            }
            Box::pin(open(port, authorized, (repository, shown), or, body)).await
        }
        Opening::Monolithic { digest } if announces_more(&body, digest) => {
            open_session(port, authorized, (repository, shown), digest.algorithm()).await
        }
        Opening::Monolithic { digest } => {
            let chunk = Chunk { start: None, length: body.length(), body: counted(port, body) };
            port.domain.push_blob(repository, principal(authorized), digest, chunk).await?;
            Ok(respond::blob_stored(shown, digest))
        }
        Opening::Session { algorithm } => {
            open_session(port, authorized, (repository, shown), *algorithm).await
        }
    }
}

/// A client that names the digest and sends nothing begins an upload, unless the blob is nothing.
fn announces_more(body: &RequestBody, digest: &Digest) -> bool {
    body.length() == Some(0) && Digest::of(digest.algorithm(), b"") != *digest
}

async fn open_session(
    port: &DataPort,
    authorized: &Authorized,
    (repository, shown): (&Name, &Name),
    algorithm: Algorithm,
) -> Result<Response, Failure> {
    let upload = port.domain.open_upload(repository, principal(authorized), algorithm).await?;
    Ok(respond::upload_opened(shown, upload, port.domain.preferred_chunk()))
}

/// Where the blob may be mounted from. A source that the client may not read is looked at all the same, so
/// that it cannot be told from one that has no such blob.
async fn sources(
    port: &DataPort,
    authorized: &Authorized,
    digest: &Digest,
    from: &MountSource,
) -> Result<Vec<Name>, Error> {
    match from {
        MountSource::Nowhere => Ok(Vec::new()),
        MountSource::Any => {
            let mut sources = port.domain.repositories_with(digest).await?;
            let virtuals = port.domain.virtuals();
            sources.retain(|name| authorized.may_read(name) && !virtuals.hides(name));
            Ok(sources)
        }
        MountSource::Repository(source) if authorized.may_read(source) => {
            let mut members = port.domain.virtuals().members_of(source, &port.domain.mirrors());
            members.retain(|member| authorized.may_read_member(member));
            Ok(if members.is_empty() { vec![source.clone()] } else { members })
        }
        MountSource::Repository(source) => match port.domain.blob(source, digest, false).await {
            Ok(_) | Err(Error::BlobUnknown) => Ok(Vec::new()),
            Err(error) => Err(error),
        },
    }
}
