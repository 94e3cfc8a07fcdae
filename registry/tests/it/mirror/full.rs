// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A mirror that has no room for what it fetches: a bucket or a disk that is full.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use stowage_registry::Registry;
use stowage_registry::blobs::{Effect, Failure, Fault, Faults, Occasion, Request};

use super::line::{Line, Way};
use super::site::{Site, ask, get};
use crate::purge::{Place, assert_code};
use crate::support::program::{Program, program, serve, until};
use crate::upstream::servers::{Image, distribution, push};

const MIB: usize = 1 << 20;
/// What is told of a blob where there is no room even to say who fetches it.
const WITHOUT_DATABASE: &str = "the database is away; a blob is fetched without being stored";

super::both_stores!(
    w881_l_79_from_a_full_bucket_clients_have_all_bytes_and_nothing_half_is_kept,
    w880_l_79_a_bucket_that_fills_up_in_the_middle_of_a_blob_keeps_none_of_it,
);

fn pushed(site: &Site, tag: &str, length: usize) -> Image {
    let layer: Vec<u8> = (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]).collect();
    push(site.upstream.address(), "", "team/app", tag, &layer)
}

fn targets(image: &Image, tag: &str) -> [String; 3] {
    let target = |rest: String| format!("/v2/hub/team/app/{rest}");
    [
        target(format!("manifests/{tag}")),
        target(format!("manifests/{}", image.digest)),
        target(format!("blobs/{}", image.layer_digest)),
    ]
}

fn fill_up(faults: &Faults, occasion: Occasion) {
    for request in [Request::Put, Request::UploadPart] {
        faults.add(Fault::at(request, Effect::Fail(Failure::Full)).on(occasion));
    }
}

/// Waits for so many requests that failed: a client has its bytes before it is known whether they can be stored.
async fn struck(faults: &Faults, times: u64) {
    until("the bucket is asked to store it", || (faults.struck() >= times).then_some(())).await;
}

/// A replica that asks nobody has none of these.
async fn assert_not_kept(site: &Site, targets: &[String]) {
    let offline = site.newcomer().await;
    let mut mirror = site.mirror.clone();
    mirror.asks_upstream = false;
    offline.set_mirrors(vec![mirror]);
    for target in targets {
        assert_eq!(get(&offline, target).await.status, 404, "{target}");
    }
}

/// Pulls the blob until it is here. The first pull may still join a fetch of which nothing could be stored.
async fn pull_until_kept(replica: &Registry, image: &Image, blob: &str) {
    let via = replica.mirrors().all().next().unwrap().settings.upstream.registry_id.clone();
    for _ in 0..200 {
        assert!(get(replica, blob).await.body == image.layer);
        // One that came from ourselves is not sent on.
        if ask(replica, "GET", blob, &[("via", &format!("1.1 {via}"))]).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never stored: {blob}")
}

async fn assert_served_without_the_upstream(site: &Site, image: &Image, targets: &[String; 3]) {
    site.line.set(Way::Gone);
    let newcomer = site.newcomer().await;
    let [tag, digest, blob] = targets;
    for target in [tag, digest] {
        assert_eq!(&get(&newcomer, target).await.body[..], &image.manifest[..], "{target}");
    }
    assert!(get(&newcomer, blob).await.body == image.layer);
    site.line.set(Way::Open);
}

async fn w881_l_79_from_a_full_bucket_clients_have_all_bytes_and_nothing_half_is_kept(site: Site) {
    let (replica, faults) = site.newcomer_over_a_faulty_bucket().await;
    // One of a single piece, and one that is stored in parts.
    for (tag, length) in [("small", 1000), ("large", 24 * MIB)] {
        let image = pushed(&site, tag, length);
        let targets = targets(&image, tag);
        fill_up(&faults, Occasion::Always);
        for target in &targets[..2] {
            let answer = get(&replica, target).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &image.manifest[..]), "{target}");
        }
        let before = faults.struck();
        for _ in 0..2 {
            assert!(get(&replica, &targets[2]).await.body == image.layer, "{tag}");
        }
        struck(&faults, before + 1).await;
        assert_not_kept(&site, &targets).await;
        for digest in [&image.digest, &image.layer_digest] {
            assert_eq!(site.keys_of(digest).await, [""; 0], "{tag}");
        }

        faults.clear();
        assert_eq!(get(&replica, &targets[0]).await.status, 200, "there is room again");
        pull_until_kept(&replica, &image, &targets[2]).await;
        assert_served_without_the_upstream(&site, &image, &targets).await;
    }
}

async fn w880_l_79_a_bucket_that_fills_up_in_the_middle_of_a_blob_keeps_none_of_it(site: Site) {
    let (replica, faults) = site.newcomer_over_a_faulty_bucket().await;
    let image = pushed(&site, "1.0", 24 * MIB);
    let targets = targets(&image, "1.0");
    assert_eq!(get(&replica, &targets[0]).await.status, 200);
    fill_up(&faults, Occasion::Nth(2));
    assert!(get(&replica, &targets[2]).await.body == image.layer);
    struck(&faults, 1).await;
    assert_not_kept(&site, &targets[2..]).await;
    assert_eq!(site.keys_of(&image.layer_digest).await, [""; 0]);
    faults.clear();
    pull_until_kept(&replica, &image, &targets[2]).await;
    assert_served_without_the_upstream(&site, &image, &targets).await;
}

/// A file system of a few mebibytes, while it lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`: we may not mount.
    fn mount(folder: PathBuf, mebibytes: usize) -> Option<Self> {
        fs::create_dir_all(&folder).unwrap();
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(&folder).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(ended.is_ok_and(|status| status.success()), "unmount {}", self.0.display());
    }
}

/// Leaves about so many bytes free.
fn fill(ballast: &Path, left: usize) {
    let mut file = fs::File::create(ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(left as u64)).unwrap();
}

fn mirror_of(place: &Place, address: &str) {
    let mirror = format!(
        "apiVersion: stowage.dev/v1alpha1\nkind: Mirror\nmetadata: {{name: hub}}\nspec:\n  \
         registryRef: {{name: main}}\n  path: hub\n  mode: PullThrough\n  \
         upstream: {{url: \"http://{address}\", network: Any}}\n"
    );
    place.write("config/mirror.yaml", &mirror);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w881_l_79_on_a_full_disk_a_mirror_serves_on_and_keeps_what_it_fetches_when_there_is_room() {
    let place = Place::embedded();
    let Some(disk) = SmallDisk::mount(place.path().join("data"), 64) else {
        println!("left out: only root can mount a small disk");
        return;
    };
    let upstream = distribution(&serde_json::Value::Null, &[]).await;
    let image = |tag: &str, length: usize| push(upstream.address(), "", "team/app", tag, &vec![7; length]);
    let (here, wanted) = (image("here", 1000), [image("one", 8 * MIB), image("other", 9 * MIB)]);
    let line = Line::to(upstream.address()).await;
    mirror_of(&place, &line.address);
    let serving = Program::start(&mut serve(place.path())).await;
    let assert_pulled = |image: &Image, tag: &str| {
        let [tag, digest, blob] = targets(image, tag);
        for target in [tag, digest] {
            let (status, head, body) = serving.ask("GET", &target, "", b"");
            assert_eq!((status, &body), (200, &image.manifest), "{head}");
        }
        let (status, head, body) = serving.ask("GET", &blob, "", b"");
        assert!(status == 200 && body == image.layer, "{head}: {} bytes", body.len());
    };
    assert_pulled(&here, "here");
    let fetches = || line.asked().iter().filter(|asked| asked.contains("/blobs/")).count();
    until("it is stored", || {
        fetches();
        assert_pulled(&here, "here");
        (fetches() == 0).then_some(())
    })
    .await;

    let ballast = disk.0.join("ballast");
    let given_up = || {
        let messages = ["a fetched blob is not stored", WITHOUT_DATABASE];
        messages.map(|message| serving.lines(message).len()).iter().sum::<usize>()
    };
    for ((left, image), tag) in [4 * MIB, 0].into_iter().zip(&wanted).zip(["one", "other"]) {
        fill(&ballast, left);
        for _ in 0..2 {
            let before = given_up();
            assert_pulled(image, tag);
            until("it is told", || (given_up() > before).then_some(())).await;
        }
        assert!(fetches() > 0, "with {left} bytes left");
        assert_pulled(&here, "here");
        assert_eq!(fetches(), 0);
        fs::remove_file(&ballast).unwrap();
    }
    for (image, tag) in wanted.iter().zip(["one", "other"]) {
        assert_pulled(image, tag);
        assert!(fetches() > 0, "it was not kept");
    }
    until("all is stored", || {
        fetches();
        for (image, tag) in wanted.iter().zip(["one", "other"]) {
            assert_pulled(image, tag);
        }
        (fetches() == 0).then_some(())
    })
    .await;
    line.set(Way::Gone);
    for (image, tag) in wanted.iter().zip(["one", "other"]) {
        assert_pulled(image, tag);
    }
    serving.stop().await;
    assert_code(&program(&["verify"], place.path()).output().unwrap(), 0);
}
