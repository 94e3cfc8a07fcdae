// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! From columns to values. What cannot be read stops the step: unknown is never guessed.

use std::time::Duration;

use stowage_oci::{Algorithm, Digest};
use uuid::Uuid;

use crate::key::{Form, Generation};
use crate::meta::{Error, Location};

pub(super) fn unreadable(table: &'static str, what: &(impl ToString + ?Sized)) -> Error {
    Error::Unreadable { table, what: what.to_string() }
}

pub(super) fn digest(table: &'static str, bytes: &[u8]) -> Result<Digest, Error> {
    Digest::from_bytes(bytes).ok_or_else(|| unreadable(table, "digest"))
}

pub(super) fn algorithm(table: &'static str, code: i16) -> Result<Algorithm, Error> {
    let code = u8::try_from(code).ok();
    code.and_then(Algorithm::from_code).ok_or_else(|| unreadable(table, "algorithm"))
}

pub(super) fn parsed<T: std::str::FromStr>(table: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_unlike| unreadable(table, text))
}

/// Numbers are signed in the database and unsigned here.
pub(super) fn number<T, U: TryFrom<T>>(table: &'static str, number: T) -> Result<U, Error>
where
    T: Copy + ToString,
{
    U::try_from(number).map_err(|_outside| unreadable(table, &number))
}

/// The other way; what we cannot store, nobody can have sent.
pub(super) fn stored(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|source| Error::Broken(sqlx::Error::Encode(source.into())))
}

/// A span of time in seconds; none where a clock was set back.
pub(super) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// As [`stored`].
pub(super) fn stored_small(number: u32) -> Result<i32, Error> {
    i32::try_from(number).map_err(|source| Error::Broken(sqlx::Error::Encode(source.into())))
}

pub(super) fn digests(digests: &[Digest]) -> Vec<Vec<u8>> {
    digests.iter().map(Digest::to_bytes).collect()
}

/// The columns `form` and `tail`.
pub(super) fn form_columns(form: Form) -> Result<(i16, Option<i32>), Error> {
    Ok(match form {
        Form::Inline => (1, None),
        Form::Upload => (2, None),
        Form::Tail(lease) => (3, Some(stored_small(lease)?)),
    })
}

/// The same of a plan; without a form only a link is written.
pub(super) fn plan_columns(form: Option<Form>) -> Result<(i16, Option<i32>), Error> {
    form.map_or(Ok((0, None)), form_columns)
}

/// `None`: absent.
pub(super) fn form(table: &'static str, form: i16, tail: Option<i32>) -> Result<Option<Form>, Error> {
    match (form, tail) {
        (0, _) => Ok(None),
        (1, None) => Ok(Some(Form::Inline)),
        (2, None) => Ok(Some(Form::Upload)),
        (3, Some(lease)) => Ok(Some(Form::Tail(number(table, lease)?))),
        _ => Err(unreadable(table, "form")),
    }
}

/// Where a stored blob is.
pub(super) fn location(
    generation: Option<Uuid>,
    form_code: i16,
    tail: Option<i32>,
    size: i64,
) -> Result<Location, Error> {
    let form = form("blobs", form_code, tail)?.ok_or_else(|| unreadable("blobs", "form"))?;
    let generation = generation.ok_or_else(|| unreadable("blobs", "stored without a generation"))?;
    Ok(Location { generation: Generation::from_uuid(generation), form, size: number("blobs", size)? })
}
