// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The operator's answer: a file that appears, or changes, while a run waits for it.

use std::path::Path;
use std::time::Duration;

use stowage_crds::usage::{USAGE_FILE, UsageAnswer};
use tokio::time::Instant;

use super::{Asker, Unanswered};
use crate::ops::clock;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How old an answer may be: a run that waits in a queue of its own may be slow to read it.
const OLDEST: i64 = 60 * 60;
/// How far ahead of us the clock of the operator may be, in seconds.
const AHEAD: i64 = 5 * 60;

/// The answer to the run, when it is there.
pub(super) async fn awaited(asker: &Asker) -> Result<UsageAnswer, Unanswered> {
    let Some(uid) = &asker.uid else {
        return Err(Unanswered::Missing(
            "the operator answers Jobs that it made, and this run is none: ask for one with the annotation \
             stowage.dev/run-requested-at"
                .to_owned(),
        ));
    };
    let file = asker.folder.join(USAGE_FILE);
    let begun = Instant::now();
    loop {
        if let Some(answer) = read(&file).await.filter(|answer| answer.answers.contains(uid)) {
            return checked(answer);
        }
        if begun.elapsed() >= asker.patience {
            return Err(Unanswered::Missing(format!(
                "the operator did not answer this run ({uid}) in {} within {:?}: look at the condition \
                 UsageProtected of the Registry",
                file.display(),
                asker.patience
            )));
        }
        tokio::time::sleep(LOOK.min(asker.patience)).await;
    }
}

/// A file that is not there, or not ours, is no answer yet.
async fn read(file: &Path) -> Option<UsageAnswer> {
    let bytes = tokio::fs::read(file).await.ok()?;
    let answer = serde_json::from_slice(&bytes);
    if let Err(error) = &answer {
        tracing::warn!(file = %file.display(), %error, "what runs cannot be read");
    }
    answer.ok()
}

fn checked(answer: UsageAnswer) -> Result<UsageAnswer, Unanswered> {
    let now = i64::try_from(clock::seconds()).unwrap_or(i64::MAX);
    let age = now.saturating_sub(answer.observed_at.0.as_second());
    if age > OLDEST {
        return Err(Unanswered::Stale(format!("the operator looked {} minutes ago", age / 60)));
    }
    if age < -AHEAD {
        return Err(Unanswered::Stale(format!(
            "the operator looked {} minutes from now: compare the clocks of the nodes",
            -age / 60
        )));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ops::tasks::Tasks;

    fn asker(folder: &Path, patience: Duration) -> Asker {
        Asker { uid: Some("me".to_owned()), folder: folder.to_owned(), patience }
    }

    fn answer(folder: &Path, uid: &str, seconds_ago: i64) {
        let at = i64::try_from(clock::seconds()).unwrap() - seconds_ago;
        let at = jiff::Timestamp::from_second(at).unwrap().to_string();
        let text = json!({
            "answers": ["another", uid], "observedAt": at, "digests": ["sha256:00"], "references": ["a:1"],
        });
        std::fs::write(folder.join(USAGE_FILE), text.to_string()).unwrap();
    }

    #[tokio::test]
    async fn a_run_waits_for_the_answer_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        answer(folder.path(), "earlier", 5);
        let waits = asker(folder.path(), Duration::from_secs(30));
        let answered = Tasks::new().spawn(async move { awaited(&waits).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!answered.is_finished(), "that was for others");
        std::fs::write(folder.path().join(USAGE_FILE), "{").unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!answered.is_finished(), "it is being written");
        answer(folder.path(), "me", 5);
        assert_eq!(answered.await.unwrap().unwrap().references, ["a:1"]);
    }

    #[tokio::test]
    async fn without_an_answer_in_time_a_run_refuses() {
        let folder = tempfile::tempdir().unwrap();
        answer(folder.path(), "another", 5);
        let hasty = asker(folder.path(), Duration::from_millis(50));
        let refused = awaited(&hasty).await.unwrap_err();
        assert!(
            matches!(refused, Unanswered::Missing(_)) && refused.to_string().contains("(me)"),
            "{refused}"
        );
        let nobody = Asker { uid: None, ..hasty };
        assert!(matches!(awaited(&nobody).await, Err(Unanswered::Missing(_))));
    }

    #[tokio::test]
    async fn an_answer_of_long_ago_or_of_the_future_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (seconds_ago, holds) in [(3500, true), (3700, false), (-250, true), (-360, false)] {
            answer(folder.path(), "me", seconds_ago);
            let found = awaited(&asker(folder.path(), Duration::ZERO)).await;
            assert_eq!(found.is_ok(), holds, "{seconds_ago}: {found:?}");
            assert!(holds || matches!(found, Err(Unanswered::Stale(_))));
        }
    }
}
