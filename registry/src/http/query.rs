// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The parameters of a request: `application/x-www-form-urlencoded`, where `+` is a space.
//!
//! Repeats are kept, so that a reader can tell one value said twice from two values.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stands for itself in a path segment or a parameter (RFC 3986, "unreserved").
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The decoded parameters, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

/// A parameter that may be given once has two values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TwoValues;

impl Query {
    /// Decodes a raw query; escapes that are none stay as they are.
    pub(super) fn parse(raw: Option<&str>) -> Self {
        let pairs = raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(decode_pair).collect())
    }

    /// The value of a parameter; empty is as good as absent.
    pub(super) fn one<'a>(&'a self, name: &str) -> Result<Option<&'a str>, TwoValues> {
        let mut values = self.all(name).filter(|value| !value.is_empty());
        let first = values.next();
        if values.any(|other| Some(other) != first) { Err(TwoValues) } else { Ok(first) }
    }

    /// Whether the parameter is there at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Every value of a parameter, empty ones too.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The same parameters with another value of one, encoded again.
    pub(super) fn with(&self, name: &str, value: &str) -> String {
        let others = self.0.iter().filter(|(key, _)| key != name).map(|(k, v)| (k.as_str(), v.as_str()));
        let pairs =
            others.chain([(name, value)]).map(|(key, value)| format!("{}={}", encode(key), encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}

fn decode_pair((key, value): (&str, &str)) -> (String, String) {
    (decode(key), decode(value))
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// `text` with everything escaped that means something in a URL.
fn encode(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, RESERVED).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(raw: &str) -> Query {
        Query::parse(Some(raw))
    }

    #[test]
    fn w012_w015_escapes_and_plus_are_decoded_once() {
        assert_eq!(query("digest=sha256%3Aab").one("digest"), Ok(Some("sha256:ab")));
        assert_eq!(query("x=a+b%2Bc%2525").one("x"), Ok(Some("a b+c%25")));
        assert_eq!(query("x=%zz&&y").one("x"), Ok(Some("%zz")));
        assert_eq!(query("x=%ff").one("x"), Ok(Some("\u{fffd}")));
        assert!(query("y").has("y") && !query("").has("y") && !Query::parse(None).has("y"));
    }

    #[test]
    fn w016_equal_repeats_are_one_and_different_ones_are_refused() {
        assert_eq!(query("n=1&n=1").one("n"), Ok(Some("1")));
        assert_eq!(query("n=1&n=2").one("n"), Err(TwoValues));
        assert_eq!(query("n=&n=2").one("n"), Ok(Some("2")));
        assert_eq!(query("n=").one("n"), Ok(None));
    }

    #[test]
    fn w323_other_parameters_are_kept_and_what_could_end_a_header_is_escaped() {
        assert_eq!(query("n=2&last=a&ns=x%3E%22").with("last", "b+c"), "n=2&ns=x%3E%22&last=b%2Bc");
    }
}
