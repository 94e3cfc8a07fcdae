// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

use futures::TryStreamExt as _;
use futures::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::blobs::conformance;

async fn start() -> (Arc<dyn Store>, TempDir) {
    let (store, folder) = open().await;
    (Arc::new(store), folder)
}

async fn open() -> (Filesystem, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Filesystem::open(folder.path()).await.unwrap(), folder)
}

fn content() -> Vec<Bytes> {
    vec![Bytes::from_static(b"content")]
}

/// All files and folders, but the one for what is no object yet.
fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

crate::blobs_conformance!(filesystem, start());

#[tokio::test]
async fn folders_go_with_their_last_object() {
    let (store, folder) = open().await;
    store.put("v1/blob/aa/x", content()).await.unwrap();
    store.put("v1/blob/bb/y", content()).await.unwrap();
    store.delete(&["v1/blob/aa/x".to_owned()]).await.unwrap();
    assert_eq!(tree(folder.path()), ["tmp", "v1", "v1/blob", "v1/blob/bb", "v1/blob/bb/y"]);
    store.delete(&["v1/blob/bb/y".to_owned()]).await.unwrap();
    assert_eq!(tree(folder.path()), ["tmp"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_removers_of_one_folder_do_not_hinder_each_other() {
    let (store, folder) = open().await;
    let writers = (0..8).map(|n| {
        let store = store.clone();
        async move {
            for round in 0..50 {
                let key = format!("v1/r/a/~t/tag/{n}.{round}");
                store.put(&key, if round % 2 == 0 { content() } else { vec![] }).await.unwrap();
                assert!(store.head(&key).await.unwrap().is_some());
                store.delete(&[key]).await.unwrap();
            }
        }
    });
    join_all(writers.map(tokio::task::unconstrained)).await;
    assert_eq!(tree(folder.path()), ["tmp"]);
    assert_eq!(store.inner.folders.fresh_count(), 0);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let (store, folder) = open().await;
    let id = store.create_multipart("v1/up/aa/x").await.unwrap();
    let first = store.upload_part("v1/up/aa/x", &id, 1, 0, content()).await.unwrap();
    drop(store);

    let store = Filesystem::open(folder.path()).await.unwrap();
    let second = store.upload_part("v1/up/aa/x", &id, 2, 7, content()).await.unwrap();
    store.complete("v1/up/aa/x", &id, &[first, second]).await.unwrap();
    assert_eq!(conformance::read(&store, "v1/up/aa/x").await, b"contentcontent");
    let files = tree(folder.path());
    assert_eq!(files, ["tmp", "v1", "v1/up", "v1/up/aa", "v1/up/aa/x"]);
}

#[tokio::test]
async fn a_part_that_is_not_named_is_no_part_of_the_object() {
    let (store, _folder) = open().await;
    let id = store.create_multipart("v1/up/aa/x").await.unwrap();
    let first = store.upload_part("v1/up/aa/x", &id, 1, 0, content()).await.unwrap();
    store.upload_part("v1/up/aa/x", &id, 2, 7, content()).await.unwrap();
    store.complete("v1/up/aa/x", &id, &[first]).await.unwrap();
    assert_eq!(conformance::read(&store, "v1/up/aa/x").await, b"content");
}

#[tokio::test]
async fn an_upload_of_another_key_is_unknown() {
    let (store, _folder) = open().await;
    let id = store.create_multipart("v1/up/aa/x").await.unwrap();
    for (key, id) in [("v1/up/aa/xy", &id.0), ("v1/up/aa/", &id.0), ("v1/up/aa/x", &"../x".to_owned())] {
        let id = MultipartId(id.clone());
        let failed = store.upload_part(key, &id, 1, 0, content()).await;
        assert!(matches!(failed, Err(Error::UnknownUpload { .. })), "{key}");
    }
}

#[tokio::test]
async fn a_part_whose_write_was_cut_off_is_not_the_one_acknowledged_before() {
    let (store, folder) = open().await;
    let id = store.create_multipart("v1/up/aa/x").await.unwrap();
    let part = store.upload_part("v1/up/aa/x", &id, 1, 0, content()).await.unwrap();
    // As a crash leaves it that came between the bytes and their entry.
    let record = folder.path().join(format!("tmp/upload-{}.parts", id.0));
    let file = OpenOptions::new().write(true).open(record).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 64], 1024 + 64).unwrap();
    let refused = store.complete("v1/up/aa/x", &id, &[part]).await;
    assert!(matches!(refused, Err(Error::Refused { .. })));
}

/// Descriptors of this process that lead below the folder.
fn open_below(folder: &Path) -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(folder)).count()
}

#[tokio::test]
async fn l_34_reads_leave_no_descriptor_open() {
    let (store, folder) = open().await;
    store.put("v1/small", content()).await.unwrap();
    store.put("v1/large", vec![Bytes::from(vec![7; 4 << 20])]).await.unwrap();
    for _ in 0..500 {
        conformance::read(&store, "v1/small").await;
        let mut given_up = store.get("v1/large", None).await.unwrap().unwrap();
        given_up.stream.try_next().await.unwrap();
    }
    // A read that was given up may still be on its way through the pool.
    for _ in 0..100 {
        if open_below(folder.path()) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(open_below(folder.path()), 0);
}

#[tokio::test]
async fn content_that_became_shorter_ends_in_an_error() {
    let (store, folder) = open().await;
    let long = Bytes::from(vec![7; 2 << 20]);
    store.put("v1/a", vec![long]).await.unwrap();
    let found = store.get("v1/a", None).await.unwrap().unwrap();
    OpenOptions::new().write(true).open(folder.path().join("v1/a")).unwrap().set_len(1 << 20).unwrap();
    let pieces: Result<Vec<_>, _> = found.stream.try_collect().await;
    assert!(matches!(pieces, Err(Error::Unavailable { .. })));
}

#[tokio::test]
async fn a_key_that_is_no_path_is_refused() {
    let (store, _folder) = open().await;
    for key in ["../a", "v1//a", "tmp/a", "v1/a\0"] {
        assert!(matches!(store.put(key, content()).await, Err(Error::Refused { .. })), "{key:?}");
        assert!(matches!(store.create_multipart(key).await, Err(Error::Refused { .. })), "{key:?}");
        assert!(matches!(store.get(key, None).await, Err(Error::Refused { .. })), "{key:?}");
    }
}

#[tokio::test]
async fn what_a_dead_writer_left_is_removed_a_day_later() {
    let (store, folder) = open().await;
    drop(store);
    let yesterday = UNIX_EPOCH + Duration::from_secs(clock::seconds()) - Duration::from_hours(25);
    for name in ["put-old", "upload-a", "upload-b.parts", "upload-c", "upload-c.parts"] {
        let path = folder.path().join("tmp").join(name);
        File::create(path).unwrap().set_modified(yesterday).unwrap();
    }
    File::create(folder.path().join("tmp/put-new")).unwrap();
    File::create(folder.path().join("tmp/upload-new")).unwrap();
    Filesystem::open(folder.path()).await.unwrap();
    let left = ["tmp", "tmp/put-new", "tmp/upload-c", "tmp/upload-c.parts", "tmp/upload-new"];
    assert_eq!(tree(folder.path()), left);
}

#[test]
fn a_full_disk_is_told_apart() {
    let error = |kind| classify(Request::Put, "k", io::Error::from(kind));
    assert!(matches!(error(io::ErrorKind::StorageFull), Error::Full { .. }));
    assert!(matches!(error(io::ErrorKind::QuotaExceeded), Error::Full { .. }));
    assert!(matches!(error(io::ErrorKind::PermissionDenied), Error::Refused { .. }));
    assert!(matches!(error(io::ErrorKind::Interrupted), Error::Unavailable { .. }));
}
