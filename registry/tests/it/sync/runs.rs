// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What runs copy, leave, name and delete.

use std::time::Duration;

use serde_json::json;
use stowage_oci::TagSelection;
use stowage_registry::domain::{Artifacts, MirrorCache, MirrorSettings, Repositories, Selection, SyncMode};

use super::site::{IMAGE, INDEX, Site, index, request, run, versions};
use crate::support::program::ask;
use crate::upstream::servers::{Stowage, push, settings};

super::both_stores!(
    w721_p28_f22_what_is_selected_is_copied_and_an_unchanged_run_fetches_nothing,
    a_dry_run_tells_the_same_and_changes_nothing,
    w883_f24_what_refers_to_an_image_comes_with_it_byte_by_byte,
    platforms_choose_images_and_leave_the_index_as_it_is,
    f34_what_fails_is_named_and_the_rest_goes_on,
    a_tag_that_a_client_set_is_not_written_over,
    prune_deletes_what_this_mirror_set_after_a_run_without_failure,
    l_13_an_upstream_that_lists_nothing_at_all_prunes_nothing,
    w108_clients_cannot_push_where_a_mirror_copies,
    blobs_of_other_repositories_here_are_linked,
    an_image_that_lacks_its_blobs_here_is_made_whole,
    p39_what_a_registry_lists_is_copied_and_later_runs_copy_the_difference,
);

async fn w721_p28_f22_what_is_selected_is_copied_and_an_unchanged_run_fetches_nothing(mut site: Site) {
    let images: Vec<_> =
        ["1.9", "1.10", "2.0"].iter().map(|tag| site.push("team/app", tag, tag.as_bytes())).collect();
    site.push("team/app", "latest", b"latest");
    site.asked.artifacts[0].selection =
        Selection { tags: versions(">=1 <2"), newest: Some(1), platforms: Vec::new() };
    let told = site.copy().await;
    assert_eq!(told.items, ["copied team/app:1.10"]);
    assert_eq!((told.synced.blobs, told.synced.bytes), (2, 4 + 2), "the layer and its config");
    assert_eq!(site.manifest("base/team/app", "1.10").await.as_ref(), Some(&images[1].manifest));
    let blob = site.get(&format!("/v2/base/team/app/blobs/{}", images[1].layer_digest)).await;
    assert_eq!(&blob.body[..], b"1.10");
    let tags = site.get("/v2/base/team/app/tags/list").await;
    assert_eq!(&tags.body[..], br#"{"name":"base/team/app","tags":["1.10"]}"#);

    site.line.asked();
    let again = site.copy().await;
    assert_eq!((again.items, again.synced.bytes), (vec!["unchanged team/app:1.10".to_owned()], 0));
    let asked = site.line.asked();
    let gets =
        |what: &str| asked.iter().filter(|line| line.starts_with("GET") && line.contains(what)).count();
    assert_eq!((gets("/blobs/"), gets("/manifests/1")), (0, 0), "{asked:?}");
    assert!(asked.len() <= 5, "a login, the list, a HEAD, and whether referrers are listed: {asked:?}");

    let moved = site.push("team/app", "1.10", b"moved");
    let told = site.copy().await;
    assert_eq!((told.items, told.synced.blobs), (vec!["copied team/app:1.10".to_owned()], 1));
    assert_eq!(site.manifest("base/team/app", "1.10").await, Some(moved.manifest));
}

async fn a_dry_run_tells_the_same_and_changes_nothing(site: Site) {
    site.push("team/app", "1.0", b"one");
    let told = site.run(SyncMode::DryRun).await;
    assert_eq!((told.items.as_slice(), told.synced.bytes), (&["copied team/app:1.0".to_owned()][..], 0));
    assert_eq!(site.get("/v2/base/team/app/tags/list").await.status, 404);
    assert_eq!(site.blobs_asked(), [""; 0]);
    site.copy().await;
    assert_eq!(site.run(SyncMode::DryRun).await.items, ["unchanged team/app:1.0"]);
}

async fn w883_f24_what_refers_to_an_image_comes_with_it_byte_by_byte(mut site: Site) {
    let image = site.push("team/app", "1.0", b"image");
    let other = site.push("team/app", "old", b"not selected");
    site.asked.artifacts[0].selection.tags = versions("1.x");
    site.asked.with_referrers = false;
    let tag = |digest: &stowage_oci::Digest, kind: &str| format!("sha256-{}{kind}", digest.hex());
    let cosign = site.push("team/app", &tag(&image.digest, ".sig"), b"a signature of the old kind");
    site.push("team/app", &tag(&other.digest, ".sig"), b"of what is not selected");
    let sbom = site.refer("team/app", "sbom", b"an sbom", &image);
    let descriptor = json!({"mediaType": IMAGE, "digest": sbom.digest, "size": sbom.manifest.len()});
    // distribution has no referrers API: clients keep this instead.
    let (_, list) = site.push_index("team/app", &tag(&image.digest, ""), &json!([descriptor]));
    assert_eq!(site.copy().await.items, ["copied team/app:1.0"]);
    assert_eq!(site.manifest("base/team/app", &sbom.digest.to_string()).await, None, "they are left out");

    site.asked.with_referrers = true;
    let told = site.copy().await;
    let expected =
        [tag(&image.digest, ""), tag(&image.digest, ".sig")].map(|tag| format!("copied team/app:{tag}"));
    assert_eq!(told.items, [&["copied team/app:1.0".to_owned()][..], &expected].concat());
    let here = |reference: String| site.manifest("base/team/app", Box::leak(reference.into_boxed_str()));
    assert_eq!(here(sbom.digest.to_string()).await, Some(sbom.manifest));
    assert_eq!(here(tag(&image.digest, ".sig")).await, Some(cosign.manifest));
    assert_eq!(here(tag(&image.digest, "")).await, Some(list));
    assert_eq!(here(tag(&other.digest, ".sig")).await, None);
    let referrers = site.get(&format!("/v2/base/team/app/referrers/{}", image.digest)).await;
    assert!(String::from_utf8_lossy(&referrers.body).contains(&sbom.digest.to_string()));
    assert_eq!(site.copy().await.synced.skipped, 3);
}

async fn platforms_choose_images_and_leave_the_index_as_it_is(mut site: Site) {
    let (amd, arm) = (site.push("team/app", "amd", b"amd64"), site.push("team/app", "arm", b"arm64"));
    let child = |image: &crate::upstream::servers::Image, architecture: &str| {
        json!({
            "mediaType": IMAGE, "digest": image.digest, "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let manifests = json!([child(&amd, "amd64"), child(&arm, "arm64")]);
    let (digest, body) = site.push_index("team/app", "1.0", &manifests);
    let platforms = |platforms: &[&str]| Selection {
        tags: versions("1.x"),
        newest: None,
        platforms: platforms.iter().map(|platform| platform.parse().unwrap()).collect(),
    };
    site.asked.artifacts[0].selection = platforms(&["linux/arm64"]);
    assert_eq!(site.copy().await.synced.blobs, 2);
    assert_eq!(site.manifest("base/team/app", "1.0").await, Some(body.clone()));
    assert_eq!(site.manifest("base/team/app", &digest.to_string()).await, Some(body));
    assert_eq!(site.manifest("base/team/app", &arm.digest.to_string()).await, Some(arm.manifest));
    assert_eq!(site.manifest("base/team/app", &amd.digest.to_string()).await, None);

    site.asked.artifacts[0].selection = platforms(&[]);
    assert_eq!(
        site.copy().await.items,
        ["copied team/app:1.0"],
        "of an unchanged index what is lacking comes"
    );
    assert_eq!(site.manifest("base/team/app", &amd.digest.to_string()).await, Some(amd.manifest));
    assert_eq!(site.copy().await.items, ["unchanged team/app:1.0"]);
}

async fn f34_what_fails_is_named_and_the_rest_goes_on(mut site: Site) {
    site.push("team/app", "1.0", b"one");
    let absent = Repositories::One("absent".parse().unwrap());
    site.asked.artifacts.push(Artifacts { repositories: absent, selection: Selection::default() });
    let told = site.copy().await;
    assert_eq!(told.items, ["copied team/app:1.0", "failed absent"]);
    assert_eq!(told.synced.failures, [("absent".to_owned(), "NotFound")]);

    site.push("team/app", "2.0", b"two");
    let taken = "base/team".parse().unwrap();
    site.asked.taken = vec![taken];
    let told = site.copy().await;
    assert!(told.failed("team/app", "PathConflict"), "{:?}", told.synced);
    assert_eq!(site.manifest("base/team/app", "2.0").await, None);
    site.asked.taken.clear();
    site.asked.upstream.credentials = None;
    let told = site.copy().await;
    assert!(told.failed("team/app", "AuthenticationFailed"), "{:?}", told.synced);
}

async fn a_tag_that_a_client_set_is_not_written_over(mut site: Site) {
    site.asked.path = None;
    let theirs = site.push("team/app", "1.0", b"theirs");
    site.push("team/app", "2.0", b"two");
    let ours = index(&json!([]));
    let put = request(&site.registry, "PUT", "/v2/team/app/manifests/1.0", INDEX, ours.clone()).await;
    assert_eq!(put.status, 201);
    let told = site.copy().await;
    assert_eq!(told.items, ["copied team/app:2.0", "failed team/app:1.0"]);
    assert_eq!(told.synced.failures, [("team/app:1.0".to_owned(), "TagSetLocally")]);
    assert_eq!(site.manifest("team/app", "1.0").await, Some(ours.clone()));

    let gone = request(&site.registry, "DELETE", "/v2/team/app/manifests/1.0", "", Vec::new()).await;
    assert_eq!(gone.status, 202);
    assert_eq!(site.copy().await.synced.failed, 0);
    assert_eq!(site.manifest("team/app", "1.0").await, Some(theirs.manifest));
    let put = request(&site.registry, "PUT", "/v2/team/app/manifests/2.0", INDEX, ours).await;
    assert_eq!(put.status, 201, "without a path clients may push");
    assert_eq!(site.copy().await.synced.failures, [("team/app:2.0".to_owned(), "TagSetLocally")]);
}

async fn prune_deletes_what_this_mirror_set_after_a_run_without_failure(mut site: Site) {
    let upstream = Stowage::open().await;
    for (repository, tag) in [("acme/app", "1"), ("acme/app", "2"), ("acme/gone", "1")] {
        push(&upstream.address(), "", repository, tag, tag.as_bytes());
    }
    site.asked.upstream = settings(&format!("http://{}", upstream.address()));
    let acme = Repositories::Catalog { include: vec!["acme/*".parse().unwrap()], exclude: Vec::new() };
    site.asked.artifacts = vec![Artifacts { repositories: acme, selection: Selection::default() }];
    assert_eq!(site.copy().await.synced.copied, 3);
    for name in ["base/acme/app/manifests/own", "base/acme/own/manifests/1"] {
        let put = request(&site.registry, "PUT", &format!("/v2/{name}"), INDEX, index(&json!([]))).await;
        assert_eq!(put.status, 201);
    }
    for name in ["acme/app/manifests/2", "acme/gone/manifests/1"] {
        assert_eq!(ask(&upstream.address(), "DELETE", &format!("/v2/{name}"), "", b"").0, 202);
    }
    assert_eq!(site.copy().await.synced.pruned, 0, "it was not asked for");
    site.asked.prunes = true;
    let absent = Repositories::One("absent".parse().unwrap());
    site.asked.artifacts.push(Artifacts { repositories: absent, selection: Selection::default() });
    let told = site.copy().await;
    assert_eq!((told.synced.pruned, told.synced.failed), (0, 1), "something failed");
    site.asked.artifacts.truncate(1);
    let expected = ["pruned acme/app:2", "pruned acme/gone:1", "unchanged acme/app:1"];
    assert_eq!(site.run(SyncMode::DryRun).await.items, expected);
    assert!(site.manifest("base/acme/app", "2").await.is_some());
    assert_eq!(site.copy().await.items, expected);
    assert_eq!(site.manifest("base/acme/app", "2").await, None);
    assert_eq!(site.manifest("base/acme/gone", "1").await, None);
    for (repository, tag) in [("base/acme/app", "1"), ("base/acme/app", "own"), ("base/acme/own", "1")] {
        assert!(site.manifest(repository, tag).await.is_some(), "{repository}:{tag}");
    }
    assert_eq!(site.copy().await.items, ["unchanged acme/app:1"]);
}

async fn l_13_an_upstream_that_lists_nothing_at_all_prunes_nothing(mut site: Site) {
    let (upstream, lost) = (Stowage::open().await, Stowage::open().await);
    let listing = |stowage: &Stowage| settings(&format!("http://{}", stowage.address()));
    let names = ["base/acme/app", "base/acme/web"];
    for repository in ["acme/app", "acme/web"] {
        push(&upstream.address(), "", repository, "1", repository.as_bytes());
    }
    let acme = Repositories::Catalog { include: vec!["acme/*".parse().unwrap()], exclude: Vec::new() };
    let app = Repositories::One("acme/app".parse().unwrap());
    let only = |repositories: &Repositories| {
        vec![Artifacts { repositories: repositories.clone(), selection: Selection::default() }]
    };
    (site.asked.upstream, site.asked.artifacts, site.asked.prunes) = (listing(&lost), only(&acme), true);
    assert_eq!(site.copy().await.items, [""; 0], "there is nothing to lose yet");
    site.asked.upstream = listing(&upstream);
    assert_eq!(site.copy().await.synced.copied, 2);

    site.asked.upstream = listing(&lost);
    for mode in [SyncMode::DryRun, SyncMode::Copy] {
        let told = site.run(mode).await;
        assert_eq!(told.synced.failures, [("catalog".to_owned(), "UpstreamEmpty")], "no repositories");
        assert_eq!(told.items, ["failed catalog"]);
    }
    site.asked.upstream = listing(&upstream);
    for repository in ["acme/app", "acme/web"] {
        let target = format!("/v2/{repository}/manifests/1");
        assert_eq!(ask(&upstream.address(), "DELETE", &target, "", b"").0, 202);
    }
    assert!(site.copy().await.failed("catalog", "UpstreamEmpty"), "repositories without a tag");
    site.asked.artifacts = only(&app);
    assert!(site.copy().await.failed("acme/app", "UpstreamEmpty"), "a repository without a tag, by its name");
    for name in names {
        assert!(site.manifest(name, "1").await.is_some(), "{name}");
    }

    push(&upstream.address(), "", "acme/web", "2", b"again");
    site.asked.artifacts = only(&acme);
    let told = site.copy().await;
    assert_eq!(told.items, ["copied acme/web:2", "pruned acme/app:1", "pruned acme/web:1"]);
    assert_eq!(site.copy().await.items, ["unchanged acme/web:2"], "what was pruned is nothing to lose");
}

async fn w108_clients_cannot_push_where_a_mirror_copies(site: Site) {
    let image = site.push("team/app", "1.0", b"one");
    site.registry.set_copied(vec!["base".parse().unwrap()]);
    site.copy().await;
    for (method, rest) in [
        ("POST", "blobs/uploads/".to_owned()),
        ("PUT", "manifests/1.0".to_owned()),
        ("DELETE", "manifests/1.0".to_owned()),
        ("DELETE", format!("manifests/{}", image.digest)),
        ("DELETE", format!("blobs/{}", image.layer_digest)),
    ] {
        let target = format!("/v2/base/team/app/{rest}");
        let answer = request(&site.registry, method, &target, INDEX, index(&json!([]))).await;
        assert_eq!(answer.status, 405, "{method} {target}: {answer:?}");
    }
    assert_eq!(site.manifest("base/team/app", "1.0").await, Some(image.manifest));
    let beside = request(&site.registry, "PUT", "/v2/based/app/manifests/1", INDEX, index(&json!([]))).await;
    assert_eq!(beside.status, 201);
}

async fn blobs_of_other_repositories_here_are_linked(mut site: Site) {
    site.push("team/app", "1.0", b"a layer of both");
    site.push("team/other", "1.0", b"a layer of both");
    site.copy().await;
    site.blobs_asked();
    let other = Repositories::One("team/other".parse().unwrap());
    site.asked.artifacts = vec![Artifacts { repositories: other, selection: Selection::default() }];
    let told = site.copy().await;
    assert_eq!((told.synced.copied, told.synced.bytes), (1, 0));
    assert_eq!(site.blobs_asked(), [""; 0]);
}

async fn an_image_that_lacks_its_blobs_here_is_made_whole(site: Site) {
    let image = site.push("team/app", "1.0", b"layer");
    let always = Duration::ZERO;
    site.registry.set_mirrors(vec![MirrorSettings {
        name: "base".to_owned(),
        path: "base".parse().unwrap(),
        upstream: site.asked.upstream.clone(),
        asks_upstream: true,
        is_default: false,
        with_referrers: true,
        keys: None,
        cache: MirrorCache { tag_ttl: always, negative_ttl: always, stale_for: always, quarantine: None },
    }]);
    assert!(site.manifest("base/team/app", "1.0").await.is_some(), "somebody pulls it");
    site.registry.set_mirrors(Vec::new());
    let layer = format!("/v2/base/team/app/blobs/{}", image.layer_digest);
    assert_eq!(site.get(&layer).await.status, 404, "its layer nobody pulled");
    let told = site.copy().await;
    assert_eq!((told.items, told.synced.blobs), (vec!["copied team/app:1.0".to_owned()], 2));
    assert_eq!(&site.get(&layer).await.body[..], b"layer");
    assert_eq!(site.copy().await.items, ["unchanged team/app:1.0"]);
}

async fn p39_what_a_registry_lists_is_copied_and_later_runs_copy_the_difference(mut site: Site) {
    const REPOSITORIES: usize = 60;
    let name = |number: usize| format!("team-{}/app-{number:03}", number % 3);
    let mut images: Vec<_> =
        (0..REPOSITORIES).map(|number| site.push(&name(number), "1.0", name(number).as_bytes())).collect();
    site.push("team-0/tmp", "1.0", b"left out");
    site.asked.upstream.page = 7;
    let catalog = Repositories::Catalog {
        include: vec!["team-*/*".parse().unwrap()],
        exclude: vec!["*/tmp".parse().unwrap()],
    };
    site.asked.artifacts = vec![Artifacts { repositories: catalog, selection: Selection::default() }];
    assert_eq!(site.copy().await.synced.copied, REPOSITORIES as u64);
    images[7] = site.push(&name(7), "1.0", b"moved");
    let added = site.push(&name(8), "1.1", b"added");
    let told = run(&site.registry, &site.asked, SyncMode::Copy).await;
    assert_eq!((told.synced.copied, told.synced.blobs), (2, 2));
    for (number, image) in images.iter().enumerate() {
        let here = site.manifest(&format!("base/{}", name(number)), "1.0").await;
        assert_eq!(here.as_ref(), Some(&image.manifest), "{}", name(number));
    }
    assert_eq!(site.manifest(&format!("base/{}", name(8)), "1.1").await, Some(added.manifest));
    assert_eq!(site.manifest("base/team-0/tmp", "1.0").await, None);
    site.asked.artifacts[0].selection.tags = TagSelection::default();
}
