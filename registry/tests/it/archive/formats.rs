// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What `docker save` writes, and wrote: one manifest is made of config and layers as they lie in the file.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use stowage_oci::{Algorithm, Digest};

use super::site::{assert_nothing, ends, manifest, tar_of};
use crate::purge::{Place, assert_code};
use crate::support::program::{Program, program, serve};

fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diffs: Vec<Digest> = layers.iter().map(|layer| sha256(layer)).collect();
    json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}})
        .to_string()
        .into_bytes()
}

fn zipped(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// The manifest that `team/app:v1` has, and its layers.
fn layers(at: &Program) -> Vec<(String, Vec<u8>)> {
    let (status, body) = manifest(at, "team/app", "v1");
    assert_eq!(status, 200);
    let made: Value = serde_json::from_slice(&body).unwrap();
    let layers = made["layers"].as_array().unwrap().iter().map(|layer| {
        let digest = layer["digest"].as_str().unwrap();
        let (status, _, content) = at.ask("GET", &format!("/v2/team/app/blobs/{digest}"), "", b"");
        assert_eq!((status, content.len() as u64), (200, layer["size"].as_u64().unwrap()));
        (layer["mediaType"].as_str().unwrap().to_owned(), content)
    });
    layers.collect()
}

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// As Docker 1.10 to 24 wrote it: a folder a layer, and a link where two images share one.
fn old_layout(folder: &Path) {
    let config = config(&[b"one", b"two", b"one"]);
    let name = format!("{}.json", sha256(&config).hex());
    let saved = json!([{
        "Config": name, "RepoTags": ["example.com:5000/team/app:v1", "team/app:latest"],
        "Layers": ["aaa/layer.tar", "bbb/layer.tar", "ccc/layer.tar"],
    }]);
    let mut builder = tar::Builder::new(File::create(folder.join("old.tar")).unwrap());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append_data(&mut header, name, content).unwrap();
    };
    for (name, content) in [
        ("aaa/VERSION", &b"1.0"[..]),
        ("aaa/json", b"{}"),
        ("aaa/layer.tar", b"one"),
        ("bbb/layer.tar", b"two"),
        (&name, &config),
        ("manifest.json", saved.to_string().as_bytes()),
        ("repositories", b"{}"),
    ] {
        add(name, content);
    }
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "ccc/layer.tar", "../aaa/layer.tar").unwrap();
    builder.into_inner().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o9_what_docker_saved_in_folders_is_imported_the_same_each_time() {
    let place = Place::embedded();
    let serving = Program::start(&mut serve(place.path())).await;
    old_layout(place.path());
    let (told, _) = ends(&place, 0, &["import", "old.tar"]);
    assert!(told.contains("imported team/app:v1") && told.contains("imported team/app:latest"), "{told}");
    let plain = |content: &[u8]| (LAYER.to_owned(), content.to_vec());
    assert_eq!(layers(&serving), [plain(b"one"), plain(b"two"), plain(b"one")]);
    let (again, _) = ends(&place, 0, &["import", "old.tar"]);
    assert_eq!(again.matches("present ").count(), 2, "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o9_layers_that_are_compressed_stay_so() {
    let place = Place::embedded();
    let serving = Program::start(&mut serve(place.path())).await;
    let config = config(&[b"one"]);
    let layer = zipped(b"one");
    let saved = json!([{"Config": format!("sha256:{}", sha256(&config).hex()), "RepoTags": ["team/app:v1"],
        "Layers": ["layer.tar.gz"]}]);
    let saved = saved.to_string();
    let name = format!("sha256:{}", sha256(&config).hex());
    let file = |layer: &[u8]| {
        let members = [
            ("manifest.json", saved.as_bytes()),
            (name.as_str(), config.as_slice()),
            ("layer.tar.gz", layer),
        ];
        tar_of(place.path(), "a.tar", &members);
    };
    for broken in [zipped(b"two"), layer[..layer.len() - 4].to_vec()] {
        file(&broken);
        let (_, last) = ends(&place, 2, &["import", "a.tar"]);
        assert!(last.contains("the file is damaged"), "{last}");
        assert_nothing(&serving);
    }
    file(&layer);
    ends(&place, 0, &["import", "a.tar"]);
    assert_eq!(layers(&serving), [(format!("{LAYER}+gzip"), layer)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o9_what_was_saved_and_compressed_is_imported_as_it_was_saved() {
    let place = Place::embedded();
    let serving = Program::start(&mut serve(place.path())).await;
    let folder = tempfile::tempdir().unwrap();
    let import = |file: &str| {
        let mut import = program(&["import", file], place.path());
        import.current_dir(place.path()).env("TMPDIR", folder.path()).output().unwrap()
    };
    old_layout(place.path());
    let whole = zipped(&fs::read(place.path().join("old.tar")).unwrap());
    for (content, words) in
        [(&whole[..whole.len() / 2], "ends in the middle"), (&whole[..whole.len() - 1], "ends in the middle")]
    {
        fs::write(place.path().join("cut.tar.gz"), content).unwrap();
        let refused = import("cut.tar.gz");
        assert_code(&refused, 2);
        assert!(String::from_utf8_lossy(&refused.stderr).contains(words), "{refused:?}");
        assert_nothing(&serving);
    }
    fs::write(place.path().join("old.tar.gz"), &whole).unwrap();
    assert_code(&import("old.tar.gz"), 0);
    let plain = |content: &[u8]| (LAYER.to_owned(), content.to_vec());
    assert_eq!(layers(&serving), [plain(b"one"), plain(b"two"), plain(b"one")]);
    let (again, _) = ends(&place, 0, &["import", "old.tar"]);
    assert_eq!(again.matches("present ").count(), 2, "the same as when it is not compressed: {again}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of it");
    fs::remove_dir(folder.path()).unwrap();
    let refused = import("old.tar.gz");
    assert_code(&refused, 2);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("TMPDIR"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_of_other_layers_is_refused() {
    let place = Place::embedded();
    let serving = Program::start(&mut serve(place.path())).await;
    let config = config(&[b"one"]);
    let right = format!("{}.json", sha256(&config).hex());
    let wrong = format!("{}.json", sha256(b"other").hex());
    for (name, layers, layer, words) in [
        (&right, json!(["l.tar", "l.tar"]), &b"one"[..], "lists 1 layers, and manifest.json 2"),
        (&right, json!(["l.tar"]), b"two", "l.tar has digest"),
        (&wrong, json!(["l.tar"]), b"one", "has digest"),
        (&right, json!(["k.tar"]), b"one", "k.tar, which is not in the file"),
        (&right, json!(["../l.tar"]), b"one", "leads out of the archive"),
    ] {
        let saved = json!([{"Config": name, "RepoTags": ["team/app:v1"], "Layers": layers}]).to_string();
        let members =
            [("manifest.json", saved.as_bytes()), (name.as_str(), config.as_slice()), ("l.tar", layer)];
        tar_of(place.path(), "a.tar", &members);
        let (_, last) = ends(&place, 2, &["import", "a.tar"]);
        assert!(last.contains(words), "{last}");
        assert_nothing(&serving);
    }
}
