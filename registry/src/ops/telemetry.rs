// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The log: where it goes, in which form, and how much of it. And the place where traces are taken up.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::traces::{self, Traces};

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// Text on a terminal, JSON elsewhere.
    #[must_use]
    pub fn fitting() -> Self {
        if std::io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("the log filter {filter:?} cannot be read")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A word of the filter is no level.
    #[error(
        "the log filter {filter:?}: {word:?} is no level: off, error, warn, info, debug or trace; one of a module is \
         {word}=debug"
    )]
    Level {
        /// The filter.
        filter: String,
        /// The word.
        word: String,
    },
    /// There is a log already.
    #[error("the log is set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Sends the log to standard error. Standard output is for what a command was asked for. Traces are sent nowhere
/// until they are [started](Traces::start).
pub fn init(format: Format, filter: &str) -> Result<Traces, TelemetryError> {
    let levels = levels(filter)?;
    let no_trace = filter_fn(|metadata| metadata.target() != traces::TARGET);
    // Without a hint of its own it would make every callsite of every level be asked.
    let filter = levels.and(no_trace.with_max_level_hint(LevelFilter::TRACE));
    let base = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = match format {
        Format::Text => base.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => base.json().flatten_event(true).with_current_span(true).boxed(),
    };
    let traces = Traces::default();
    let all = tracing_subscriber::registry().with(log.with_filter(filter)).with(traces.layer());
    all.try_init().map_err(TelemetryError::Twice)?;
    Ok(traces)
}

/// A filter that says something. A word alone would be taken for a module, of which all is logged, and of all else
/// nothing: it must be a level.
fn levels(filter: &str) -> Result<EnvFilter, TelemetryError> {
    let parsed = EnvFilter::try_new(filter);
    let levels = parsed.map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let mut words = filter.split(',').map(str::trim).filter(|word| !word.is_empty());
    let is_level = |word: &str| word.contains(['=', '[']) || word.parse::<LevelFilter>().is_ok();
    match words.find(|word| !is_level(word)) {
        None => Ok(levels),
        Some(word) => Err(TelemetryError::Level { filter: filter.to_owned(), word: word.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels_and_levels_of_modules() {
        for good in ["", "info", "WARN", "info,stowage_registry::http=debug", "warn,[request]"] {
            assert!(levels(good).is_ok(), "{good}");
        }
        assert!(matches!(levels("info,sqlx=loud"), Err(TelemetryError::Filter { .. })));
        for (bad, named) in [("warning", "warning"), ("info, sqlx", "sqlx")] {
            let Err(TelemetryError::Level { word, .. }) = levels(bad) else { panic!("{bad} is taken") };
            assert_eq!(word, named);
        }
    }
}
