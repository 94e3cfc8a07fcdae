// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which bytes a `Range` header asks for (RFC 9110, section 14), with the choices that clients need.

use std::ops::Range;

/// The most parts that are answered one by one.
const MAX_PARTS: usize = 256;

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// Everything: nothing was asked for, or nothing that we answer in parts. Many clients take a refusal of
    /// several ranges as the end, and the whole as an invitation to cut it themselves.
    Whole,
    /// These bytes.
    One(Range<u64>),
    /// These, in this order; disjoint, at least two.
    Many(Vec<Range<u64>>),
    /// The one range asked for has no byte of the content.
    Unsatisfiable,
}

impl Ranges {
    /// Resolves the header's value against content of `size` bytes. Content without bytes is always whole.
    #[must_use]
    pub fn resolve(header: Option<&str>, size: u64) -> Self {
        let Some(specs) = header.and_then(specs).filter(|_| size > 0) else { return Self::Whole };
        let resolved: Vec<Option<Range<u64>>> = specs.iter().map(|spec| spec.resolve(size)).collect();
        match resolved.as_slice() {
            [None] => Self::Unsatisfiable,
            [Some(range)] => Self::One(range.clone()),
            _ => resolved
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .filter(|ranges| are_disjoint(ranges))
                .map_or(Self::Whole, Self::Many),
        }
    }
}

/// One element of the header.
#[derive(Clone, Copy)]
enum Spec {
    /// `<first>-[<last>]`, inclusive.
    From(u64, Option<u64>),
    /// `-<length>`: the last bytes.
    Last(u64),
}

impl Spec {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        match (first, last) {
            ("", length) => number(length).map(Self::Last),
            (first, "") => Some(Self::From(number(first)?, None)),
            (first, last) => Some(Self::From(number(first)?, Some(number(last)?))),
        }
    }

    /// The bytes it means; `None`: there are none.
    fn resolve(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first, None) => first..size,
            Self::From(first, Some(last)) => first..last.saturating_add(1).min(size),
            Self::Last(length) => size.saturating_sub(length)..size,
        };
        (!range.is_empty()).then_some(range)
    }
}

/// The elements of a header; `None` when it is not one of bytes, is malformed, or has too many.
fn specs(header: &str) -> Option<Vec<Spec>> {
    let (unit, list) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || list.split(',').nth(MAX_PARTS).is_some() {
        return None;
    }
    list.split(',').map(|element| Spec::parse(element.trim_matches([' ', '\t']))).collect()
}

/// Digits to a number; those too large for us are past every end.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

fn are_disjoint(ranges: &[Range<u64>]) -> bool {
    let mut sorted: Vec<&Range<u64>> = ranges.iter().collect();
    sorted.sort_by_key(|range| range.start);
    sorted.is_sorted_by(|left, right| left.end <= right.start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_100(header: &str) -> Ranges {
        Ranges::resolve(Some(header), 100)
    }

    #[test]
    fn w455_w456_w457_w458_single_ranges_are_clamped_to_the_content() {
        for (header, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-1", 0..2),
            ("bytes=50-", 50..100),
            ("bytes=0-", 0..100),
            ("bytes=-10", 90..100),
            ("bytes=-500", 0..100),
            ("bytes=90-500", 90..100),
            ("bytes=0-99999999999999999999", 0..100),
            ("bytes=99-18446744073709551615", 99..100),
            ("Bytes= 1-2 ", 1..3),
        ] {
            assert_eq!(of_100(header), Ranges::One(expected), "{header}");
        }
    }

    #[test]
    fn w459_w460_a_range_without_a_byte_is_unsatisfiable() {
        for header in ["bytes=100-", "bytes=500-600", "bytes=-0", "bytes=5-2", "bytes=99999999999999999999-"]
        {
            assert_eq!(of_100(header), Ranges::Unsatisfiable, "{header}");
        }
    }

    #[test]
    fn w461_several_ranges_keep_their_order() {
        assert_eq!(of_100("bytes=0-1,4-5"), Ranges::Many(vec![0..2, 4..6]));
        assert_eq!(of_100("bytes=-10, 0-0 ,\t4-5"), Ranges::Many(vec![90..100, 0..1, 4..6]));
        assert_eq!(of_100("bytes=0-1,2-3"), Ranges::Many(vec![0..2, 2..4]));
    }

    #[test]
    fn w462_w803_w908_what_we_do_not_answer_in_parts_is_whole() {
        for header in ["bytes=0-5,5-9", "bytes=0-1,100-", "bytes=0-1,5-2", "bytes=0-1,0-1"] {
            assert_eq!(of_100(header), Ranges::Whole, "{header}");
        }
        let many = |count: u64| {
            let list: Vec<String> = (0..count).map(|n| format!("{}-{}", n * 2, n * 2)).collect();
            Ranges::resolve(Some(&format!("bytes={}", list.join(","))), 1000)
        };
        assert!(matches!(many(256), Ranges::Many(parts) if parts.len() == 256));
        assert_eq!(many(257), Ranges::Whole);
    }

    #[test]
    fn w463_w464_what_is_no_range_is_whole_and_so_is_nothing() {
        for header in [
            "bytes=abc",
            "items=0-1",
            "bytes=",
            "bytes=-",
            "bytes=1",
            "bytes=+1-2",
            "bytes",
            "",
            "bytes=0-1,",
        ] {
            assert_eq!(of_100(header), Ranges::Whole, "{header}");
        }
        for header in ["bytes=0-0", "bytes=5-", "bytes=-1", "bytes=5-2"] {
            assert_eq!(Ranges::resolve(Some(header), 0), Ranges::Whole, "{header}");
        }
        assert_eq!(Ranges::resolve(None, 100), Ranges::Whole);
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_answer_lies_within_the_content(
            header in "bytes=[0-9,-]{0,20}", size in 0_u64..200,
        ) {
            let inside = |range: &Range<u64>| range.start < range.end && range.end <= size;
            match Ranges::resolve(Some(&header), size) {
                Ranges::One(range) => prop_assert!(inside(&range)),
                Ranges::Many(ranges) => prop_assert!(ranges.len() > 1 && ranges.iter().all(inside)),
                Ranges::Whole | Ranges::Unsatisfiable => {}
            }
        }
    }
}
