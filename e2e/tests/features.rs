// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The page of features tells the truth: every row has its proof, and what a proof names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use stowage_e2e::repository;

const PAGE: &str = "docs/reference/features.md";
/// What begins a sentence about that which no test shows.
const NOT_TESTED: &str = "not tested: ";

/// What a proof can name.
struct Workspace {
    files: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Workspace {
    fn read() -> Result<Self> {
        let output = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .current_dir(repository())
            .output()
            .context("list the files")?;
        ensure!(output.status.success(), "git does not list the files");
        let names = String::from_utf8(output.stdout).context("read the names of the files")?;
        let there = names.split('\0').filter(|name| repository().join(name).is_file());
        let files: BTreeSet<String> = there.map(str::to_owned).collect();
        let mut functions = BTreeSet::new();
        for file in files.iter().filter(|file| Path::new(file).extension().is_some_and(|end| end == "rs")) {
            let text = fs::read_to_string(repository().join(file)).with_context(|| format!("read {file}"))?;
            functions.extend(functions_of(&text));
        }
        Ok(Self { files, functions })
    }

    /// Whether a function, a file, or a test for each id of a range has this name.
    fn has(&self, name: &str) -> bool {
        match contract_ids(name) {
            Some(ids) => ids.into_iter().all(|id| self.functions.iter().any(|name| carries(name, id))),
            None => self.functions.contains(name) || self.files.contains(name),
        }
    }
}

/// The names of the functions of a file.
fn functions_of(text: &str) -> BTreeSet<String> {
    let after = text.split("fn ").skip(1);
    let name = |rest: &str| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default().to_owned()
    };
    after.map(name).filter(|name| !name.is_empty()).collect()
}

/// The ids of the wire contract that `W-140` or `W-140…146` means.
fn contract_ids(name: &str) -> Option<Vec<u16>> {
    let ids = name.strip_prefix("W-")?;
    let (first, last) = ids.split_once('…').unwrap_or((ids, ids));
    Some((first.parse().ok()?..=last.parse().ok()?).collect())
}

/// Whether the name of a test carries an id: `w140_w491_a_blob_comes_whole`.
fn carries(name: &str, id: u16) -> bool {
    let word = format!("w{id:03}");
    name.split('_').any(|part| part == word)
}

/// The rows of the page: id, proof.
fn rows(page: &str) -> Result<Vec<(String, String)>> {
    let mut rows = Vec::new();
    let mut columns = 0;
    for line in page.lines().filter(|line| line.starts_with('|')) {
        // A bar within a cell is escaped.
        let line = line.replace("\\|", "/");
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells.first() {
            Some(&"id") => {
                ensure!(cells.last() == Some(&"proof"), "a table has no column for the proof: {line}");
                columns = cells.len();
            }
            Some(first) if first.starts_with('-') => {}
            Some(id) => {
                ensure!(cells.len() == columns, "{id} has {} cells instead of {columns}", cells.len());
                rows.push(((*id).to_owned(), cells.last().copied().unwrap_or_default().to_owned()));
            }
            None => {}
        }
    }
    Ok(rows)
}

/// What is wrong with a proof, if anything is.
fn objection(proof: &str, workspace: &Workspace) -> Option<String> {
    let (named, untested) = match proof.split_once(NOT_TESTED) {
        Some((named, sentence)) => (named, Some(sentence)),
        None => (proof, None),
    };
    if untested.is_some_and(|sentence| sentence.split_whitespace().count() < 4) {
        return Some("does not say what is not tested".to_owned());
    }
    let names: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
    if names.is_empty() && untested.is_none() {
        return Some("names neither a proof nor a reason".to_owned());
    }
    let missing: Vec<&str> = names.into_iter().filter(|name| !workspace.has(name)).collect();
    (!missing.is_empty()).then(|| format!("names what does not exist: {}", missing.join(", ")))
}

#[test]
fn every_row_has_its_proof() -> Result<()> {
    let page = fs::read_to_string(repository().join(PAGE)).context("read the page")?;
    let rows = rows(&page)?;
    ensure!(rows.len() > 200, "only {} rows: was the layout of the page changed?", rows.len());
    let workspace = Workspace::read()?;
    let mut seen = BTreeMap::new();
    let mut wrong = Vec::new();
    for (id, proof) in &rows {
        if seen.insert(id, proof).is_some() {
            wrong.push(format!("{id} stands there twice"));
        }
        wrong.extend(objection(proof, &workspace).map(|why| format!("{id} {why}")));
    }
    ensure!(wrong.is_empty(), "{PAGE}: {wrong:#?}");
    Ok(())
}

#[test]
fn a_proof_that_names_nothing_real_is_refused() {
    let workspace = Workspace {
        files: BTreeSet::from(["docs/x.md".to_owned()]),
        functions: functions_of("fn w001_w002_a_name() {}\nasync fn it_works<T>() {}"),
    };
    for good in [
        "`it_works`, `docs/x.md`",
        "`W-001…002`; not tested: the rest of it all",
        "not tested: comes with the next release",
    ] {
        assert_eq!(objection(good, &workspace), None, "{good}");
    }
    for bad in ["", "`it_fails`", "`W-001…003`", "it_works", "not tested: no"] {
        assert!(objection(bad, &workspace).is_some(), "{bad}");
    }
}

#[test]
fn a_table_without_a_proof_is_refused() {
    assert!(rows("| id | done when |\n|---|---|\n| H1 | it is |").is_err());
    assert!(rows("| id | done when | proof |\n|---|---|---|\n| H1 | it is |").is_err());
    let found = rows("| id | done when | proof |\n|---|---|---|\n| H1 | a \\| b | `it_works` |").unwrap();
    assert_eq!(found, [("H1".to_owned(), "`it_works`".to_owned())]);
}

#[test]
fn the_library_alone_has_no_command_line() -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package=stowage-registry", "--no-default-features", "--edges=normal"])
        .args(["--prefix=none", "--format={p}"])
        .current_dir(repository())
        .output()
        .context("run cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let graph = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(graph.contains("axum "), "the graph is not that of the registry");
    ensure!(!graph.lines().any(|line| line.starts_with("clap")), "the library depends on clap");
    Ok(())
}
