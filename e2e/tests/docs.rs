// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The documentation is true where a machine can tell: its resources are valid, its links lead somewhere, every word
//! of an error has its page, and the reference of the resources is that of their schemas.
//!
//! `UPDATE=1 cargo test -p stowage-e2e --test docs` writes the generated page anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stowage_crds::conditions::{ConditionType, Reason};
use stowage_crds::{Kind, check};
use stowage_e2e::repository;

const RESOURCES: &str = "docs/reference/resources.md";

/// The pages of the documentation, by their paths in the repository.
fn pages() -> Result<Vec<PathBuf>> {
    let mut found = vec!["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .into_iter()
        .map(PathBuf::from)
        .collect();
    collect(Path::new("docs"), &mut found)?;
    Ok(found)
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(repository().join(folder)).context("list a folder of the documentation")? {
        let path = folder.join(entry.context("list a folder of the documentation")?.file_name());
        if repository().join(&path).is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

fn read(page: &Path) -> Result<String> {
    fs::read_to_string(repository().join(page)).with_context(|| format!("read {}", page.display()))
}

/// The blocks of a page in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("\n```{language}\n");
    let after = page.split(fence.as_str()).skip(1);
    after.map(|rest| rest.split_once("\n```").map_or(rest, |(block, _)| block)).collect()
}

#[test]
fn every_yaml_block_is_valid() -> Result<()> {
    let mut ours = 0;
    for page in pages()? {
        let text = read(&page)?;
        for block in blocks(&text, "yaml") {
            let documents: Vec<Value> = serde_saphyr::from_multiple(block)
                .with_context(|| format!("{}: no YAML:\n{block}", page.display()))?;
            for document in documents {
                let Some(kind) = Kind::of(&document) else {
                    let group = document["apiVersion"].as_str().unwrap_or_default();
                    ensure!(!group.contains("stowage"), "{}: no kind of ours: {document}", page.display());
                    continue;
                };
                ours += 1;
                if let Err(broken) = check::resource(kind, None, &document) {
                    anyhow::bail!("{}: {broken:?} in:\n{block}", page.display());
                }
            }
        }
    }
    ensure!(ours >= 5, "only {ours} resources found: was the layout of the pages changed?");
    Ok(())
}

/// Where the links of a page lead, without those to other sites.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let within = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    within.map(|target| target.split_once('#').map_or(target, |(file, _)| file)).collect()
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    let mut dead = Vec::new();
    for page in pages()? {
        let folder = repository().join(page.parent().unwrap_or(Path::new("")));
        for target in links(&read(&page)?) {
            if !folder.join(target).exists() {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
    }
    ensure!(dead.is_empty(), "links that lead nowhere: {dead:#?}");
    Ok(())
}

#[test]
fn every_target_and_file_of_a_command_exists() -> Result<()> {
    let makefile = read(Path::new("Makefile"))?;
    for page in pages()? {
        let text = read(&page)?;
        for line in blocks(&text, "sh").into_iter().flat_map(str::lines) {
            let command = line.split(" #").next().unwrap_or_default();
            let target = command.strip_prefix("make ").and_then(|rest| rest.split_whitespace().next());
            let is_known = target.is_none_or(|target| makefile.contains(&format!("\n{target}:")));
            ensure!(is_known, "{}: there is no such target: {line}", page.display());
            for word in command.split_whitespace().filter(|word| is_of_the_repository(word)) {
                let path = word.trim_end_matches("/*.yaml");
                ensure!(repository().join(path).exists(), "{}: there is no {path}: {line}", page.display());
            }
        }
    }
    Ok(())
}

fn is_of_the_repository(word: &str) -> bool {
    word == "config" || ["config/", "packaging/", "docs/"].iter().any(|folder| word.starts_with(folder))
}

/// The words of error bodies, as their enum spells them.
fn error_codes() -> Result<BTreeSet<String>> {
    let source = read(Path::new("oci/src/error_code.rs"))?;
    let words = source.split('"').skip(1).step_by(2);
    let is_code = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    Ok(words.filter(is_code).map(str::to_owned).collect())
}

#[test]
fn every_code_and_reason_has_its_page() -> Result<()> {
    let codes = error_codes()?;
    ensure!(codes.len() >= 14, "only {codes:?}: was the enum changed?");
    let exits = (0..=3).map(|code| format!("exit-{code}"));
    let reasons = Reason::ALL.iter().map(ToString::to_string);
    let wanted: BTreeSet<String> = codes.into_iter().chain(exits).chain(reasons).collect();
    let index = read(Path::new("docs/errors/README.md"))?;
    for word in &wanted {
        let page = read(&Path::new("docs/errors").join(format!("{word}.md")))?;
        for part in ["**Meaning.** ", "**What to do.** "] {
            ensure!(page.contains(part), "the page of {word} does not say: {part}");
        }
        ensure!(index.contains(&format!("]({word}.md)")), "{word} is missing in the list");
    }
    for entry in fs::read_dir(repository().join("docs/errors")).context("list the pages")? {
        let name = entry.context("list the pages")?.file_name().to_string_lossy().into_owned();
        let word = name.trim_end_matches(".md");
        ensure!(word == "README" || wanted.contains(word), "nothing says {word} any more");
    }
    Ok(())
}

#[test]
fn every_condition_is_described() -> Result<()> {
    let page = read(Path::new("docs/reference/conditions.md"))?;
    for condition in ConditionType::ALL {
        ensure!(page.contains(&format!("| `{condition}` |")), "{condition} is not described");
    }
    Ok(())
}

/// A row for each field of a schema.
fn fields(table: &mut String, path: &str, schema: &Value) -> Result<()> {
    let empty = serde_json::Map::new();
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().unwrap_or(&empty) {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let need = match (&field["default"], required.contains(&name.as_str())) {
            (_, true) => "required".to_owned(),
            (Value::Null, false) => String::new(),
            (default, false) => format!("`{default}`"),
        };
        writeln!(table, "| `{below}` | {} | {need} | {} |", type_of(field), sentence(field))?;
        fields(table, &below, field)?;
        fields(table, &format!("{below}[]"), &field["items"])?;
    }
    Ok(())
}

fn type_of(field: &Value) -> String {
    let words = |node: &Value| {
        let members: Vec<&str> =
            node["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if members.is_empty() {
            node["type"].as_str().unwrap_or("any").to_owned()
        } else {
            members.join(", ")
        }
    };
    if field["items"].is_object() { format!("list of {}", words(&field["items"])) } else { words(field) }
}

fn sentence(field: &Value) -> String {
    let text = field["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// The page of the resources, from their schemas.
fn resources() -> Result<String> {
    let mut page = "<!--\nSPDX-FileCopyrightText: The Stowage authors\nSPDX-License-Identifier: EUPL-1.2\n-->\n\n\
         # Resources\n\nThe custom resources of `stowage.dev/v1alpha1`, made from their schemas. `kubectl explain registry.spec` \
         says the same. The same YAML is the [configuration](configuration.md) of a process without Kubernetes. A field \
         of which nothing stands under *default* may be left out.\n"
        .to_owned();
    for kind in Kind::ALL {
        let definition = serde_json::to_value(stowage_crds::crd(kind)).context("read a definition")?;
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        write!(page, "\n## {kind}\n\n{}\n", sentence(schema))?;
        for part in ["spec", "status"] {
            page.push_str("\n| field | type | default | what |\n| --- | --- | --- | --- |\n");
            fields(&mut page, part, &schema["properties"][part])?;
        }
    }
    Ok(page)
}

#[test]
fn the_reference_of_resources_is_that_of_their_schemas() -> Result<()> {
    let expected = resources()?;
    let path = repository().join(RESOURCES);
    if std::env::var_os("UPDATE").is_some() {
        return fs::write(&path, expected).context("write the page");
    }
    let found = fs::read_to_string(&path).context("read the page")?;
    ensure!(found == expected, "{RESOURCES} is out of date: run this test with UPDATE=1");
    Ok(())
}

#[test]
fn the_readme_says_what_semver_covers() -> Result<()> {
    let readme = read(Path::new("README.md"))?;
    let (_, section) =
        readme.split_once("\n## Versions\n").context("the README has no section on versions")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    for word in ["flags", "exit codes", "metrics", "HTTP API", "bucket", "schema", "`v1alpha1`", "Migration"]
    {
        ensure!(section.contains(word), "the section on versions does not speak of {word}");
    }
    Ok(())
}

#[test]
fn the_readme_leads_to_every_how_to() -> Result<()> {
    let readme = read(Path::new("README.md"))?;
    let leads = links(&readme);
    for page in pages()?.iter().filter(|page| page.starts_with("docs/how-to")) {
        ensure!(
            leads.iter().any(|link| Path::new(link) == page),
            "README.md does not lead to {}",
            page.display()
        );
    }
    Ok(())
}

#[test]
fn blocks_and_links_are_found() {
    let page = "text [a](b.md#c), [d](https://e.f)\n```yaml\nkind: X\n```\n```sh\nls\n```\n";
    assert_eq!(blocks(page, "yaml"), ["kind: X"]);
    assert_eq!(blocks(page, "sh"), ["ls"]);
    assert_eq!(links(page), ["b.md"]);
}
