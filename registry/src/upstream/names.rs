// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What Docker Hub calls itself and its repositories (pure).

use stowage_oci::Name;

use super::settings::Origin;

/// The host of Docker Hub's API.
pub(super) const DOCKER_HUB: &str = "registry-1.docker.io";

/// Whether a host is a name of Docker Hub's.
pub(super) fn is_docker_hub(host: &str) -> bool {
    ["docker.io", "index.docker.io", DOCKER_HUB].iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// A repository as this upstream knows it.
pub(super) fn repository(origin: &Origin, name: &Name) -> Name {
    let is_official = origin.is_docker_hub() && !name.as_str().contains('/');
    let official = is_official.then(|| format!("library/{name}").parse().ok()).flatten();
    official.unwrap_or_else(|| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f17_an_official_image_of_docker_hub_is_in_library() {
        let at = |origin: &str, name: &str| {
            repository(&origin.parse().unwrap(), &name.parse().unwrap()).to_string()
        };
        assert_eq!(at("https://docker.io", "alpine"), "library/alpine");
        assert_eq!(at("https://docker.io", "library/alpine"), "library/alpine");
        assert_eq!(at("https://docker.io", "acme/app"), "acme/app");
        assert_eq!(at("https://quay.example.com", "alpine"), "alpine");
    }
}
