// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A repository of ten thousand tags, as the program plans to copy it, and copies some.

use std::fs::{self, File};
use std::process::Child;
use std::time::Duration;

use serde_json::Value;

use super::command::{APP, configure, mirror, sync};
use crate::mirror::line::Line;
use crate::purge::Place;
use crate::support::program::{Program, serve};
use crate::upstream::servers::{distribution, push};

const TAGS: usize = 10_000;
/// Those of them that are copied, and that the pattern takes; all with `$SOAK`.
const COPIED: usize = 1000;
const PATTERN: &str = "  artifacts: [{repository: team/app, tags: {glob: [\"build-00*\"]}}]\n";
/// Tags that are asked for at once.
const PAGE: usize = 1000;
const MIB: usize = 1 << 20;

/// What a run said, and the most memory that it had at any time, in bytes.
struct Ran {
    lines: Vec<String>,
    peak: usize,
}

async fn run(place: &Place, flags: &[&str]) -> Ran {
    let output = place.path().join("output");
    let mut sync = sync(place, flags);
    let mut child = sync.stdout(File::create(&output).unwrap()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(peak_memory(&child));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(child.wait().unwrap().success());
    let lines = fs::read_to_string(&output).unwrap().lines().map(str::to_owned).collect();
    Ran { lines, peak }
}

fn peak_memory(child: &Child) -> usize {
    // It may have ended.
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).map_or(0, |kibibytes| kibibytes.parse::<usize>().unwrap() << 10)
}

fn tag(number: usize) -> String {
    format!("build-{number:05}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p39_ten_thousand_tags_are_listed_page_by_page_asked_for_once_each_and_take_bounded_memory() {
    let upstream = distribution(&Value::Null, &[]).await;
    let image = push(upstream.address(), "", "team/app", &tag(0), b"layer");
    upstream.add_tags("team/app", &image, (1..TAGS).map(tag));
    let line = Line::to(upstream.address()).await;
    let place = Place::embedded();
    let counts = || {
        let asked = line.asked();
        let count = |begin: &str| asked.iter().filter(|line| line.starts_with(begin)).count();
        let (pages, heads) =
            (count("GET /v2/team/app/tags/list"), count("HEAD /v2/team/app/manifests/build-"));
        (pages, heads, asked.len() - pages - heads)
    };
    let (artifacts, copied) =
        if std::env::var_os("SOAK").is_some() { (APP, TAGS) } else { (PATTERN, COPIED) };
    for (mode, artifacts, flags, fate, tags) in [
        ("a plan", APP, &["--dry-run"][..], "copied", TAGS),
        ("a run", artifacts, &[], "copied", copied),
        ("another", artifacts, &[], "unchanged", copied),
    ] {
        configure(&place, &mirror(&line.address, artifacts));
        let ran = run(&place, flags).await;
        let mut told: Vec<&String> = ran.lines.iter().filter(|line| line.contains(" team/app:")).collect();
        told.sort();
        let expected = (0..tags).map(|number| format!("{fate} team/app:{}", tag(number)));
        assert!(told.into_iter().eq(expected.collect::<Vec<_>>().iter()), "{mode}");
        let (pages, heads, others) = counts();
        assert!((TAGS / PAGE..=TAGS / PAGE + 1).contains(&pages), "{mode}: {pages} pages");
        assert_eq!(heads, tags, "{mode}");
        assert!(others <= 20, "{mode}: {others} requests for what all tags share");
        assert!(ran.peak < 160 * MIB, "{mode}: {} MiB", ran.peak / MIB);
        println!("{mode}: {pages} pages, {heads} heads, {others} others, {} MiB", ran.peak / MIB);
    }
    let serving = Program::start(&mut serve(place.path())).await;
    for number in [0, 1, copied / 2, copied - 1] {
        let target = format!("/v2/base/team/app/manifests/{}", tag(number));
        assert_eq!(serving.ask("GET", &target, "", b"").2, image.manifest);
    }
}
