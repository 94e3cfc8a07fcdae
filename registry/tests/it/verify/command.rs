// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The program `verify`: what it says, and with which code it ends.

use std::process::{Command, Output};

use serde_json::Value;

use crate::purge::Place;

fn run(place: &Place, command: &str, flags: &[&str]) -> Output {
    let path = |name: &str| place.path().join(name);
    Command::new(env!("CARGO_BIN_EXE_stowage-registry"))
        .arg(command)
        .args(flags)
        .arg("--config")
        .arg(path("config"))
        .arg("--secrets-dir")
        .arg(path("secrets"))
        .arg("--data-dir")
        .arg(path("data"))
        .output()
        .unwrap()
}

fn assert_ends(output: &Output, code: i32, says: &str) -> Vec<String> {
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{log}");
    assert!(log.contains(says), "{says:?} is not in {log}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_lines_and_an_exit_code() {
    for place in [Place::embedded(), Place::clustered().await] {
        place.founded().await;
        let clean = assert_ends(&run(&place, "verify", &["--deep", "--bytes-per-second", "10M"]), 0, "");
        assert!(clean.contains(&"findings: 0".to_owned()), "{clean:?}");
        let keys = place.keys().await;
        let blob = keys.iter().find(|key| key.starts_with("v1/blob/")).unwrap();
        place.remove_in_place(blob).await;
        place.put_in_place("v1/strange", b"x").await;
        let json = assert_ends(&run(&place, "verify", &["--output", "json"]), 1, "disagree in 2 places");
        let lines: Vec<Value> = json.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let missing = lines.iter().find(|line| line["kind"] == "missing").unwrap();
        assert_eq!(
            (&missing["key"], &missing["repaired"]),
            (&Value::from(blob.as_str()), &Value::from(false))
        );
        let summary = &lines.last().unwrap()["summary"];
        assert_eq!((&summary["findings"], &summary["foreign"]), (&Value::from(2), &Value::from(1)));
        let text = assert_ends(&run(&place, "verify", &["--repair"]), 1, "put 1 right");
        assert!(
            text.iter().any(|line| line.starts_with("missing ") && line.ends_with("push it again")),
            "{text:?}"
        );
        assert_ends(&run(&place, "verify", &[]), 1, "disagree in 1 place");
        place.remove_in_place("v1/strange").await;
        assert_ends(&run(&place, "verify", &[]), 0, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_verified_is_refused() {
    for place in [Place::embedded(), Place::clustered().await] {
        place.founded().await;
        place
            .put_in_place("v1/FORMAT", br#"{"layout":1,"registry":"7d444840-9dc0-41d1-b245-5ffdce74fad2"}"#)
            .await;
        assert_ends(&run(&place, "verify", &["--repair"]), 3, "the bucket belongs to registry 7d444840");
        place
            .put_in_place("v1/FORMAT", br#"{"layout":2,"registry":"7d444840-9dc0-41d1-b245-5ffdce74fad2"}"#)
            .await;
        assert_ends(&run(&place, "verify", &[]), 3, "FORMAT");
        assert_ends(&run(&place, "verify", &["--bytes-per-second", "1M"]), 2, "--deep");
        assert_ends(&run(&place, "verify", &["--deep", "--bytes-per-second", "0"]), 2, "at least one byte");
    }
}
