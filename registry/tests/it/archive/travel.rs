// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! From one registry to another: the same digests, and nothing twice.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::both_places;
use super::site::{INDEX, assert_image, ends, manifest, members, push_index, put_manifest};
use crate::purge::Place;
use crate::support::program::{Program, serve};
use crate::upstream::servers::push;

async fn f38c_o7_images_travel_in_one_file_with_their_digests(from: Place, to: Place) {
    let source = Program::start(&mut serve(from.path())).await;
    let address = source.address("listen");
    let one = push(address, "", "team/app", "v1.0", b"shared");
    let other = push(address, "", "team/app", "v1.1", b"its own");
    let same = push(address, "", "team/tool", "v2", b"shared");
    push(address, "", "team/app", "v2.0", b"not wanted");
    let (index, images) = push_index(&source, "team/multi", "v1", &["linux/amd64", "linux/arm64"]);

    let (told, _) = ends(
        &from,
        0,
        &["export", "-o", "images.tar", "team/app:v1.*", "team/tool:v2", "team/multi:v1", "--output=json"],
    );
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5, "{told}");
    assert_eq!(lines[0]["name"], "registry.example.com/team/app:v1.0");
    assert_eq!(lines[0]["digest"], one.digest.to_string());
    let file = from.path().join("images.tar");
    let names: Vec<String> = members(&file).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..2], ["oci-layout", "index.json"]);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "once each: {names:#?}");
    // Five manifests (two images are the same), the config, and four layers.
    assert_eq!(names.len(), 2 + 5 + 1 + 4, "{names:#?}");

    // Nobody serves there yet; nothing was ever there.
    fs::copy(&file, to.path().join("images.tar")).unwrap();
    let (told, _) = ends(&to, 0, &["import", "images.tar"]);
    assert!(told.contains(&format!("imported team/app:v1.0 {}\n", one.digest)), "{told}");
    let target = Program::start(&mut serve(to.path())).await;
    for (repository, image) in [("team/app", &one), ("team/app", &other), ("team/tool", &same)] {
        assert_image(&target, repository, image);
    }
    assert_eq!(manifest(&target, "team/app", "v1.0"), (200, one.manifest.clone()));
    assert_eq!(manifest(&target, "team/multi", "v1"), manifest(&source, "team/multi", index));
    for image in &images {
        assert_image(&target, "team/multi", image);
    }
    assert_eq!(manifest(&target, "team/app", "v2.0").0, 404);

    // Beside the server, again: all is there. And what comes out of it is the same file.
    let (told, _) = ends(&to, 0, &["import", "images.tar"]);
    assert!(told.contains("present team/app:v1.0") && told.contains("importedBlobs: 0\n"), "{told}");
    assert!(!told.contains("imported team"), "{told}");
    let again = ["export", "-o", "again.tar", "team/multi:v1", "team/tool:v2", "team/app:v1.?"];
    ends(&to, 0, &again);
    assert!(fs::read(&file).unwrap() == fs::read(to.path().join("again.tar")).unwrap(), "another file");
}

async fn an_index_keeps_its_digest_when_platforms_stay_behind(from: Place, to: Place) {
    let source = Program::start(&mut serve(from.path())).await;
    let (index, images) = push_index(&source, "team/multi", "v1", &["linux/amd64", "linux/arm64"]);
    let file = to.path().join("images.tar");
    let file = file.to_str().unwrap();
    let export = ["export", "team/multi:v1", "-o", file, "--platform"];
    let (told, _) = ends(&from, 0, &[&export[..], &["linux/arm64"]].concat());
    assert!(told.contains("without 1 of what it lists"), "{told}");
    ends(&to, 0, &["import", "images.tar"]);
    let target = Program::start(&mut serve(to.path())).await;
    assert_eq!(manifest(&target, "team/multi", "v1"), manifest(&source, "team/multi", index));
    assert_image(&target, "team/multi", &images[1]);
    assert_eq!(manifest(&target, "team/multi", images[0].digest).0, 404);

    let (_, last) = ends(&from, 1, &[&export[..], &["linux/s390x"]].concat());
    assert!(last.contains("it lists linux/amd64, linux/arm64"), "{last}");
}

async fn a_list_of_images_is_exported_or_nothing_is(from: Place, to: Place) {
    let source = Program::start(&mut serve(from.path())).await;
    let address = source.address("listen");
    let image = push(address, "", "team/app", "v1", b"a");
    push(address, "", "team/app", "v2", b"b");
    from.write("images.txt", "# for the ship\nteam/app:v1 # the good one\n\n");
    ends(&from, 0, &["export", "--images=images.txt", "-o", "a.tar"]);
    fs::rename(from.path().join("a.tar"), to.path().join("a.tar")).unwrap();
    let (told, _) = ends(&to, 0, &["import", "a.tar", "--repository-prefix=ship"]);
    assert!(told.contains(&format!("imported ship/team/app:v1 {}", image.digest)), "{told}");
    let (told, _) = ends(&to, 0, &["import", "a.tar", "--as=here/it:is"]);
    assert!(told.contains("imported here/it:is"), "{told}");

    for (wanted, says) in [
        ("team/app:v3", "team/app v3 is not in this registry"),
        ("team/app:x*", "no tag of team/app fits"),
        ("other:*", "other is not in this registry"),
    ] {
        let (_, last) = ends(&from, 1, &["export", "team/app:v1", wanted, "-o", "none.tar"]);
        assert!(last.contains(says), "{last}");
    }
    from.write("images.txt", "team/app:v1\nteam/app\n");
    let (_, last) = ends(&from, 2, &["export", "--images=images.txt", "-o", "none.tar"]);
    assert!(last.contains("line 2") && last.contains("neither tag nor digest"), "{last}");
    ends(&from, 2, &["export", "team/app", "-o", "none.tar"]);
    let left =
        fs::read_dir(from.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = left.filter(|name| name.contains("tar") || name.contains("export")).collect();
    assert!(left.is_empty(), "{left:?}");
}

async fn an_image_by_digest_comes_back_by_digest(from: Place, to: Place) {
    let source = Program::start(&mut serve(from.path())).await;
    let image = push(source.address("listen"), "", "team/app", "v1", b"a");
    let reference = format!("team/app@{}", image.digest);
    let output = super::site::run(&from, &["export", &reference, "-o", "-"]);
    fs::write(to.path().join("a.tar"), output.stdout).unwrap();
    let (told, _) = ends(&to, 0, &["import", "a.tar"]);
    assert!(told.contains(&format!("imported team/app {}", image.digest)), "{told}");
    let target = Program::start(&mut serve(to.path())).await;
    assert_image(&target, "team/app", &image);
    assert_eq!(manifest(&target, "team/app", "v1").0, 404);
}

async fn an_index_that_was_pushed_without_some_of_it_travels_as_it_is(from: Place, to: Place) {
    let source = Program::start(&mut serve(from.path())).await;
    let image = push(source.address("listen"), "", "team/app", "part", b"a");
    let absent = stowage_oci::Digest::of(stowage_oci::Algorithm::Sha512, b"elsewhere");
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": super::site::IMAGE, "digest": image.digest, "size": image.manifest.len()},
        {"mediaType": super::site::IMAGE, "digest": absent, "size": 9},
    ]});
    let index = index.to_string().into_bytes();
    let digest = stowage_oci::Digest::of(stowage_oci::Algorithm::Sha512, &index);
    put_manifest(&source, "team/app", &digest.to_string(), INDEX, &index);
    let reference = format!("team/app@{digest}");
    let file = to.path().join("a.tar");
    let (told, _) = ends(&from, 0, &["export", &reference, "-o", file.to_str().unwrap()]);
    assert!(told.contains("without 1 of what it lists"), "{told}");
    ends(&to, 0, &["import", "a.tar"]);
    let target = Program::start(&mut serve(to.path())).await;
    assert_eq!(manifest(&target, "team/app", digest), (200, index));
    assert_image(&target, "team/app", &image);
}

both_places!(
    f38c_o7_images_travel_in_one_file_with_their_digests,
    an_index_keeps_its_digest_when_platforms_stay_behind,
    a_list_of_images_is_exported_or_nothing_is,
    an_image_by_digest_comes_back_by_digest,
    an_index_that_was_pushed_without_some_of_it_travels_as_it_is,
);
