// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a request costs: how often it asks the database and the bucket. Latency is made of these.

use stowage_oci::Digest;

use super::registry::{Registry, image, sha256};

/// Round trips to the database, requests to the bucket.
type Cost = (u64, u64);

struct Meter {
    registry: Registry,
    database: crate::support::proxy::Proxy,
    bucket: std::sync::Arc<stowage_registry::blobs::Counts>,
}

impl Meter {
    async fn new() -> Self {
        let (registry, database, bucket) = Registry::measured().await;
        Self { registry, database, bucket }
    }

    /// What `work` gives, and what it costs.
    async fn of<T>(&self, work: impl AsyncFnOnce(&Registry) -> T) -> (T, Cost) {
        let before = (self.database.trips(), self.bucket.total());
        let done = work(&self.registry).await;
        (done, (self.database.trips() - before.0, self.bucket.total() - before.1))
    }

    /// What was begun in the background is done.
    async fn settled(&self) {
        let now = || (self.database.trips(), self.bucket.total());
        let mut before = now();
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            if now() == before {
                return;
            }
            before = now();
        }
    }

    /// Pushes a blob as most clients do; what each request costs.
    async fn push(&self, content: &[u8]) -> (Digest, [Cost; 4]) {
        let digest = sha256(content);
        let blob = format!("/v2/app/blobs/{digest}");
        let (seen, head) = self.of(async |registry| registry.head(&blob).send().await).await;
        assert_eq!(seen.status, 404);
        let (upload, post) = self.of(async |registry| registry.open_upload("app").await).await;
        let (sent, patch) =
            self.of(async |registry| registry.patch(&upload).body(content).send().await).await;
        assert_eq!(sent.status, 202);
        let close = format!("{upload}?digest={digest}");
        let (closed, put) = self.of(async |registry| registry.put(&close).send().await).await;
        assert_eq!(closed.status, 201, "{closed:?}");
        (digest, [head, post, patch, put])
    }
}

#[tokio::test]
async fn a_push_of_a_small_image_costs_what_the_protocol_says() {
    let meter = Meter::new().await;
    for (round, tag) in ["warm", "v1"].into_iter().enumerate() {
        let layer = format!("layer of {tag}");
        let (_, costs) = meter.push(layer.as_bytes()).await;
        let (_, config) = meter.push(format!("{{\"config\":\"{tag}\"}}").as_bytes()).await;
        let manifest = image(&[layer.as_bytes()]);
        if round == 0 {
            meter.push(b"{}").await;
        }
        let put = async |registry: &Registry| registry.put_manifest("app", tag, &manifest).await;
        let (stored, manifest) = meter.of(put).await;
        assert_eq!(stored.status, 201, "{stored:?}");
        if round > 0 {
            // HEAD; POST; PATCH: lease, progress, and the tail; PUT: plan, commit, and link and pointer.
            assert_eq!(costs, [(1, 0), (1, 0), (2, 1), (2, 2)]);
            assert_eq!(config, costs);
            // Pin: begin, hold, intent, commit. Publish. The manifest's record and the tag's.
            assert_eq!(manifest, (5, 2));
        }
    }
}

#[tokio::test]
async fn a_pull_costs_one_question_and_of_a_blob_one_request_to_the_bucket() {
    let meter = Meter::new().await;
    let digest = meter.registry.push_image("app", "v1").await;
    let layer = sha256(b"layer of app:v1");
    for target in [
        "/v2/app/manifests/v1".to_owned(),
        format!("/v2/app/manifests/{digest}"),
        format!("/v2/app/blobs/{layer}"),
    ] {
        let is_blob = u64::from(target.contains("/blobs/"));
        let get = async |registry: &Registry| registry.get(&target).send().await;
        // The first time its statement is prepared, and the pull is told.
        assert_eq!(meter.of(get).await.0.status, 200);
        meter.settled().await;
        let (answer, cost) = meter.of(get).await;
        assert_eq!((answer.status, cost), (200, (1, is_blob)), "{target}");
        let head = async |registry: &Registry| registry.head(&target).send().await;
        assert_eq!(meter.of(head).await.1, (1, 0), "{target}");
    }
}

#[tokio::test]
async fn pulls_of_what_is_known_as_pulled_today_cost_nothing_more() {
    const PULLS: u64 = 50;
    let meter = Meter::new().await;
    meter.registry.push_image("app", "v1").await;
    let get = async |registry: &Registry| registry.get("/v2/app/manifests/v1").send().await.status;
    assert_eq!(meter.of(get).await.0, 200);
    meter.settled().await;
    let many = async |registry: &Registry| {
        for _ in 0..PULLS {
            assert_eq!(get(registry).await, 200);
        }
    };
    assert_eq!(meter.of(many).await.1, (PULLS, 0));
}

#[tokio::test]
async fn a_mount_into_a_repository_that_has_something_is_two_statements_and_a_record() {
    let meter = Meter::new().await;
    meter.registry.push_image("base", "v1").await;
    meter.registry.push_image("app", "v1").await;
    for (round, version) in ["warm", "v2"].into_iter().enumerate() {
        let content = format!("layer of {version}");
        let digest = meter.registry.push_blob("base", content.as_bytes()).await;
        let mount = format!("/v2/app/blobs/uploads/?mount={digest}&from=base");
        let (mounted, cost) = meter.of(async |registry| registry.post(&mount).send().await).await;
        assert_eq!(mounted.status, 201, "{mounted:?}");
        if round > 0 {
            // Intent; link. Its record.
            assert_eq!(cost, (2, 1));
        }
    }
}
