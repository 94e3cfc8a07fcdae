// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Runs that meet tags which are immutable here.

use std::sync::Mutex;

use stowage_oci::{TagSelection, TagsWanted};
use stowage_registry::domain::{Immutability, ImmutabilityRule, SyncFate, SyncItem, SyncMode, SyncProgress};

use super::site::Site;
use crate::support::program::ask;
use crate::upstream::servers::{Stowage, push, settings};

super::both_stores!(
    w731_a_tag_that_is_immutable_here_is_not_moved_nothing_is_fetched_for_it_and_the_rest_is_copied,
    w731_a_tag_that_is_immutable_here_is_not_pruned_and_the_rest_is,
);

/// From now on, or no longer, versions never move.
fn protect(site: &Site, is_protected: bool) {
    let wanted = TagsWanted::Versions("*".parse().unwrap());
    let rule = ImmutabilityRule {
        name: "releases".to_owned(),
        repositories: vec!["base/**".parse().unwrap()],
        tags: TagSelection { wanted, ..TagSelection::default() },
        signature_tags: false,
    };
    let rules = if is_protected { vec![rule] } else { Vec::new() };
    site.registry.domain().set_immutability(Immutability(rules));
}

/// What a run says of what fails.
async fn messages(site: &Site) -> Vec<String> {
    let messages = Mutex::new(Vec::new());
    let tell = |item: &SyncItem, _: SyncProgress| {
        if let SyncFate::Failed { message, .. } = &item.fate {
            messages.lock().unwrap().push(message.clone());
        }
    };
    site.registry.replicate(&site.asked, SyncMode::Copy, &tell).await;
    messages.into_inner().unwrap()
}

async fn w731_a_tag_that_is_immutable_here_is_not_moved_nothing_is_fetched_for_it_and_the_rest_is_copied(
    site: Site,
) {
    protect(&site, true);
    let first = site.push("team/app", "1.0", b"first");
    site.push("team/app", "latest", b"first of the others");
    assert_eq!(
        site.copy().await.items,
        ["copied team/app:1.0", "copied team/app:latest"],
        "once it is taken"
    );
    let second = site.push("team/app", "1.0", b"second");
    let latest = site.push("team/app", "latest", b"second of the others");
    site.line.asked();
    for (mode, other) in
        [(SyncMode::DryRun, "copied"), (SyncMode::Copy, "copied"), (SyncMode::Copy, "unchanged")]
    {
        let told = site.run(mode).await;
        let mut expected = [format!("{other} team/app:latest"), "failed team/app:1.0".to_owned()];
        expected.sort();
        assert_eq!(told.items, expected, "{mode:?}");
        assert_eq!(told.synced.failures, [("team/app:1.0".to_owned(), "TagImmutable")]);
    }
    let asked = site.line.asked();
    for digest in [&second.digest, &second.layer_digest] {
        assert!(!asked.iter().any(|line| line.contains(&digest.to_string())), "{asked:?}");
    }
    let told = messages(&site).await;
    assert!(told.len() == 1 && told[0].contains("1.0") && told[0].contains("\"releases\""), "{told:?}");
    let here = async |reference: &str| site.manifest("base/team/app", reference).await;
    assert_eq!(here("1.0").await, Some(first.manifest));
    assert_eq!(here("latest").await, Some(latest.manifest));
    assert_eq!(here(&second.digest.to_string()).await, None);

    protect(&site, false);
    assert_eq!(site.copy().await.items, ["copied team/app:1.0", "unchanged team/app:latest"]);
    assert_eq!(here("1.0").await, Some(second.manifest));
}

async fn w731_a_tag_that_is_immutable_here_is_not_pruned_and_the_rest_is(mut site: Site) {
    protect(&site, true);
    let upstream = Stowage::open().await;
    let others = ["a", "b", "c", "d", "stays"];
    for tag in ["1.0"].iter().chain(&others) {
        push(&upstream.address(), "", "team/app", tag, tag.as_bytes());
    }
    site.asked.upstream = settings(&format!("http://{}", upstream.address()));
    site.asked.prunes = true;
    assert_eq!(site.copy().await.synced.copied, 6);
    for tag in ["1.0", "a", "b", "c", "d"] {
        let target = format!("/v2/team/app/manifests/{tag}");
        assert_eq!(ask(&upstream.address(), "DELETE", &target, "", b"").0, 202);
    }
    let expected = [
        "failed team/app:1.0",
        "pruned team/app:a",
        "pruned team/app:b",
        "pruned team/app:c",
        "pruned team/app:d",
        "unchanged team/app:stays",
    ];
    for mode in [SyncMode::DryRun, SyncMode::Copy] {
        let told = site.run(mode).await;
        assert_eq!(told.items, expected, "{mode:?}");
        assert_eq!(told.synced.failures, [("team/app:1.0".to_owned(), "TagImmutable")]);
    }
    assert!(site.manifest("base/team/app", "1.0").await.is_some());
    assert_eq!(site.manifest("base/team/app", "a").await, None);
    protect(&site, false);
    assert_eq!(site.copy().await.items, ["pruned team/app:1.0", "unchanged team/app:stays"]);
}
