// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The program keeps what its reference pages say: its command line and its metrics.
//!
//! `UPDATE=1 cargo test -p stowage-operator --test it reference` writes the generated parts anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use stowage_operator::events::Happening;
use stowage_operator::ops::metrics::{ConditionState, Metrics};

/// Compares the part of a page between its markers with what it should be, or writes it.
fn compare(page: &str, expected: &str) {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(page);
    let text = fs::read_to_string(&page).unwrap();
    let (begin, end) = ("<!-- stowage-operator begins -->\n", "<!-- stowage-operator ends -->\n");
    let (before, rest) = text.split_once(begin).unwrap();
    let (found, after) = rest.split_once(end).unwrap();
    let expected = format!("\n{}\n\n", expected.trim());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&page, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(found, expected, "{} is out of date: run this test with UPDATE=1", page.display());
}

fn printed(args: &[&str]) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_stowage-operator"));
    let output = program.env_clear().args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn completions_and_manual_of_the_operator_come_from_its_command_line() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(printed(&["completions", shell]).contains("registry-image"), "{shell}");
    }
    let manual = printed(&["man"]);
    assert!(manual.starts_with(".ie") && manual.contains("stowage\\-operator"), "{manual}");
}

#[test]
fn every_subcommand_of_the_operator_has_its_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    assert_eq!(printed(&["man", pages.to_str().unwrap()]), "");
    for (page, says) in [
        ("stowage-operator.1", "stowage\\-operator\\-render(1)"),
        ("stowage-operator-run.1", "watch\\-namespaces"),
        ("stowage-operator-render.1", "registry\\-image"),
        ("stowage-operator-crds.1", ".TH"),
    ] {
        let text = fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(says), "{page} does not speak of {says}: {text}");
    }
}

#[test]
fn the_command_line_page_is_what_the_operator_prints() {
    let mut text = String::new();
    for command in [vec![], vec!["run"], vec!["crds"], vec!["render"]] {
        let name =
            ["stowage-operator"].into_iter().chain(command.iter().copied()).collect::<Vec<_>>().join(" ");
        let help = printed(&command.into_iter().chain(["--help"]).collect::<Vec<_>>());
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        write!(text, "### `{name}`\n\n```text\n{}\n```\n\n", help.join("\n")).unwrap();
    }
    compare("command-line.md", &text);
}

#[test]
fn the_page_of_metrics_lists_what_the_operator_counts() {
    let metrics = Metrics::default();
    metrics.reconciled("registry", Duration::from_millis(1));
    metrics.failed("registry", "NameTaken");
    metrics.invalid("registry");
    metrics.leads(true);
    let ready = ConditionState { r#type: "Ready".to_owned(), status: "True".to_owned() };
    metrics.conditions("Registry", "some", "main", &[ready]);

    let (mut kinds, mut helps) = (BTreeMap::new(), BTreeMap::new());
    let text = metrics.text().unwrap();
    for line in text.lines() {
        match line.splitn(4, ' ').collect::<Vec<_>>().as_slice() {
            ["#", "TYPE", name, kind] => drop(kinds.insert((*name).to_owned(), (*kind).to_owned())),
            ["#", "HELP", name, help] => drop(helps.insert((*name).to_owned(), (*help).to_owned())),
            _ => {}
        }
    }
    let mut table = "| metric | type | labels | what |\n| --- | --- | --- | --- |\n".to_owned();
    for (name, kind) in kinds {
        let sample = text.lines().find(|line| line.starts_with(&name)).unwrap();
        let (_, labels) = sample.split_once('{').unwrap_or_default();
        let labels: Vec<&str> =
            labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)).collect();
        let end = if kind == "counter" { "_total" } else { "" };
        let help = helps[&name].trim_end_matches('.');
        writeln!(table, "| `{name}{end}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
    }
    compare("metrics.md", &table);
}

#[test]
fn every_event_is_described() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/conditions.md");
    let text = fs::read_to_string(&page).unwrap();
    let (_, events) = text.split_once("\n## Events\n").unwrap();
    for happening in Happening::ALL {
        let word = happening.as_str();
        assert!(events.contains(&format!("| `{word}` |")), "{} does not speak of {word}", page.display());
    }
    let rows = events.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, Happening::ALL.len(), "{} speaks of what is never told", page.display());
}
