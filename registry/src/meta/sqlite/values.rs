// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How values of the domain stand in columns, both ways.

use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use stowage_oci::{Algorithm, Digest};
use uuid::Uuid;

use crate::key::{Form, Generation};
use crate::meta::{Error, Location};

/// A column that does not hold what we write there.
pub(super) fn unreadable(table: &'static str, what: impl Display) -> Error {
    Error::Unreadable { table, what: format!("{what}") }
}

/// Microseconds.
pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

/// The reverse of [`micros`]; nothing where a clock was set back.
pub(super) fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

/// A size or sequence number. None that exists comes near the limit.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn digest(table: &'static str, bytes: &[u8]) -> Result<Digest, Error> {
    Digest::from_bytes(bytes).ok_or_else(|| unreadable(table, "digest"))
}

/// Text that was parsed before it was stored.
pub(super) fn parsed<T>(table: &'static str, text: &str) -> Result<T, Error>
where
    T: std::str::FromStr<Err: Display>,
{
    text.parse().map_err(|error: T::Err| unreadable(table, error))
}

pub(super) fn to_json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("lists and maps with text keys are JSON")
}

pub(super) fn from_json<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| unreadable(table, error))
}

/// `unhex` of it is what columns hold.
pub(super) fn digest_hex(digest: &Digest) -> String {
    format!("{:02x}{}", digest.algorithm().code(), digest.hex())
}

/// The reverse of [`digest_hex`]: `lower(hex(…))` of a column.
pub(super) fn digest_of_hex(table: &'static str, text: &str) -> Result<Digest, Error> {
    let read = || {
        let (code, hash) = text.split_at_checked(2)?;
        let algorithm = Algorithm::from_code(u8::from_str_radix(code, 16).ok()?)?;
        format!("{algorithm}:{hash}").parse().ok()
    };
    read().ok_or_else(|| unreadable(table, "digest"))
}

/// `unhex` of it is what columns hold.
pub(super) fn generation_hex(generation: Generation) -> String {
    generation.to_uuid().simple().to_string()
}

/// A list of digests to bind.
pub(super) fn digests_json(digests: &[Digest]) -> String {
    to_json(&digests.iter().map(digest_hex).collect::<Vec<_>>())
}

/// The columns `form` and `tail`.
pub(super) fn form_columns(form: Form) -> (i64, Option<u32>) {
    match form {
        Form::Inline => (1, None),
        Form::Upload => (2, None),
        Form::Tail(lease) => (3, Some(lease)),
    }
}

/// The same of a plan; without a form only a link is written.
pub(super) fn plan_columns(form: Option<Form>) -> (i64, Option<u32>) {
    form.map_or((0, None), form_columns)
}

/// The reverse of [`form_columns`]; `None`: absent.
pub(super) fn form(table: &'static str, form: i64, tail: Option<u32>) -> Result<Option<Form>, Error> {
    match (form, tail) {
        (0, _) => Ok(None),
        (1, None) => Ok(Some(Form::Inline)),
        (2, None) => Ok(Some(Form::Upload)),
        (3, Some(lease)) => Ok(Some(Form::Tail(lease))),
        (form, tail) => Err(unreadable(table, format_args!("form {form} with tail {tail:?}"))),
    }
}

/// Where stored data is.
pub(super) fn location(
    generation: Option<Uuid>,
    form_column: i64,
    tail: Option<u32>,
    size: u64,
) -> Result<Option<Location>, Error> {
    let Some(form) = form("blobs", form_column, tail)? else { return Ok(None) };
    let generation = generation.ok_or_else(|| unreadable("blobs", "data without generation"))?;
    Ok(Some(Location { generation: Generation::from_uuid(generation), form, size }))
}
