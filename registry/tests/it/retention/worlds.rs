// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Random repositories under random policies: whatever a run deletes, what something holds is there after it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use http::{Method, StatusCode};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use stowage_oci::{Digest, Name, TagSelection, TagsWanted};
use stowage_registry::config::Retention;
use stowage_registry::jobs::RetentionRun;
use stowage_registry::meta::RequestedPromotion;
use stowage_registry::retention::{By, Immutable, MostRecent, Policy, Rule};
use stowage_registry::usage::Usage;

use super::both_sites;
use super::site::{DAY, keeps, policy, settings};
use crate::gc::site::{IMAGE, INDEX, Site, image, sha256};

const TAGS: [&str; 8] = ["1.0.0", "1.1.0", "2.0.0", "dev-1", "dev-2", "edge", "latest", "x"];
/// It may be pushed once, and not be deleted.
const IMMUTABLE: &str = "2.0.0";
const POLICY: &str = "p";

/// A repository: images, an index of the first two, and what refers to the third and to the index.
#[derive(Default)]
struct World {
    tags: BTreeMap<String, Digest>,
    children: HashMap<Digest, Vec<Digest>>,
    subjects: HashMap<Digest, Digest>,
    all: Vec<Digest>,
    manifests: HashMap<Digest, Value>,
}

/// Who holds what.
struct Holders {
    running: HashSet<Digest>,
    named: BTreeSet<String>,
    pinned: HashSet<Digest>,
    awaited: HashSet<Digest>,
}

impl World {
    async fn push(site: &Site, repository: &Name, rng: &mut StdRng) -> Self {
        let mut world = Self::default();
        for number in 0..5 {
            let layer = format!("{repository}/{number}");
            site.push_blob(repository.as_str(), b"{}").await;
            site.push_blob(repository.as_str(), layer.as_bytes()).await;
            world.put(site, repository, image(&[layer.as_bytes()])).await;
        }
        let listed = world.all[..2].to_vec();
        let entries: Vec<Value> = listed.iter().map(|digest| described(*digest)).collect();
        let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        let list = world.put(site, repository, list).await;
        world.children.insert(list, listed);
        for subject in [world.all[2], list] {
            let mut referrer = image(&[]);
            referrer["subject"] = described(subject);
            let referrer = world.put(site, repository, referrer).await;
            world.subjects.insert(referrer, subject);
        }
        world.tag(site, repository, rng).await;
        world
    }

    /// By its digest alone.
    async fn put(&mut self, site: &Site, repository: &Name, manifest: Value) -> Digest {
        let reference = sha256(manifest.to_string().as_bytes()).to_string();
        let digest = site.put_manifest(repository.as_str(), &reference, &manifest).await;
        self.all.push(digest);
        self.manifests.insert(digest, manifest);
        digest
    }

    /// Sets some of the tags, some days ago, and one of a signature of the fourth image.
    async fn tag(&mut self, site: &Site, repository: &Name, rng: &mut StdRng) {
        let signature = format!("sha256-{}.sig", self.all[3].hex());
        let chosen: Vec<&str> = TAGS.into_iter().filter(|_| rng.random_bool(0.7)).collect();
        for tag in chosen.into_iter().chain([signature.as_str()]) {
            let digest = *self.all[..6].choose(rng).expect("there are images");
            site.put_manifest(repository.as_str(), tag, &self.manifests[&digest]).await;
            site.age(tag, rng.random_range(0..100)).await;
            self.tags.insert(tag.to_owned(), digest);
        }
    }

    /// What stands or falls with a manifest: indexes above, what it lists, and what refers to these.
    fn around(&self, digest: Digest) -> HashSet<Digest> {
        let above =
            self.children.iter().filter(|(_, children)| children.contains(&digest)).map(|(above, _)| *above);
        self.with_referrers([digest].into_iter().chain(above).chain(self.below(digest)).collect())
    }

    fn below(&self, digest: Digest) -> impl Iterator<Item = Digest> {
        self.children.get(&digest).into_iter().flatten().copied()
    }

    fn with_referrers(&self, mut subjects: HashSet<Digest>) -> HashSet<Digest> {
        let about = self.subjects.iter().filter(|(_, subject)| subjects.contains(subject));
        let referrers: Vec<Digest> = about.map(|(referrer, _)| *referrer).collect();
        subjects.extend(referrers);
        subjects
    }

    /// Its place among all, which says what it is.
    fn place(&self, digest: &Digest) -> Option<usize> {
        self.all.iter().position(|known| known == digest)
    }
}

fn described(digest: Digest) -> Value {
    json!({ "mediaType": IMAGE, "digest": digest, "size": 1 })
}

impl Holders {
    fn of(world: &World, rng: &mut StdRng) -> Self {
        let mut some = |odds| world.all.iter().copied().filter(|_| rng.random_bool(odds)).collect();
        let (running, pinned, awaited) = (some(0.15), some(0.1), some(0.1));
        let named = world.tags.keys().filter(|_| rng.random_bool(0.1)).cloned().collect();
        Self { running, named, pinned, awaited }
    }

    fn usage(&self, repository: &Name) -> Usage {
        let names = self.named.iter().map(|tag| (repository.clone(), tag.parse().unwrap())).collect();
        Usage { digests: self.running.clone(), names }
    }

    fn described(&self, world: &World) -> String {
        let places = |digests: &HashSet<Digest>| -> Vec<_> {
            digests.iter().map(|digest| world.place(digest)).collect()
        };
        let [running, pinned, awaited] = [&self.running, &self.pinned, &self.awaited].map(places);
        let named = &self.named;
        format!("{running:?} run, {named:?} run by name, {pinned:?} are pinned and {awaited:?} awaited")
    }

    /// Manifests that must stay, with every tag that names them.
    fn held(&self, world: &World) -> HashSet<Digest> {
        let named = self.named.iter().map(|tag| world.tags[tag]);
        let running = self.running.iter().copied().chain(named).flat_map(|digest| world.around(digest));
        running.chain(self.pinned.iter().copied()).chain(self.awaited.iter().copied()).collect()
    }
}

fn rules(rng: &mut StdRng) -> Vec<Rule> {
    let some: Vec<&str> = TAGS.into_iter().filter(|_| rng.random_bool(0.2)).collect();
    let days = DAY * rng.random_range(1..60);
    let recent = MostRecent { count: rng.random_range(1..3), by: By::Pushed, groups: None };
    let all = [
        keeps(&some),
        Rule { name: "new".to_owned(), pushed_within: Some(days), ..Rule::default() },
        Rule { name: "recent".to_owned(), most_recent: Some(recent), ..Rule::default() },
    ];
    all.into_iter().filter(|_| rng.random_bool(0.3)).collect()
}

fn settled(repository: &Name, holders: &Holders, rng: &mut StdRng) -> Retention {
    let policy = Policy {
        untagged: rng.random_bool(0.7).then_some(Duration::ZERO),
        ..policy(POLICY, repository.as_str(), rules(rng))
    };
    let wanted = TagsWanted::Exactly([IMMUTABLE.parse().unwrap()].into());
    Retention {
        pinned: holders.pinned.iter().map(|digest| (repository.clone(), *digest)).collect(),
        immutable: vec![Immutable {
            repositories: vec!["**".parse().unwrap()],
            tags: TagSelection { wanted, exclude: Vec::new() },
            signature_tags: false,
        }],
        retain_for: Duration::ZERO,
        ..settings(vec![policy])
    }
}

/// What became of worlds.
#[derive(Debug, Default)]
struct Seen {
    held: usize,
    tags: u64,
    manifests: u64,
}

async fn run(site: &Site, seed: u64, seen: &mut Seen) {
    let mut rng = StdRng::seed_from_u64(seed);
    let repository: Name = format!("team/app-{seed}").parse().unwrap();
    let world = World::push(site, &repository, &mut rng).await;
    let holders = Holders::of(&world, &mut rng);
    for digest in &holders.awaited {
        let id = format!("{repository}/{}", digest.hex());
        let request = RequestedPromotion {
            id: &id,
            policy: "q",
            hash: "sha256:x",
            repository: &repository,
            tag: None,
            digest: *digest,
        };
        site.meta.keep_requested(&request, DAY).await.unwrap();
    }
    let settings = settled(&repository, &holders, &mut rng);
    let (held, usage) = (holders.held(&world), holders.usage(&repository));
    // The first one tells; what it leaves untagged rests in the trash until a collection.
    for _ in 0..4 {
        let act = site.ran(&settings, POLICY, Some(usage.clone()), RetentionRun::Act);
        let (retained, _) = act.await.unwrap();
        seen.tags += retained.deleted;
        seen.manifests += retained.manifests;
        site.collect_some().await;
    }

    let left: BTreeSet<String> = site.tags(repository.as_str()).await.into_iter().collect();
    for (tag, digest) in &world.tags {
        let is_held = held.contains(digest) || tag == IMMUTABLE || holders.named.contains(tag);
        assert!(
            !is_held || left.contains(tag),
            "seed {seed}: {tag}, which names {:?}, is held; {}",
            world.place(digest),
            holders.described(&world)
        );
    }
    let tagged = left.iter().map(|tag| world.tags[tag]);
    let below = tagged.clone().flat_map(|digest| world.below(digest));
    for digest in world.with_referrers(tagged.chain(below).chain(held.iter().copied()).collect()) {
        let target = format!("/v2/{repository}/manifests/{digest}");
        let answer = site.send(Method::HEAD, &target, "application/octet-stream", b"").await;
        assert_eq!(answer.status, StatusCode::OK, "seed {seed}: {digest} is held");
    }
    seen.held += held.len();
}

async fn n4_no_run_deletes_what_runs_is_pinned_is_awaited_or_is_immutable(site: Site) {
    let first = rand::random_range(0..1_000_000);
    let worlds = if std::env::var_os("SOAK").is_some() { 500 } else { 8 };
    let mut seen = Seen::default();
    for seed in first..first + worlds {
        run(&site, seed, &mut seen).await;
    }
    println!("worlds from {first} on: {seen:?}");
    assert!(
        seen.held > 0 && seen.tags > 0 && seen.manifests > 0,
        "from {first} on nothing was at stake: {seen:?}"
    );
}

both_sites!(n4_no_run_deletes_what_runs_is_pinned_is_awaited_or_is_immutable,);
