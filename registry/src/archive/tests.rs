// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

use std::io::Cursor;

use proptest::prelude::*;
use stowage_oci::Algorithm;

use super::*;

fn contents(bytes: &[u8]) -> Result<tar::Contents, Trouble> {
    tar::contents(&mut Cursor::new(bytes), bytes.len() as u64)
}

async fn file(blobs: &[&[u8]], algorithm: Algorithm) -> Vec<u8> {
    let mut writer = Writer::begin(Vec::new(), b"{}").await.unwrap();
    for blob in blobs {
        writer.member(&blob_path(&Digest::of(algorithm, blob)), blob).await.unwrap();
    }
    writer.end().await.unwrap()
}

#[tokio::test]
async fn what_is_written_is_found_at_its_place() {
    let long = [7; 5000];
    let blobs: [&[u8]; 4] = [b"", b"a", &long[..512], &long];
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let bytes = file(&blobs, algorithm).await;
        let contents = contents(&bytes).unwrap();
        assert!(contents.has("oci-layout") && contents.has("index.json"));
        for blob in blobs {
            let place = contents.find(&blob_path(&Digest::of(algorithm, blob))).unwrap().unwrap();
            let (offset, size) =
                (usize::try_from(place.offset).unwrap(), usize::try_from(place.size).unwrap());
            assert_eq!(&bytes[offset..offset + size], blob, "{algorithm:?}");
        }
        // A name of sha512 does not fit into a head of ustar; who knows only that reads another name, and no other bytes.
        assert_eq!(bytes.len() % 512, 0);
    }
}

#[tokio::test]
async fn a_member_of_another_length_than_was_said_is_an_error() {
    for said in [2, 4] {
        let mut writer = Writer::begin(Vec::new(), b"{}").await.unwrap();
        let content = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"abc"))]);
        assert!(writer.stream("blob", said, content).await.is_err(), "{said}");
    }
}

#[test]
fn links_are_followed_inside_and_not_for_ever() {
    let mut header = [0; 512];
    let mut bytes = Vec::new();
    for (name, target) in [("a", "b"), ("b", "a"), ("c", "nowhere")] {
        header.fill(0);
        header[0] = name.as_bytes()[0];
        header[156] = b'2';
        header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend_from_slice(&header);
    }
    bytes.extend_from_slice(&[0; 1024]);
    let contents = contents(&bytes).unwrap();
    for name in ["a", "b", "c"] {
        assert!(matches!(contents.find(name), Err(Trouble::DeadLink(_))), "{name}");
    }
    assert_eq!(contents.find("d").unwrap(), None);
}

proptest! {
    #[test]
    fn no_bytes_are_read_beyond_the_end(
        damage in proptest::collection::vec((0_usize..4096, any::<u8>()), 1..8), cut in 0_usize..6000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut bytes = runtime.block_on(file(&[b"a blob"], Algorithm::Sha512));
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        // Whatever is read lies in the file.
        if let Ok(contents) = contents(&bytes) {
            for name in ["oci-layout", "index.json"] {
                if let Ok(Some(place)) = contents.find(name) {
                    prop_assert!(place.offset + place.size <= bytes.len() as u64);
                }
            }
        }
    }
}
