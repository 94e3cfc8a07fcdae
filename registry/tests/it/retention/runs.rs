// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use stowage_oci::Digest;
use stowage_registry::domain::Limits as DomainLimits;
use stowage_registry::jobs::{Held, RebuildOptions, Retained, RetentionError, RetentionRun, rebuild};
use stowage_registry::key::{RunKind, RunOutcome};
use stowage_registry::operation::Mode;
use stowage_registry::reports::newest;
use stowage_registry::retention::{Limits, Policy, PolicyMode, Promoted, Referrers, Rule, TooMany};
use stowage_registry::usage::Usage;

use super::both_sites;
use super::site::{DAY, keeps, policy, settings};
use crate::gc::site::{IMAGE, INDEX, Site, image, sha256};

/// Images of their own, each under its tag.
async fn push(site: &Site, repository: &str, tags: &[&str]) -> Vec<Digest> {
    let mut digests = Vec::new();
    for tag in tags {
        digests.push(site.push_image(repository, tag, &[tag.as_bytes()]).await);
    }
    digests
}

/// Without a pull, which would be one more reason to keep it.
async fn is_there(site: &Site, repository: &str, reference: &str) -> bool {
    let target = format!("/v2/{repository}/manifests/{reference}");
    site.send(Method::HEAD, &target, "application/octet-stream", b"").await.status == StatusCode::OK
}

async fn f27_p13_n3_a_dry_run_gives_a_reason_for_each_tag_and_changes_nothing(site: Site) {
    push(&site, "team/app", &["old", "stays"]).await;
    push(&site, "other/app", &["elsewhere"]).await;
    let policies = vec![policy("team", "team/**", vec![keeps(&["stays"])])];
    let settings = settings(policies);
    let before = site.left().await;
    let (retained, plan) = site.ran(&settings, "team", None, RetentionRun::Tell).await.unwrap();
    let expected = [("team/app:old", "NoRuleKeeps"), ("team/app:stays", "KeptBy team/kept")];
    let expected: BTreeMap<_, _> = expected.map(|(tag, why)| (tag.to_owned(), why.to_owned())).into();
    assert_eq!(plan, expected);
    assert_eq!(site.left().await, before);
    let runs = site.meta.runs(RunKind::Retention, &"team".parse().unwrap(), 9).await.unwrap();
    assert_eq!(runs, [], "no row either");
    let counts = retained.counts();
    assert_eq!((counts["evaluatedTags"], counts["keptTags"], counts["wouldDeleteTags"]), (2, 1, 1));
    assert_eq!((counts["deletedTags"], counts["reclaimableBytes"]), (0, 3), "the layer of the image");
    assert_eq!((retained.held, retained.trash), (Some(Held::Asked), DAY));
}

async fn p13_a_policy_in_mode_dry_run_reports_and_deletes_nothing(site: Site) {
    push(&site, "team/app", &["old", "stays"]).await;
    let told = Policy { mode: PolicyMode::DryRun, ..policy("team", "team/**", vec![keeps(&["stays"])]) };
    let settings = settings(vec![told]);
    for _ in 0..2 {
        let (retained, _) = site.ran(&settings, "team", None, RetentionRun::Act).await.unwrap();
        assert_eq!((retained.held, retained.deleted), (Some(Held::DryRun), 0));
    }
    assert_eq!(site.tags("team/app").await, ["old", "stays"]);
    let name = "team".parse().unwrap();
    let runs = site.meta.runs(RunKind::Retention, &name, 9).await.unwrap();
    assert_eq!((runs.len(), runs[0].outcome), (2, RunOutcome::Succeeded));
    let told = newest(&*site.meta, &*site.store, RunKind::Retention, &name).await.unwrap().unwrap();
    let summary: Value = serde_json::from_str(&told.summary).unwrap();
    assert_eq!((&summary["mode"], &summary["counts"]["wouldDeleteTags"]), (&json!("DryRun"), &json!(1)));
    let lines: Vec<Value> =
        told.text(1 << 20).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["tag"], &lines[0]["keeps"], &lines[0]["reason"]),
        (&json!("old"), &json!(false), &json!("NoRuleKeeps"))
    );
}

async fn n3_enforcing_deletes_exactly_what_the_first_run_of_its_rules_told(site: Site) {
    let digests = push(&site, "team/app", &["a", "b", "c", "d"]).await;
    push(&site, "elsewhere/app", &["a"]).await;
    let settings = settings(vec![policy("team", "team/**", vec![keeps(&["b", "d"])])]);
    let (told, plan) = site.ran(&settings, "team", None, RetentionRun::Act).await.unwrap();
    assert_eq!((told.held, told.deleted), (Some(Held::FirstRunOfRules), 0));
    assert_eq!(site.tags("team/app").await, ["a", "b", "c", "d"]);
    let (done, again) = site.ran(&settings, "team", None, RetentionRun::Act).await.unwrap();
    assert_eq!((done.held, done.deleted, done.skipped), (None, 2, 0));
    assert_eq!(plan, again);
    let goes: Vec<&str> =
        plan.iter().filter(|(_, why)| *why == "NoRuleKeeps").map(|(tag, _)| tag.as_str()).collect();
    assert_eq!(goes, ["team/app:a", "team/app:c"]);
    assert_eq!(site.tags("team/app").await, ["b", "d"]);
    assert_eq!(site.tags("elsewhere/app").await, ["a"]);
    assert!(is_there(&site, "team/app", &digests[0].to_string()).await, "what it named rests untagged");
    assert!(!is_there(&site, "team/app", "a").await);
    let tombstones = site.left().await.into_iter().filter(|key| key.ends_with(".-")).count();
    assert_eq!(tombstones, 2, "the bucket knows it, too");
    // A tag that comes again is a tag like others.
    push(&site, "team/app", &["a"]).await;
    assert_eq!(site.tags("team/app").await, ["a", "b", "d"]);
}

async fn n3_what_is_due_in_several_processes_runs_once(site: Site) {
    push(&site, "team/app", &["a", "b"]).await;
    let settings = settings(vec![policy("team", "team/**", vec![keeps(&["b"])])]);
    let now = i64::try_from(site.meta.retention_clock().await.unwrap().now).unwrap();
    let at = |seconds: i64| Timestamp::from_millisecond(now + 1000 * seconds).unwrap();
    assert!(!site.retainer().has_run("team", at(0)).await.unwrap());
    site.ran(&settings, "team", None, RetentionRun::Act).await.unwrap();
    let other = site.retainer();
    assert!(other.has_run("team", at(0)).await.unwrap(), "else it would delete what was told this moment");
    assert!(!other.has_run("team", at(60)).await.unwrap(), "that is due a minute later");
    assert!(!other.has_run("other", at(0)).await.unwrap());
}

async fn changed_rules_are_told_before_they_delete_also_when_anothers_keep_goes(site: Site) {
    push(&site, "team/app", &["a", "b"]).await;
    let own = policy("own", "team/**", vec![keeps(&["b"])]);
    let other = policy("other", "**", vec![keeps(&["a"])]);
    let both = settings(vec![own.clone(), other]);
    let (done, _) = site.enforced(&both, "own").await;
    assert_eq!((done.deleted, done.overlaps), (0, vec!["other".to_owned()]));
    let alone = settings(vec![own.clone()]);
    let (told, plan) = site.ran(&alone, "own", None, RetentionRun::Act).await.unwrap();
    assert_eq!(told.held, Some(Held::FirstRunOfRules), "the other's rule went");
    assert_eq!(plan["team/app:a"], "NoRuleKeeps");
    let (done, _) = site.ran(&alone, "own", None, RetentionRun::Act).await.unwrap();
    assert_eq!(done.deleted, 1);
    assert_eq!(site.tags("team/app").await, ["b"]);
}

async fn l48_a_run_beyond_its_limits_deletes_nothing(site: Site) {
    let tags: Vec<String> = (0..15).map(|number| format!("t{number}")).collect();
    let digest = site.push_image("team/app", "t0", &[b"layer"]).await;
    let manifest = image(&[b"layer"]);
    for tag in &tags[1..] {
        assert_eq!(site.put_manifest("team/app", tag, &manifest).await, digest);
    }
    let of = |limits| settings(vec![Policy { limits, ..policy("team", "team/**", vec![keeps(&["t0"])]) }]);
    let few = of(Limits { deletions: 13, percent: 100 });
    let (retained, _) = site.ran(&few, "team", None, RetentionRun::Act).await.unwrap();
    assert_eq!(retained.held, Some(Held::LimitExceeded(TooMany::Tags { found: 14, allowed: 13 })));
    let part = of(Limits { deletions: 100, percent: 90 });
    let (retained, _) = site.ran(&part, "team", None, RetentionRun::Act).await.unwrap();
    assert!(matches!(retained.held, Some(Held::LimitExceeded(TooMany::Percent { found: 14, .. }))));
    assert_eq!(site.tags("team/app").await.len(), 15);
    let runs = site.meta.runs(RunKind::Retention, &"team".parse().unwrap(), 1).await.unwrap();
    assert_eq!(runs[0].outcome, RunOutcome::Refused);
    assert!(runs[0].summary.contains("LimitExceeded"), "{}", runs[0].summary);
    let (retained, _) =
        site.ran(&of(Limits { deletions: 14, percent: 100 }), "team", None, RetentionRun::Act).await.unwrap();
    assert_eq!(retained.deleted, 14, "the plan was told");
    assert_eq!(site.tags("team/app").await, ["t0"], "one of many that name the same");
    assert!(is_there(&site, "team/app", &digest.to_string()).await);
}

async fn h8_exactly_what_was_never_promoted_and_is_older_than_its_grace_goes(site: Site) {
    let digests = push(&site, "dev/app", &["promoted", "fresh", "stale", "elsewhere"]).await;
    for tag in ["promoted", "stale", "elsewhere"] {
        site.age(tag, 15).await;
    }
    site.age("fresh", 13).await;
    site.promoted(&digests[0], "dev/app", "prod/app", 200).await;
    site.promoted(&digests[3], "dev/app", "qa/app", 1).await;
    site.promoted(&digests[2], "dev/other", "prod/app", 1).await;
    let keep = vec![
        Rule {
            name: "promoted".to_owned(),
            promoted: Some(Promoted { to: vec!["prod/**".parse().unwrap()], within: None }),
            ..Rule::default()
        },
        Rule { name: "grace".to_owned(), pushed_within: Some(14 * DAY), ..Rule::default() },
    ];
    let (done, plan) = site.enforced(&settings(vec![policy("dev", "dev/**", keep)]), "dev").await;
    assert_eq!(plan["dev/app:promoted"], "KeptBy dev/promoted");
    assert_eq!(plan["dev/app:fresh"], "KeptBy dev/grace");
    assert_eq!(done.deleted, 2);
    assert_eq!(site.tags("dev/app").await, ["fresh", "promoted"]);
}

async fn l51_what_was_pulled_stays_and_everything_does_while_the_record_has_a_gap(site: Site) {
    push(&site, "team/app", &["pulled", "unused"]).await;
    for tag in ["pulled", "unused"] {
        site.age(tag, 100).await;
    }
    let used = Rule { name: "used".to_owned(), pulled_within: Some(90 * DAY), ..Rule::default() };
    let settings = settings(vec![policy("team", "team/**", vec![used])]);
    let digest = site.put_manifest("team/app", "pulled", &image(&[b"pulled"])).await;
    site.age("pulled", 100).await;
    site.meta.record_pulls(&[("team/app".parse().unwrap(), digest)]).await.unwrap();
    let today = site.meta.record_pulls(&[]).await.unwrap().day;
    let writer = stowage_registry::key::Generation::at(1);
    let epoch = site.meta.incarnation().await.unwrap().epoch;
    site.meta.note_pull_writers(epoch, &[(writer, today.plus(-80))]).await.unwrap();
    let (_, plan) = site.ran(&settings, "team", None, RetentionRun::Tell).await.unwrap();
    assert_eq!(plan["team/app:unused"], "KeptBy team/used", "pulls of eighty days ago may be missing");
    site.meta.forget_pull_writer(epoch, writer).await.unwrap();
    let (done, _) = site.enforced(&settings, "team").await;
    assert_eq!(done.deleted, 1);
    assert_eq!(site.tags("team/app").await, ["pulled"]);
}

async fn what_runs_stays_with_all_that_stands_or_falls_with_it(site: Site) {
    let digests = push(&site, "team/app", &["by-digest", "by-name", "child", "free"]).await;
    let children = json!([{ "mediaType": IMAGE, "digest": digests[2], "size": 1 }]);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
    let index = site.put_manifest("team/app", "index", &index).await;
    // By the configuration: some runtimes name it so.
    site.push_blob("team/app", b"{\"own\":1}").await;
    let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(b"{\"own\":1}"), "size": 9 });
    let by_config = json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [] });
    site.put_manifest("team/app", "by-config", &by_config).await;
    let usage = Usage {
        digests: HashSet::from([digests[0], index, sha256(b"{\"own\":1}")]),
        names: HashSet::from([("team/app".parse().unwrap(), "by-name".parse().unwrap())]),
    };
    let hostile = settings(vec![policy("hostile", "**", vec![keeps(&["none-of-them"])])]);
    let (_, plan) = site.ran(&hostile, "hostile", Some(usage), RetentionRun::Tell).await.unwrap();
    let why: Vec<(&str, &str)> = plan
        .iter()
        .filter(|(tag, _)| tag.starts_with("team/"))
        .map(|(tag, why)| (tag.split(':').nth(1).unwrap(), why.as_str()))
        .collect();
    let expected = [
        ("by-config", "InUse"),
        ("by-digest", "InUse"),
        ("by-name", "InUse"),
        ("child", "InUse"),
        ("free", "NoRuleKeeps"),
        ("index", "InUse"),
    ];
    assert_eq!(why, expected);
}

async fn l13_absence_deletes_nothing(site: Site) {
    push(&site, "team/app", &["a"]).await;
    // An empty document knows no policy; a half one not those that keep, and tells first; a stale one what was told.
    let empty = site.ran(&settings(Vec::new()), "team", None, RetentionRun::Act).await;
    assert!(matches!(empty, Err(RetentionError::Unknown(_))), "{empty:?}");
    let whole =
        settings(vec![policy("team", "team/**", Vec::new()), policy("keeper", "**", vec![keeps(&["a"])])]);
    let (done, _) = site.enforced(&whole, "team").await;
    assert_eq!((done.held, done.deleted), (None, 0));
    let half = settings(vec![policy("team", "team/**", Vec::new())]);
    let (told, _) = site.ran(&half, "team", None, RetentionRun::Act).await.unwrap();
    assert_eq!((told.held, told.deleted), (Some(Held::FirstRunOfRules), 0));
    let (done, _) = site.ran(&whole, "team", None, RetentionRun::Act).await.unwrap();
    assert_eq!((done.held, done.deleted), (Some(Held::FirstRunOfRules), 0));
    let elsewhere = settings(vec![policy("team", "nowhere/**", Vec::new())]);
    let (done, _) = site.enforced(&elsewhere, "team").await;
    assert_eq!((done.tally.evaluated, done.deleted), (0, 0));
    assert_eq!(site.tags("team/app").await, ["a"]);
}

async fn a_registry_that_takes_no_deletions_and_a_policy_that_is_suspended_delete_nothing(site: Site) {
    push(&site, "team/app", &["a"]).await;
    let own = policy("team", "team/**", vec![keeps(&["b"])]);
    for mode in [Mode::NoDelete, Mode::ReadOnly] {
        let settings = stowage_registry::config::Retention { mode, ..settings(vec![own.clone()]) };
        let (held, _) = site.ran(&settings, "team", None, RetentionRun::Act).await.unwrap();
        assert!(matches!(held.held, Some(Held::Forbidden(_))));
    }
    let suspended = settings(vec![Policy { suspended: true, ..own }]);
    for _ in 0..2 {
        let (held, _) = site.ran(&suspended, "team", None, RetentionRun::Act).await.unwrap();
        assert_eq!(held.held, Some(Held::Suspended));
    }
    assert_eq!(site.tags("team/app").await, ["a"]);
}

async fn policies_say_nothing_below_the_path_of_a_mirror_that_copies(site: Site) {
    push(&site, "base/app", &["a"]).await;
    push(&site, "hub/app", &["a"]).await;
    let settings = stowage_registry::config::Retention {
        copied: vec!["base".parse().unwrap()],
        fetched: vec!["hub".parse().unwrap()],
        ..settings(vec![policy("all", "**", vec![keeps(&["b"])])])
    };
    let (_, plan) = site.ran(&settings, "all", None, RetentionRun::Tell).await.unwrap();
    assert!(!plan.contains_key("base/app:a"), "{plan:?}");
    assert_eq!(settings.retained(&"hub/app".parse().unwrap()), Duration::ZERO, "what goes comes again");
    assert_eq!(settings.retained(&"hubs/app".parse().unwrap()), DAY);
    let (done, _) = site.enforced(&settings, "all").await;
    assert!(done.deleted > 0);
    assert_eq!(site.tags("base/app").await, ["a"]);
    assert_eq!(site.tags("hub/app").await, [""; 0]);
}

async fn p12_labels_of_the_image_and_annotations_of_its_manifest_keep(site: Site) {
    async fn labelled(site: &Site, tag: &str, config: &Value, annotations: &Value) -> Digest {
        let bytes = config.to_string();
        let digest = site.push_blob("team/app", bytes.as_bytes()).await;
        let config = json!({
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": bytes.len(),
        });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [], "annotations": annotations,
        });
        site.put_manifest("team/app", tag, &manifest).await
    }
    let keep = json!({ "org.example.keep": "true" });
    let held = labelled(&site, "label", &json!({ "config": { "Labels": keep } }), &json!({})).await;
    labelled(&site, "annotation", &json!({ "config": {} }), &keep).await;
    labelled(&site, "other", &json!({ "config": { "Labels": { "org.example.keep": "no" } } }), &json!({}))
        .await;
    let children = json!([{ "mediaType": IMAGE, "digest": held, "size": 1 }]);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
    site.put_manifest("team/app", "index", &index).await;
    let rule = Rule {
        name: "held".to_owned(),
        labels: BTreeMap::from([("org.example.keep".to_owned(), "true".to_owned())]),
        ..Rule::default()
    };
    let settings = settings(vec![policy("team", "team/**", vec![rule])]);
    let (_, plan) = site.ran(&settings, "team", None, RetentionRun::Tell).await.unwrap();
    for (tag, why) in [
        ("label", "KeptBy team/held"),
        ("annotation", "KeptBy team/held"),
        ("index", "KeptBy team/held"),
        ("other", "NoRuleKeeps"),
    ] {
        assert_eq!(plan[&format!("team/app:{tag}")], why, "{tag}");
    }
}

/// Collections and runs in turn, until a run has taken manifests.
async fn until_manifests_go(site: &Site, settings: &stowage_registry::config::Retention) -> Retained {
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        site.collect_some().await;
        let (done, _) = site.ran(settings, "team", None, RetentionRun::Act).await.unwrap();
        if done.manifests > 0 {
            return done;
        }
    }
    panic!("no manifest goes");
}

async fn p12_manifests_without_a_tag_go_with_what_refers_to_them_unless_that_is_kept(site: Site) {
    let digests = push(&site, "team/app", &["gone", "child", "stays"]).await;
    let children = json!([{ "mediaType": IMAGE, "digest": digests[1], "size": 1 }]);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": children });
    site.put_manifest("team/app", "index", &index).await;
    let subject = json!({ "mediaType": IMAGE, "digest": digests[0], "size": 1 });
    let mut signature = image(&[]);
    signature["subject"] = subject;
    let reference = sha256(signature.to_string().as_bytes());
    site.put_manifest("team/app", &reference.to_string(), &signature).await;
    let own = |referrers| Policy {
        untagged: Some(Duration::ZERO),
        referrers,
        ..policy("team", "team/**", vec![keeps(&["stays", "index"])])
    };
    // The trash counts as a tag, so its time must be over, and a collection must have taken it.
    let brief = |referrers| stowage_registry::config::Retention {
        retain_for: Duration::ZERO,
        ..settings(vec![own(referrers)])
    };
    site.enforced(&brief(Referrers::Keep), "team").await;
    assert_eq!(site.tags("team/app").await, ["index", "stays"]);
    let done = until_manifests_go(&site, &brief(Referrers::Keep)).await;
    assert_eq!(done.manifests, 1, "{done:?}");
    assert!(!is_there(&site, "team/app", &digests[0].to_string()).await);
    for kept in [&digests[1], &digests[2], &reference] {
        assert!(is_there(&site, "team/app", &kept.to_string()).await, "{kept}");
    }
    site.collect_all().await;
    assert!(is_there(&site, "team/app", &reference.to_string()).await, "referrers: Keep");
    let done = until_manifests_go(&site, &brief(Referrers::FollowSubject)).await;
    assert_eq!(done.manifests, 1, "{done:?}");
    assert!(!is_there(&site, "team/app", &reference.to_string()).await);
}

async fn n1_a_database_that_is_made_again_knows_the_runs_and_their_rules(site: Site) {
    push(&site, "team/app", &["a", "b"]).await;
    let settings = settings(vec![policy("team", "team/**", vec![keeps(&["b"])])]);
    site.ran(&settings, "team", None, RetentionRun::Act).await.unwrap();
    let name = "team".parse().unwrap();
    let known = site.meta.runs(RunKind::Retention, &name, 9).await.unwrap();
    assert_eq!(known.len(), 1);
    site.execute("DELETE FROM runs", "DELETE FROM runs").await;
    let (meta, store) = (Arc::clone(&site.meta), Arc::clone(&site.store));
    let walked =
        rebuild(meta, store, DomainLimits::default(), RebuildOptions::default(), |_| {}).await.unwrap();
    assert_eq!((walked.changes.get("adoptedRuns"), walked.foreign), (Some(&1), 0), "{:?}", walked.changes);
    let again = site.meta.runs(RunKind::Retention, &name, 9).await.unwrap();
    assert_eq!(
        (again[0].generation, again[0].rules, again[0].started),
        (known[0].generation, known[0].rules, known[0].started)
    );
    let (done, _) = site.ran(&settings, "team", None, RetentionRun::Act).await.unwrap();
    assert_eq!(done.deleted, 1, "the rules were told before the database was lost");
    assert_eq!(site.send(Method::GET, "/v2/team/app/manifests/a", IMAGE, b"").await.status, 404);
}

both_sites!(
    f27_p13_n3_a_dry_run_gives_a_reason_for_each_tag_and_changes_nothing,
    p13_a_policy_in_mode_dry_run_reports_and_deletes_nothing,
    n3_enforcing_deletes_exactly_what_the_first_run_of_its_rules_told,
    n3_what_is_due_in_several_processes_runs_once,
    changed_rules_are_told_before_they_delete_also_when_anothers_keep_goes,
    l48_a_run_beyond_its_limits_deletes_nothing,
    h8_exactly_what_was_never_promoted_and_is_older_than_its_grace_goes,
    l51_what_was_pulled_stays_and_everything_does_while_the_record_has_a_gap,
    what_runs_stays_with_all_that_stands_or_falls_with_it,
    l13_absence_deletes_nothing,
    a_registry_that_takes_no_deletions_and_a_policy_that_is_suspended_delete_nothing,
    policies_say_nothing_below_the_path_of_a_mirror_that_copies,
    p12_labels_of_the_image_and_annotations_of_its_manifest_keep,
    p12_manifests_without_a_tag_go_with_what_refers_to_them_unless_that_is_kept,
    n1_a_database_that_is_made_again_knows_the_runs_and_their_rules,
);
