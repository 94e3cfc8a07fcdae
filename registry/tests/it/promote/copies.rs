// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What comes to the target, and what does not.

use http::StatusCode;
use stowage_oci::{Digest, TagSelection};
use stowage_registry::domain::{
    Ending, Immutability, ImmutabilityRule, PromotionMode, PromotionRequest, PromotionRule,
};
use stowage_registry::ops::tasks::Tasks;

use super::{of_digest, promote, ready, request, rule};
use crate::rebuild::api::{attachment, digest_of, index};
use crate::rebuild::stand::{Replica, Stand};

on_both!(
    n5_an_index_comes_with_its_children_and_referrers_and_no_byte_is_copied,
    n5_referrers_stay_behind_where_the_policy_says_so,
    n5_a_repeat_changes_nothing,
    n5_a_tag_that_names_another_digest_is_kept_or_overwritten_as_the_policy_says,
    n5_an_immutable_tag_is_not_overwritten,
    n5_a_rollback_is_a_promotion_of_the_older_digest,
    n5_a_tag_that_moved_since_it_was_pinned_is_not_promoted,
    n5_what_the_policy_is_not_for_is_not_promoted,
    n5_two_promotions_at_once_are_one,
    n5_what_a_push_sets_meanwhile_is_not_promoted_over,
);

async fn data(replica: &Replica) -> usize {
    replica.store.list("v1/blob/", None, 1000).await.unwrap().len()
}

async fn n5_an_index_comes_with_its_children_and_referrers_and_no_byte_is_copied(stand: Stand) {
    let replica = ready(&stand).await;
    let api = &replica.api;
    let mut children = Vec::new();
    for layer in ["amd64", "arm64"] {
        children.push(api.push_image("staging/app", None, layer).await);
    }
    let list = index(&children);
    assert_eq!(api.put("staging/app", Some("1.0"), &list).await.status, StatusCode::CREATED);
    let image = digest_of(&list);
    let notes = [attachment(image, "of the index"), attachment(children[0], "of a child")];
    for note in &notes {
        assert_eq!(api.put("staging/app", None, note).await.status, StatusCode::CREATED);
    }
    let deep = attachment(digest_of(&notes[0]), "of a note");
    assert_eq!(api.put("staging/app", None, &deep).await.status, StatusCode::CREATED);
    let signature = format!("sha256-{}.sig", image.hex());
    api.push_image("staging/app", Some(&signature), "signature").await;
    let before = data(&replica).await;

    let promotion = promote(&replica, &rule(Vec::new()), &request("1.0")).await;
    assert_eq!((promotion.ending, promotion.digest), (Ending::Promoted, Some(image)), "{promotion:?}");
    assert_eq!((promotion.referrers, promotion.previous), (4, None));
    assert_eq!(data(&replica).await, before, "blobs are shown, not copied");
    assert_eq!(api.resolve("prod/app", "1.0").await, Some(image));
    for child in &children {
        api.assert_pullable("prod/app", &child.to_string()).await;
    }
    for (subject, note) in [(image, &notes[0]), (children[0], &notes[1]), (digest_of(&notes[0]), &deep)] {
        assert_eq!(api.referrers("prod/app", subject).await, [digest_of(note).to_string()]);
    }
    api.assert_pullable("prod/app", &signature).await;
    assert_eq!(api.resolve("staging/app", "1.0").await, Some(image), "the source is as it was");

    // What is gone there stays here.
    api.delete("/v2/staging/app/manifests/1.0").await;
    for child in &children {
        api.assert_pullable("prod/app", &child.to_string()).await;
    }
    replica.stop().await;
}

async fn n5_referrers_stay_behind_where_the_policy_says_so(stand: Stand) {
    let replica = ready(&stand).await;
    let image = replica.api.push_image("staging/app", Some("1.0"), "x").await;
    assert_eq!(
        replica.api.put("staging/app", None, &attachment(image, "note")).await.status,
        StatusCode::CREATED
    );
    let rule = PromotionRule { with_referrers: false, ..rule(Vec::new()) };
    assert_eq!(promote(&replica, &rule, &request("1.0")).await.ending, Ending::Promoted);
    assert!(replica.api.referrers("prod/app", image).await.is_empty());
    replica.stop().await;
}

async fn n5_a_repeat_changes_nothing(stand: Stand) {
    let replica = ready(&stand).await;
    replica.api.push_image("staging/app", Some("1.0"), "x").await;
    let rule = rule(Vec::new());
    let domain = replica.registry.domain();
    let dry = domain.promote(&rule, &request("1.0"), PromotionMode::DryRun).await.unwrap();
    assert_eq!(dry.ending, Ending::AllPassed);
    assert!(replica.api.tags("prod/app").await.is_empty(), "a dry run changes nothing");
    assert_eq!(promote(&replica, &rule, &request("1.0")).await.ending, Ending::Promoted);
    let objects = replica.store.list("v1/r/prod/", None, 1000).await.unwrap();
    for _ in 0..3 {
        assert_eq!(promote(&replica, &rule, &request("1.0")).await.ending, Ending::AlreadyPromoted);
    }
    assert_eq!(replica.store.list("v1/r/prod/", None, 1000).await.unwrap(), objects);
    // By another policy it is another promotion.
    let other = PromotionRule { name: "other".to_owned(), ..rule };
    assert_eq!(promote(&replica, &other, &request("1.0")).await.ending, Ending::Promoted);
    replica.stop().await;
}

async fn n5_a_tag_that_names_another_digest_is_kept_or_overwritten_as_the_policy_says(stand: Stand) {
    let replica = ready(&stand).await;
    let old = replica.api.push_image("prod/app", Some("1.0"), "pushed here").await;
    let new = replica.api.push_image("staging/app", Some("1.0"), "x").await;
    let keeps = rule(Vec::new());
    let promotion = promote(&replica, &keeps, &request("1.0")).await;
    assert_eq!((promotion.ending, promotion.previous), (Ending::TagConflict, Some(old)), "{promotion:?}");
    assert!(promotion.message.contains("onTagConflict is Fail"), "{}", promotion.message);
    assert_eq!(replica.api.resolve("prod/app", "1.0").await, Some(old));
    let overwrites = PromotionRule { overwrites: true, ..keeps };
    let promotion = promote(&replica, &overwrites, &request("1.0")).await;
    assert_eq!((promotion.ending, promotion.previous), (Ending::Promoted, Some(old)));
    assert_eq!(replica.api.resolve("prod/app", "1.0").await, Some(new));
    replica.stop().await;
}

async fn n5_an_immutable_tag_is_not_overwritten(stand: Stand) {
    let replica = ready(&stand).await;
    let immutable = ImmutabilityRule {
        name: "releases".to_owned(),
        repositories: vec!["prod/**".parse().unwrap()],
        tags: TagSelection::default(),
        signature_tags: false,
    };
    replica.registry.domain().set_immutability(Immutability(vec![immutable]));
    let old = replica.api.push_image("staging/app", Some("1.0"), "x").await;
    let rule = PromotionRule { overwrites: true, ..rule(Vec::new()) };
    assert_eq!(promote(&replica, &rule, &request("1.0")).await.ending, Ending::Promoted);
    assert_eq!(promote(&replica, &rule, &request("1.0")).await.ending, Ending::AlreadyPromoted);
    let new = replica.api.push_image("staging/app", Some("1.0"), "y").await;
    let promotion = promote(&replica, &rule, &request("1.0")).await;
    assert_eq!((promotion.ending, promotion.digest), (Ending::TagImmutable, Some(new)), "{promotion:?}");
    assert!(promotion.message.contains("releases"), "{}", promotion.message);
    assert_eq!(replica.api.resolve("prod/app", "1.0").await, Some(old));
    let there = replica.api.head(&format!("/v2/prod/app/manifests/{new}")).await;
    assert_eq!(there.status, StatusCode::NOT_FOUND, "nothing came along");
    replica.stop().await;
}

async fn n5_a_rollback_is_a_promotion_of_the_older_digest(stand: Stand) {
    let replica = ready(&stand).await;
    let api = &replica.api;
    let rule = PromotionRule { overwrites: true, to_tag: "stable".parse().unwrap(), ..rule(Vec::new()) };
    let old = api.push_image("staging/app", Some("1.0"), "old").await;
    assert_eq!(promote(&replica, &rule, &request("1.0")).await.ending, Ending::Promoted);
    let new = api.push_image("staging/app", Some("1.1"), "new").await;
    assert_eq!(promote(&replica, &rule, &request("1.1")).await.ending, Ending::Promoted);
    assert_eq!(api.resolve("prod/app", "stable").await, Some(new));
    // The source has lost it, the target has not.
    assert_eq!(api.delete(&format!("/v2/staging/app/manifests/{old}")).await.status, StatusCode::ACCEPTED);
    let promotion = promote(&replica, &rule, &of_digest(old, "1.0")).await;
    assert_eq!((promotion.ending, promotion.previous), (Ending::Promoted, Some(new)), "{promotion:?}");
    assert_eq!(api.resolve("prod/app", "stable").await, Some(old));
    let again = promote(&replica, &rule, &of_digest(old, "1.0")).await;
    assert_eq!(again.ending, Ending::AlreadyPromoted);
    // Another policy has never brought it.
    let other = PromotionRule { name: "other".to_owned(), ..rule };
    assert_eq!(promote(&replica, &other, &of_digest(old, "1.0")).await.ending, Ending::ArtifactNotFound);
    replica.stop().await;
}

async fn n5_a_tag_that_moved_since_it_was_pinned_is_not_promoted(stand: Stand) {
    let replica = ready(&stand).await;
    let old = replica.api.push_image("staging/app", Some("1.0"), "old").await;
    let new = replica.api.push_image("staging/app", Some("1.0"), "new").await;
    let pinned = PromotionRequest { pinned: Some(old), ..request("1.0") };
    let promotion = promote(&replica, &rule(Vec::new()), &pinned).await;
    assert_eq!((promotion.ending, promotion.digest), (Ending::ArtifactChanged, Some(old)), "{promotion:?}");
    assert!(promotion.message.contains(&new.to_string()), "{}", promotion.message);
    assert!(replica.api.tags("prod/app").await.is_empty());
    // With a digest the tag is only a name.
    let promotion = promote(&replica, &rule(Vec::new()), &of_digest(old, "1.0")).await;
    assert_eq!((promotion.ending, promotion.digest), (Ending::Promoted, Some(old)));
    let gone = PromotionRequest { pinned: Some(old), ..request("0.9") };
    assert_eq!(promote(&replica, &rule(Vec::new()), &gone).await.ending, Ending::ArtifactChanged);
    assert_eq!(promote(&replica, &rule(Vec::new()), &request("0.9")).await.ending, Ending::ArtifactNotFound);
    replica.stop().await;
}

async fn n5_what_the_policy_is_not_for_is_not_promoted(stand: Stand) {
    let replica = ready(&stand).await;
    let other = PromotionRequest { repository: "dev/app".parse().unwrap(), ..request("1.0") };
    let promotion = promote(&replica, &rule(Vec::new()), &other).await;
    assert_eq!(promotion.ending, Ending::NotCovered);
    assert_eq!(promotion.message, "PromotionPolicy to-prod is not for dev/app:1.0");
    let untagged = PromotionRequest { tag: None, ..of_digest(digest_of(&index(&[])), "x") };
    let promotion = promote(&replica, &rule(Vec::new()), &untagged).await;
    assert_eq!(promotion.ending, Ending::InvalidTarget, "there is no tag to fill in");
    replica.stop().await;
}

async fn n5_two_promotions_at_once_are_one(stand: Stand) {
    let (one, other) = (ready(&stand).await, request("1.0"));
    let image = one.api.push_image("staging/app", Some("1.0"), "x").await;
    let rule = rule(Vec::new());
    let all = futures::future::join_all((0..4).map(|_| promote(&one, &rule, &other))).await;
    let promoted = all.iter().filter(|promotion| promotion.ending == Ending::Promoted).count();
    let already = all.iter().filter(|promotion| promotion.ending == Ending::AlreadyPromoted).count();
    assert_eq!((promoted, already), (1, 3), "{all:?}");
    assert_eq!(one.api.resolve("prod/app", "1.0").await, Some(image));
    one.stop().await;
}

async fn n5_what_a_push_sets_meanwhile_is_not_promoted_over(stand: Stand) {
    use stowage_registry::meta::faulty::{Effect, Gate, Occasion};
    let replica = ready(&stand).await;
    replica.api.push_image("staging/app", Some("1.0"), "x").await;
    replica.api.push_image("prod/other", None, "pushed").await;
    let gate = Gate::new();
    // Of the promotion: the first pin is that of the promoted manifest.
    replica.database.inject("pin_manifest", Occasion::Nth(1), Effect::HoldBefore(gate.clone()));
    let domain = replica.registry.domain().clone();
    let rule_of = rule(Vec::new());
    let promoting = Tasks::new()
        .spawn(async move { domain.promote(&rule_of, &request("1.0"), PromotionMode::Promote).await });
    gate.reached().await;
    let pushed: Digest = replica.api.push_image("prod/app", Some("1.0"), "pushed").await;
    gate.release();
    let promotion = promoting.await.unwrap().unwrap();
    assert_eq!((promotion.ending, promotion.previous), (Ending::TagConflict, Some(pushed)), "{promotion:?}");
    assert_eq!(replica.api.resolve("prod/app", "1.0").await, Some(pushed));
    replica.stop().await;
}
