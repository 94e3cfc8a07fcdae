// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Files that are not what they say. Of none of them anything can be seen.

use std::fs;

use super::site::{assert_nothing, ends, layout, tar_of, written};
use crate::purge::Place;
use crate::support::program::{Program, serve};

/// What a file comes to.
struct Refused<'a> {
    place: &'a Place,
    serving: &'a Program,
}

impl Refused<'_> {
    fn says(&self, code: i32, file: &str, words: &str) {
        let (_, last) = ends(self.place, code, &["import", file]);
        assert!(last.contains(words), "{file}: {last}");
        assert_nothing(self.serving);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_cut_anywhere_leaves_nothing() {
    let place = Place::embedded();
    let serving = Program::start(&mut serve(place.path())).await;
    let refused = Refused { place: &place, serving: &serving };
    let whole = fs::read(written(place.path(), &layout(&[7; 5000]))).unwrap();
    for at in (0..whole.len()).step_by(1500).filter(|at| *at > 0 && *at < whole.len() - 1024) {
        fs::write(place.path().join("cut.tar"), &whole[..at]).unwrap();
        refused.says(2, "cut.tar", "ends in the middle");
    }
    ends(&place, 0, &["import", "layout.tar"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_have_no_name() {
    let place = Place::embedded();
    let serving = Program::start(&mut serve(place.path())).await;
    let refused = Refused { place: &place, serving: &serving };
    let good = layout(b"a layer");
    for (content, code, words) in [
        (&b"a layer"[..], 1, "the file is damaged or was changed"),
        (b"{}", 1, "the file is damaged or was changed"),
        (b"schemaVersion", 2, "has digest"),
    ] {
        let mut bad = good.clone();
        let is_meant = |(name, found): &(&String, &mut Vec<u8>)| {
            name.starts_with("blobs/")
                && found.windows(content.len()).any(|part| part == content)
                && (found.len() == content.len() || content == b"schemaVersion")
        };
        let (_, found) = bad.iter_mut().find(is_meant).unwrap();
        let last = found.len() - 1;
        found[last] ^= 1;
        written(place.path(), &bad);
        refused.says(code, "layout.tar", words);
    }
    let mut shorter = good.clone();
    shorter.retain(|_, content| content != b"a layer");
    written(place.path(), &shorter);
    refused.says(2, "layout.tar", "which is not in the file");
    written(place.path(), &good);
    ends(&place, 0, &["import", "layout.tar"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_lead_out_and_sizes_that_no_file_has_are_refused() {
    let place = Place::embedded();
    let serving = Program::start(&mut serve(place.path())).await;
    let refused = Refused { place: &place, serving: &serving };
    let good = layout(b"a layer");
    let mut members: Vec<(&str, &[u8])> =
        good.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    for name in ["../../escaped", "/escaped", "blobs/../../escaped"] {
        members.push((name, b"out"));
        tar_of(place.path(), "a.tar", &members);
        refused.says(2, "a.tar", "leads out of the archive");
        members.pop();
    }
    assert!(!place.path().join("escaped").exists());

    let mut bytes = fs::read(written(place.path(), &good)).unwrap();
    for size in [
        &b"77777777777\0"[..],
        b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        bytes[124..136].copy_from_slice(size);
        bytes[148..156].copy_from_slice(b"        ");
        let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        fs::write(place.path().join("huge.tar"), &bytes).unwrap();
        let words = if size[0] == 0xff { "is damaged at byte 0" } else { "ends in the middle" };
        refused.says(2, "huge.tar", words);
    }
    bytes[0] ^= 1;
    fs::write(place.path().join("huge.tar"), &bytes).unwrap();
    refused.says(2, "huge.tar", "is not a tar file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_archive_of_images_is_told_what_is_missing() {
    let place = Place::embedded();
    let serving = Program::start(&mut serve(place.path())).await;
    let refused = Refused { place: &place, serving: &serving };
    for (content, words) in [
        (&b"\x1f\x8b\x07 and so on"[..], "is compressed with gzip and cannot be unpacked"),
        (b"\x28\xb5\x2f\xfd and so on", "is compressed with zstd; decompress it first"),
        (b"#!/bin/sh\n", "is not a tar file"),
        (b"", "is not a tar file"),
        (&[b'x'; 4096], "is not a tar file"),
    ] {
        fs::write(place.path().join("a.tar"), content).unwrap();
        refused.says(2, "a.tar", words);
    }
    for (members, words) in [
        (vec![("readme", &b"hello"[..])], "has no images: neither index.json"),
        (vec![("repositories", b"{}")], "was saved by Docker before 1.10"),
        (vec![("manifest.json", b"{")], "manifest.json cannot be read"),
        (vec![("manifest.json", b"[]")], "the file has no images"),
        (
            vec![("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#), ("index.json", b"{}")],
            "version \"2.0.0\"",
        ),
        (vec![("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)], "needs index.json"),
        (vec![("index.json", br#"{"manifests":null}"#)], "the file has no images"),
    ] {
        tar_of(place.path(), "a.tar", &members);
        refused.says(2, "a.tar", words);
    }
    refused.says(2, "nowhere.tar", "cannot be read");
    refused.says(2, "config", "is not a file");
}
