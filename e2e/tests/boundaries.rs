// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who may depend on whom.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use stowage_e2e::repository;

/// What the graph of a crate must not contain.
const CRATES: [(&str, &[&str]); 4] = [
    ("stowage-oci", &["tokio", "hyper", "kube-core", "sqlx", "stowage-crds"]),
    ("stowage-crds", &["kube-client", "kube-runtime", "tokio", "axum", "sqlx"]),
    ("stowage-registry", &["kube-client", "kube-runtime", "stowage-operator"]),
    ("stowage-operator", &["stowage-registry", "sqlx", "aws-sdk-s3"]),
];

/// Where in the registry's sources a crate may be named.
const ROOMS: [(&str, &[&str]); 11] = [
    // The last three are the embeddable door, which hands out a router.
    ("axum", &["http", "lib.rs", "embedded.rs", "testing.rs"]),
    ("sqlx", &["meta"]),
    ("aws_sdk_s3", &["blobs/s3"]),
    ("stowage_crds", &["config", "jobs", "usage"]),
    // Who asks other registries: what pulls and replicates. Settings and their end come by way of the others.
    ("crate::upstream", &["upstream", "domain", "jobs", "config", "cli", "embedded.rs"]),
    ("psl", &["upstream"]),
    ("rustls_native_certs", &["upstream"]),
    // Requests that leave for elsewhere than bucket and database.
    ("hyper_rustls", &["upstream", "ops/traces"]),
    // Elsewhere spans are spans of `tracing`.
    ("opentelemetry", &["ops/traces"]),
    ("opentelemetry_sdk", &["ops/traces"]),
    ("tracing_opentelemetry", &["ops/traces"]),
];

/// What a room must not name of its neighbours.
const NEIGHBOURS: [(&str, &[&str]); 4] = [
    (
        "upstream",
        &[
            "crate::auth",
            "crate::blobs",
            "crate::domain",
            "crate::http",
            "crate::jobs",
            "crate::key",
            "crate::meta",
            "crate::outbox",
            "crate::server",
        ],
    ),
    // Mirrors, and gates later, bring their own ways to ask.
    (
        "signatures",
        &["crate::auth", "crate::blobs", "crate::domain", "crate::http", "crate::meta", "crate::upstream"],
    ),
    // Who asks for labels brings a way to read.
    ("labels", &["crate::blobs", "crate::domain", "crate::http", "crate::jobs", "crate::key", "crate::meta"]),
    // It judges by what it is given.
    (
        "retention",
        &["crate::blobs", "crate::config", "crate::domain", "crate::http", "crate::jobs", "crate::meta"],
    ),
];

/// The page that says how many crates a program is made of.
const SIZES: &str = "docs/performance.md";

/// The crates that a crate is made of, each with its version.
fn graph(crate_name: &str) -> Result<BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--package", crate_name])
        .current_dir(repository())
        .output()
        .context("run cargo tree")?;
    let tree = String::from_utf8(output.stdout).context("read the tree")?;
    ensure!(tree.starts_with(crate_name), "no tree of {crate_name}: {tree}");
    let crates = tree.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
    Ok(crates.collect())
}

#[test]
fn no_crate_reaches_one_it_must_not() -> Result<()> {
    for (crate_name, forbidden) in CRATES {
        let graph = graph(crate_name)?;
        let names = graph.iter().filter_map(|line| line.split(' ').next());
        let found: Vec<&str> = names.filter(|name| forbidden.contains(name)).collect();
        ensure!(found.is_empty(), "{crate_name} reaches {found:?}");
    }
    Ok(())
}

#[test]
fn a_program_is_made_of_no_more_crates_than_its_page_says() -> Result<()> {
    let page = fs::read_to_string(repository().join(SIZES)).context("read the page")?;
    for program in ["stowage-registry", "stowage-operator"] {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| `{program}` | at most ")));
        let most = row.and_then(|rest| rest.split(' ').next()).context("the page has no such row")?;
        let (most, found) = (most.parse::<usize>().context("no number of crates")?, graph(program)?.len());
        ensure!(found <= most, "{program} is made of {found} crates; {SIZES} says at most {most}");
        // A bound far above what it bounds says nothing.
        ensure!(found + 25 > most, "{program} is made of {found} crates only; lower the {most} of {SIZES}");
    }
    Ok(())
}

#[test]
fn no_room_of_the_registry_names_a_crate_or_a_room_that_is_anothers() -> Result<()> {
    let sources = repository().join("registry/src");
    let mut strays = Vec::new();
    for file in rust_files(&sources)? {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let room =
            file.strip_prefix(&sources).context("a file of the sources")?.to_string_lossy().into_owned();
        for (name, rooms) in ROOMS {
            if names_crate(&text, name) && !rooms.iter().any(|allowed| room.starts_with(allowed)) {
                strays.push(format!("{room} names {name}"));
            }
        }
        for (own, others) in NEIGHBOURS {
            let others = others.iter().filter(|name| room.starts_with(own) && names_crate(&text, name));
            strays.extend(others.map(|name| format!("{room} names {name}")));
        }
    }
    ensure!(strays.is_empty(), "{strays:#?}");
    Ok(())
}

/// Whether a source names a crate outside its comments.
fn names_crate(text: &str, name: &str) -> bool {
    let path = format!("{name}::");
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut places = code.flat_map(|line| line.match_indices(&path).map(move |(at, _)| (line, at)));
    places.any(|(line, at)| {
        let before = line.as_bytes()[..at].last();
        before.is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
    })
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.context("list the sources")?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn a_crate_is_named_by_its_paths_and_not_in_comments_or_by_longer_names() {
    assert!(names_crate("use axum::Router;", "axum"));
    assert!(names_crate("    let router = axum::Router::new();", "axum"));
    assert!(!names_crate("//! axum::Router is known to http alone", "axum"));
    assert!(!names_crate("use not_axum::Router;", "axum"));
}
