// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Every sample is valid, and every reader of YAML reads it alike.

use std::{
    fs,
    path::{Path, PathBuf},
};

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::Value;
use stowage_crds::{
    AccessPolicy, Kind, Mirror, Promotion, PromotionPolicy, Registry, RetentionPolicy, VirtualRepository,
    check, yaml,
};

fn config() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn documents(file: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn every_sample_is_valid_and_reads_into_its_type() {
    let samples = files(&config().join("samples"));
    assert!(samples.len() >= 5);
    for file in samples.iter().filter(|file| !file.ends_with("kustomization.yaml")) {
        for document in documents(file) {
            let kind =
                Kind::of(&document).unwrap_or_else(|| panic!("{} is no resource of ours", file.display()));
            let admitted = check::resource(kind, None, &document);
            let object = admitted.unwrap_or_else(|found| panic!("{}: {found:?}", file.display()));
            match kind {
                Kind::Registry => drop(serde_json::from_value::<Registry>(object).unwrap()),
                Kind::AccessPolicy => drop(serde_json::from_value::<AccessPolicy>(object).unwrap()),
                Kind::Mirror => drop(serde_json::from_value::<Mirror>(object).unwrap()),
                Kind::RetentionPolicy => {
                    drop(serde_json::from_value::<RetentionPolicy>(object).unwrap());
                }
                Kind::VirtualRepository => {
                    drop(serde_json::from_value::<VirtualRepository>(object).unwrap());
                }
                Kind::PromotionPolicy => {
                    drop(serde_json::from_value::<PromotionPolicy>(object).unwrap());
                }
                Kind::Promotion => drop(serde_json::from_value::<Promotion>(object).unwrap()),
            }
        }
    }
}

#[test]
fn the_standalone_samples_fit_together() {
    let documents: Vec<_> =
        files(&config().join("samples/standalone")).iter().flat_map(|file| documents(file)).collect();
    assert_eq!(check::together(&documents), []);
}

#[test]
fn no_text_of_a_shipped_file_is_something_else_to_another_reader() {
    for folder in ["samples", "crd"] {
        for file in files(&config().join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            for event in Parser::new_from_str(&text) {
                let (event, _) = event.unwrap();
                if let Event::Scalar(scalar, ScalarStyle::Plain, ..) = event {
                    assert!(!yaml::is_retyped(&scalar), "{}: quote {scalar:?}", file.display());
                }
            }
        }
    }
}
