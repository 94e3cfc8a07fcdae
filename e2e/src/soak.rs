// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! How long the tests of reliability go on.

use std::time::Duration;

use anyhow::{Context, Result};

/// As long as `$SOAK` says (`90s`, `10m`, `4h`); without it, as long as the test takes among all others.
pub fn soak_length(otherwise: Duration) -> Result<Duration> {
    let Ok(text) = std::env::var("SOAK") else { return Ok(otherwise) };
    length(&text).with_context(|| format!("SOAK is {text:?}, which is no length of time"))
}

fn length(text: &str) -> Option<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let seconds = units.into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(seconds)
    });
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_a_number_and_a_unit() {
        assert_eq!(length("90s"), Some(Duration::from_secs(90)));
        assert_eq!(length("4h"), Some(Duration::from_hours(4)));
        for bad in ["", "90", "m", "1.5h", "-1s", "1d"] {
            assert_eq!(length(bad), None, "{bad}");
        }
    }
}
