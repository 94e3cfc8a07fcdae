// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What an upstream says about how often it may be asked (pure).

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use jiff::Timestamp;

/// The limits of an upstream as one answer told them. Nothing told is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Requests in a window.
    pub limit: Option<u64>,
    /// Requests that are left in it.
    pub remaining: Option<u64>,
    /// How long the window is.
    pub window: Option<Duration>,
    /// Not before so long.
    pub retry_after: Option<Duration>,
}

/// No upstream is believed that it wants to be left alone for longer.
const LONGEST: Duration = Duration::from_hours(24);

/// Docker Hub's names, and those of others for the same.
const REMAINING: [&str; 2] = ["ratelimit-remaining", "x-ratelimit-remaining"];
const LIMIT: [&str; 2] = ["ratelimit-limit", "x-ratelimit-limit"];

impl Budget {
    /// As the head of an answer tells it that came at `now`.
    pub(super) fn read(headers: &HeaderMap, now: Timestamp) -> Self {
        let text = |names: &[&str]| names.iter().find_map(|name| headers.get(*name)?.to_str().ok());
        let (limit, limit_window) = text(&LIMIT).map(counted).unwrap_or_default();
        let (remaining, remaining_window) = text(&REMAINING).map(counted).unwrap_or_default();
        let retry_after = headers.get(RETRY_AFTER).and_then(|value| wait(value.to_str().ok()?, now));
        Self { limit, remaining, window: limit_window.or(remaining_window), retry_after }
    }
}

/// `100;w=21600`: a count, and how many seconds it is for.
fn counted(text: &str) -> (Option<u64>, Option<Duration>) {
    let mut parts = text.split([';', ',']).map(str::trim);
    let count = parts.next().and_then(|count| count.parse().ok());
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok());
    (count, window.map(Duration::from_secs))
}

/// Seconds, or a date.
fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default().min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&'static str, &'static str)]) -> Budget {
        let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Budget::read(&fields.collect(), "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn f38b_the_remaining_pulls_of_docker_hub_are_read() {
        let read = read(&[("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")]);
        let window = Some(Duration::from_hours(6));
        assert_eq!(read, Budget { limit: Some(100), remaining: Some(76), window, retry_after: None });
    }

    #[test]
    fn p18_a_wait_is_seconds_or_a_date_and_never_more_than_a_day() {
        let wait = |text: &'static str| read(&[("retry-after", text)]).retry_after.map(|wait| wait.as_secs());
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("Thu, 01 Jan 2026 00:01:00 GMT"), Some(60));
        assert_eq!(wait("Wed, 31 Dec 2025 00:00:00 GMT"), Some(0));
        assert_eq!(wait("99999999999"), Some(86_400));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
    }

    #[test]
    fn nonsense_is_as_good_as_nothing() {
        assert_eq!(read(&[("ratelimit-remaining", "many"), ("ratelimit-limit", "")]), Budget::default());
    }
}
