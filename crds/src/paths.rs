// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which mirrors of a Registry stand in each other's way. Pure.
//!
//! Two of them whose paths are equal, or of which one is the beginning of the other, cannot both be; nor can two
//! defaults. A mirror of the Registry itself would ask itself.
//! Guarantees: the elder stays and the younger is out (the time of creation, then the name), whatever the order of
//! the list. What is out stands in nobody's way.

use stowage_oci::Name;

use crate::{
    Kind, MirrorSpec, Registry,
    conditions::Reason,
    document::{Dated, Entry},
};

/// The port of the Service that the operator makes.
pub const SERVICE_PORT: u16 = 5000;

/// A resource that stays out of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: Reason,
    /// The field that is in the way.
    pub path: &'static str,
    /// Why, for a human; names the other resource.
    pub message: String,
}

/// What takes names away from the Registry's own repositories.
#[derive(Debug)]
struct Place<'a> {
    name: &'a str,
    path: &'a str,
    is_default: bool,
    /// The hosts that it mirrors.
    hosts: Vec<&'a str>,
}

/// Which of these stay out.
pub(crate) fn conflicts(registry: &Registry, mirrors: &[Dated<MirrorSpec>]) -> Vec<Conflict> {
    let mut places: Vec<_> = mirrors.iter().map(|dated| (&dated.made, mirror(&dated.entry))).collect();
    places.sort_by(|(a_made, a), (b_made, b)| (a_made, a.name).cmp(&(b_made, b.name)));

    let own_hosts = hosts(registry);
    let (mut kept, mut conflicts): (Vec<Place<'_>>, _) = (Vec::new(), Vec::new());
    for (_, place) in places {
        let found = place.in_itself(&own_hosts).or_else(|| kept.iter().find_map(|elder| place.beside(elder)));
        match found {
            None => kept.push(place),
            Some((reason, path, message)) => {
                conflicts.push(Conflict {
                    kind: Kind::Mirror,
                    name: place.name.to_owned(),
                    reason,
                    path,
                    message,
                });
            }
        }
    }
    conflicts
}

fn mirror(entry: &Entry<MirrorSpec>) -> Place<'_> {
    let upstream = &entry.spec.upstream;
    let hosts = upstream.hosts.iter().map(crate::HostName::as_str);
    Place {
        name: &entry.name,
        path: entry.spec.path.as_str(),
        is_default: entry.spec.default,
        hosts: std::iter::once(host_of(upstream.url.as_str())).chain(hosts).collect(),
    }
}

type Found = (Reason, &'static str, String);

impl Place<'_> {
    fn in_itself(&self, own_hosts: &[String]) -> Option<Found> {
        let is_own = |host: &&&str| own_hosts.iter().any(|own| is_same_host(own, host));
        let host = self.hosts.iter().find(is_own)?;
        Some((Reason::MirrorLoop, "spec.upstream", format!("{host} is this registry itself")))
    }

    /// Why this cannot be beside an elder one.
    fn beside(&self, elder: &Self) -> Option<Found> {
        let other = format!("{} {}", Kind::Mirror, elder.name);
        if is_below(self.path, elder.path) || is_below(elder.path, self.path) {
            let text = format!("{other} has the path {}", elder.path);
            return Some((Reason::PathConflict, "spec.path", text));
        }
        (self.is_default && elder.is_default)
            .then(|| (Reason::PathConflict, "spec.default", format!("{other} is the default already")))
    }
}

/// Whether a name is `path` or has it as its first components.
#[must_use]
pub fn is_below(name: &str, path: &str) -> bool {
    name.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What of a name is below a path; `None` if nothing is, or the name is not below.
#[must_use]
pub fn below(name: &Name, path: &Name) -> Option<Name> {
    name.as_str().strip_prefix(path.as_str())?.strip_prefix('/')?.parse().ok()
}

/// The hosts (`host[:port]`) under which a Registry answers, the external one first; in a cluster those of its Service
/// too.
#[must_use]
pub fn hosts(registry: &Registry) -> Vec<String> {
    let spec = &registry.spec;
    let written = std::iter::once(&spec.external_url).chain(&spec.alternate_urls);
    let service = registry.metadata.namespace.as_ref().map(|namespace| {
        let name = registry.metadata.name.as_deref().unwrap_or_default();
        format!("{name}.{namespace}.svc")
    });
    let service = service.into_iter().flat_map(|host| [host.clone(), format!("{host}.cluster.local")]);
    written
        .map(|url| host_of(url.as_str()).to_owned())
        .chain(service.map(|host| format!("{host}:{SERVICE_PORT}")))
        .collect()
}

fn host_of(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, host)| host)
}

/// Hosts are compared without case and without the port that a scheme has anyway.
fn is_same_host(one: &str, other: &str) -> bool {
    let plain = |host: &str| {
        let host = host.to_ascii_lowercase();
        let bare = host.strip_suffix(":443").or_else(|| host.strip_suffix(":80"));
        bare.map_or_else(|| host.clone(), str::to_owned)
    };
    plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn registry() -> Registry {
        serde_json::from_value(json!({
            "apiVersion": "stowage.dev/v1alpha1", "kind": "Registry",
            "metadata": { "name": "main", "namespace": "oci" },
            "spec": {
                "externalURL": "https://registry.example.com", "alternateURLs": ["http://10.0.0.1:5000"],
                "storage": { "filesystem": {} }, "database": { "sqlite": {} },
            },
        }))
        .unwrap()
    }

    fn mirror(name: &str, second: i64, path: &str, url: &str) -> Dated<MirrorSpec> {
        let made = k8s_openapi::jiff::Timestamp::from_second(second).unwrap();
        let made = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(made));
        let spec = json!({
            "registryRef": { "name": "main" }, "path": path, "mode": "PullThrough", "upstream": { "url": url },
        });
        let spec = serde_json::from_value(spec).unwrap();
        Dated { entry: Entry { name: name.to_owned(), generation: 1, spec }, made }
    }

    fn found(mirrors: &[Dated<MirrorSpec>]) -> Vec<(String, Reason)> {
        let conflicts = conflicts(&registry(), mirrors);
        conflicts.into_iter().map(|found| (found.name, found.reason)).collect()
    }

    const UPSTREAM: &str = "https://hub.example.com";

    #[test]
    fn of_two_paths_that_meet_the_younger_is_out_in_any_order() {
        for (one, other) in [("a", "a"), ("a", "a/b"), ("a/b", "a")] {
            let (elder, younger) = (mirror("elder", 1, one, UPSTREAM), mirror("younger", 2, other, UPSTREAM));
            let expected = [("younger".to_owned(), Reason::PathConflict)];
            assert_eq!(found(&[elder.clone(), younger.clone()]), expected, "{one} {other}");
            assert_eq!(found(&[younger, elder]), expected, "{one} {other}");
        }
        let beside = [mirror("one", 1, "a", UPSTREAM), mirror("other", 2, "ab", UPSTREAM)];
        assert!(found(&beside).is_empty());
    }

    #[test]
    fn of_two_of_an_age_the_first_by_name_stays() {
        let both = [mirror("b", 1, "a", UPSTREAM), mirror("a", 1, "a", UPSTREAM)];
        assert_eq!(found(&both), [("b".to_owned(), Reason::PathConflict)]);
    }

    #[test]
    fn what_is_out_stands_in_nobodys_way() {
        let places =
            [mirror("a", 1, "x/y", UPSTREAM), mirror("b", 2, "x", UPSTREAM), mirror("c", 3, "x/z", UPSTREAM)];
        assert_eq!(found(&places), [("b".to_owned(), Reason::PathConflict)], "c is below b alone");
        let loops = mirror("loops", 1, "x", "https://registry.example.com");
        assert_eq!(
            found(&[loops, mirror("b", 2, "x", UPSTREAM)]),
            [("loops".to_owned(), Reason::MirrorLoop)]
        );
    }

    #[test]
    fn there_is_one_default() {
        let mut both = [mirror("one", 2, "a", UPSTREAM), mirror("other", 1, "b", UPSTREAM)];
        assert!(found(&both).is_empty());
        for mirror in &mut both {
            mirror.entry.spec.default = true;
        }
        assert_eq!(found(&both), [("one".to_owned(), Reason::PathConflict)]);
    }

    #[test]
    fn a_mirror_of_the_registry_itself_is_out() {
        for url in [
            "https://registry.example.com",
            "http://Registry.example.com:443",
            "http://10.0.0.1:5000",
            "http://main.oci.svc:5000",
            "http://main.oci.svc.cluster.local:5000",
        ] {
            assert_eq!(found(&[mirror("m", 1, "m", url)]), [("m".to_owned(), Reason::MirrorLoop)], "{url}");
        }
        let mut named = mirror("m", 1, "m", UPSTREAM);
        assert!(found(std::slice::from_ref(&named)).is_empty());
        named.entry.spec.upstream.hosts = vec!["registry.example.com".into()];
        assert_eq!(found(&[named]), [("m".to_owned(), Reason::MirrorLoop)]);
    }

    #[test]
    fn what_is_below_a_path_is_the_rest_of_the_name() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        assert_eq!(below(&name("hub/library/alpine"), &name("hub")), Some(name("library/alpine")));
        assert_eq!(below(&name("hub"), &name("hub")), None);
        assert_eq!(below(&name("hubs/a"), &name("hub")), None);
    }
}
