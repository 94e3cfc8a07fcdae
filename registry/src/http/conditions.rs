// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which part of a blob or manifest a request is answered with: conditions and ranges. Pure.

use std::ops::Range;

use http::HeaderMap;
use http::header::{HeaderName, IF_NONE_MATCH, IF_RANGE, RANGE};
use stowage_oci::{Digest, Ranges};

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// Nothing: the client has it.
    NotModified,
    /// Everything.
    Whole,
    /// These bytes.
    One(Range<u64>),
    /// These, each as a part of its own.
    Many(Vec<Range<u64>>),
    /// The range asked for has no byte of the content.
    Unsatisfiable,
}

/// The entity tag of content.
pub(super) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client has the content already.
pub(super) fn is_not_modified(headers: &HeaderMap, digest: &Digest) -> bool {
    let etag = etag(digest);
    let is_ours = |candidate: &str| candidate == "*" || candidate.trim_start_matches("W/") == etag;
    let values = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|candidate| is_ours(candidate.trim()))
}

/// What of `size` bytes a `GET` is answered with.
pub(super) fn select(headers: &HeaderMap, digest: &Digest, size: u64) -> Selection {
    if is_not_modified(headers, digest) {
        return Selection::NotModified;
    }
    let range = only(headers, &RANGE).filter(|_| range_still_applies(headers, digest));
    match Ranges::resolve(range, size) {
        Ranges::Whole => Selection::Whole,
        Ranges::One(range) => Selection::One(range),
        Ranges::Many(ranges) => Selection::Many(ranges),
        Ranges::Unsatisfiable => Selection::Unsatisfiable,
    }
}

/// `If-Range` must name the content by its strong tag; we have no dates.
fn range_still_applies(headers: &HeaderMap, digest: &Digest) -> bool {
    !headers.contains_key(IF_RANGE) || only(headers, &IF_RANGE) == Some(&etag(digest))
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use stowage_oci::Algorithm;

    use super::*;

    fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"")
    }

    fn of_100(pairs: &[(HeaderName, &str)]) -> Selection {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        select(&headers, &digest(), 100)
    }

    #[test]
    fn w046_the_tag_of_what_the_client_has_is_found_in_a_list() {
        let ours = etag(&digest());
        for value in ["*", &ours, &format!("W/{ours}"), &format!("\"x\", {ours}")] {
            assert_eq!(of_100(&[(IF_NONE_MATCH, value)]), Selection::NotModified, "{value}");
        }
        assert_eq!(of_100(&[(IF_NONE_MATCH, "\"x\"")]), Selection::Whole);
        assert_eq!(of_100(&[(IF_NONE_MATCH, &ours), (RANGE, "bytes=500-")]), Selection::NotModified);
    }

    #[test]
    fn w463_two_range_headers_are_none() {
        assert_eq!(of_100(&[(RANGE, "bytes=0-0")]), Selection::One(0..1));
        assert_eq!(of_100(&[(RANGE, "bytes=0-0"), (RANGE, "bytes=1-1")]), Selection::Whole);
    }

    #[test]
    fn w465_a_range_of_other_content_is_not_answered() {
        let ours = etag(&digest());
        assert_eq!(of_100(&[(RANGE, "bytes=0-0"), (IF_RANGE, &ours)]), Selection::One(0..1));
        for other in ["\"x\"", &format!("W/{ours}"), "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(of_100(&[(RANGE, "bytes=0-0"), (IF_RANGE, other)]), Selection::Whole, "{other}");
        }
    }
}
