// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Promotions: what is pushed here comes to a tag of another repository, beside pushes, deletions and collectors. One
//! that was acknowledged has its record in the ledger, whatever becomes of the database.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use serde_json::json;
use stowage_oci::{Digest, Name, Reference, Tag, TagSelection};
use stowage_registry::domain::{Ending, Promotion, PromotionMode, PromotionRequest, PromotionRule, Trigger};

use super::clients::{Recorded, Shelf, judge, judge_none, saw, tag};
use super::history::Change;
use super::world::{Actor, LOOSE, PROD, STRICT, World};
use super::{clients, releases};

/// The promotions that were acknowledged, as those who asked named them.
#[derive(Default)]
pub(super) struct Promised(Mutex<BTreeSet<String>>);

impl Promised {
    pub(super) fn promise(&self, request: &PromotionRequest) {
        self.0.lock().unwrap().extend(request.id.clone());
    }

    pub(super) fn all(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().clone()
    }
}

pub(super) fn rule(with_referrers: bool) -> PromotionRule {
    PromotionRule {
        name: "to-prod".to_owned(),
        generation: None,
        hash: "sha256:0".to_owned(),
        spec: json!({}),
        from: vec![STRICT.parse().unwrap(), LOOSE.parse().unwrap()],
        tags: TagSelection::default(),
        to: PROD.parse().unwrap(),
        to_tag: "{tag}".parse().unwrap(),
        gates: Vec::new(),
        overwrites: true,
        with_referrers,
        deadline: Duration::from_hours(1),
        trigger: Trigger::Request,
    }
}

/// Of what the tag names, as long as that is the digest.
pub(super) fn request(id: String, source: &Name, tag: &Tag, pinned: Digest) -> PromotionRequest {
    PromotionRequest {
        id: Some(id),
        repository: source.clone(),
        tag: Some(tag.clone()),
        digest: None,
        pinned: Some(pinned),
        requested_by: None,
        actor: "model".to_owned(),
        approvals: Vec::new(),
        reason: None,
    }
}

/// What is to be promoted.
struct Wanted {
    body: Bytes,
    digest: Digest,
    tag: Tag,
    request: PromotionRequest,
}

/// By its digest, or by its tag, with what that names now.
async fn wanted(world: &World, shelf: &Shelf, actor: &mut Actor, source: &Name) -> Option<Wanted> {
    let by_tag = actor.chance(0.4);
    let tag = if by_tag || actor.chance(0.6) {
        tag(actor)
    } else {
        world.releases.to_push(actor, &PROD.parse().unwrap())
    };
    let body = if by_tag {
        let began = Instant::now();
        match actor.domain.manifest(source, &Reference::Tag(tag.clone()), false).await {
            Ok(answer) => {
                saw(world, source, &tag, Some(answer.digest), began);
                answer.body?
            }
            Err(error) => return judge_none(world, "read of what is promoted", &error),
        }
    } else {
        shelf.recent(actor, source)?
    };
    let digest = clients::digest(&body);
    let id = format!("{}-{:x}", actor.number, actor.random.random::<u64>());
    let request = request(id, source, &tag, digest);
    let request =
        if by_tag { request } else { PromotionRequest { digest: Some(digest), pinned: None, ..request } };
    Some(Wanted { body, digest, tag, request })
}

/// Promotes something that was pushed lately.
pub(super) async fn promote(world: &World, shelf: &Shelf, actor: &mut Actor) {
    let source: Name = [STRICT, LOOSE].choose(&mut actor.random).unwrap().parse().unwrap();
    let target: Name = PROD.parse().unwrap();
    let Some(Wanted { body, digest, tag, request }) = wanted(world, shelf, actor, &source).await else {
        return;
    };
    let rule = rule(actor.chance(0.5));
    let tags = std::slice::from_ref(&tag);
    let known = world.releases.named(&target, tags);
    let began = Instant::now();
    let recorded = Recorded::begin(&world.history, &target, tags, Change::Set(digest));
    let promotion = match actor.domain.promote(&rule, &request, PromotionMode::Promote).await {
        Ok(promotion) => promotion,
        Err(error) => return judge(world, "promotion", &error),
    };
    match promotion.ending {
        Ending::Promoted => {
            recorded.acknowledged();
            world.count("promotions");
            world.promised.promise(&request);
            releases::judge_push(world, &target, (tags, &[]), digest, &known);
            shelf.remember(&target, &body);
        }
        Ending::AlreadyPromoted => {
            drop(recorded);
            world.count("promotions repeated");
            saw(world, &target, &tag, Some(digest), began);
        }
        Ending::TagImmutable => {
            drop(recorded);
            releases::judge_push(world, &target, (tags, tags), digest, &known);
        }
        _ => refused(world, &promotion),
    }
}

/// Deleted or moved meanwhile; no gate is asked, and any tag may be moved.
fn refused(world: &World, promotion: &Promotion) {
    match promotion.ending {
        Ending::ArtifactNotFound | Ending::ArtifactChanged => world.count("promotions of what is gone"),
        _ => world.violation(format!("promotion: {promotion:?}")),
    }
}
