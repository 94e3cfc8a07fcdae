// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What no client may push to, nothing is imported to; and what a mirror has is exported.

use super::site::{assert_nothing, ends, layout, written};
use crate::purge::Place;
use crate::support::program::{Program, serve};

const MIRROR: &str = "---\napiVersion: stowage.dev/v1alpha1\nkind: Mirror\nmetadata: {name: hub}\nspec:\n  \
    registryRef: {name: main}\n  path: hub\n  mode: PullThrough\n  upstream: {url: https://hub.example.com}\n";
const COPIES: &str = "apiVersion: stowage.dev/v1alpha1\nkind: Mirror\nmetadata: {name: base}\nspec:\n  \
    registryRef: {name: main}\n  path: base\n  mode: Replicate\n  upstream: {url: https://hub.example.com}\n  \
    artifacts: [{repository: team/app}]\n";
const VIRTUAL: &str = "---\napiVersion: stowage.dev/v1alpha1\nkind: VirtualRepository\nmetadata: {name: all}\nspec:\n  \
    registryRef: {name: main}\n  path: all\n  members: [{name: own, repository: own}]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_imported_below_the_path_of_a_mirror_or_a_virtual_repository() {
    let place = Place::embedded();
    place.specify(&format!("{MIRROR}{VIRTUAL}"));
    written(place.path(), &layout(b"a layer"));
    for (name, words) in
        [("hub/team/app", "is a mirror's"), ("hub", "is a mirror's"), ("all/app", "virtual repository")]
    {
        let (_, last) = ends(&place, 3, &["import", "layout.tar", "--as", name]);
        assert!(last.contains(words) && last.contains("nothing was imported"), "{last}");
    }
    ends(&place, 0, &["import", "layout.tar", "--as=own/app:v1"]);
    place.write("config/copies.yaml", COPIES);
    let (_, last) = ends(&place, 3, &["import", "layout.tar", "--as=base/app:v1"]);
    assert!(last.contains("which copies to it"), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_takes_no_writes_takes_no_import() {
    let place = Place::embedded();
    place.specify("  mode: ReadOnly\n");
    written(place.path(), &layout(b"a layer"));
    let (_, last) = ends(&place, 3, &["import", "layout.tar"]);
    assert!(last.contains("mode ReadOnly"), "{last}");
    assert_nothing(&Program::start(&mut serve(place.path())).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_without_all_of_it_is_no_index_where_that_is_wanted() {
    let (from, to) = (Place::embedded(), Place::embedded());
    let source = Program::start(&mut serve(from.path())).await;
    super::site::push_index(&source, "team/multi", "v1", &["linux/amd64", "linux/arm64"]);
    let file = to.path().join("a.tar");
    let file = file.to_str().unwrap();
    ends(&from, 0, &["export", "team/multi:v1", "--platform=linux/amd64", "-o", file]);
    to.specify("  strictIndexes: [\"team/**\"]\n");
    let (_, last) = ends(&to, 3, &["import", "a.tar"]);
    assert!(last.contains("lists 1 manifests that the file has not"), "{last}");
    ends(&from, 0, &["export", "team/multi:v1", "-o", file]);
    ends(&to, 0, &["import", "a.tar"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_an_image_goes_has_to_be_known() {
    let place = Place::embedded();
    let mut nameless = layout(b"a layer");
    let index = String::from_utf8(nameless["index.json"].clone()).unwrap();
    let index = index.replace("io.containerd.image.name", "org.opencontainers.image.ref.name");
    nameless.insert("index.json".to_owned(), index.replace("example.com/team/app:v1", "v1").into_bytes());
    written(place.path(), &nameless);
    let (_, last) = ends(&place, 2, &["import", "layout.tar"]);
    assert!(last.contains("say where it goes with --as"), "{last}");
    let (told, _) = ends(&place, 0, &["import", "layout.tar", "--as=team/app"]);
    assert!(told.contains("imported team/app:v1"), "{told}");
    for name in [
        "example.com/team/app",
        "team/app@sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ] {
        let (_, last) = ends(&place, 2, &["import", "layout.tar", "--as", name]);
        assert!(last.contains("--as takes NAME or NAME:TAG"), "{last}");
    }
}
