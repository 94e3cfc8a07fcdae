// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is done for each operation on a name of a virtual repository.
//!
//! Reads go to the members that the client may read; for writes the right on the member was decided already, and they
//! are done there. Answers name the repository as the client did.

#![deny(clippy::wildcard_enum_match_arm)]

use axum::response::Response;
use stowage_oci::{Name, Reference};

use super::dispatch::{self, Incoming};
use super::error::Failure;
use super::middleware::MirrorFacts;
use super::{DataPort, conditions, mirror, respond};
use crate::auth::Authorized;
use crate::domain::{Combined, Error, Joined, Source};
use crate::operation::{Action, Operation};

pub(super) const NO_WRITES: &str =
    "this virtual repository has no member that takes pushes and deletions of this name";

/// The member in which an operation is done that changes something.
pub(super) fn written_to<'a>(at: &'a Combined, operation: &Operation) -> Option<&'a Name> {
    match operation.action() {
        Some(Action::Push | Action::Delete) => at.push_to.as_ref(),
        Some(Action::Pull | Action::Promote | Action::Administer) | None => None,
    }
}

/// Does what was authorized.
pub(super) async fn dispatch(
    port: &DataPort,
    authorized: &Authorized,
    at: Combined,
    incoming: Incoming,
) -> Result<Response, Failure> {
    let at = at.readable(|member| authorized.may_read_member(member));
    match authorized.operation() {
        Operation::OpenUpload { .. }
        | Operation::Append { .. }
        | Operation::CloseUpload { .. }
        | Operation::UploadStatus { .. }
        | Operation::CancelUpload { .. }
        | Operation::PutManifest { .. }
        | Operation::DeleteManifest { .. }
        | Operation::DeleteBlob { .. } => {
            let Some(member) = &at.push_to else { return Err(Error::ModeForbids(NO_WRITES).into()) };
            let others = at.sources.iter().map(Source::stored).filter(|name| *name != member);
            let beside = others.cloned().collect();
            dispatch::dispatch(port, authorized, Incoming { beside, ..incoming }).await
        }
        Operation::GetManifest { reference, head, .. } => {
            let asking = mirror::asking(port, &incoming.headers);
            let found = port.domain.virtual_manifest(&at, reference, *head, asking).await;
            Ok(answered(port, authorized, found, |answer| {
                port.note_pulled(authorized, &answer, *head);
                let not_modified = conditions::is_not_modified(&incoming.headers, &answer.digest);
                respond::manifest(answer, matches!(reference, Reference::Digest(_)), not_modified)
            }))
        }
        Operation::GetBlob { digest, head, .. } => {
            let asking = mirror::asking(port, &incoming.headers);
            let Joined { answer, is_partial, mirrors } =
                port.domain.virtual_blob(&at, digest, *head, asking).await;
            let response = match answer {
                Ok(blob) => mirror::blob(port, blob, *head, &incoming.headers).await,
                Err(error) => Err(error.into()),
            };
            let found = Joined { answer: response, is_partial, mirrors };
            Ok(answered(port, authorized, found, std::convert::identity))
        }
        Operation::ListTags { repository, page } => {
            let found = port.domain.virtual_tags(&at, page).await;
            Ok(answered(port, authorized, found, |list| respond::tags(repository, &list, &incoming.query)))
        }
        Operation::ListReferrers { repository, subject: Some(subject), artifact_types, page } => {
            let asking = mirror::asking(port, &incoming.headers);
            let found = port.domain.virtual_referrers(&at, subject, artifact_types, page, asking).await;
            let path = respond::referrers_path(repository, subject);
            Ok(answered(port, authorized, found, |list| {
                respond::referrers(&path, &list, !artifact_types.is_empty(), &incoming.query)
            }))
        }
        Operation::ListReferrers { subject: None, .. }
        | Operation::Ping
        | Operation::Catalog { .. }
        | Operation::Discover { .. } => dispatch::dispatch(port, authorized, incoming).await,
    }
}

/// The answer, with what a client and the log are to know of the members that were asked.
fn answered<T, E: Into<Failure>>(
    port: &DataPort,
    authorized: &Authorized,
    found: Joined<T, E>,
    respond: impl FnOnce(T) -> Response,
) -> Response {
    let mut facts = None;
    for (mirror, result) in &found.mirrors {
        port.domain.mirror_metrics().answered(&mirror.settings.name, result.name());
        facts = Some(MirrorFacts { name: mirror.settings.name.clone(), result: result.name() });
    }
    let mut response = match found.answer {
        Ok(answer) => {
            let mut response = respond(answer);
            if found.is_partial {
                respond::partial(response.headers_mut());
            }
            response
        }
        Err(error) => error.into().into_response(Some(authorized.operation())),
    };
    if let Some(facts) = facts {
        response.extensions_mut().insert(facts);
    }
    response
}
