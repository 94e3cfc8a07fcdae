// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Every step of a writer against every step of a collector: the writer is held at its n-th request to bucket or
//! database while the collector goes as far as its m-th; then the writer comes to its end, then the collector.
//! Leases are over at once, so that nothing but locks and order protects. (L-01, L-02, L-03, L-63)

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use stowage_oci::{Digest, Name, Reference, Tag};
use stowage_registry::domain::{Domain, Error, PutManifest};
use stowage_registry::meta::Timings;

use super::bucket::Manners;
use super::clients::{chunk, descriptor, digest, pull_content};
use super::database::Kind;
use super::times::Times;
use super::workers;
use super::world::{Actor, LOOSE, STRICT, Setting, World};
use super::{LATE, check, reader, setting};

/// Nothing is kept for anybody.
fn at_once() -> Times {
    let timings = Timings {
        lease: Duration::ZERO,
        blob_grace: Duration::ZERO,
        tombstone_delay: Duration::ZERO,
        again: Duration::from_millis(10),
        // What is deleted rests at least as long as a push may take.
        intent: Duration::from_secs(2),
        ..Times::default().timings
    };
    Times { trash: Duration::ZERO, timings }
}

/// What a writer does in the repositories; refused work it does again.
struct Script<'a> {
    domain: &'a Domain,
    world: &'a World,
    name: String,
}

const ATTEMPTS: u32 = 6;

impl Script<'_> {
    fn blob(&self, which: &str) -> Bytes {
        // Of one part and of several.
        Bytes::from(format!("{which} of {} ", self.name).repeat(which.len()))
    }

    fn tag(&self, which: &str) -> Tag {
        format!("{which}-{}", self.name).parse().unwrap()
    }

    async fn bring(&self) -> Result<(), Error> {
        let (strict, loose): (Name, Name) = (STRICT.parse().unwrap(), LOOSE.parse().unwrap());
        let (one, two) = (self.blob("a"), self.blob("bbb"));
        if self.domain.blob(&strict, &digest(&one), true).await.is_err() {
            self.domain.push_blob(&strict, "writer", &digest(&one), chunk(&one)).await?;
        }
        if self.domain.blob(&strict, &digest(&two), true).await.is_ok() {
            return Ok(());
        }
        self.domain.push_blob(&loose, "writer", &digest(&two), chunk(&two)).await?;
        if !self.domain.mount(&strict, &digest(&two), &[loose]).await? {
            self.domain.push_blob(&strict, "writer", &digest(&two), chunk(&two)).await?;
        }
        Ok(())
    }

    fn image(&self) -> Bytes {
        let blobs = [self.blob("a"), self.blob("bbb")];
        let layers =
            blobs.each_ref().map(|blob| descriptor("application/octet-stream", &digest(blob), blob.len()));
        let image = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": layers[0],
            "layers": layers,
        });
        Bytes::from(image.to_string())
    }

    fn index(&self) -> Bytes {
        let image = self.image();
        let child = descriptor("application/vnd.oci.image.manifest.v1+json", &digest(&image), image.len());
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [child],
        });
        Bytes::from(index.to_string())
    }

    async fn put(&self, body: &Bytes, tag: &str) -> Result<Digest, Error> {
        let put = PutManifest {
            repository: STRICT.parse().unwrap(),
            reference: Reference::Tag(self.tag(tag)),
            claimed: None,
            tags: Vec::new(),
            content_type: None,
            body: body.clone(),
        };
        Ok(self.domain.put_manifest(put).await?.digest)
    }

    async fn push(&self) -> Result<(), Error> {
        self.bring().await?;
        self.put(&self.image(), "image").await?;
        self.put(&self.index(), "index").await?;
        // The image is held by the index alone.
        self.domain.delete_tag(&STRICT.parse().unwrap(), &self.tag("image")).await
    }

    /// Pushes until nothing is refused, deletes something else, and pulls.
    async fn run(&self) {
        for attempt in 1.. {
            match self.push().await {
                Ok(()) => break,
                Err(Error::ReferencesMissing(_) | Error::Overtaken | Error::UploadUnknown)
                    if attempt < ATTEMPTS =>
                {
                    self.world.count("pushes refused");
                }
                Err(error) => return self.world.violation(format!("{}: push: {error:?}", self.name)),
            }
        }
        self.world.count("pushes");
        self.pull().await;
    }

    async fn pull(&self) {
        let (repository, tag) = (STRICT.parse().unwrap(), self.tag("index"));
        let answer = match self.domain.manifest(&repository, &Reference::Tag(tag), false).await {
            Ok(answer) => answer,
            Err(error) => return self.world.violation(format!("{}: tag: {error:?}", self.name)),
        };
        for body in [answer.body.unwrap(), self.image()] {
            if let Err(what) = pull_content(self.world, self.domain, &repository, &body).await {
                self.world.violation(format!("{}: pull: {what:?}", self.name));
            }
        }
    }

    /// Takes it all away again, the blobs by the client's own hand.
    async fn clear(&self) {
        let repository = STRICT.parse().unwrap();
        for body in [self.index(), self.image()] {
            if let Err(error) = self.domain.delete_manifest(&repository, &digest(&body)).await {
                self.world.violation(format!("{}: delete: {error:?}", self.name));
            }
        }
    }
}

/// One pair. Which of the two came to their ends before they were held.
async fn meet(world: &World, n: u64, m: u64) -> (bool, bool) {
    let (writer, collector) = (world.somebody_held().await, world.somebody_held().await);
    let script = Script { domain: &writer.domain, world, name: format!("n{n}.m{m}") };
    let (at_n, at_m) = (writer.wire.hold(n), collector.wire.hold(m));
    let (writing, collecting) = (script.run(), pass(world, &collector));
    tokio::pin!(writing, collecting);
    let writer_ended = tokio::select! {
        () = &mut writing => true,
        () = at_n.reached() => false,
    };
    // Who is held at one of its requests is driven all the same: another may hold what everybody needs.
    let mut written = writer_ended;
    let collector_ended = loop {
        tokio::select! {
            () = &mut collecting => break true,
            () = at_m.reached() => break false,
            () = &mut writing, if !written => written = true,
        }
    };
    let mut collected = collector_ended;
    at_n.release();
    while !written {
        tokio::select! {
            () = &mut writing => written = true,
            () = &mut collecting, if !collected => collected = true,
        }
    }
    at_m.release();
    if !collected {
        collecting.await;
    }
    script.pull().await;
    compare(world, &script.name).await;
    script.clear().await;
    (writer_ended, collector_ended)
}

async fn pass(world: &World, collector: &Actor) {
    workers::pass(world, collector).await;
}

async fn compare(world: &World, name: &str) {
    let contents = world.bucket.contents().await;
    for difference in check::differences(&world.database.rows().await, &reader::read(&contents), &[STRICT]) {
        world.violation(format!("{name}: {difference}"));
    }
}

async fn every_pair(kind: Kind) {
    /// Of all pairs one in so many, each time others.
    const SOME: u64 = 47;
    let manners = Manners { delay: Duration::ZERO, repeats_delete: 0.0, repeats_put: 0.0, ..LATE };
    let setting = Setting { manners, crashes: 0.0, ..setting(kind, at_once(), super::seed()) };
    let world: Arc<World> = World::new(&setting).await;
    workers::settle(&world).await;
    let skipped = |n: u64, m: u64| {
        std::env::var("SOAK").is_err() && !(n + m + setting.seed % SOME).is_multiple_of(SOME)
    };
    let mut writers_end = false;
    let mut n = 0;
    while !writers_end {
        n += 1;
        for m in 1.. {
            if skipped(n, m) {
                continue;
            }
            let (writer_ended, collector_ended) = meet(&world, n, m).await;
            world.count("pairs");
            writers_end |= writer_ended;
            if collector_ended {
                break;
            }
        }
        let violations = world.violations();
        assert!(violations.is_empty(), "seed {}: {violations:#?}", setting.seed);
    }
    workers::everything_goes(&world).await;
    println!("{}, {n} steps of a writer", world.summary());
    let violations = world.violations();
    assert!(violations.is_empty(), "seed {}: {violations:#?}", setting.seed);
    assert!(world.counted("pairs") > 50, "{}", world.summary());
    assert!(world.counted("pushes refused") > 0, "nobody met: {}", world.summary());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_01_l_02_l_03_l_63_no_step_of_a_writer_meets_one_of_a_collector_in_postgres() {
    every_pair(Kind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l_01_l_02_l_03_l_63_no_step_of_a_writer_meets_one_of_a_collector_in_sqlite() {
    every_pair(Kind::Sqlite).await;
}
