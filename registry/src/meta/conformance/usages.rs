// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What other clusters run, and what mirrors keep.
#![expect(missing_docs, reason = "a claim is its name")]

use std::time::Duration;

use super::{Fixture, World, digest, facts, index, name, tag};
use crate::meta::CachedManifest;

pub async fn a_cluster_is_known_by_what_it_reported_last_and_when(fixture: Fixture) {
    let world = World::begin(fixture).await;
    let report = async |remote: &str, digests: &[&str], references: &[&str]| {
        let digests: Vec<_> = digests.iter().map(|content| digest(content)).collect();
        let references: Vec<_> = references.iter().map(|text| (*text).to_owned()).collect();
        world.store.report_usage(remote, &digests, &references).await.expect("report");
    };
    assert_eq!(world.store.usage_reports().await.expect("reports"), []);
    report("two", &[], &["a/b:1"]).await;
    report("one", &["x"], &[]).await;
    report("two", &["y", "z"], &[]).await;
    let found = world.store.usage_reports().await.expect("reports");
    let told: Vec<_> = found.iter().map(|report| (report.remote.as_str(), report.digests.len())).collect();
    assert_eq!(told, [("one", 1), ("two", 2)]);
    assert!(found.iter().all(|report| report.age < Duration::from_mins(1) && report.references.is_empty()));
    world.rows.pass(Duration::from_hours(2)).await;
    report("one", &[], &["a/b:1"]).await;
    let found = world.store.usage_reports().await.expect("reports");
    assert!(found[0].age < Duration::from_mins(1) && found[1].age >= Duration::from_hours(2), "{found:?}");
    assert_eq!((found[0].digests.len(), &found[0].references[..]), (0, &["a/b:1".to_owned()][..]));
}

pub async fn what_a_mirror_keeps_is_told_with_all_that_decides_over_it(fixture: Fixture) {
    let world = World::begin(fixture).await;
    for content in ["layer", "shared"] {
        world.push("hub/app", content).await;
    }
    let blobs = [digest("layer"), digest("shared")];
    world.push_manifest("hub/app", facts("image", &blobs), &["v1", "v2"]).await;
    world.push_manifest("hub/app", index("index", &[digest("image"), digest("sparse")]), &[]).await;
    let about = crate::meta::ManifestFacts { subject: Some(digest("image")), ..facts("note", &[]) };
    world.push_manifest("hub/app", about, &[]).await;
    world.push_manifest("hub", facts("at the path", &[]), &[]).await;
    for beside in ["hubble/app", "hu", "other/hub"] {
        world.push_manifest(beside, facts("beside", &[]), &[]).await;
    }
    let today = world.store.record_pulls(&[(name("hub/app"), digest("image"))]).await.expect("record").day;
    let (mut all, mut after): (Vec<CachedManifest>, _) = (Vec::new(), None);
    loop {
        let page = world.store.cached_manifests(&name("hub"), after, 2).await.expect("cached");
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        all.extend(page);
    }
    let found: Vec<_> =
        all.iter().map(|manifest| (manifest.repository.to_string(), manifest.digest)).collect();
    let expected = ["image", "index", "note"].map(|content| ("hub/app".to_owned(), digest(content)));
    assert_eq!(found[..3], expected);
    assert_eq!(found[3..], [("hub".to_owned(), digest("at the path"))]);
    let [image, index, note, ..] = &all[..] else { unreachable!("there are four") };
    assert_eq!((image.pulled, image.today, index.pulled), (Some(today), today, None));
    assert!(image.age < Duration::from_mins(1) && !image.is_promoted);
    let mut tags = image.tags.clone();
    tags.sort();
    assert_eq!(tags, [tag("v1"), tag("v2")]);
    let mut blobs = image.blobs.clone();
    blobs.sort_by_key(|(_, size)| *size);
    assert_eq!(blobs, [(digest("layer"), 5), (digest("shared"), 6)]);
    assert_eq!(index.children.len(), 2);
    assert_eq!((note.subject, image.subject), (Some(digest("image")), None));
}
