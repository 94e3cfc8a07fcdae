// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which names of ours a reference in a workload may mean. Pure.
//!
//! Who runs an image may know the registry by any host, and a repository by the path of a mirror or a virtual
//! repository or without. Rather too many names than too few: each only keeps something.

use std::collections::HashSet;

use stowage_oci::{Name, Tag};

/// The names of ours that `reference` may mean; `paths`: those of mirrors, virtual repositories and their members.
pub(super) fn names<'a>(
    reference: &'a str,
    paths: &'a [Name],
) -> impl Iterator<Item = (Name, Tag)> + use<'a> {
    let named = tagged(reference);
    named.into_iter().flat_map(move |(name, tag)| {
        let repositories: HashSet<String> = repositories(name, paths).collect();
        let name = move |repository: String| Some((repository.parse().ok()?, tag.clone()));
        repositories.into_iter().filter_map(name)
    })
}

/// Name and tag, without a host at the beginning and a digest at the end. What names a digest alone names no tag.
fn tagged(reference: &str) -> Option<(&str, Tag)> {
    let (named, has_digest) = match reference.split_once('@') {
        Some((named, _)) => (named, true),
        None => (reference, false),
    };
    let path = named.split_once('/').filter(|(first, _)| is_host(first)).map_or(named, |(_, path)| path);
    match path.rsplit_once(':') {
        Some((name, tag)) => Some((name, tag.parse().ok()?)),
        None if has_digest => None,
        None => Some((path, "latest".parse().ok()?)),
    }
}

/// By the rule of container engines.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn repositories<'a>(name: &'a str, paths: &'a [Name]) -> impl Iterator<Item = String> + use<'a> {
    // In the path may stand the host of an upstream, and official images have a namespace that nobody writes.
    let inner = name.split_once('/').filter(|(first, _)| is_host(first)).map(|(_, rest)| rest);
    let official = |bare: &str| (!bare.contains('/')).then(|| format!("library/{bare}"));
    let plain = [Some(name), inner].into_iter().flatten();
    let bare = plain.flat_map(move |name| {
        let below = paths
            .iter()
            .filter_map(move |path| name.strip_prefix(path.as_str())?.strip_prefix('/').map(str::to_owned));
        below.chain([name.to_owned()])
    });
    let bare = bare.flat_map(move |bare| official(&bare).into_iter().chain([bare]));
    bare.flat_map(move |bare| {
        let placed: Vec<String> = paths.iter().map(|path| format!("{path}/{bare}")).collect();
        placed.into_iter().chain([bare])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(reference: &str) -> Vec<String> {
        let paths: Vec<Name> = ["hub", "all"].map(|path| path.parse().unwrap()).into();
        let mut found: Vec<String> =
            names(reference, &paths).map(|(name, tag)| format!("{name}:{tag}")).collect();
        found.sort();
        found
    }

    #[test]
    fn a_reference_means_its_tag_whatever_the_host_with_and_without_the_paths() {
        for reference in
            ["registry.example.com/team/app:1", "localhost/team/app:1", "team/app:1", "r:5000/team/app:1"]
        {
            assert_eq!(meant(reference), ["all/team/app:1", "hub/team/app:1", "team/app:1"], "{reference}");
        }
        let through = meant("registry.example.com/hub/team/app:1");
        for expected in ["hub/team/app:1", "team/app:1", "all/team/app:1"] {
            assert!(through.iter().any(|name| name == expected), "{expected} is not in {through:?}");
        }
        let by_host = meant("registry.example.com/docker.io/team/app:1@sha256:00");
        assert!(by_host.iter().any(|name| name == "hub/team/app:1"), "{by_host:?}");
    }

    #[test]
    fn what_is_not_written_is_what_engines_add() {
        let short = meant("alpine");
        for expected in ["alpine:latest", "library/alpine:latest", "hub/library/alpine:latest"] {
            assert!(short.iter().any(|name| name == expected), "{expected} is not in {short:?}");
        }
    }

    #[test]
    fn f17_an_official_image_of_docker_hub_is_meant_in_whatever_words() {
        for reference in [
            "alpine:3",
            "docker.io/alpine:3",
            "index.docker.io/alpine:3",
            "docker.io/library/alpine:3",
            "library/alpine:3",
            "registry.example.com/docker.io/alpine:3",
            "registry.example.com/hub/alpine:3",
            "registry.example.com/all/alpine:3@sha256:00",
        ] {
            let found = meant(reference);
            assert!(found.iter().any(|name| name == "hub/library/alpine:3"), "{reference}: {found:?}");
        }
    }

    #[test]
    fn a_digest_alone_names_no_tag_and_nonsense_nothing() {
        for reference in ["team/app@sha256:00", "team/app:in valid", "", "UPPER/case:1"] {
            assert_eq!(meant(reference), [""; 0], "{reference}");
        }
    }
}
