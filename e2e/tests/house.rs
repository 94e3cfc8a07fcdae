// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The rules of the house: licences, manifests, commit messages.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stowage_e2e::repository;

/// What a program prints when it is run in the repository.
fn print_of(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(repository())
        .output()
        .with_context(|| format!("run {program}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).context("read what it printed")
}

/// The files of the repository that match one of the patterns; all of them without a pattern.
fn tracked(patterns: &[String]) -> Result<BTreeSet<String>> {
    let mut arguments = vec!["ls-files", "--cached", "--others", "--exclude-standard", "-z", "--"];
    arguments.extend(patterns.iter().map(String::as_str));
    let printed = print_of("git", &arguments)?;
    let names = printed.split('\0').filter(|name| !name.is_empty());
    let there = names.filter(|name| repository().join(name).is_file());
    Ok(there.map(str::to_owned).collect())
}

/// The strings of a list in a TOML file: `key = ["a", "b"]`, on one line or on several.
fn strings_of(text: &str, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in text.split(&format!("\n{key} = [")).skip(1) {
        let list = rest.split_once(']').map_or(rest, |(list, _)| list);
        found.extend(list.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    found
}

#[test]
fn the_unit_is_one_that_systemd_accepts() -> Result<()> {
    let unit = fs::read_to_string(repository().join("packaging/stowage-registry.service"))?;
    let program = "/usr/local/bin/stowage-registry";
    ensure!(unit.contains(&format!("ExecStart={program} serve ")), "the unit no longer starts {program}");
    // The program need not be installed where the unit is looked at.
    let folder = tempfile::tempdir().context("make a folder")?;
    let copy = folder.path().join("stowage-registry.service");
    fs::write(&copy, unit.replace(program, "/bin/true")).context("write the unit")?;
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&copy)
        .output()
        .context("run systemd-analyze: tools/packages installs it")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && complaint.is_empty(), "systemd does not accept it: {complaint}");
    Ok(())
}

#[test]
fn every_file_says_whose_it_is_and_under_which_licence() -> Result<()> {
    let reuse = fs::read_to_string(repository().join("REUSE.toml")).context("read REUSE.toml")?;
    let patterns: Vec<String> =
        strings_of(&reuse, "path").iter().map(|path| format!(":(glob){path}")).collect();
    ensure!(!patterns.is_empty(), "REUSE.toml names no file: was its layout changed?");
    let named = tracked(&patterns)?;
    let mut silent = Vec::new();
    for file in tracked(&[])?.difference(&named) {
        let bytes = fs::read(repository().join(file)).with_context(|| format!("read {file}"))?;
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(1000)]).into_owned();
        let says = head.contains("SPDX-FileCopyrightText: The Stowage authors")
            && head.contains("SPDX-License-Identifier: EUPL-1.2");
        if !says && !file.starts_with("LICENSES/") {
            silent.push(file.clone());
        }
    }
    ensure!(silent.is_empty(), "neither SPDX header nor a line in REUSE.toml: {silent:#?}");
    Ok(())
}

#[test]
fn every_dependency_has_a_licence_that_we_may_use() -> Result<()> {
    let deny = fs::read_to_string(repository().join("deny.toml")).context("read deny.toml")?;
    let allowed = strings_of(&deny, "allow");
    let metadata = print_of(env!("CARGO"), &["metadata", "--locked", "--format-version", "1"])?;
    let metadata: Value = serde_json::from_str(&metadata).context("read the metadata")?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let refused: Vec<String> = packages
        .iter()
        .map(|package| (package["name"].to_string(), package["license"].as_str().unwrap_or("none")))
        .filter(|(_, licence)| !is_allowed(licence, &allowed))
        .map(|(name, licence)| format!("{name}: {licence}"))
        .collect();
    ensure!(refused.is_empty(), "not allowed by deny.toml: {refused:#?}");
    Ok(())
}

/// Whether a licence expression can be met with allowed licences alone. `AND` binds tighter than `OR`; where
/// parentheses say otherwise, every licence named in them must be allowed.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let is_known = |name: &str| allowed.iter().any(|licence| licence == name.trim());
    if let Some((before, inner)) = expression.split_once('(') {
        let (inner, after) = inner.split_once(')').unwrap_or((inner, ""));
        let inner = inner.replace(" OR ", " AND ");
        return is_allowed(&format!("{before}{inner}{after}"), allowed);
    }
    let mut choices = expression.split(" OR ").flat_map(|choice| choice.split('/'));
    choices.any(|choice| choice.split(" AND ").all(is_known))
}

#[test]
fn every_member_takes_its_lints_and_versions_from_the_workspace() -> Result<()> {
    for manifest in tracked(&["*/Cargo.toml".to_owned()])? {
        let text = fs::read_to_string(repository().join(&manifest)).context("read a manifest")?;
        ensure!(text.contains("[lints]\nworkspace = true\n"), "{manifest} has lints of its own");
        let mut in_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
            } else if in_dependencies && line.contains(" = ") && !line.starts_with([' ', '#', ']']) {
                ensure!(line.contains("workspace = true"), "{manifest} has a version of its own: {line}");
            }
        }
    }
    Ok(())
}

/// What only Linux has, of what the product might name.
const OF_LINUX: [&str; 8] =
    ["os::linux", "syncfs", "/proc/", "memfd", "epoll", "inotify", "copy_file_range", "O_TMPFILE"];
const UNDER_LINUX: &str = "#[cfg(target_os = \"linux\")]";

/// The lines of a source that name what only Linux has, and are neither said to be for Linux nor a test's.
fn linux_only(text: &str) -> Vec<&str> {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut before = "";
    let mut found = Vec::new();
    for line in product.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        if before != UNDER_LINUX && OF_LINUX.iter().any(|name| line.contains(name)) {
            found.push(line);
        }
        before = line;
    }
    found
}

#[test]
fn what_only_linux_has_is_asked_for_on_linux_alone() -> Result<()> {
    let mut found = Vec::new();
    for file in
        tracked(&["oci", "crds", "registry", "operator"].map(|name| format!(":(glob){name}/src/**/*.rs")))?
    {
        if file.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(repository().join(&file)).with_context(|| format!("read {file}"))?;
        found.extend(linux_only(&text).iter().map(|line| format!("{file}: {line}")));
    }
    ensure!(found.is_empty(), "not under {UNDER_LINUX}: {found:#?}");
    Ok(())
}

#[test]
fn what_only_linux_has_is_found() {
    assert_eq!(linux_only("use std::os::linux::net;"), ["use std::os::linux::net;"]);
    assert!(linux_only(&format!("{UNDER_LINUX}\nuse std::os::linux::net;")).is_empty());
    assert!(linux_only("// syncfs\n#[cfg(test)]\nmod tests { fn a() { syncfs() } }").is_empty());
}

#[test]
fn there_is_one_clippy_configuration() -> Result<()> {
    let found = tracked(&[":(glob)**/clippy.toml".to_owned(), ":(glob)**/.clippy.toml".to_owned()])?;
    ensure!(found.iter().eq(["clippy.toml"]), "one in a crate replaces the root's: {found:?}");
    Ok(())
}

#[test]
fn commit_messages_are_conventional() -> Result<()> {
    let log = print_of("git", &["log", "--no-merges", "--format=%h %s"])?;
    let odd: Vec<&str> = log
        .lines()
        .filter(|line| !line.split_once(' ').is_some_and(|(_, subject)| is_conventional(subject)))
        .collect();
    ensure!(odd.is_empty(), "not `type(scope): subject`: {odd:#?}");
    Ok(())
}

/// `type(scope)!: subject`, the subject without a capital at its start or a full stop at its end.
fn is_conventional(subject: &str) -> bool {
    const TYPES: [&str; 9] = ["feat", "fix", "perf", "refactor", "docs", "test", "build", "ci", "chore"];
    let Some((head, text)) = subject.split_once(": ") else {
        return false;
    };
    let head = head.strip_suffix('!').unwrap_or(head);
    let (kind, scope) = head.split_once('(').map_or((head, None), |(kind, scope)| (kind, Some(scope)));
    let scope_is_sound = scope.is_none_or(|scope| {
        let name = scope.strip_suffix(')').unwrap_or_default();
        let is_word =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_/".contains(letter);
        !name.is_empty() && name.chars().all(is_word)
    });
    let starts_low = text.chars().next().is_some_and(|first| !first.is_uppercase());
    TYPES.contains(&kind) && scope_is_sound && starts_low && !text.ends_with('.')
}

#[test]
fn a_commit_message_needs_a_type_and_a_plain_subject() {
    for good in ["feat: serve", "fix(meta): requeue links", "feat(http)!: drop v1", "build(tools): pin"] {
        assert!(is_conventional(good), "{good}");
    }
    for bad in ["serve", "feature: serve", "feat: Serve", "feat: serve.", "feat(): serve", "feat(A): serve"] {
        assert!(!is_conventional(bad), "{bad}");
    }
}

#[test]
fn a_licence_expression_is_read_as_it_is_meant() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    for good in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "ISC AND MIT", "ISC AND (MIT OR ISC)"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "none", "MIT AND GPL-3.0", "(GPL-3.0 OR LGPL-3.0) AND MIT"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}
