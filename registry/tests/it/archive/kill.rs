// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! An import that is killed is repeated.

use std::fs;
use std::process::Stdio;

use super::both_places;
use super::site::{assert_image, assert_nothing, ends, run};
use crate::faults::client::noise;
use crate::purge::Place;
use crate::support::program::{Program, program, serve};
use crate::upstream::servers::{Image, push};

const MIB: usize = 1 << 20;

async fn an_import_that_was_killed_is_repeated(from: Place, to: Place) {
    let source = Program::start(&mut serve(from.path())).await;
    let address = source.address("listen");
    let images: Vec<Image> = (0..8)
        .map(|seed| push(address, "", "team/app", &format!("v{seed}"), &noise(seed, 4 * MIB)))
        .collect();
    ends(&from, 0, &["export", "team/app:*", "-o", "a.tar"]);
    fs::rename(from.path().join("a.tar"), to.path().join("a.tar")).unwrap();
    let target = Program::start(&mut serve(to.path())).await;
    for objects in [1, 4, 9] {
        let before = to.keys().await.len();
        let mut import = program(&["import", "a.tar"], to.path());
        let import = import.current_dir(to.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut import = import.spawn().unwrap();
        while import.try_wait().unwrap().is_none() && to.keys().await.len() < before + objects {
            tokio::task::yield_now().await;
        }
        import.kill().unwrap();
        import.wait().unwrap();
        let tags = run_tags(&target);
        assert!(tags.is_empty() || tags.len() == images.len() || objects > 8, "{tags:?}");
    }
    ends(&to, 0, &["import", "a.tar"]);
    for image in &images {
        assert_image(&target, "team/app", image);
    }
    let verified = run(&to, &["verify", "--deep"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

fn run_tags(at: &Program) -> Vec<String> {
    let (status, _, body) = at.ask("GET", "/v2/team/app/tags/list", "", b"");
    if status == 404 {
        assert_nothing(at);
        return Vec::new();
    }
    let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
    serde_json::from_value(list["tags"].clone()).unwrap()
}

both_places!(an_import_that_was_killed_is_repeated);
