// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which row would own an object, by its key. Pure.

use stowage_oci::{Digest, Name, Tag};

use crate::key::{Form, Generation, Key};

/// Whose an object is, if there is such a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner<'a> {
    /// The registry's: it always stays.
    Registry,
    /// Nobody's.
    Nobody,
    /// The incarnation of that number, or a later one.
    Epoch(u32),
    /// The blob whose data is in that form of the generation, or the open upload of the generation. `None`: in
    /// whatever form.
    Data(Generation, Option<Form>),
    /// The link of that generation.
    Link(&'a Name, Digest, Generation),
    /// The manifest of that generation; a marker is owned by it until it is deleted, else until it is doomed.
    Manifest { repository: &'a Name, digest: Digest, generation: Generation, marker: bool },
    /// The run whose report is of that generation.
    Run(Generation),
    /// The tag one of whose records is of that generation.
    Tag(&'a Name, &'a Tag, Generation),
    /// The promotion of that generation.
    Ledger(Generation),
}

/// Whose the object of a key is.
pub(super) const fn owner(key: &Key) -> Owner<'_> {
    match key {
        Key::Format => Owner::Registry,
        Key::Epoch { epoch, .. } => Owner::Epoch(*epoch),
        Key::Blob { generation, form, .. } => Owner::Data(*generation, Some(*form)),
        Key::Upload { generation } => Owner::Data(*generation, Some(Form::Upload)),
        Key::UploadTail { generation, lease } => Owner::Data(*generation, Some(Form::Tail(*lease))),
        Key::Link { repository, digest, generation } => Owner::Link(repository, *digest, *generation),
        Key::Manifest { repository, digest, generation }
        | Key::Referrer { repository, digest, generation, .. } => {
            Owner::Manifest { repository, digest: *digest, generation: *generation, marker: false }
        }
        Key::ManifestDeleted { repository, digest, generation } => {
            Owner::Manifest { repository, digest: *digest, generation: *generation, marker: true }
        }
        Key::Tag { repository, tag, generation, .. }
        | Key::TagWithdrawn { repository, tag, generation, .. } => Owner::Tag(repository, tag, *generation),
        Key::Ledger { generation, .. } => Owner::Ledger(*generation),
        Key::Run { generation, .. } => Owner::Run(*generation),
        Key::Pulls { .. } | Key::PullSnapshot { .. } | Key::Probe { .. } => Owner::Nobody,
    }
}
