// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What goes into files and comes out of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};

use crate::purge::{Place, assert_code};
use crate::support::program::{Program, program};
use crate::upstream::servers::{Image, push};

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Runs a command of the program on this place, in its folder.
pub(super) fn run(place: &Place, arguments: &[&str]) -> Output {
    program(&arguments[..1], place.path()).args(&arguments[1..]).current_dir(place.path()).output().unwrap()
}

/// The same, of which it is known how it ends; its standard output and what it said last.
pub(super) fn ends(place: &Place, code: i32, arguments: &[&str]) -> (String, String) {
    let output = run(place, arguments);
    assert_code(&output, code);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let last = text(&output.stderr).lines().last().unwrap_or_default().to_owned();
    (text(&output.stdout), last)
}

/// Pushes an index of images for these platforms; its digest, and its images.
pub(super) fn push_index(
    at: &Program,
    repository: &str,
    tag: &str,
    platforms: &[&str],
) -> (Digest, Vec<Image>) {
    let address = at.address("listen");
    let images: Vec<Image> = platforms
        .iter()
        .map(|platform| push(address, "", repository, "part", format!("{repository} {platform}").as_bytes()))
        .collect();
    let manifests = platforms.iter().zip(&images).map(|(platform, image)| {
        let (os, architecture) = platform.split_once('/').unwrap();
        json!({
            "mediaType": IMAGE, "digest": image.digest, "size": image.manifest.len(),
            "platform": {"os": os, "architecture": architecture},
        })
    });
    let manifests: Vec<Value> = manifests.collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let index = format!("{index:#}\n").into_bytes();
    put_manifest(at, repository, tag, INDEX, &index);
    (Digest::of(Algorithm::Sha256, &index), images)
}

pub(super) fn put_manifest(
    at: &Program,
    repository: &str,
    reference: &str,
    media_type: &str,
    content: &[u8],
) {
    let target = format!("/v2/{repository}/manifests/{reference}");
    let fields = format!("Content-Type: {media_type}\r\n");
    let (status, head, _) = at.ask("PUT", &target, &fields, content);
    assert_eq!(status, 201, "{head}");
}

/// Status and bytes of a manifest.
pub(super) fn manifest(at: &Program, repository: &str, reference: impl std::fmt::Display) -> (u16, Vec<u8>) {
    let (status, _, body) = at.ask("GET", &format!("/v2/{repository}/manifests/{reference}"), "", b"");
    (status, body)
}

pub(super) fn assert_image(at: &Program, repository: &str, image: &Image) {
    assert_eq!(manifest(at, repository, image.digest), (200, image.manifest.clone()));
    let target = format!("/v2/{repository}/blobs/{}", image.layer_digest);
    let (status, _, body) = at.ask("GET", &target, "", b"");
    assert_eq!((status, body), (200, image.layer.clone()));
}

/// The members of a tar file, each as often as it is there.
pub(super) fn members(file: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(File::open(file).unwrap());
    let read = |entry: std::io::Result<tar::Entry<'_, File>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    };
    archive.entries().unwrap().map(read).collect()
}

/// Writes a tar file of these members.
pub(super) fn tar_of(folder: &Path, name: &str, members: &[(&str, &[u8])]) -> PathBuf {
    let path = folder.join(name);
    let mut builder = tar::Builder::new(File::create(&path).unwrap());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // Names that no honest writer would take.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap();
    path
}

/// A layout with one image, `team/app:v1`, member by member.
pub(super) fn layout(layer: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let path = |content: &[u8]| format!("blobs/sha256/{}", Digest::of(Algorithm::Sha256, content).hex());
    let descriptor = |media_type: &str, content: &[u8]| {
        json!({
            "mediaType": media_type, "digest": Digest::of(Algorithm::Sha256, content), "size": content.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut root = descriptor(IMAGE, &manifest);
    root["annotations"] = json!({"io.containerd.image.name": "example.com/team/app:v1"});
    let index = json!({"schemaVersion": 2, "manifests": [root]}).to_string().into_bytes();
    [
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index),
        (path(b"{}"), b"{}".to_vec()),
        (path(layer), layer.to_vec()),
        (path(&manifest), manifest),
    ]
    .into()
}

pub(super) fn written(folder: &Path, members: &BTreeMap<String, Vec<u8>>) -> PathBuf {
    let members: Vec<(&str, &[u8])> =
        members.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    tar_of(folder, "layout.tar", &members)
}

/// That nothing can be seen of `team/app`.
pub(super) fn assert_nothing(at: &Program) {
    let (status, _, body) = at.ask("GET", "/v2/team/app/tags/list", "", b"");
    let tags: Value = serde_json::from_slice(&body).unwrap();
    assert!(status == 404 || tags["tags"] == json!([]), "{tags}");
}
