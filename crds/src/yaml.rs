// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! YAML that every reader reads alike.
//!
//! `kubectl` reads YAML 1.1, in which `no` is false, `1.10` a number and `22:22` another; we read YAML 1.2. So
//! text is quoted unless no version could take it for anything else.

use std::sync::LazyLock;

use regex::Regex;
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

/// Whether the versions of YAML disagree on a plain scalar: what one takes for text is a boolean, a number or a
/// date to the other. Who reads files that `kubectl` reads too should ask for quotes.
#[must_use]
pub fn is_retyped(plain: &str) -> bool {
    static RETYPED: LazyLock<Regex> = LazyLock::new(|| {
        let forms = [
            "y|Y|n|N|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF|=|<<",
            "[-+]?0b[01_]+",
            "[-+]?0o?[0-7_]+",
            "[-+]?0x[0-9A-Fa-f]*_[0-9A-Fa-f_]*",
            r"[-+]?[0-9.]*_[0-9_.]*",
            "[-+]?[0-9]+[eE][-+]?[0-9]+",
            r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?",
            "[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?",
        ];
        Regex::new(&format!("^({})$", forms.join("|"))).expect("the forms are expressions")
    });
    RETYPED.is_match(plain)
}

/// Whether text may stand without quotes in block style: every version of YAML reads it as this text.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    let legal = |c: char| c.is_ascii_alphanumeric() || " ._/()+-,;'`".contains(c);
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
    fn scalars_that_the_versions_read_differently_are_known() {
        for text in [
            "yes",
            "N",
            "Off",
            "0777",
            "0o17",
            "1_000",
            "22:22",
            "1:30:00.5",
            "1e3",
            "2026-01-02",
            "0b1",
            "<<",
        ] {
            assert!(is_retyped(text), "{text}");
        }
        for text in
            ["true", "5", "-1", "0", "1.10", "0x1f", "5Gi", "20s", "main", "nope", "http://a:80", "a_b", "**"]
        {
            assert!(!is_retyped(text), "{text}");
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
