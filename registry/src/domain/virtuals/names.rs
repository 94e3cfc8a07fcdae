// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a name below the path of a virtual repository means: what each member calls it. Pure.
//!
//! `include` and `exclude` are about the name below the path, and about the one that a mirror's upstream has for it:
//! Docker Hub's `alpine` is `library/alpine`, and what excludes one of them excludes both.

use std::collections::BTreeMap;
use std::sync::Arc;

use stowage_oci::{Digest, Glob, Name, Tag};

use super::super::mirror::names::{below, is_at_or_below};
use super::super::mirror::{Mirrored, Mirrors};
use super::{Member, MemberSource, Source, VirtualSettings, Virtuals};

/// Where a name below the path of a virtual repository leads.
#[derive(Clone, Debug)]
pub enum Within {
    /// To its members.
    Members(Combined),
    /// To nobody: it is the path itself.
    Nowhere,
    /// To nobody at present.
    Suspended,
}

/// What the members call a name.
#[derive(Clone, Debug)]
pub struct Combined {
    /// The virtual repository.
    pub settings: Arc<VirtualSettings>,
    /// Where members have it, by precedence.
    pub sources: Vec<Source>,
    /// What the members of ours call it, whether or not the client may read them.
    pub locals: Vec<Name>,
    /// What the member that takes pushes calls it.
    pub push_to: Option<Name>,
    /// Its tags that are pinned.
    pub pins: BTreeMap<Tag, Digest>,
}

impl Combined {
    /// Leaves out what the client may not read.
    #[must_use]
    pub fn readable(mut self, may_read: impl Fn(&Name) -> bool) -> Self {
        self.sources.retain(|source| may_read(source.stored()));
        self
    }
}

impl Virtuals {
    /// Where `named` leads, if it is at or below the path of a virtual repository.
    #[must_use]
    pub fn place(&self, named: &Name, mirrors: &Mirrors) -> Option<Within> {
        let settings = self.0.iter().find(|settings| is_at_or_below(named, &settings.path))?;
        if settings.is_suspended {
            return Some(Within::Suspended);
        }
        let Some(rest) = below(named, &settings.path) else { return Some(Within::Nowhere) };
        let mut combined = Combined {
            settings: Arc::clone(settings),
            sources: Vec::new(),
            locals: Vec::new(),
            push_to: None,
            pins: settings.pins_of(&rest),
        };
        for member in &settings.members {
            let Some(source) = member.source_of(&rest, mirrors) else { continue };
            if let Source::Local(name) = &source {
                combined.locals.push(name.clone());
                combined.push_to = combined.push_to.or_else(|| member.takes_pushes.then(|| name.clone()));
            }
            combined.sources.push(source);
        }
        Some(Within::Members(combined))
    }

    /// What the members call `named`; nothing, if it is no name of a virtual repository.
    #[must_use]
    pub fn members_of(&self, named: &Name, mirrors: &Mirrors) -> Vec<Name> {
        match self.place(named, mirrors) {
            Some(Within::Members(combined)) => {
                combined.sources.iter().map(|source| source.stored().clone()).collect()
            }
            Some(Within::Nowhere | Within::Suspended) | None => Vec::new(),
        }
    }

    /// Whether the path of a virtual repository takes this name from a repository of ours.
    #[must_use]
    pub fn hides(&self, stored: &Name) -> bool {
        self.0.iter().any(|settings| is_at_or_below(stored, &settings.path))
    }
}

impl VirtualSettings {
    fn pins_of(&self, rest: &Name) -> BTreeMap<Tag, Digest> {
        let pins = self.pins.iter().filter(|pin| pin.repository == *rest);
        pins.map(|pin| (pin.tag.clone(), pin.digest)).collect()
    }
}

impl Combined {
    /// What is pinned of a tag in a mirror, by another name of the same repository: Docker Hub's `alpine` is
    /// `library/alpine`, and `docker.io/alpine` too.
    pub(super) fn pinned_in(&self, at: &Mirrored, tag: &Tag) -> Option<Digest> {
        let mut pins = self.settings.pins.iter().filter(|pin| pin.tag == *tag);
        pins.find(|pin| at.mirror.means(&pin.repository, &at.upstream)).map(|pin| pin.digest)
    }
}

impl Member {
    /// Where this member has `rest`; `None` if it is not to be asked for it, its mirror is not there, or the name would
    /// be too long.
    fn source_of(&self, rest: &Name, mirrors: &Mirrors) -> Option<Source> {
        match &self.source {
            MemberSource::Local(prefix) => self.below(prefix, rest).map(Source::Local),
            MemberSource::Copied(prefix) => self.below(prefix, rest).map(Source::Copied),
            MemberSource::Mirror(name) => {
                let at = mirrors.named(name)?.repository(rest).ok()?;
                self.is_asked_for(&[rest, &at.upstream]).then_some(Source::Mirror(at))
            }
        }
    }

    fn below(&self, prefix: &Name, rest: &Name) -> Option<Name> {
        let name = format!("{prefix}/{rest}").parse().ok();
        name.filter(|_| self.is_asked_for(&[rest]))
    }

    /// Whether it is asked for what has these names.
    fn is_asked_for(&self, names: &[&Name]) -> bool {
        let fits =
            |globs: &[Glob]| globs.iter().any(|glob| names.iter().any(|name| glob.matches(name.as_str())));
        (self.include.is_empty() || fits(&self.include)) && !fits(&self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Listing, Pin, Shadowing};
    use super::*;
    use crate::domain::{MirrorCache, MirrorSettings};
    use crate::upstream::Settings;

    fn mirrors() -> Mirrors {
        let cache = MirrorCache {
            tag_ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            stale_for: Duration::ZERO,
            quarantine: None,
        };
        Mirrors::alone(vec![MirrorSettings {
            name: "hub".to_owned(),
            path: "dockerhub".parse().unwrap(),
            upstream: Settings::new("https://docker.io".parse().unwrap(), "us"),
            asks_upstream: true,
            is_default: false,
            with_referrers: true,
            keys: None,
            cache,
        }])
    }

    fn member(source: MemberSource, include: &[&str], exclude: &[&str]) -> Member {
        let globs = |globs: &[&str]| globs.iter().map(|glob| glob.parse().unwrap()).collect();
        let takes_pushes = matches!(source, MemberSource::Local(_));
        Member { source, include: globs(include), exclude: globs(exclude), takes_pushes }
    }

    fn local(prefix: &str) -> MemberSource {
        MemberSource::Local(prefix.parse().unwrap())
    }

    fn hub() -> MemberSource {
        MemberSource::Mirror("hub".to_owned())
    }

    fn virtuals(members: Vec<Member>) -> Virtuals {
        let settings = VirtualSettings {
            name: "all".to_owned(),
            path: "all".parse().unwrap(),
            members,
            listing: Listing::FirstMember,
            shadowing: Shadowing::Forbidden,
            pins: Vec::new(),
            is_suspended: false,
        };
        vec![settings].into()
    }

    fn named(virtuals: &Virtuals, name: &str) -> Vec<String> {
        let members = virtuals.members_of(&name.parse().unwrap(), &mirrors());
        members.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pin_holds_for_a_repository_of_a_mirror_by_each_of_its_names() {
        let digest = Digest::of(stowage_oci::Algorithm::Sha256, b"pinned");
        let pin = Pin { repository: "library/nginx".parse().unwrap(), tag: "1.27".parse().unwrap(), digest };
        let all = virtuals(vec![member(hub(), &[], &[])]);
        let pinning = |pin: Pin| {
            Virtuals::from(vec![VirtualSettings { pins: vec![pin], ..VirtualSettings::clone(&all.0[0]) }])
        };
        let pinned_by = |pin: &Pin, name: &str, tag: &str| {
            let all = pinning(pin.clone());
            let place = all.place(&name.parse().unwrap(), &mirrors());
            let Some(Within::Members(found)) = place else { panic!("{place:?}") };
            let Source::Mirror(at) = &found.sources[0] else { panic!("{found:?}") };
            let tag = tag.parse().unwrap();
            (found.pins.get(&tag).copied(), found.pinned_in(at, &tag))
        };
        let pinned = |name: &str, tag: &str| pinned_by(&pin, name, tag);
        assert_eq!(pinned("all/library/nginx", "1.27"), (Some(digest), Some(digest)));
        assert_eq!(pinned("all/nginx", "1.27"), (None, Some(digest)), "Docker Hub calls it library/nginx");
        assert_eq!(pinned("all/library/nginx", "1.28"), (None, None));
        assert_eq!(pinned("all/acme/nginx", "1.27"), (None, None));
        for written in ["nginx", "docker.io/nginx", "docker.io/library/nginx"] {
            let pin = Pin { repository: written.parse().unwrap(), ..pin.clone() };
            assert_eq!(pinned_by(&pin, "all/library/nginx", "1.27"), (None, Some(digest)), "{written}");
            assert_eq!(pinned_by(&pin, "all/acme/nginx", "1.27"), (None, None), "{written}");
        }
    }

    #[test]
    fn w451_a_name_is_what_each_member_calls_it_by_precedence() {
        let virtuals = virtuals(vec![member(local("team-a"), &[], &[]), member(hub(), &[], &[])]);
        assert_eq!(named(&virtuals, "all/acme/app"), ["team-a/acme/app", "dockerhub/acme/app"]);
        assert_eq!(named(&virtuals, "all/alpine"), ["team-a/alpine", "dockerhub/library/alpine"]);
        assert_eq!(named(&virtuals, "alls/alpine"), [""; 0]);
        assert!(matches!(virtuals.place(&"all".parse().unwrap(), &mirrors()), Some(Within::Nowhere)));
        assert!(virtuals.place(&"al/l".parse().unwrap(), &mirrors()).is_none());
    }

    #[test]
    fn a_member_is_asked_for_what_it_includes_and_does_not_exclude() {
        let virtuals = virtuals(vec![
            member(hub(), &["library/*"], &["library/internal-*"]),
            member(local("team-a"), &[], &["secret/**"]),
        ]);
        assert_eq!(
            named(&virtuals, "all/library/alpine"),
            ["dockerhub/library/alpine", "team-a/library/alpine"]
        );
        assert_eq!(named(&virtuals, "all/acme/app"), ["team-a/acme/app"]);
        assert_eq!(named(&virtuals, "all/secret/app"), [""; 0]);
    }

    #[test]
    fn what_is_excluded_is_so_by_each_name_that_the_upstream_has_for_it() {
        let virtuals = virtuals(vec![member(hub(), &["library/*"], &["library/internal-*"])]);
        assert_eq!(named(&virtuals, "all/alpine"), ["dockerhub/library/alpine"]);
        assert_eq!(named(&virtuals, "all/internal-x"), [""; 0]);
    }

    #[test]
    fn a_member_without_its_mirror_or_with_a_name_too_long_is_left_out() {
        let gone = MemberSource::Mirror("gone".to_owned());
        let virtuals = virtuals(vec![member(gone, &[], &[]), member(local("team-a"), &[], &[])]);
        assert_eq!(named(&virtuals, "all/app"), ["team-a/app"]);
        let longest = format!("all/{}", "a".repeat(Name::MAX - 4));
        assert_eq!(named(&virtuals, &longest), [""; 0]);
    }

    #[test]
    fn pushes_go_to_one_member_if_it_is_asked_for_the_name() {
        let virtuals = virtuals(vec![member(local("team-a"), &[], &["secret/**"]), member(hub(), &[], &[])]);
        let push_to = |name: &str| match virtuals.place(&name.parse().unwrap(), &mirrors()) {
            Some(Within::Members(combined)) => combined.push_to.map(|name| name.to_string()),
            other => panic!("{other:?}"),
        };
        assert_eq!(push_to("all/app").as_deref(), Some("team-a/app"));
        assert_eq!(push_to("all/secret/app"), None);
    }
}
