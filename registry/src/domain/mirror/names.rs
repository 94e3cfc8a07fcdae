// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the name of a repository means: one of ours, or one of a mirror's upstream. Pure.
//!
//! A mirror is addressed by its path, by the host of its upstream as the first part of the name, or by `ns`, which
//! containerd adds: all three come to one stored name, `<path>/<name as the upstream knows it>`, which rights, records
//! and events are about. In this order: `ns`, path, host in the name, our own, the default.
//! Guarantees: no name and no `ns` adds an upstream; what a mirror's path covers is never one of our own repositories.

use std::sync::Arc;

use stowage_oci::{Name, NameError};

use super::{Mirror, Mirrors};

/// A repository of a mirror.
#[derive(Clone, Debug)]
pub struct Mirrored {
    /// The mirror.
    pub mirror: Arc<Mirror>,
    /// Its name here.
    pub stored: Name,
    /// Its name there.
    pub upstream: Name,
}

/// Where a name leads.
#[derive(Clone, Debug)]
pub enum Place {
    /// To a repository of ours.
    Local(Name),
    /// To one of ours if it exists, else to the default mirror.
    Either(Name, Mirrored),
    /// To a mirror.
    Mirror(Mirrored),
    /// To a mirror's path, and nothing below it.
    Nowhere,
}

impl Mirrors {
    /// Whether a mirror's upstream has this host name.
    #[must_use]
    pub fn is_named(&self, host: &str) -> bool {
        self.of_host(host).is_some()
    }

    /// Where `named` leads; `ns`: the registry that the client meant, if it is not us.
    pub fn place(&self, named: &Name, ns: Option<&str>) -> Result<Place, NameError> {
        if let Some(mirror) = ns.and_then(|host| self.of_host(host)) {
            // A client that was told our path puts it before the name by itself.
            let inside = below(named, &mirror.settings.path).unwrap_or_else(|| named.clone());
            return mirror.place(&inside);
        }
        if let Some(mirror) = self.all().find(|mirror| is_at_or_below(named, &mirror.settings.path)) {
            return below(named, &mirror.settings.path)
                .map_or(Ok(Place::Nowhere), |rest| mirror.place(&rest));
        }
        let host = named.as_str().split_once('/').map(|(host, rest)| (self.of_host(host), rest));
        if let Some((Some(mirror), rest)) = host {
            return mirror.place(&rest.parse()?);
        }
        match self.all().find(|mirror| mirror.settings.is_default) {
            None => Ok(Place::Local(named.clone())),
            Some(mirror) => match mirror.place(named) {
                Ok(Place::Mirror(mirrored)) => Ok(Place::Either(named.clone(), mirrored)),
                // Too long below the mirror's path: then it can only be ours.
                Ok(_) | Err(_) => Ok(Place::Local(named.clone())),
            },
        }
    }

    /// The repository of a mirror that is stored under this name.
    pub(in crate::domain) fn of_stored(&self, name: &Name) -> Option<Mirrored> {
        match self.place(name, None) {
            Ok(Place::Mirror(at)) if at.stored == *name => Some(at),
            Ok(_) | Err(_) => None,
        }
    }

    /// The mirror of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Mirror>> {
        self.all().find(|mirror| mirror.settings.name == name)
    }

    fn of_host(&self, host: &str) -> Option<&Arc<Mirror>> {
        self.all().find(|mirror| mirror.upstream.is_named(host))
    }
}

impl Mirror {
    fn place(self: &Arc<Self>, inside: &Name) -> Result<Place, NameError> {
        self.repository(inside).map(Place::Mirror)
    }

    /// The repository that has this name below its path.
    pub fn repository(self: &Arc<Self>, inside: &Name) -> Result<Mirrored, NameError> {
        let upstream = self.upstream.repository(inside);
        let stored = format!("{}/{upstream}", self.settings.path).parse()?;
        Ok(Mirrored { mirror: Arc::clone(self), stored, upstream })
    }
}

pub(in crate::domain) fn is_at_or_below(name: &Name, path: &Name) -> bool {
    let rest = name.as_str().strip_prefix(path.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What of a name is below a path.
pub(in crate::domain) fn below(name: &Name, path: &Name) -> Option<Name> {
    name.as_str().strip_prefix(path.as_str())?.strip_prefix('/')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Cache, MirrorSettings};
    use super::*;
    use crate::upstream::Settings;

    fn mirror(name: &str, path: &str, url: &str, is_default: bool) -> MirrorSettings {
        MirrorSettings {
            name: name.to_owned(),
            path: path.parse().unwrap(),
            upstream: Settings::new(url.parse().unwrap(), "us"),
            asks_upstream: true,
            is_default,
            with_referrers: true,
            cache: Cache {
                tag_ttl: Duration::ZERO,
                negative_ttl: Duration::ZERO,
                stale_for: Duration::ZERO,
                quarantine: None,
            },
            keys: None,
        }
    }

    fn mirrors(has_default: bool) -> Mirrors {
        Mirrors::alone(vec![
            mirror("hub", "dockerhub", "https://docker.io", has_default),
            mirror("quay", "mirrors/quay", "https://quay.example.com", false),
        ])
    }

    fn place(named: &str, ns: Option<&str>) -> String {
        shown(mirrors(false).place(&named.parse().unwrap(), ns).unwrap())
    }

    fn shown(place: Place) -> String {
        let mirrored = |mirrored: Mirrored| {
            format!("{} {} {}", mirrored.mirror.settings.name, mirrored.stored, mirrored.upstream)
        };
        match place {
            Place::Local(name) => format!("local {name}"),
            Place::Either(name, other) => format!("either {name} or {}", mirrored(other)),
            Place::Mirror(found) => mirrored(found),
            Place::Nowhere => "nowhere".to_owned(),
        }
    }

    #[test]
    fn w432_w445_o8_all_ways_of_naming_come_to_one_name() {
        let hub = "hub dockerhub/library/alpine library/alpine";
        for (named, ns) in [
            ("dockerhub/library/alpine", None),
            ("dockerhub/alpine", None),
            ("docker.io/library/alpine", None),
            ("docker.io/alpine", None),
            ("index.docker.io/library/alpine", None),
            ("registry-1.docker.io/library/alpine", None),
            ("library/alpine", Some("docker.io")),
            ("alpine", Some("docker.io")),
            ("library/alpine", Some("registry-1.docker.io")),
            ("dockerhub/library/alpine", Some("docker.io")),
        ] {
            assert_eq!(place(named, ns), hub, "{named} {ns:?}");
        }
        let quay = "quay mirrors/quay/acme/app acme/app";
        assert_eq!(place("mirrors/quay/acme/app", None), quay);
        assert_eq!(place("quay.example.com/acme/app", None), quay);
        assert_eq!(place("acme/app", Some("Quay.example.com")), quay);
    }

    #[test]
    fn w433_w450_what_no_mirror_has_is_ours() {
        assert_eq!(place("library/alpine", None), "local library/alpine");
        assert_eq!(place("dockerhubs/alpine", None), "local dockerhubs/alpine");
        assert_eq!(place("ghcr.io/acme/app", None), "local ghcr.io/acme/app", "no host adds an upstream");
        assert_eq!(place("docker.io", None), "local docker.io");
        assert!(!mirrors(false).is_named("ghcr.io"));
    }

    #[test]
    fn the_path_of_a_mirror_itself_is_nothing() {
        assert_eq!(place("dockerhub", None), "nowhere");
        assert_eq!(place("mirrors/quay", None), "nowhere");
        assert_eq!(place("mirrors", None), "local mirrors");
    }

    #[test]
    fn w433_the_default_takes_what_is_not_ours() {
        let mirrors = mirrors(true);
        let place = |named: &str| shown(mirrors.place(&named.parse().unwrap(), None).unwrap());
        assert_eq!(place("alpine"), "either alpine or hub dockerhub/library/alpine library/alpine");
        assert_eq!(place("mirrors/quay/a"), "quay mirrors/quay/a a");
        let longest = "a".repeat(Name::MAX);
        assert_eq!(place(&longest), format!("local {longest}"));
    }

    #[test]
    fn w002_a_name_too_long_below_the_path_is_refused() {
        let long: Name = format!("docker.io/{}", "a".repeat(Name::MAX - 10)).parse().unwrap();
        assert_eq!(mirrors(false).place(&long, None).map(shown), Err(NameError::TooLong));
    }
}
