// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A length of time as people write it: `90s`, `1h30m`, `7d`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::text::text_schema;

const PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$";
const MAX_LENGTH: usize = 32;
/// Longer spans count as this one, so that adding one to a point in time cannot overflow: a hundred years.
const LONGEST: std::time::Duration = std::time::Duration::from_hours(100 * 365 * 24);

/// A length of time in the units `ms`, `s`, `m`, `h`, `d` (24 h) and `w` (7 d); at most a hundred years count.
///
/// Keeps the text as written, so that a document says what its author said.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    text: String,
    value: std::time::Duration,
}

/// The text is not a length of time.
#[derive(Debug, thiserror::Error)]
#[error("not a duration: {0:?}; write a number and one of ms, s, m, h, d, w, as in 90s or 7d")]
pub struct NotADuration(String);

impl Duration {
    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The span itself, at most a hundred years.
    #[must_use]
    pub fn to_std(&self) -> std::time::Duration {
        self.value
    }
}

impl FromStr for Duration {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, NotADuration> {
        let value = parse(text).ok_or_else(|| NotADuration(text.to_owned()))?;
        Ok(Self { text: text.to_owned(), value })
    }
}

impl TryFrom<String> for Duration {
    type Error = NotADuration;

    fn try_from(text: String) -> Result<Self, NotADuration> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.text
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_schema!(Duration, PATTERN, MAX_LENGTH);

fn parse(text: &str) -> Option<std::time::Duration> {
    if text.is_empty() || text.len() > MAX_LENGTH {
        return None;
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (nanos, tail) = segment(rest)?;
        total = total.saturating_add(nanos);
        rest = tail;
    }
    let nanos = total.min(LONGEST.as_nanos());
    Some(std::time::Duration::from_nanos(
        u64::try_from(nanos).expect("a hundred years of nanoseconds fit u64"),
    ))
}

/// One number with its unit at the start of `text`, in nanoseconds, and what follows it.
fn segment(text: &str) -> Option<(u128, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, tail) = text.split_at(end);
    let (unit_nanos, tail) = unit(tail)?;
    Some((scaled(number, unit_nanos)?, tail))
}

fn unit(text: &str) -> Option<(u128, &str)> {
    const UNITS: [(&str, u128); 6] = [
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
        ("d", 86_400_000_000_000),
        ("w", 604_800_000_000_000),
    ];
    UNITS.iter().find_map(|(name, nanos)| Some((*nanos, text.strip_prefix(name)?)))
}

/// `number` (digits, perhaps with a fraction) times `unit`, rounded down; what exceeds `u128` saturates.
pub(crate) fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (digits(whole)?, fraction),
        None => (digits(number)?, "0"),
    };
    // Digits beyond the fifteenth are below a nanosecond of a week and below a byte of a petabyte.
    let fraction: String = fraction.chars().enumerate().map_while(|(at, c)| (at < 15).then_some(c)).collect();
    let places = u32::try_from(fraction.len()).ok()?;
    let part = digits(&fraction)?.saturating_mul(unit) / 10_u128.pow(places);
    Some(whole.saturating_mul(unit).saturating_add(part))
}

fn digits(text: &str) -> Option<u128> {
    let legal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    legal.then(|| text.parse().unwrap_or(u128::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration as Std;

    use super::*;

    #[test]
    fn every_unit_and_sums_of_them_are_read() {
        for (text, expected) in [
            ("0s", Std::ZERO),
            ("250ms", Std::from_millis(250)),
            ("90s", Std::from_secs(90)),
            ("1.5m", Std::from_secs(90)),
            ("1h30m", Std::from_mins(90)),
            ("7d", Std::from_hours(168)),
            ("1w", Std::from_hours(168)),
            ("0.000001s", Std::from_micros(1)),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().to_std(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "10", "1.s", ".5s", "1..2s", "-1s", "1 s", "1y", "1S", "1s ", "٣s"] {
            assert!(text.parse::<Duration>().is_err(), "{text:?}");
        }
        assert!("1".repeat(32).parse::<Duration>().is_err());
    }

    #[test]
    fn endless_spans_are_a_hundred_years() {
        let text = format!("{}w", "9".repeat(31));
        assert_eq!(text.parse::<Duration>().unwrap().to_std(), LONGEST);
    }

    #[test]
    fn the_text_survives_a_round_trip() {
        let duration: Duration = serde_json::from_str("\"1h0m\"").unwrap();
        assert_eq!(serde_json::to_string(&duration).unwrap(), "\"1h0m\"");
    }
}
