// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A run into a bucket that is full.

use stowage_registry::blobs::{Effect, Failure, Fault, Occasion, Request};
use stowage_registry::domain::SyncMode;

use super::site::{Site, run};
use crate::upstream::servers::Image;

const MIB: usize = 1 << 20;

super::both_stores!(
    f34_l_79_what_a_full_bucket_does_not_take_is_named_and_comes_whole_with_the_next_run,
    f34_l_79_a_bucket_that_fills_up_in_the_middle_of_an_image_keeps_what_is_whole_and_shows_no_image,
);

async fn assert_shows_nothing(site: &Site, image: &Image) {
    assert_eq!(site.manifest("base/team/app", "1.0").await, None);
    assert_eq!(site.manifest("base/team/app", &image.digest.to_string()).await, None);
    assert_eq!(site.keys_of(&image.digest).await, [""; 0]);
}

async fn assert_whole(site: &Site, image: &Image) {
    assert_eq!(site.manifest("base/team/app", "1.0").await.as_ref(), Some(&image.manifest));
    let blob = site.get(&format!("/v2/base/team/app/blobs/{}", image.layer_digest)).await;
    assert!(blob.status == 200 && blob.body == image.layer);
}

async fn f34_l_79_what_a_full_bucket_does_not_take_is_named_and_comes_whole_with_the_next_run(site: Site) {
    let (replica, faults) = site.over_a_faulty_bucket().await;
    let layer: Vec<u8> = (0..24 * MIB).map(|at| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]).collect();
    let image = site.push("team/app", "1.0", &layer);
    for occasion in [Occasion::Always, Occasion::Nth(2)] {
        for request in [Request::Put, Request::UploadPart] {
            faults.add(Fault::at(request, Effect::Fail(Failure::Full)).on(occasion));
        }
        let told = run(&replica, &site.asked, SyncMode::Copy).await;
        assert_eq!(told.synced.failures, [("team/app:1.0".to_owned(), "StorageUnavailable")]);
        assert!(faults.struck() > 0);
        assert_shows_nothing(&site, &image).await;
        let blob = site.get(&format!("/v2/base/team/app/blobs/{}", image.layer_digest)).await;
        assert_eq!(blob.status, 404);
        assert_eq!(site.keys_of(&image.layer_digest).await, [""; 0], "{occasion:?}");
        faults.clear();
    }
    assert_eq!(run(&replica, &site.asked, SyncMode::Copy).await.items, ["copied team/app:1.0"]);
    assert_whole(&site, &image).await;
}

async fn f34_l_79_a_bucket_that_fills_up_in_the_middle_of_an_image_keeps_what_is_whole_and_shows_no_image(
    site: Site,
) {
    let (replica, faults) = site.over_a_faulty_bucket().await;
    let image = site.push("team/app", "1.0", b"a layer that is not stored in parts");
    let mut failed = 0;
    for request in 1.. {
        faults.add(Fault::at(Request::Put, Effect::Fail(Failure::Full)).on(Occasion::Nth(request)));
        let told = run(&replica, &site.asked, SyncMode::Copy).await;
        faults.clear();
        if told.synced.failed == 0 {
            break;
        }
        assert_eq!(told.synced.failures, [("team/app:1.0".to_owned(), "StorageUnavailable")]);
        assert_eq!(site.manifest("base/team/app", "1.0").await, None, "the tag comes last");
        failed += 1;
    }
    assert!(failed > 0, "a run that has nothing left to store is a run that succeeds");
    assert_whole(&site, &image).await;
    assert_eq!(run(&replica, &site.asked, SyncMode::Copy).await.items, ["unchanged team/app:1.0"]);
}
