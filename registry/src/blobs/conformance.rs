// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What every store must do, as tests that [`blobs_conformance!`](crate::blobs_conformance) stamps on each.
//!
//! Each is one claim, made on an empty store, and removes what it has stored.

use bytes::Bytes;
use futures::TryStreamExt;

use super::{Error, Object, Part, Store};
use crate::key::Generation;

/// The smallest part that every store takes.
const PART: usize = 5 << 20;

/// Stamps the tests on a store. `$start` is an expression that gives a future of `(Arc<dyn Store>, guard)`:
/// an empty store, and what keeps it running.
#[macro_export]
macro_rules! blobs_conformance {
    ($name:ident, $start:expr) => {
        mod $name {
            use super::*;
            $crate::blobs_conformance!(@ $start;
                what_was_put_is_read_back
                content_of_many_segments_is_read_back
                a_missing_object_is_none
                an_empty_object_exists
                a_put_can_be_repeated
                a_range_gives_exactly_its_bytes
                a_range_beyond_the_object_is_refused
                a_listing_is_in_byte_order
                a_listing_begins_after_a_key_that_need_not_exist
                a_listing_ends_at_its_limit
                keys_that_differ_by_case_are_two_objects
                the_longest_keys_are_kept
                a_removed_object_is_gone_at_once
                removing_what_is_not_there_is_fine
                parts_make_one_object
                an_upload_is_not_seen_before_it_is_complete
                a_part_sent_again_replaces_the_first
                a_replaced_part_cannot_be_completed
                an_aborted_upload_is_unknown
                open_uploads_are_listed
                an_upload_is_complete_once
                a_read_can_be_given_up
                the_self_test_finds_nothing_lacking
            );
        }
    };
    (@ $start:expr; $($test:ident)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                let (store, _guard) = $start.await;
                $crate::blobs::conformance::$test(&*store).await;
                $crate::blobs::conformance::nothing_is_left(&*store).await;
            }
        )*
    };
}

/// The object's content.
pub async fn read(store: &dyn Store, key: &str) -> Vec<u8> {
    let content = store.get(key, None).await.expect("the store answers").expect("the object exists");
    let (length, size) = (content.length, content.size);
    let pieces: Vec<Bytes> = content.stream.try_collect().await.expect("the content is whole");
    let content = pieces.concat();
    assert_eq!((length, size), (content.len() as u64, content.len() as u64));
    content
}

async fn read_range(store: &dyn Store, key: &str, range: std::ops::Range<u64>) -> Vec<u8> {
    let expected = range.end - range.start;
    let content = store.get(key, Some(range)).await.expect("the store answers").expect("the object exists");
    assert_eq!(content.length, expected);
    let pieces: Vec<Bytes> = content.stream.try_collect().await.expect("the content is whole");
    pieces.concat()
}

async fn put(store: &dyn Store, key: &str, content: &[u8]) {
    store.put(key, vec![Bytes::copy_from_slice(content)]).await.expect("the store takes the object");
}

async fn list(store: &dyn Store, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let found = store.list(prefix, after, limit).await.expect("the store answers");
    found.into_iter().map(|object| object.key).collect()
}

async fn remove(store: &dyn Store, keys: &[&str]) {
    let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
    store.delete(&keys).await.expect("the store removes the objects");
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0u32..).flat_map(|word| word.wrapping_mul(2_654_435_761).to_be_bytes()).take(length).collect()
}

/// All objects are removed.
pub async fn nothing_is_left(store: &dyn Store) {
    assert_eq!(store.list("", None, 10).await.expect("the store answers"), []);
}

/// Content comes back as it was.
pub async fn what_was_put_is_read_back(store: &dyn Store) {
    for length in [1, 1000, 65_536, 65_537, 3 << 20] {
        let content = pattern(length);
        put(store, "v1/a", &content).await;
        assert!(read(store, "v1/a").await == content, "{length} bytes differ");
        assert_eq!(store.head("v1/a").await.expect("the store answers"), Some(length as u64));
        remove(store, &["v1/a"]).await;
    }
}

/// Segments are joined, also empty ones.
pub async fn content_of_many_segments_is_read_back(store: &dyn Store) {
    let content = Bytes::from(pattern((16 << 20) + 5));
    let mut segments: Vec<_> = (0..64).map(|n| content.slice(n << 18..(n + 1) << 18)).collect();
    segments.insert(7, Bytes::new());
    segments.push(content.slice(16 << 20..));
    store.put("v1/a", segments).await.expect("the store takes the object");
    assert!(read(store, "v1/a").await == content, "the content differs");
    remove(store, &["v1/a"]).await;
}

/// Absence is no error.
pub async fn a_missing_object_is_none(store: &dyn Store) {
    put(store, "v1/folder/object", b"x").await;
    for key in ["v1/missing", "v1/folder", "v1/folder/objec", "v1/folder/object/below", "v1/none/at/all"] {
        assert!(store.head(key).await.expect("the store answers").is_none(), "{key}");
        assert!(store.get(key, None).await.expect("the store answers").is_none(), "{key}");
        assert!(store.get(key, Some(0..1)).await.expect("the store answers").is_none(), "{key}");
    }
    assert_eq!(list(store, "v1/missing/", None, 10).await, [""; 0]);
    remove(store, &["v1/folder/object"]).await;
}

/// Pointers, links and tags have no content.
pub async fn an_empty_object_exists(store: &dyn Store) {
    store.put("v1/none", Vec::new()).await.expect("the store takes the object");
    store.put("v1/empty", vec![Bytes::new()]).await.expect("the store takes the object");
    for key in ["v1/none", "v1/empty"] {
        assert_eq!(store.head(key).await.expect("the store answers"), Some(0));
        assert_eq!(read(store, key).await, b"");
        assert_eq!(read_range(store, key, 0..0).await, b"");
    }
    let object = |key: &str| Object { key: key.to_owned(), size: 0 };
    let listed = store.list("v1/", None, 10).await.expect("the store answers");
    assert_eq!(listed, [object("v1/empty"), object("v1/none")]);
    remove(store, &["v1/none", "v1/empty"]).await;
}

/// A request whose answer was lost is made again.
pub async fn a_put_can_be_repeated(store: &dyn Store) {
    for _ in 0..3 {
        put(store, "v1/a", b"same").await;
        put(store, "v1/empty", b"").await;
    }
    assert_eq!(read(store, "v1/a").await, b"same");
    remove(store, &["v1/a", "v1/empty"]).await;
}

/// Ranges at the start, in the middle, at the end, of nothing and of everything.
pub async fn a_range_gives_exactly_its_bytes(store: &dyn Store) {
    let content = pattern(3 << 20);
    let size = content.len();
    put(store, "v1/a", &content).await;
    for range in [0..1, 0..70_000, 1_000_000..2_000_001, size - 1..size, 5..5, 0..size] {
        let found = read_range(store, "v1/a", range.start as u64..range.end as u64).await;
        assert!(found == content[range.clone()], "{range:?} differs");
    }
    remove(store, &["v1/a"]).await;
}

/// Ranges must lie within the object.
pub async fn a_range_beyond_the_object_is_refused(store: &dyn Store) {
    put(store, "v1/a", b"content").await;
    for range in [0..8, 7..8, 8..9] {
        let refused = store.get("v1/a", Some(range.clone())).await.err();
        assert!(matches!(refused, Some(Error::Refused { .. })), "{range:?}: {refused:?}");
    }
    remove(store, &["v1/a"]).await;
}

/// In byte order of the whole key, where `/` stands between `.` and `0`.
const IN_ORDER: [&str; 9] = [
    "v1/r/a-b/~t/x",
    "v1/r/a.b/~t/x",
    "v1/r/a/b/~t/x",
    "v1/r/a/~t/1.0/x",
    "v1/r/a/~t/LATEST/x",
    "v1/r/a/~t/latest/x",
    "v1/r/a0/~t/x",
    "v1/r/a_b/~t/x",
    "v1/r/b/~t/x",
];

async fn put_in_order(store: &dyn Store) {
    for key in IN_ORDER.iter().rev() {
        put(store, key, b"x").await;
    }
}

/// The order does not come from folders.
pub async fn a_listing_is_in_byte_order(store: &dyn Store) {
    put_in_order(store).await;
    assert_eq!(list(store, "v1/", None, 100).await, IN_ORDER);
    assert_eq!(list(store, "v1/r/a/", None, 100).await, IN_ORDER[2..6]);
    assert_eq!(list(store, "v1/r/a", None, 100).await, IN_ORDER[..8]);
    assert_eq!(list(store, "v1/r/a/~t/l", None, 100).await, IN_ORDER[5..6]);
    remove(store, &IN_ORDER).await;
}

/// The place to begin is exclusive.
pub async fn a_listing_begins_after_a_key_that_need_not_exist(store: &dyn Store) {
    put_in_order(store).await;
    for (n, key) in IN_ORDER.iter().enumerate() {
        assert_eq!(list(store, "v1/r/", Some(key), 100).await, IN_ORDER[n + 1..]);
    }
    assert_eq!(list(store, "v1/r/", Some("v1/r/a/~t/M"), 100).await, IN_ORDER[5..]);
    assert_eq!(list(store, "v1/r/", Some("v1/r/a/"), 100).await, IN_ORDER[2..]);
    assert_eq!(list(store, "v1/r/", Some("v1/r/a/~t/latest/xx"), 100).await, IN_ORDER[6..]);
    assert_eq!(list(store, "v1/r/b/", Some("v1/r/a"), 100).await, IN_ORDER[8..]);
    assert_eq!(list(store, "v1/r/a/", Some("v1/r/b"), 100).await, [""; 0]);
    remove(store, &IN_ORDER).await;
}

/// Pages of any size give the whole.
pub async fn a_listing_ends_at_its_limit(store: &dyn Store) {
    put_in_order(store).await;
    for limit in 1..=IN_ORDER.len() {
        let mut found: Vec<String> = Vec::new();
        loop {
            let page = list(store, "v1/", found.last().map(String::as_str), limit).await;
            let more = page.len() == limit;
            found.extend(page);
            if !more {
                break;
            }
        }
        assert_eq!(found, IN_ORDER, "in pages of {limit}");
    }
    remove(store, &IN_ORDER).await;
}

/// Tags do, and file systems may not.
pub async fn keys_that_differ_by_case_are_two_objects(store: &dyn Store) {
    let keys = ["v1/Tag", "v1/tAG", "v1/tag"];
    for key in keys {
        put(store, key, key.as_bytes()).await;
    }
    for key in keys {
        assert_eq!(read(store, key).await, key.as_bytes());
    }
    assert_eq!(list(store, "v1/", None, 10).await, keys);
    remove(store, &keys).await;
}

/// The longest repository name with the longest tag.
pub async fn the_longest_keys_are_kept(store: &dyn Store) {
    let record = format!("{}.{}.sha512-{}", "f".repeat(24), "0".repeat(26), "e".repeat(128));
    let name = "n".repeat(255);
    for tag in ["T".repeat(128), "t".repeat(128)] {
        let key = format!("v1/r/{name}/~t/{tag}/{record}.x");
        put(store, &key, b"x").await;
        assert_eq!(read(store, &key).await, b"x");
        assert_eq!(list(store, "v1/r/", None, 10).await, [key.as_str()]);
        remove(store, &[&key]).await;
    }
}

/// By every kind of read.
pub async fn a_removed_object_is_gone_at_once(store: &dyn Store) {
    for _ in 0..3 {
        put(store, "v1/folder/a", b"x").await;
        put(store, "v1/folder/b", b"x").await;
        remove(store, &["v1/folder/a"]).await;
        assert!(store.head("v1/folder/a").await.expect("the store answers").is_none());
        assert!(store.get("v1/folder/a", None).await.expect("the store answers").is_none());
        assert_eq!(list(store, "v1/", None, 10).await, ["v1/folder/b"]);
        remove(store, &["v1/folder/b"]).await;
    }
}

/// A removal is repeated after a crash.
pub async fn removing_what_is_not_there_is_fine(store: &dyn Store) {
    put(store, "v1/folder/a", b"x").await;
    remove(store, &[]).await;
    remove(store, &["v1/missing"]).await;
    remove(store, &["v1/missing", "v1/folder/a", "v1/folder/b", "v1/none/at/all"]).await;
    remove(store, &["v1/missing", "v1/folder/a", "v1/folder/b", "v1/none/at/all"]).await;
}

/// Sends `content` as the part `number`.
async fn part(store: &dyn Store, key: &str, id: &super::MultipartId, number: u16, content: &[u8]) -> Part {
    let offset = (usize::from(number) - 1) * PART;
    let segments = content.chunks(1 << 20).map(Bytes::copy_from_slice).collect();
    let sent = store.upload_part(key, id, number, offset as u64, segments).await;
    let part = sent.expect("the store takes the part");
    assert_eq!((part.number, part.size), (number, content.len() as u64));
    part
}

/// Those that are neither complete nor aborted; some services list none.
pub async fn open_uploads_are_listed(store: &dyn Store) {
    let listed = async || {
        let mut open = store.open_multiparts().await.expect("the store lists them");
        open.sort_by(|a, b| a.key.cmp(&b.key));
        open
    };
    assert_eq!(listed().await, []);
    let mut begun = Vec::new();
    for key in ["v1/up/aa/x", "v1/up/bb/y"] {
        let id = store.create_multipart(key).await.expect("the store begins");
        begun.push(super::OpenMultipart { key: key.to_owned(), id });
    }
    let found = listed().await;
    assert!(found.is_empty() || found == begun, "{found:?}");
    for super::OpenMultipart { key, id } in &begun {
        store.abort(key, id).await.expect("the store aborts");
    }
    assert_eq!(listed().await, []);
}

/// In any order of sending.
pub async fn parts_make_one_object(store: &dyn Store) {
    const KEY: &str = "v1/up/aa/x";
    let content = pattern(2 * PART + 7);
    let id = store.create_multipart(KEY).await.expect("the store begins");
    let third = part(store, KEY, &id, 3, &content[2 * PART..]).await;
    let first = part(store, KEY, &id, 1, &content[..PART]).await;
    let second = part(store, KEY, &id, 2, &content[PART..2 * PART]).await;
    store.complete(KEY, &id, &[first, second, third]).await.expect("the store completes");
    assert!(read(store, KEY).await == content, "the content differs");
    let joint = PART as u64 - 2..PART as u64 + 2;
    assert_eq!(read_range(store, KEY, joint).await, content[PART - 2..PART + 2]);
    remove(store, &[KEY]).await;
}

/// By no kind of read.
pub async fn an_upload_is_not_seen_before_it_is_complete(store: &dyn Store) {
    const KEY: &str = "v1/up/aa/x";
    let id = store.create_multipart(KEY).await.expect("the store begins");
    part(store, KEY, &id, 1, b"content").await;
    assert!(store.head(KEY).await.expect("the store answers").is_none());
    assert!(store.get(KEY, None).await.expect("the store answers").is_none());
    nothing_is_left(store).await;
    store.abort(KEY, &id).await.expect("the store gives up");
}

/// The last one that was acknowledged counts, also if it is shorter.
pub async fn a_part_sent_again_replaces_the_first(store: &dyn Store) {
    const KEY: &str = "v1/up/aa/x";
    let id = store.create_multipart(KEY).await.expect("the store begins");
    part(store, KEY, &id, 1, b"longer than the other").await;
    let last = part(store, KEY, &id, 1, b"shorter").await;
    store.complete(KEY, &id, &[last]).await.expect("the store completes");
    assert_eq!(read(store, KEY).await, b"shorter");
    remove(store, &[KEY]).await;
}

/// What a writer that has lost its lease sends late is never part of the object unnoticed.
pub async fn a_replaced_part_cannot_be_completed(store: &dyn Store) {
    const KEY: &str = "v1/up/aa/x";
    let id = store.create_multipart(KEY).await.expect("the store begins");
    let ours = part(store, KEY, &id, 1, b"ours").await;
    part(store, KEY, &id, 1, b"late").await;
    let refused = store.complete(KEY, &id, &[ours]).await.err();
    assert!(matches!(refused, Some(Error::Refused { .. })), "{refused:?}");
    assert!(store.head(KEY).await.expect("the store answers").is_none());
    store.abort(KEY, &id).await.expect("the store gives up");
}

/// Giving up is repeatable; going on is not possible.
pub async fn an_aborted_upload_is_unknown(store: &dyn Store) {
    const KEY: &str = "v1/up/aa/x";
    let id = store.create_multipart(KEY).await.expect("the store begins");
    let sent = part(store, KEY, &id, 1, b"content").await;
    store.abort(KEY, &id).await.expect("the store gives up");
    store.abort(KEY, &id).await.expect("the store gives up again");
    let part = store.upload_part(KEY, &id, 2, 7, vec![Bytes::from_static(b"more")]).await.err();
    assert!(matches!(part, Some(Error::UnknownUpload { .. })), "{part:?}");
    let complete = store.complete(KEY, &id, &[sent]).await.err();
    assert!(matches!(complete, Some(Error::UnknownUpload { .. })), "{complete:?}");
}

/// After a lost answer the caller asks for the object: completing again may be refused, and changes nothing.
pub async fn an_upload_is_complete_once(store: &dyn Store) {
    const KEY: &str = "v1/up/aa/x";
    let id = store.create_multipart(KEY).await.expect("the store begins");
    let sent = [part(store, KEY, &id, 1, b"content").await];
    store.complete(KEY, &id, &sent).await.expect("the store completes");
    match store.complete(KEY, &id, &sent).await {
        Ok(()) | Err(Error::UnknownUpload { .. }) => {}
        Err(error) => assert!(matches!(error, Error::UnknownUpload { .. }), "{error:?}"),
    }
    store.abort(KEY, &id).await.expect("the store gives up");
    assert_eq!(read(store, KEY).await, b"content");
    remove(store, &[KEY]).await;
}

/// Dropping the stream ends the read, and nothing else.
pub async fn a_read_can_be_given_up(store: &dyn Store) {
    let content = pattern(8 << 20);
    put(store, "v1/a", &content).await;
    for _ in 0..20 {
        let mut found = store.get("v1/a", None).await.expect("the store answers").expect("it exists");
        found.stream.try_next().await.expect("the content begins");
    }
    assert!(read(store, "v1/a").await == content, "the content differs");
    remove(store, &["v1/a"]).await;
}

/// And leaves nothing behind.
pub async fn the_self_test_finds_nothing_lacking(store: &dyn Store) {
    let lacks = super::selftest::probe(store, Generation::at(1)).await.expect("the store answers");
    assert_eq!(lacks, []);
}
