// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which mirrors and virtual repositories of a Registry stand in each other's way. Pure.
//!
//! Two of them whose paths are equal, or of which one is the beginning of the other, cannot both be; nor can two
//! defaults. A member is a repository of the Registry or a mirror: where its prefix is at or below the path of a
//! virtual repository or a mirror, its names would lead on from there, perhaps back. A mirror of the Registry itself
//! would ask itself.
//! Guarantees: the elder stays and the younger is out (the time of creation, then kind and name), whatever the order
//! of the list. What is out stands in nobody's way.

use stowage_oci::Name;

use crate::{
    Kind, MirrorMode, MirrorSpec, Registry, VirtualRepositorySpec,
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
    kind: Kind,
    name: &'a str,
    /// A mirror that keeps the names of its upstream has none.
    path: Option<&'a str>,
    is_default: bool,
    /// Whether a member may be below the path: what is copied there is a repository like any other.
    takes_members: bool,
    /// The members with a prefix, by name.
    members: Vec<(&'a str, &'a str)>,
    /// The hosts that it mirrors.
    hosts: Vec<&'a str>,
}

/// Which of these stay out.
pub(crate) fn conflicts(
    registry: &Registry,
    mirrors: &[Dated<MirrorSpec>],
    virtuals: &[Dated<VirtualRepositorySpec>],
) -> Vec<Conflict> {
    let mirrors = mirrors.iter().map(|dated| (&dated.made, mirror(&dated.entry)));
    let virtuals = virtuals.iter().map(|dated| (&dated.made, virtual_repository(&dated.entry)));
    let mut places: Vec<_> = mirrors.chain(virtuals).collect();
    places.sort_by(|(a_made, a), (b_made, b)| (a_made, a.name, a.kind).cmp(&(b_made, b.name, b.kind)));

    let own_hosts = hosts(registry);
    let (mut kept, mut conflicts): (Vec<Place<'_>>, _) = (Vec::new(), Vec::new());
    for (_, place) in places {
        let found = place.in_itself(&own_hosts).or_else(|| kept.iter().find_map(|elder| place.beside(elder)));
        match found {
            None => kept.push(place),
            Some((reason, path, message)) => {
                conflicts.push(Conflict {
                    kind: place.kind,
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
        kind: Kind::Mirror,
        name: &entry.name,
        path: entry.spec.path.as_ref().map(crate::MountPath::as_str),
        is_default: entry.spec.default,
        takes_members: entry.spec.mode == MirrorMode::Replicate,
        members: Vec::new(),
        hosts: std::iter::once(host_of(upstream.url.as_str())).chain(hosts).collect(),
    }
}

fn virtual_repository(entry: &Entry<VirtualRepositorySpec>) -> Place<'_> {
    let local = |member: &'_ crate::Member| member.repository.is_some();
    let members = entry.spec.members.iter().filter(|member| local(member));
    Place {
        kind: Kind::VirtualRepository,
        name: &entry.name,
        path: Some(entry.spec.path.as_str()),
        is_default: false,
        takes_members: false,
        members: members
            .filter_map(|member| Some((member.name.as_str(), member.repository.as_ref()?.as_str())))
            .collect(),
        hosts: Vec::new(),
    }
}

type Found = (Reason, &'static str, String);

impl Place<'_> {
    fn in_itself(&self, own_hosts: &[String]) -> Option<Found> {
        if let Some(host) = self.hosts.iter().find(|host| own_hosts.iter().any(|own| is_same_host(own, host)))
        {
            let text = format!("{host} is this registry itself");
            return Some((Reason::MirrorLoop, "spec.upstream", text));
        }
        self.member_in(self)
    }

    /// Why this cannot be beside an elder one.
    fn beside(&self, elder: &Self) -> Option<Found> {
        let other = format!("{} {}", elder.kind, elder.name);
        if let (Some(own), Some(path)) = (self.path, elder.path)
            && (is_below(own, path) || is_below(path, own))
        {
            let text = format!("{other} has the path {path}");
            return Some((Reason::PathConflict, "spec.path", text));
        }
        if self.is_default && elder.is_default {
            return Some((Reason::PathConflict, "spec.default", format!("{other} is the default already")));
        }
        let (_, _, way) = match (self.member_in(elder), elder.member_in(self)) {
            (Some(found), _) => return Some(found),
            (None, found) => found?,
        };
        Some((Reason::PathConflict, "spec.path", way))
    }

    /// Why a member of this one is not its own to have, if that is because of `other`.
    fn member_in(&self, other: &Self) -> Option<Found> {
        let path = other.path.filter(|_| !other.takes_members)?;
        let (member, prefix) = self.members.iter().find(|(_, prefix)| is_below(prefix, path))?;
        let reason = match other.kind {
            Kind::Mirror => Reason::MemberIsMirror,
            _ => Reason::MemberIsVirtual,
        };
        let text = format!(
            "{} {} → member {member} ({prefix}) → {} {} ({})",
            self.kind, self.name, other.kind, other.name, path
        );
        Some((reason, "spec.members", text))
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

/// The hosts (`host[:port]`) under which a Registry answers or is asked for, the external one first; in a cluster those
/// of its Service too.
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
        .chain(spec.aliases.iter().map(ToString::to_string))
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
    use serde_json::{Value, json};

    use super::*;
    use crate::{Dependent as _, Mirror, VirtualRepository};

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

    fn dated<S>(name: &str, second: i64, spec: S) -> Dated<S> {
        let made = k8s_openapi::jiff::Timestamp::from_second(second).unwrap();
        let made = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(made));
        Dated { entry: Entry { name: name.to_owned(), generation: 1, spec }, made }
    }

    fn mirror(name: &str, made: i64, path: &str, url: &str) -> Dated<MirrorSpec> {
        let spec = json!({
            "registryRef": { "name": "main" }, "path": path, "mode": "PullThrough", "upstream": { "url": url },
        });
        dated(name, made, serde_json::from_value(spec).unwrap())
    }

    fn all(name: &str, made: i64, path: &str, repository: &str) -> Dated<VirtualRepositorySpec> {
        let members: Value = json!([{ "name": "team", "repository": repository }]);
        let spec = json!({ "registryRef": { "name": "main" }, "path": path, "members": members });
        dated(name, made, serde_json::from_value(spec).unwrap())
    }

    fn found(
        mirrors: &[Dated<MirrorSpec>],
        virtuals: &[Dated<VirtualRepositorySpec>],
    ) -> Vec<(String, Reason)> {
        let conflicts = conflicts(&registry(), mirrors, virtuals);
        conflicts.into_iter().map(|found| (found.name, found.reason)).collect()
    }

    const UPSTREAM: &str = "https://hub.example.com";

    #[test]
    fn of_two_paths_that_meet_the_younger_is_out_in_any_order() {
        for (one, other) in [("a", "a"), ("a", "a/b"), ("a/b", "a")] {
            let (elder, younger) = (mirror("elder", 1, one, UPSTREAM), mirror("younger", 2, other, UPSTREAM));
            let expected = [("younger".to_owned(), Reason::PathConflict)];
            assert_eq!(found(&[elder.clone(), younger.clone()], &[]), expected, "{one} {other}");
            assert_eq!(found(&[younger, elder], &[]), expected, "{one} {other}");
        }
        let beside = [mirror("one", 1, "a", UPSTREAM), mirror("other", 2, "ab", UPSTREAM)];
        assert!(found(&beside, &[all("all", 3, "b/a", "team")]).is_empty());
    }

    #[test]
    fn of_two_of_an_age_the_first_by_name_stays() {
        let both = [mirror("b", 1, "a", UPSTREAM), mirror("a", 1, "a", UPSTREAM)];
        assert_eq!(found(&both, &[]), [("b".to_owned(), Reason::PathConflict)]);
        let twins = found(&[mirror("a", 1, "x", UPSTREAM)], &[all("a", 1, "x", "team")]);
        assert_eq!(twins, [("a".to_owned(), Reason::PathConflict)]);
    }

    #[test]
    fn what_is_out_stands_in_nobodys_way() {
        let places = [mirror("a", 1, "x", UPSTREAM), mirror("b", 2, "x/y", UPSTREAM)];
        let third = all("c", 3, "x/y/z", "team");
        assert_eq!(found(&places, std::slice::from_ref(&third)).len(), 2, "both are below x");
        let loops = mirror("loops", 1, "x", "https://registry.example.com");
        assert_eq!(
            found(&[loops, mirror("b", 2, "x", UPSTREAM)], &[]),
            [("loops".to_owned(), Reason::MirrorLoop)]
        );
    }

    #[test]
    fn there_is_one_default() {
        let mut both = [mirror("one", 2, "a", UPSTREAM), mirror("other", 1, "b", UPSTREAM)];
        assert!(found(&both, &[]).is_empty());
        for mirror in &mut both {
            mirror.entry.spec.default = true;
        }
        assert_eq!(found(&both, &[]), [("one".to_owned(), Reason::PathConflict)]);
    }

    #[test]
    fn a_member_is_neither_virtual_nor_below_a_mirror() {
        let hub = [mirror("hub", 1, "hub", UPSTREAM)];
        assert_eq!(
            found(&hub, &[all("all", 2, "all", "hub/acme")]),
            [("all".to_owned(), Reason::MemberIsMirror)]
        );
        let elder = all("elder", 1, "elder", "team");
        let over = all("over", 2, "over", "elder");
        assert_eq!(found(&[], &[elder, over]), [("over".to_owned(), Reason::MemberIsVirtual)]);
        assert_eq!(
            found(&[], &[all("itself", 1, "all", "all/apps")]),
            [("itself".to_owned(), Reason::MemberIsVirtual)]
        );
    }

    #[test]
    fn a_path_over_the_member_of_an_elder_is_out() {
        let conflicts =
            conflicts(&registry(), &[mirror("hub", 2, "team", UPSTREAM)], &[all("all", 1, "all", "team/a")]);
        assert_eq!((conflicts[0].kind, conflicts[0].reason), (Kind::Mirror, Reason::PathConflict));
        assert_eq!(conflicts[0].message, "VirtualRepository all → member team (team/a) → Mirror hub (team)");
    }

    #[test]
    fn a_mirror_that_copies_may_have_no_path_and_its_copies_may_be_members() {
        let copy = |name: &str, path: Option<&str>| {
            let mut copy = mirror(name, 1, "base", UPSTREAM);
            copy.entry.spec.mode = MirrorMode::Replicate;
            copy.entry.spec.path = path.map(crate::MountPath::from);
            copy
        };
        assert!(
            found(&[copy("one", None), copy("other", None), mirror("hub", 2, "hub", UPSTREAM)], &[])
                .is_empty()
        );
        assert!(found(&[copy("one", Some("base"))], &[all("all", 2, "all", "base/team")]).is_empty());
        let under = [copy("one", Some("base")), mirror("hub", 2, "base/hub", UPSTREAM)];
        assert_eq!(found(&under, &[]), [("hub".to_owned(), Reason::PathConflict)]);
        let mut itself = copy("itself", None);
        itself.entry.spec.upstream.url = "https://registry.example.com".into();
        assert_eq!(found(&[itself], &[]), [("itself".to_owned(), Reason::MirrorLoop)]);
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
            assert_eq!(
                found(&[mirror("m", 1, "m", url)], &[]),
                [("m".to_owned(), Reason::MirrorLoop)],
                "{url}"
            );
        }
        let mut named = mirror("m", 1, "m", UPSTREAM);
        assert!(found(std::slice::from_ref(&named), &[]).is_empty());
        named.entry.spec.upstream.hosts = vec!["registry.example.com".into()];
        assert_eq!(found(&[named], &[]), [("m".to_owned(), Reason::MirrorLoop)]);
    }

    #[test]
    fn what_is_below_a_path_is_the_rest_of_the_name() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        assert_eq!(below(&name("hub/library/alpine"), &name("hub")), Some(name("library/alpine")));
        assert_eq!(below(&name("hub"), &name("hub")), None);
        assert_eq!(below(&name("hubs/a"), &name("hub")), None);
    }

    #[test]
    fn every_kind_of_place_is_a_dependent() {
        assert_eq!((Mirror::KIND, VirtualRepository::KIND), (Kind::Mirror, Kind::VirtualRepository));
    }
}
