// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The page about air gaps, command by command.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::site::{assert_image, manifest, push_index};
use crate::purge::Place;
use crate::support::program::{Program, serve};
use crate::upstream::servers::push;

/// The commands of the page, one block for each side.
fn commands() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to/air-gap.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks = page.split("\n```sh\n").skip(1);
    blocks.map(|rest| rest.split_once("\n```").unwrap().0.to_owned()).collect()
}

/// Runs the commands on this place, as somebody who has set up the configuration.
fn follow(place: &Place, stick: &Path, commands: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_stowage-registry")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", commands]).current_dir(place.path()).env("PATH", path).env("USB", stick);
    shell.env("STOWAGE_CONFIG", place.path().join("config"));
    shell.env("STOWAGE_DATA_DIR", place.path().join("data"));
    let output = shell.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{log}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_about_air_gaps_can_be_followed() {
    let (outside, inside, stick) = (Place::embedded(), Place::embedded(), tempfile::tempdir().unwrap());
    let source = Program::start(&mut serve(outside.path())).await;
    let address = source.address("listen");
    let image = push(address, "", "team/app", "1.4", b"an app");
    push(address, "", "team/app", "2.0", b"another app");
    let (index, tools) = push_index(&source, "team/tool", "3", &["linux/amd64", "linux/arm64"]);
    let blocks = commands();
    let [export, import, ..] = &blocks[..] else { panic!("the page has two sides: {blocks:?}") };
    follow(&outside, stick.path(), export);
    drop(source);
    let target = Program::start(&mut serve(inside.path())).await;
    let told = follow(&inside, stick.path(), import);
    assert!(told.contains("imported team/app:1.4"), "{told}");
    assert_image(&target, "team/app", &image);
    assert_eq!(manifest(&target, "team/app", "2.0").0, 404);
    assert_eq!(manifest(&target, "team/tool", index).0, 200);
    assert_image(&target, "team/tool", &tools[0]);
}
