// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Ranges of blobs.

use super::registry::{Answer, Registry};

super::both_stores!(
    w143_w455_w456_w457_w458_w467_w839_single_ranges,
    w109_w459_w460_w837_a_range_without_a_byte,
    w461_w545_w564_several_ranges_come_as_parts_in_order,
    w462_w463_w803_w868_w908_what_is_not_answered_in_parts_is_whole,
    w465_a_range_of_what_the_client_has,
    w466_a_head_has_no_range,
    w172_a_manifest_has_no_range,
    w534_docker_resumes_with_an_end_past_the_last_byte,
);

/// Content in which every byte tells its place.
fn content() -> Vec<u8> {
    (0..100).collect()
}

async fn ask(registry: &Registry, ranges: &[&str]) -> Answer {
    let digest = registry.push_blob("a", &content()).await;
    let mut ask = registry.get(&format!("/v2/a/blobs/{digest}"));
    for range in ranges {
        ask = ask.header("range", range);
    }
    ask.send().await
}

async fn w143_w455_w456_w457_w458_w467_w839_single_ranges(registry: Registry) {
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=0-1", 0, 1),
        ("bytes=50-", 50, 99),
        ("bytes=0-", 0, 99),
        ("bytes=-10", 90, 99),
        ("bytes=-500", 0, 99),
        ("bytes=90-500", 90, 99),
        ("bytes=0-9", 0, 9),
    ] {
        let answer = ask(&registry, &[range]).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/100"));
        assert_eq!(&answer.body[..], &content()[first..=last]);
        assert!(answer.has("docker-content-digest") && answer.has("etag"));
    }
}

async fn w109_w459_w460_w837_a_range_without_a_byte(registry: Registry) {
    for range in ["bytes=100-", "bytes=500-600", "bytes=-0", "bytes=5-2"] {
        let answer = ask(&registry, &[range]).await;
        assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */100"), "{range}");
        assert_eq!(answer.header("content-length"), "0");
    }
}

async fn w461_w545_w564_several_ranges_come_as_parts_in_order(registry: Registry) {
    let answer = ask(&registry, &["bytes=4-5,0-1,-2"]).await;
    assert_eq!(answer.status, 206);
    assert!(!answer.has("content-range"));
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!(boundary.bytes().all(|b| b.is_ascii_alphanumeric()));
    let part = |range: &str, bytes: &[u8]| {
        let head = "Content-Type: application/octet-stream\r\nContent-Range: bytes";
        [format!("--{boundary}\r\n{head} {range}/100\r\n\r\n").as_bytes(), bytes, b"\r\n"].concat()
    };
    let end = format!("--{boundary}--\r\n").into_bytes();
    let expected = [part("4-5", &[4, 5]), part("0-1", &[0, 1]), part("98-99", &[98, 99]), end].concat();
    assert_eq!(answer.body, expected);
}

async fn w462_w463_w803_w868_w908_what_is_not_answered_in_parts_is_whole(registry: Registry) {
    let many: Vec<String> = (0..257).map(|n| format!("{n}-{n}")).collect();
    let many = format!("bytes={}", many.join(","));
    for ranges in [
        &["bytes=0-5,5-9"][..],
        &["bytes=0-1,100-"],
        &["bytes=abc"],
        &["items=0-1"],
        &["bytes=0-1", "bytes=4-5"],
        &[&many],
    ] {
        let answer = ask(&registry, ranges).await;
        assert_eq!((answer.status, answer.body.len()), (200, 100), "{ranges:?}");
    }
}

async fn w465_a_range_of_what_the_client_has(registry: Registry) {
    let digest = registry.push_blob("a", &content()).await;
    let ask = |tag: String| {
        let target = format!("/v2/a/blobs/{digest}");
        registry.get(&target).header("range", "bytes=0-9").header("if-range", tag).send()
    };
    assert_eq!(ask(format!("\"{digest}\"")).await.status, 206);
    assert_eq!(ask("\"other\"".to_owned()).await.status, 200);
}

async fn w466_a_head_has_no_range(registry: Registry) {
    let digest = registry.push_blob("a", &content()).await;
    let answer = registry.head(&format!("/v2/a/blobs/{digest}")).header("range", "bytes=0-9").send().await;
    assert_eq!((answer.status, answer.header("content-length")), (200, "100"));
}

async fn w172_a_manifest_has_no_range(registry: Registry) {
    registry.push_image("a", "v1").await;
    let whole = registry.get("/v2/a/manifests/v1").send().await;
    let answer = registry.get("/v2/a/manifests/v1").header("range", "bytes=0-").send().await;
    assert_eq!((answer.status, answer.body), (200, whole.body));
}

async fn w534_docker_resumes_with_an_end_past_the_last_byte(registry: Registry) {
    let answer = ask(&registry, &["bytes=40-100"]).await;
    assert_eq!((answer.status, &answer.body[..]), (206, &content()[40..]));
}
