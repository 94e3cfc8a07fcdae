// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Uploading blobs.

use std::time::Duration;

use futures::future::join_all;
use stowage_registry::domain::Limits;

use super::registry::{Answer, Registry, sha256, sha512};

super::both_stores!(
    w200_w205_a_post_opens_an_upload,
    w201_a_bucket_of_parts_asks_for_large_chunks,
    w202_w209_w213_chunks_with_their_place_make_a_blob,
    w204_w532_w866_w887_a_stream_without_a_place_is_appended,
    w205_an_empty_chunk_changes_nothing,
    w096_w203_w493_w557_w836_w857_a_chunk_in_the_wrong_place_is_told_the_right_one,
    w206_two_requests_at_once_do_not_mix,
    w208_what_came_before_a_break_stays,
    w209_w210_an_upload_closes_with_everything_the_rest_or_nothing,
    w211_a_close_in_the_wrong_place_harms_nothing,
    w095_w097_w210_places_and_lengths_that_cannot_be,
    w098_w212_w496_w838_w858_wrong_bytes_are_refused_on_every_way_in,
    w214_w216_a_blob_is_there_at_once_also_when_it_was_before,
    w215_a_close_is_repeated_when_its_answer_was_lost,
    w217_w496_a_post_with_a_digest_and_a_body_is_a_whole_push,
    w218_w219_w444_w559_sha512_with_and_without_announcement,
    w220_w221_w541_w553_w844_an_upload_tells_its_place_and_can_be_cancelled,
    w094_w223_w786_an_upload_belongs_to_its_repository,
    w227_w550_w015_the_type_and_other_parameters_do_not_matter,
    w228_fifty_clients_push_one_blob_at_once,
    w102_w903_a_blob_over_the_limit_is_refused_and_forgotten,
    w113_w910_too_many_open_uploads_are_throttled,
    w222_w911_an_idle_upload_expires,
);

/// Opens an upload and sends `content` without a place.
async fn upload_with(registry: &Registry, content: &[u8]) -> String {
    let upload = registry.open_upload("a").await;
    let answer = registry.patch(&upload).chunked(content).send().await;
    assert_eq!(answer.status, 202);
    upload
}

async fn close(registry: &Registry, upload: &str, content: &[u8], last: &[u8]) -> Answer {
    registry.put(&format!("{upload}?digest={}", sha256(content))).body(last).send().await
}

fn unknown() -> (u16, String) {
    (404, "BLOB_UPLOAD_UNKNOWN".to_owned())
}

async fn w200_w205_a_post_opens_an_upload(registry: Registry) {
    let answer = registry.post("/v2/a/b/blobs/uploads/").send().await;
    assert_eq!((answer.status, answer.header("range"), answer.header("content-length")), (202, "0-0", "0"));
    let id: uuid::Uuid = answer.header("docker-upload-uuid").parse().unwrap();
    assert_eq!(id.get_version_num(), 4);
    assert_eq!(answer.header("location"), format!("/v2/a/b/blobs/uploads/{id}"));
}

async fn w201_a_bucket_of_parts_asks_for_large_chunks(registry: Registry) {
    let answer = registry.post("/v2/a/blobs/uploads/").send().await;
    if registry.is_s3 {
        assert_eq!(answer.header("oci-chunk-min-length"), (16 << 20).to_string());
    } else {
        assert!(!answer.has("oci-chunk-min-length"));
    }
}

async fn w202_w209_w213_chunks_with_their_place_make_a_blob(registry: Registry) {
    for (first, second) in [("0-9", "10-19"), ("bytes 0-9/20", "bytes 10-19/*")] {
        let upload = registry.open_upload("a").await;
        let content = b"0123456789abcdefghij";
        for (range, piece, received) in [(first, &content[..10], "0-9"), (second, &content[10..], "0-19")] {
            let answer = registry.patch(&upload).header("content-range", range).body(piece).send().await;
            assert_eq!((answer.status, answer.header("range")), (202, received));
            assert_eq!((answer.header("location"), answer.header("content-length")), (&*upload, "0"));
            assert!(upload.ends_with(answer.header("docker-upload-uuid")));
        }
        let answer = close(&registry, &upload, content, b"").await;
        let digest = sha256(content);
        assert_eq!((answer.status, answer.header("location")), (201, &*format!("/v2/a/blobs/{digest}")));
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
        assert_eq!(&registry.get(answer.header("location")).send().await.body[..], content);
    }
}

async fn w204_w532_w866_w887_a_stream_without_a_place_is_appended(registry: Registry) {
    let upload = registry.open_upload("a").await;
    assert_eq!(registry.patch(&upload).chunked("hello ").send().await.header("range"), "0-5");
    assert_eq!(registry.patch(&upload).body("world").send().await.header("range"), "0-10");
    assert_eq!(close(&registry, &upload, b"hello world", b"").await.status, 201);
}

async fn w205_an_empty_chunk_changes_nothing(registry: Registry) {
    let upload = registry.open_upload("a").await;
    let answer = registry.patch(&upload).send().await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-0"));
    assert_eq!(registry.patch(&upload).body("ab").send().await.header("range"), "0-1");
    assert_eq!(registry.patch(&upload).chunked("").send().await.header("range"), "0-1");
    assert_eq!(close(&registry, &upload, b"ab", b"").await.status, 201);
}

async fn w096_w203_w493_w557_w836_w857_a_chunk_in_the_wrong_place_is_told_the_right_one(registry: Registry) {
    let upload = registry.open_upload("a").await;
    let send = async |range: &str, body: &str| {
        registry.patch(&upload).header("content-range", range).body(body).send().await
    };
    let refused = |answer: &Answer, range: &str| {
        assert_eq!(answer.refusal(), (416, "BLOB_UPLOAD_INVALID".into()));
        assert_eq!((answer.header("location"), answer.header("range")), (&*upload, range));
    };
    refused(&send("5-9", "56789").await, "0-0");
    assert_eq!(send("0-4", "01234").await.status, 202);
    for range in ["0-4", "3-7", "6-10"] {
        refused(&send(range, "xxxxx").await, "0-4");
        let status = registry.get(&format!("{upload}?digest={}", sha256(b"x"))).send().await;
        assert_eq!((status.status, status.header("range")), (204, "0-4"));
    }
    assert_eq!(send("5-9", "56789").await.status, 202);
    assert_eq!(close(&registry, &upload, b"0123456789", b"").await.status, 201);
}

async fn w206_two_requests_at_once_do_not_mix(registry: Registry) {
    let upload = registry.open_upload("a").await;
    let send = || registry.patch(&upload).header("content-range", "0-2999").body([7; 3000]).send();
    let (one, other) = futures::join!(send(), send());
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 416]);
    assert_eq!(close(&registry, &upload, &[7; 3000], b"").await.status, 201);
}

async fn w208_what_came_before_a_break_stays(registry: Registry) {
    let upload = registry.open_upload("a").await;
    let answer = registry.patch(&upload).broken("0123456789").send().await;
    assert_eq!(answer.status, 400);
    let received = registry.get(&upload).send().await.header("range").to_owned();
    let last: usize = received.strip_prefix("0-").unwrap().parse().unwrap();
    let offset = if last == 0 { 0 } else { last + 1 };
    let rest = &b"0123456789abcdef"[offset..];
    let range = format!("{offset}-15");
    let answer = registry.patch(&upload).header("content-range", range).body(rest).send().await;
    assert_eq!(answer.status, 202);
    assert_eq!(close(&registry, &upload, b"0123456789abcdef", b"").await.status, 201);
}

async fn w209_w210_an_upload_closes_with_everything_the_rest_or_nothing(registry: Registry) {
    let upload = registry.open_upload("a").await;
    assert_eq!(close(&registry, &upload, b"whole", b"whole").await.status, 201);
    let upload = registry.open_upload("a").await;
    let target = format!("{upload}?digest={}", sha256(b"streamed"));
    assert_eq!(registry.put(&target).chunked("streamed").send().await.status, 201);
    let upload = upload_with(&registry, b"first ").await;
    assert_eq!(close(&registry, &upload, b"first last", b"last").await.status, 201);
    let upload = upload_with(&registry, b"first ").await;
    let target = format!("{upload}?digest={}", sha256(b"first more"));
    assert_eq!(registry.put(&target).header("content-range", "6-9").body("more").send().await.status, 201);
    let upload = upload_with(&registry, b"closed").await;
    let target = format!("{upload}?digest={}", sha256(b"closed"));
    assert_eq!(registry.put(&target).header("content-range", "6-6").send().await.status, 201);
}

async fn w211_a_close_in_the_wrong_place_harms_nothing(registry: Registry) {
    let upload = upload_with(&registry, b"01234").await;
    let target = format!("{upload}?digest={}", sha256(b"0123456789"));
    let answer = registry.put(&target).header("content-range", "4-8").body("56789").send().await;
    assert_eq!((answer.refusal(), answer.header("range")), ((416, "BLOB_UPLOAD_INVALID".into()), "0-4"));
    let answer = registry.put(&target).header("content-range", "5-9").body("56789").send().await;
    assert_eq!(answer.status, 201);
}

async fn w095_w097_w210_places_and_lengths_that_cannot_be(registry: Registry) {
    let upload = registry.open_upload("a").await;
    for range in ["x", "5", "9-0", "-5", "0-"] {
        let answer = registry.patch(&upload).header("content-range", range).body("01234").send().await;
        assert_eq!(answer.refusal(), (400, "BLOB_UPLOAD_INVALID".into()), "{range}");
    }
    for range in ["0-3", "0-9"] {
        let answer = registry.patch(&upload).header("content-range", range).body("01234").send().await;
        assert_eq!(answer.refusal(), (400, "SIZE_INVALID".into()), "{range}");
        assert_eq!(registry.get(&upload).send().await.header("range"), "0-0");
    }
    assert_eq!(close(&registry, &upload, b"01234", b"01234").await.status, 201);
}

async fn w098_w212_w496_w838_w858_wrong_bytes_are_refused_on_every_way_in(registry: Registry) {
    let claimed = sha256(b"other");
    let refused = (400, "DIGEST_INVALID".to_owned());
    let target = format!("/v2/a/blobs/uploads/?digest={claimed}");
    assert_eq!(registry.post(&target).body("content").send().await.refusal(), refused);
    for (first, last) in [("", "content"), ("content", ""), ("con", "tent")] {
        for announced in [true, false] {
            let upload = registry.open_upload("a").await;
            if !first.is_empty() {
                let patch = registry.patch(&upload);
                let patch = if announced { patch.body(first) } else { patch.chunked(first) };
                assert_eq!(patch.send().await.status, 202);
            }
            let answer = close(&registry, &upload, b"other", last.as_bytes()).await;
            assert_eq!(answer.refusal(), refused, "{first:?} {last:?}");
            assert_eq!(registry.get(&upload).send().await.refusal(), unknown());
            assert_eq!(close(&registry, &upload, b"content", b"content").await.refusal(), unknown());
        }
    }
    assert_eq!(registry.status(&format!("/v2/a/blobs/{claimed}")).await, 404);
    assert_eq!(registry.status(&format!("/v2/a/blobs/{}", sha256(b"content"))).await, 404);
}

async fn w214_w216_a_blob_is_there_at_once_also_when_it_was_before(registry: Registry) {
    for repository in ["a", "a", "b"] {
        let digest = registry.push_blob(repository, b"content").await;
        let target = format!("/v2/{repository}/blobs/{digest}");
        assert_eq!(registry.head(&target).send().await.status, 200);
        assert_eq!(&registry.get(&target).send().await.body[..], b"content");
        let upload = registry.open_upload(repository).await;
        let answer = registry.put(&format!("{upload}?digest={digest}")).body("wrong").send().await;
        assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".into()), "known content is hashed all the same");
    }
}

async fn w215_a_close_is_repeated_when_its_answer_was_lost(registry: Registry) {
    let upload = registry.open_upload("a").await;
    assert_eq!(close(&registry, &upload, b"content", b"content").await.status, 201);
    for body in [&b""[..], b"content"] {
        let answer = close(&registry, &upload, b"content", body).await;
        assert_eq!((answer.status, answer.has("location")), (201, true));
    }
    assert_eq!(close(&registry, &upload, b"other", b"other").await.refusal(), unknown());
}

async fn w217_w496_a_post_with_a_digest_and_a_body_is_a_whole_push(registry: Registry) {
    let digest = sha256(b"content");
    let target = format!("/v2/a/blobs/uploads/?digest={digest}");
    let answer = registry.post(&target).send().await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-0"));
    assert_eq!(registry.status(&format!("/v2/a/blobs/{digest}")).await, 404);
    let upload = answer.header("location").to_owned();
    assert_eq!(close(&registry, &upload, b"content", b"content").await.status, 201);
    let answer = registry.post(&target).chunked("content").send().await;
    assert_eq!((answer.status, answer.header("location")), (201, &*format!("/v2/a/blobs/{digest}")));
    let empty = format!("/v2/a/blobs/uploads/?digest={}", sha256(b""));
    assert_eq!(registry.post(&empty).send().await.status, 201);
}

async fn w218_w219_w444_w559_sha512_with_and_without_announcement(registry: Registry) {
    let content = b"content in sha512";
    let digest = sha512(content);
    for query in ["?digest-algorithm=sha512", ""] {
        for (first, last) in [(&b""[..], &content[..]), (&content[..4], &content[4..]), (&content[..], b"")] {
            let answer = registry.post(&format!("/v2/a/blobs/uploads/{query}")).send().await;
            let upload = answer.header("location").to_owned();
            if !first.is_empty() {
                assert_eq!(registry.patch(&upload).body(first).send().await.status, 202);
            }
            let answer = registry.put(&format!("{upload}?digest={digest}")).body(last).send().await;
            assert_eq!((answer.status, answer.header("docker-content-digest")), (201, &*digest.to_string()));
        }
    }
    // Announced otherwise, closed with sha256.
    let answer = registry.post("/v2/a/blobs/uploads/?digest-algorithm=sha512").send().await;
    let upload = answer.header("location").to_owned();
    assert_eq!(registry.patch(&upload).body("ab").send().await.status, 202);
    assert_eq!(close(&registry, &upload, b"ab", b"").await.status, 201);
    let wrong = registry.open_upload("a").await;
    assert_eq!(registry.patch(&wrong).body("ab").send().await.status, 202);
    let answer = registry.put(&format!("{wrong}?digest={digest}")).send().await;
    assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".into()));
    let answer = registry.post("/v2/a/blobs/uploads/?digest-algorithm=md5").send().await;
    assert_eq!(answer.refusal(), (400, "DIGEST_INVALID".into()));
}

async fn w220_w221_w541_w553_w844_an_upload_tells_its_place_and_can_be_cancelled(registry: Registry) {
    let upload = upload_with(&registry, b"01234").await;
    for ask in [registry.get(&upload), registry.head(&upload)] {
        let answer = ask.send().await;
        assert_eq!((answer.status, answer.header("range")), (204, "0-4"));
        assert_eq!(answer.header("location"), upload);
        assert!(upload.ends_with(answer.header("docker-upload-uuid")));
    }
    assert_eq!(registry.delete(&upload).send().await.status, 204);
    assert_eq!(registry.get(&upload).send().await.refusal(), unknown());
    assert_eq!(registry.patch(&upload).body("x").send().await.refusal(), unknown());
    assert_eq!(registry.delete(&upload).send().await.refusal(), unknown());
    assert_eq!(close(&registry, &upload, b"01234", b"").await.refusal(), unknown());
}

async fn w094_w223_w786_an_upload_belongs_to_its_repository(registry: Registry) {
    let upload = upload_with(&registry, b"01234").await;
    let elsewhere = upload.replace("/v2/a/", "/v2/b/");
    assert_eq!(registry.get(&elsewhere).send().await.refusal(), unknown());
    assert_eq!(registry.patch(&elsewhere).body("x").send().await.refusal(), unknown());
    assert_eq!(registry.delete(&elsewhere).send().await.refusal(), unknown());
    assert_eq!(close(&registry, &elsewhere, b"01234", b"").await.refusal(), unknown());
    let never = "/v2/a/blobs/uploads/7d444840-9dc0-41d1-b245-5ffdce74fad2";
    assert_eq!(registry.get(never).send().await.refusal(), unknown());
    assert_eq!(close(&registry, &upload, b"01234", b"").await.status, 201);
}

async fn w227_w550_w015_the_type_and_other_parameters_do_not_matter(registry: Registry) {
    let answer = registry
        .post("/v2/a/blobs/uploads/?origin=x&_state=y")
        .header("content-type", "application/json")
        .send()
        .await;
    let upload = answer.header("location").to_owned();
    let answer = registry.patch(&upload).header("content-type", "application/json").body("ab").send().await;
    assert_eq!(answer.status, 202);
    let target = format!("{upload}?_state=z&digest={}", sha256(b"ab"));
    assert_eq!(registry.put(&target).header("content-type", "text/plain").send().await.status, 201);
}

async fn w228_fifty_clients_push_one_blob_at_once(registry: Registry) {
    let push = |_| async {
        let upload = registry.open_upload("a").await;
        close(&registry, &upload, b"{}", b"{}").await.status
    };
    let statuses = join_all((0..50).map(push)).await;
    assert_eq!(statuses, [201; 50]);
    assert_eq!(&registry.get(&format!("/v2/a/blobs/{}", sha256(b"{}"))).send().await.body[..], b"{}");
}

async fn w102_w903_a_blob_over_the_limit_is_refused_and_forgotten(registry: Registry) {
    let limits = Limits { max_blob_size: Some(1000), ..Limits::default() };
    let registry = registry.reopened(stowage_registry::Registry::builder().limits(limits)).await;
    registry.push_blob("a", &[1; 1000]).await;
    let upload = registry.open_upload("a").await;
    let answer = registry.patch(&upload).chunked([1; 1001]).send().await;
    assert_eq!(answer.refusal(), (413, "SIZE_INVALID".into()));
    assert_eq!(registry.get(&upload).send().await.refusal(), unknown());
}

async fn w113_w910_too_many_open_uploads_are_throttled(registry: Registry) {
    let limits = Limits { max_open_uploads: 3, ..Limits::default() };
    let registry = registry.reopened(stowage_registry::Registry::builder().limits(limits)).await;
    let mut uploads = Vec::new();
    for _ in 0..3 {
        uploads.push(registry.open_upload("a").await);
    }
    let answer = registry.post("/v2/a/blobs/uploads/").send().await;
    assert_eq!(answer.refusal(), (429, "TOOMANYREQUESTS".into()));
    assert_eq!(registry.delete(&uploads[0]).send().await.status, 204);
    registry.open_upload("a").await;
}

async fn w222_w911_an_idle_upload_expires(registry: Registry) {
    let limits = Limits { upload_expiry: Duration::from_millis(1500), ..Limits::default() };
    let registry = registry.reopened(stowage_registry::Registry::builder().limits(limits)).await;
    let upload = registry.open_upload("a").await;
    assert_eq!(registry.status(&upload).await, 204);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(registry.get(&upload).send().await.refusal(), unknown());
    assert_eq!(registry.patch(&upload).body("x").send().await.refusal(), unknown());
}
