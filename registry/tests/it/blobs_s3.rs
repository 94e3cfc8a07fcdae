// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The store on real S3 servers.

use bytes::Bytes;
use futures::future::try_join_all;
use stowage_registry::blobs::s3::{Credentials, S3, Settings};
use stowage_registry::blobs::{Error, Read, Store, Sweep, Write, conformance};

use crate::support::s3::{Kind, bucket, expire_after_a_day, store};

stowage_registry::blobs_conformance!(versitygw, store(Kind::Versitygw));
stowage_registry::blobs_conformance!(minio, store(Kind::Minio));

const BOTH: [Kind; 2] = [Kind::Versitygw, Kind::Minio];

fn content() -> Vec<Bytes> {
    vec![Bytes::from_static(b"content")]
}

#[tokio::test]
async fn more_objects_than_fit_into_one_answer_are_listed_and_removed() {
    let store = S3::new(bucket(Kind::Minio).await).await.unwrap();
    let keys: Vec<_> = (0..1205).map(|n| format!("v1/up/aa/{n:04}")).collect();
    for keys in keys.chunks(100) {
        try_join_all(keys.iter().map(|key| store.put(key, Vec::new()))).await.unwrap();
    }
    let listed = store.list("v1/", None, 5000).await.unwrap();
    assert!(listed.iter().map(|object| &object.key).eq(&keys));
    assert_eq!(store.list("v1/", None, 1100).await.unwrap().len(), 1100);
    store.delete(&keys).await.unwrap();
    conformance::nothing_is_left(&store).await;
}

#[tokio::test]
async fn stores_below_two_prefixes_do_not_see_each_other() {
    for kind in BOTH {
        let settings = bucket(kind).await;
        let below = |prefix: &str| S3::new(Settings { prefix: prefix.to_owned(), ..settings.clone() });
        let (one, other) = (below("a").await.unwrap(), below("/a.b/").await.unwrap());
        one.put("v1/x", content()).await.unwrap();
        assert_eq!(other.head("v1/x").await.unwrap(), None);
        conformance::nothing_is_left(&other).await;
        assert_eq!(conformance::read(&one, "v1/x").await, b"content");
        let whole = S3::new(settings).await.unwrap();
        assert_eq!(whole.list("", None, 10).await.unwrap()[0].key, "a/v1/x");
    }
}

#[tokio::test]
async fn a_missing_bucket_and_a_wrong_secret_are_refusals() {
    for kind in BOTH {
        let settings = bucket(kind).await;
        let missing = S3::new(Settings { bucket: "missing".to_owned(), ..settings.clone() }).await.unwrap();
        let stranger = Credentials::Static {
            access_key_id: "stowage-test".to_owned(),
            secret_access_key: "wrong".to_owned(),
            session_token: None,
        };
        let stranger = S3::new(Settings { credentials: stranger, ..settings }).await.unwrap();
        for store in [missing, stranger] {
            assert!(matches!(store.put("v1/a", content()).await, Err(Error::Refused { .. })), "{kind:?}");
            assert!(matches!(store.get("v1/a", None).await, Err(Error::Refused { .. })), "{kind:?}");
            assert!(matches!(store.list("v1/", None, 1).await, Err(Error::Refused { .. })), "{kind:?}");
            let keys = ["v1/a".to_owned(), "v1/b".to_owned()];
            assert!(matches!(store.delete(&keys).await, Err(Error::Refused { .. })), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn credentials_are_read_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("accessKeyId"), "stowage-test\n").unwrap();
    std::fs::write(folder.path().join("secretAccessKey"), "stowage-test-secret\n").unwrap();
    let credentials = Credentials::Folder(folder.path().to_owned());
    let store = S3::new(Settings { credentials, ..bucket(Kind::Minio).await }).await.unwrap();
    store.put("v1/a", content()).await.unwrap();

    std::fs::remove_file(folder.path().join("accessKeyId")).unwrap();
    let credentials = Credentials::Folder(folder.path().to_owned());
    let store = S3::new(Settings { credentials, ..bucket(Kind::Minio).await }).await.unwrap();
    assert!(matches!(store.put("v1/a", content()).await, Err(Error::Unavailable { .. })));
}

#[tokio::test]
async fn a_presigned_url_gives_the_object_to_anybody() {
    for kind in BOTH {
        let store = S3::new(bucket(kind).await).await.unwrap();
        store.put("v1/blob/x", content()).await.unwrap();
        let url = store.presigner().unwrap().presign("v1/blob/x").await.unwrap();
        let again = store.presigner().unwrap().presign("v1/blob/x").await.unwrap();
        // Signed for the same five minutes, unless they have just ended.
        assert!(url == again || url.len() == again.len());

        let whole = ask(&url, "GET", "").await;
        assert!(whole.starts_with("HTTP/1.1 200"), "{whole}");
        assert!(whole.to_lowercase().contains("content-type: application/octet-stream"), "{whole}");
        assert!(whole.ends_with("content"), "{whole}");
        let part = ask(&url, "GET", "Range: bytes=0-2\r\n").await;
        assert!(part.starts_with("HTTP/1.1 206") && part.ends_with("con"), "{part}");
        let write = ask(&url, "DELETE", "").await;
        assert!(write.starts_with("HTTP/1.1 403"), "{write}");
        assert_eq!(store.head("v1/blob/x").await.unwrap(), Some(7));
    }
}

#[tokio::test]
async fn a_rule_that_expires_objects_is_found() {
    for kind in BOTH {
        let settings = bucket(kind).await;
        let store = S3::new(settings.clone()).await.unwrap();
        assert_eq!(store.expiry_rule().await.unwrap(), None, "{kind:?}");
    }
    let settings = bucket(Kind::Minio).await;
    let store = S3::new(settings.clone()).await.unwrap();
    expire_after_a_day(&settings).await;
    assert_eq!(store.expiry_rule().await.unwrap().as_deref(), Some("old"));
}

async fn ask(url: &str, method: &str, headers: &str) -> String {
    String::from_utf8(crate::support::s3::ask(url, method, headers).await).unwrap()
}
