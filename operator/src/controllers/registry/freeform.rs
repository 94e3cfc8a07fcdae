// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Parts of a spec that are Kubernetes' own types.
//!
//! Guarantees: a field that the type does not have is an error, not a silence.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use stowage_crds::Freeform;
use thiserror::Error;

/// The part is not of its type.
#[derive(Debug, Error)]
pub(super) enum FreeformError {
    /// A value is of another type.
    #[error("{0}")]
    Malformed(#[from] serde_json::Error),
    /// The type has no such field.
    #[error("unknown field {0}")]
    UnknownField(String),
}

/// Reads a part as its type.
pub(super) fn read<T: DeserializeOwned + Serialize>(asked: &Freeform) -> Result<T, FreeformError> {
    let asked = with_text_quantities(Value::Object(asked.0.clone()));
    let parsed: T = serde_json::from_value(asked.clone())?;
    match lost(&asked, &serde_json::to_value(&parsed)?) {
        Some(field) => Err(FreeformError::UnknownField(field)),
        None => Ok(parsed),
    }
}

/// `cpu: 2` is a legal amount in YAML; the type wants text.
fn with_text_quantities(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(fields.into_iter().map(with_text_amounts).collect()),
        Value::Array(items) => Value::Array(items.into_iter().map(with_text_quantities).collect()),
        scalar => scalar,
    }
}

fn with_text_amounts((key, value): (String, Value)) -> (String, Value) {
    let value = match value {
        Value::Object(amounts) if key == "requests" || key == "limits" => {
            let text = |amount: Value| match amount {
                Value::Number(number) => Value::String(number.to_string()),
                other => other,
            };
            Value::Object(
                amounts.into_iter().map(|(name, amount)| (name, text(amount))).collect::<Map<_, _>>(),
            )
        }
        other => with_text_quantities(other),
    };
    (key, value)
}

/// The first field of `asked` that is missing in `kept`.
fn lost(asked: &Value, kept: &Value) -> Option<String> {
    match (asked, kept) {
        (Value::Object(asked), Value::Object(kept)) => asked.iter().find_map(|(key, value)| {
            let empty = value.is_null()
                || value.as_object().is_some_and(Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty);
            match kept.get(key) {
                None if empty => None,
                None => Some(key.clone()),
                Some(kept) => lost(value, kept).map(|field| format!("{key}.{field}")),
            }
        }),
        (Value::Array(asked), Value::Array(kept)) => {
            let items = asked.iter().zip(kept).enumerate();
            items
                .into_iter()
                .find_map(|(at, (asked, kept))| lost(asked, kept).map(|field| format!("{at}.{field}")))
        }
        _ => None,
    }
}
