// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is pulled through a virtual repository, and from whom.

use std::time::Duration;

use stowage_oci::Digest;
use stowage_registry::domain::{Member, MemberSource, Pin, Shadowing};

use super::site::{NOBODY, Site, get, local, mirrored, push, send, sha256, text};
use crate::mirror::line::Way;
use crate::upstream::servers::push as push_upstream;

super::both_stores!(
    w451_h7_a_tag_is_that_of_the_first_member_that_has_it,
    w882_l47_what_is_pulled_through_it_is_kept_and_compared_by_the_mirror,
    w434_p19_o2_while_the_first_is_down_the_second_serves_with_a_warning,
    w434_h7_what_nobody_has_while_a_member_fails_is_the_failure_and_never_unknown,
    w434_a_mirror_that_did_not_answer_is_not_asked_again_at_once,
    w451_a_digest_is_answered_by_whoever_has_it_ours_first,
    a_blob_is_asked_of_the_mirror_whose_manifest_lists_it,
    a_name_of_ours_is_never_asked_of_mirrors_unless_that_is_allowed,
    what_a_mirror_copied_does_not_answer_for_a_name_of_ours,
    members_are_asked_for_what_they_include_and_do_not_exclude,
    w451_a_pinned_tag_names_what_is_said_whatever_members_have,
    a_suspended_virtual_repository_answers_503,
    the_path_itself_is_nobodys_repository,
    a_request_that_we_made_ourselves_is_answered_with_what_is_here,
);

async fn w451_h7_a_tag_is_that_of_the_first_member_that_has_it(site: Site) {
    let own = push(&site.one, "team-a/app", "1.0", b"ours").await;
    let theirs = push_upstream(site.hub.address(), "", "acme/base", "1.0", b"theirs");
    let last = push_upstream(&site.quay.address(), "", "acme/last", "1.0", b"last");
    push_upstream(&site.quay.address(), "", "acme/base", "1.0", b"another");
    for (name, manifest) in [("app", &own), ("acme/base", &theirs.manifest), ("acme/last", &last.manifest)] {
        let pulled = get(&site.one, &format!("/v2/all/{name}/manifests/1.0")).await;
        assert_eq!((pulled.status, &pulled.body[..]), (200, &manifest[..]), "{name}");
        assert_eq!(pulled.header("docker-content-digest"), sha256(manifest).to_string());
        assert_eq!(pulled.header("warning"), "", "{name}");
        let head = send(&site.other, "HEAD", &format!("/v2/all/{name}/manifests/1.0"), &[], b"").await;
        assert_eq!((head.status, head.header("etag")), (200, pulled.header("etag")));
    }
    let layer = get(&site.other, &format!("/v2/all/acme/last/blobs/{}", last.layer_digest)).await;
    assert_eq!((layer.status, &layer.body[..]), (200, &b"last"[..]));
    let missing = get(&site.one, "/v2/all/acme/none/manifests/1.0").await;
    assert_eq!(missing.status, 404);
    assert!(text(&missing).contains("MANIFEST_UNKNOWN"), "{missing:?}");
}

async fn w882_l47_what_is_pulled_through_it_is_kept_and_compared_by_the_mirror(mut site: Site) {
    let first = push_upstream(site.hub.address(), "", "acme/base", "1.0", b"first");
    let blob = format!("blobs/{}", first.layer_digest);
    for name in ["all/acme/base", "mirrors/hub/acme/base", "all/acme/base"] {
        assert_eq!(&get(&site.one, &format!("/v2/{name}/manifests/1.0")).await.body[..], &first.manifest[..]);
        assert_eq!(&get(&site.other, &format!("/v2/{name}/{blob}")).await.body[..], b"first");
    }
    let (hub, quay) = site.asked();
    assert_eq!((hub.len(), quay), (2, Vec::new()), "{hub:?}");

    let second = push_upstream(site.hub.address(), "", "acme/base", "1.0", b"second");
    site.set_mirrors(|mirror| mirror.cache.tag_ttl = Duration::ZERO);
    assert_eq!(&get(&site.one, "/v2/all/acme/base/manifests/1.0").await.body[..], &second.manifest[..]);
    let hub = site.hub_line.asked();
    assert_eq!(hub[0], "HEAD /v2/acme/base/manifests/1.0", "{hub:?}");
}

async fn w434_p19_o2_while_the_first_is_down_the_second_serves_with_a_warning(site: Site) {
    let image = push_upstream(&site.quay.address(), "", "acme/base", "1.0", b"layer");
    for way in [Way::Refused(503), Way::Later(429), Way::Gone] {
        site.hub_line.set(way);
        let pulled = get(&site.one, "/v2/all/acme/base/manifests/1.0").await;
        assert_eq!((pulled.status, &pulled.body[..]), (200, &image.manifest[..]), "{way:?}");
        assert!(pulled.header("warning").starts_with("199 - "), "{way:?}: {pulled:?}");
        let layer = get(&site.one, &format!("/v2/all/acme/base/blobs/{}", image.layer_digest)).await;
        assert_eq!(
            (layer.status, &layer.body[..], layer.header("warning")),
            (200, &b"layer"[..], ""),
            "{way:?}"
        );
    }
}

async fn w434_h7_what_nobody_has_while_a_member_fails_is_the_failure_and_never_unknown(site: Site) {
    push(&site.one, "team-a/app", "1.0", b"ours").await;
    for (replica, way, status) in [(&site.one, Way::Refused(500), 503), (&site.other, Way::Later(429), 429)] {
        site.hub_line.set(way);
        for content in ["manifests/1.0".to_owned(), format!("blobs/{}", sha256(b"none"))] {
            let failed = get(replica, &format!("/v2/all/acme/none/{content}")).await;
            assert_eq!(failed.status, status, "{way:?} {content}: {failed:?}");
            assert!(!failed.header("retry-after").is_empty(), "{failed:?}");
        }
        let own = get(replica, "/v2/all/app/manifests/1.0").await;
        assert_eq!((own.status, own.header("warning")), (200, ""), "who comes first is not held up");
    }
}

async fn w434_a_mirror_that_did_not_answer_is_not_asked_again_at_once(site: Site) {
    for tag in ["1.0", "2.0"] {
        push_upstream(&site.quay.address(), "", "acme/base", tag, b"layer");
    }
    site.hub_line.set(Way::Gone);
    assert_eq!(get(&site.one, "/v2/all/acme/base/manifests/1.0").await.status, 200);
    site.asked();
    let pulled = get(&site.one, "/v2/all/acme/base/manifests/2.0").await;
    assert!(pulled.header("warning").starts_with("199 - "), "{pulled:?}");
    assert_eq!(site.hub_line.asked(), [""; 0]);
    // Whoever means it alone has it tried.
    assert_eq!(get(&site.one, "/v2/mirrors/hub/acme/base/manifests/2.0").await.status, 503);
    assert!(!site.hub_line.asked().is_empty());
}

async fn w451_a_digest_is_answered_by_whoever_has_it_ours_first(mut site: Site) {
    let own = push(&site.one, "team-a/app", "1.0", b"ours").await;
    site.set(|all| all.members.rotate_left(1));
    let by_digest = |manifest: &[u8]| format!("/v2/all/app/manifests/{}", sha256(manifest));
    let pulled = get(&site.other, &by_digest(&own)).await;
    assert_eq!((pulled.status, &pulled.body[..]), (200, &own[..]));
    let layer = get(&site.other, &format!("/v2/all/app/blobs/{}", sha256(b"ours"))).await;
    assert_eq!(&layer.body[..], b"ours");
    assert_eq!(site.asked(), NOBODY);

    let theirs = push_upstream(&site.quay.address(), "", "app", "2.0", b"theirs");
    let pulled = get(&site.other, &by_digest(&theirs.manifest)).await;
    assert_eq!((pulled.status, &pulled.body[..]), (200, &theirs.manifest[..]), "a digest is no name of ours");
    site.asked();
    assert_eq!(get(&site.one, &by_digest(&theirs.manifest)).await.status, 200);
    assert_eq!(site.asked(), NOBODY, "what is stored is asked of nobody");
}

async fn a_blob_is_asked_of_the_mirror_whose_manifest_lists_it(site: Site) {
    let image = push_upstream(&site.quay.address(), "", "acme/base", "1.0", b"layer");
    assert_eq!(get(&site.one, "/v2/all/acme/base/manifests/1.0").await.status, 200);
    site.asked();
    let blob = get(&site.one, &format!("/v2/all/acme/base/blobs/{}", image.layer_digest)).await;
    assert_eq!((blob.status, &blob.body[..]), (200, &b"layer"[..]));
    let expected = vec![format!("GET /v2/acme/base/blobs/{}", image.layer_digest)];
    assert_eq!(site.asked(), (Vec::new(), expected));
}

async fn a_name_of_ours_is_never_asked_of_mirrors_unless_that_is_allowed(mut site: Site) {
    let own = push(&site.one, "team-a/app", "1.0", b"ours").await;
    let theirs = push_upstream(site.hub.address(), "", "app", "1.0", b"theirs");
    push_upstream(site.hub.address(), "", "app", "9.9", b"newer");
    site.set(|all| all.members.rotate_left(1));
    let pulled = get(&site.one, "/v2/all/app/manifests/1.0").await;
    assert_eq!((pulled.status, &pulled.body[..]), (200, &own[..]), "however low it is");
    assert_eq!(get(&site.one, "/v2/all/app/manifests/9.9").await.status, 404);
    assert_eq!(site.asked(), NOBODY);

    site.set(|all| all.shadowing = Shadowing::Allowed);
    assert_eq!(&get(&site.one, "/v2/all/app/manifests/1.0").await.body[..], &theirs.manifest[..]);
    assert_eq!(get(&site.one, "/v2/all/app/manifests/9.9").await.status, 200);
    site.set(|all| all.shadowing = Shadowing::Forbidden);
    assert_eq!(&get(&site.one, "/v2/all/app/manifests/1.0").await.body[..], &own[..], "nor what was kept");
    assert_eq!(get(&site.one, "/v2/all/app/manifests/9.9").await.status, 404);
}

async fn what_a_mirror_copied_does_not_answer_for_a_name_of_ours(mut site: Site) {
    let own = push(&site.one, "team-a/app", "1.0", b"ours").await;
    let copied = push(&site.one, "base/app", "1.0", b"copied").await;
    push(&site.one, "base/app", "9.9", b"newer").await;
    let other = push(&site.one, "base/other", "1.0", b"of nobody else").await;
    let base = Member { source: MemberSource::Copied("base".parse().unwrap()), ..local("base", false) };
    site.set(|all| all.members = vec![base, local("team-a", true)]);
    assert_eq!(&get(&site.one, "/v2/all/app/manifests/1.0").await.body[..], &own[..], "however low it is");
    assert_eq!(get(&site.one, "/v2/all/app/manifests/9.9").await.status, 404);
    assert!(text(&get(&site.one, "/v2/all/app/tags/list").await).contains(r#"["1.0"]"#));
    assert_eq!(&get(&site.one, "/v2/all/other/manifests/1.0").await.body[..], &other[..]);
    let by_digest = get(&site.one, &format!("/v2/all/app/manifests/{}", sha256(&copied))).await;
    assert_eq!(by_digest.status, 200, "a digest is the same wherever it is");

    site.set(|all| all.shadowing = Shadowing::Allowed);
    assert_eq!(&get(&site.one, "/v2/all/app/manifests/1.0").await.body[..], &copied[..]);
    assert_eq!(site.asked(), NOBODY);
}

async fn members_are_asked_for_what_they_include_and_do_not_exclude(mut site: Site) {
    for name in ["acme/base", "acme/internal-x", "other/base"] {
        push_upstream(site.hub.address(), "", name, "1.0", b"layer");
    }
    site.set(|all| {
        all.members = vec![mirrored("hub"), local("team-a", true)];
        all.members[0].include = vec!["acme/*".parse().unwrap()];
        all.members[0].exclude = vec!["acme/internal-*".parse().unwrap()];
    });
    for (name, status) in [("acme/base", 200), ("acme/internal-x", 404), ("other/base", 404)] {
        assert_eq!(get(&site.one, &format!("/v2/all/{name}/manifests/1.0")).await.status, status, "{name}");
    }
    assert_eq!(site.hub_line.asked(), ["GET /v2/acme/base/manifests/1.0"]);
}

async fn a_suspended_virtual_repository_answers_503(mut site: Site) {
    push(&site.one, "team-a/app", "1.0", b"ours").await;
    site.set(|all| all.is_suspended = true);
    for (method, target) in [
        ("GET", "/v2/all/app/manifests/1.0"),
        ("GET", "/v2/all/app/tags/list"),
        ("POST", "/v2/all/app/blobs/uploads/"),
    ] {
        let answer = send(&site.one, method, target, &[], b"").await;
        assert_eq!(answer.status, 503, "{method} {target}");
        assert!(text(&answer).contains("is suspended"), "{answer:?}");
    }
    assert_eq!(get(&site.one, "/v2/team-a/app/manifests/1.0").await.status, 200);
}

async fn the_path_itself_is_nobodys_repository(site: Site) {
    assert_eq!(get(&site.one, "/v2/all/manifests/1.0").await.status, 404);
    assert_eq!(get(&site.one, "/v2/all/tags/list").await.status, 404);
    assert_eq!(send(&site.one, "POST", "/v2/all/blobs/uploads/", &[], b"").await.status, 405);
    assert_eq!(site.asked(), NOBODY);
}

async fn a_request_that_we_made_ourselves_is_answered_with_what_is_here(site: Site) {
    push(&site.one, "team-a/app", "1.0", b"ours").await;
    push_upstream(site.hub.address(), "", "acme/base", "1.0", b"theirs");
    let ours = site.one.mirrors().all().next().unwrap().settings.upstream.registry_id.clone();
    let via = format!("1.1 {ours}");
    let own = send(&site.one, "GET", "/v2/all/app/manifests/1.0", &[("via", &via)], b"").await;
    assert_eq!(own.status, 200);
    let theirs = send(&site.one, "GET", "/v2/all/acme/base/manifests/1.0", &[("via", &via)], b"").await;
    assert_eq!(theirs.status, 503, "{theirs:?}");
    assert_eq!(site.asked(), NOBODY);
}

fn pin(repository: &str, tag: &str, digest: Digest) -> Pin {
    Pin { repository: repository.parse().unwrap(), tag: tag.parse().unwrap(), digest }
}

async fn w451_a_pinned_tag_names_what_is_said_whatever_members_have(mut site: Site) {
    let before = push_upstream(site.hub.address(), "", "acme/base", "1.0", b"before");
    push_upstream(site.hub.address(), "", "acme/base", "1.0", b"after");
    push(&site.one, "team-a/app", "1.0", b"ours").await;
    let other = push(&site.one, "team-a/app", "2.0", b"another of ours").await;
    let absent = sha256(b"nobody has it");
    site.set(|all| {
        all.pins = vec![
            pin("acme/base", "1.0", before.digest),
            pin("acme/base", "stable", before.digest),
            pin("app", "1.0", sha256(&other)),
            pin("app", "gone", absent),
        ];
    });
    for (target, manifest) in [
        ("acme/base/manifests/1.0", &before.manifest),
        ("acme/base/manifests/stable", &before.manifest),
        ("app/manifests/1.0", &other),
        ("app/manifests/2.0", &other),
    ] {
        let pulled = get(&site.other, &format!("/v2/all/{target}")).await;
        assert_eq!((pulled.status, &pulled.body[..]), (200, &manifest[..]), "{target}");
        assert_eq!(pulled.header("docker-content-digest"), sha256(manifest).to_string(), "{target}");
        assert_eq!(pulled.header("cache-control"), "no-cache", "{target}");
    }
    assert_eq!(get(&site.one, "/v2/all/app/manifests/gone").await.status, 404, "nor anything in its place");
    let members = get(&site.one, "/v2/team-a/app/manifests/1.0").await;
    assert_ne!(&members.body[..], &other[..], "the member has what it has");

    for (name, tags) in [("app", r#"["1.0","2.0","gone"]"#), ("acme/base", r#"["1.0","stable"]"#)] {
        let list = get(&site.one, &format!("/v2/all/{name}/tags/list")).await;
        assert_eq!(text(&list), format!(r#"{{"name":"all/{name}","tags":{tags}}}"#));
    }
    let page = get(&site.one, "/v2/all/app/tags/list?n=1&last=1.0").await;
    assert!(
        text(&page).ends_with(r#""tags":["2.0"]}"#) && page.header("link").contains("last=2.0"),
        "{page:?}"
    );

    site.set(|all| all.pins.clear());
    let now = get(&site.one, "/v2/all/app/manifests/1.0").await;
    assert_ne!(&now.body[..], &other[..]);
}
