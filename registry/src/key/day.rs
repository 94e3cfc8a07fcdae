// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Days: as coarse as it is known when something was pulled.

use std::fmt;
use std::str::FromStr;

use jiff::Span;
use jiff::civil::{Date, date};

const FIRST: Date = date(1970, 1, 1);

/// A day, in UTC, by the database's clock. Written `yyyymmdd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

impl Day {
    /// The day so many days after the first of 1970; `None`: outside of the years 1970 to 9999.
    #[must_use]
    pub fn since_1970(days: i32) -> Option<Self> {
        let span = Span::new().try_days(days).ok().filter(|_| days >= 0)?;
        FIRST.checked_add(span).ok().map(Self)
    }

    /// How many days after the first of 1970.
    #[must_use]
    pub fn days_since_1970(self) -> i32 {
        self.0.since(FIRST).map_or(0, |span| span.get_days())
    }

    /// The day after so many more, or the last there is.
    #[must_use]
    pub fn plus(self, days: i32) -> Self {
        Self::since_1970(self.days_since_1970().saturating_add(days)).unwrap_or(self)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}{:02}{:02}", self.0.year(), self.0.month(), self.0.day())
    }
}

/// The text is not a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a day as yyyymmdd")]
pub struct NotADay;

impl FromStr for Day {
    type Err = NotADay;

    fn from_str(text: &str) -> Result<Self, NotADay> {
        let number =
            |from, to| text.get(from..to).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let day = || {
            let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
            let date = Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()?;
            (text.len() == 8 && date >= FIRST).then_some(Self(date))
        };
        day().ok_or(NotADay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_without_dashes_and_reads_back() {
        for (days, text) in [(0, "19700101"), (19_782, "20240229"), (20_786, "20261129")] {
            let day = Day::since_1970(days).unwrap();
            assert_eq!((day.to_string().as_str(), day.days_since_1970()), (text, days));
            assert_eq!(text.parse(), Ok(day));
        }
        assert_eq!(Day::since_1970(1).unwrap().plus(1), Day::since_1970(2).unwrap());
        assert_eq!((Day::since_1970(-1), Day::since_1970(i32::MAX)), (None, None));
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in ["", "20261301", "20260230", "2026-1-1", "202601011", "19691231", "+0260101", "２０２６"]
        {
            assert_eq!(text.parse::<Day>(), Err(NotADay), "{text}");
        }
    }
}
