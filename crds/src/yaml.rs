// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! YAML that every reader reads alike.
//!
//! `kubectl` reads YAML 1.1, in which `no` is false, `1.10` a number and `22:22` another; we read YAML 1.2. So
//! text is quoted unless no version could take it for anything else.

use serde_json::Value;

/// The value in block style, fields in their order, text quoted where a reader could retype it.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(_) | Value::Array(_) if !is_empty(value) => block(value, 0, &mut out),
        scalar => entry(scalar, 0, &mut out),
    }
    out
}

/// Several values as documents of one stream.
#[must_use]
pub fn to_stream<'a>(values: impl IntoIterator<Item = &'a Value>) -> String {
    values.into_iter().flat_map(|value| ["---\n".to_owned(), to_string(value)]).collect()
}

/// Whether text may stand without quotes: every version of YAML reads it as this text.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    let legal = |c: char| c.is_ascii_alphanumeric() || " ._/()+-".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with(' ')
        && text.chars().all(legal)
        && !text.eq_ignore_ascii_case("null")
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Writes what is neither empty nor a scalar, each line indented; the first indentation is the caller's.
fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (at, (name, field)) in fields.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { &indent });
                out.push_str(&quoted(name));
                out.push(':');
                child(field, depth, out);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { &indent });
                out.push_str("- ");
                entry(item, depth + 1, out);
            }
        }
        scalar => entry(scalar, depth, out),
    }
}

/// Writes the value of a field, after its colon.
fn child(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(_) if !is_empty(value) => {
            out.push('\n');
            out.push_str(&"  ".repeat(depth + 1));
            block(value, depth + 1, out);
        }
        Value::Array(_) if !is_empty(value) => {
            out.push('\n');
            out.push_str(&"  ".repeat(depth));
            block(value, depth, out);
        }
        scalar => {
            out.push(' ');
            entry(scalar, depth, out);
        }
    }
}

/// Writes an item of a list, after its dash.
fn entry(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(_) | Value::Array(_) if !is_empty(value) => block(value, depth, out),
        scalar => {
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// A scalar, `{}` or `[]`. The JSON of each is YAML of every version.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_that_any_version_retypes_is_quoted() {
        for text in [
            "yes", "No", "ON", "y", "null", "~", "1.10", "22:22", "0x1f", "1e3", "", "a: b", "a #b", "-", "*",
        ] {
            assert!(!is_plain(text), "{text}");
        }
        for text in ["Registry", "stowage.dev/v1alpha1", "int32", "as in 50Gi"] {
            assert!(is_plain(text), "{text}");
        }
    }

    #[test]
    fn nested_values_are_written_in_block_style() {
        let value = json!({
            "a": { "b": [1, { "c": "no", "d": [] }, [true]], "e": {} },
            "f": "two\nlines",
        });
        let expected = "a:\n  b:\n  - 1\n  - c: \"no\"\n    d: []\n  - - true\n  e: {}\nf: \"two\\nlines\"\n";
        assert_eq!(to_string(&value), expected);
    }
}
