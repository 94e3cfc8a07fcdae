// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a run copies, and whether it may. Pure.
//!
//! Guarantees: an index keeps its bytes; platforms only choose which of its images come with it. Of two registries of
//! this kind that copy each other's tags, both decide alike: the later time wins, and of one time the higher digest.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};
use stowage_oci::{Digest, Platform, Tag, TagSelection, Version};

use crate::signatures::subject_of;

/// Names what an attestation of BuildKit is about.
const REFERENCE: &str = "vnd.docker.reference.digest";

/// Which tags of a repository are wanted, and what of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Which tags.
    pub tags: TagSelection,
    /// How many of the highest versions among them; `None`: all of them.
    pub newest: Option<usize>,
    /// For which platforms; none: for all.
    pub platforms: Vec<Platform>,
}

/// A tag that is wanted, and for which platforms; none: for all.
pub(super) type Wanted = BTreeMap<Tag, BTreeSet<Platform>>;

/// Which of `tags` are wanted by any of the selections. Tags that clients keep in place of referrers are no images:
/// they follow what they are about.
pub(super) fn wanted(tags: &BTreeSet<Tag>, selections: &[&Selection]) -> Wanted {
    let images: Vec<&Tag> = tags.iter().filter(|tag| subject_of(tag).is_none()).collect();
    let mut wanted = Wanted::new();
    let mut for_all = BTreeSet::new();
    for selection in selections {
        for tag in taken(&images, selection) {
            wanted.entry(tag.clone()).or_default().extend(selection.platforms.iter().cloned());
            if selection.platforms.is_empty() {
                for_all.insert(tag);
            }
        }
    }
    for tag in for_all {
        wanted.insert(tag.clone(), BTreeSet::new());
    }
    wanted
}

fn taken<'a>(images: &[&'a Tag], selection: &Selection) -> Vec<&'a Tag> {
    let taken = images.iter().copied().filter(|tag| selection.tags.takes(tag));
    let Some(newest) = selection.newest else { return taken.collect() };
    let mut versions: Vec<(Version, &Tag)> =
        taken.filter_map(|tag| Some((Version::of_tag(tag.as_str())?, tag))).collect();
    versions.sort();
    versions.into_iter().rev().take(newest).map(|(_, tag)| tag).collect()
}

/// Which tags follow the images that were copied (`copied`), and which are followed by nothing that was tried
/// (`tried`) but are wanted by themselves.
pub(super) fn followers(
    tags: &BTreeSet<Tag>,
    selections: &[&Selection],
    copied: &BTreeSet<Digest>,
    tried: &BTreeSet<Digest>,
) -> Vec<Tag> {
    let follows = |tag: &&Tag| {
        subject_of(tag).is_some_and(|subject| {
            let is_wanted =
                || selections.iter().any(|selection| selection.newest.is_none() && selection.tags.takes(tag));
            copied.contains(&subject) || (!tried.contains(&subject) && is_wanted())
        })
    };
    tags.iter().filter(follows).cloned().collect()
}

/// What an index lists, as far as platforms go by it.
#[derive(Deserialize, Default)]
struct Index {
    #[serde(default)]
    manifests: Vec<Child>,
}

#[derive(Deserialize)]
struct Child {
    digest: Digest,
    #[serde(default, deserialize_with = "platform")]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// A platform as some index has it: what it must say may be missing.
fn platform<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Platform>, D::Error> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Said {
        os: String,
        architecture: String,
        variant: Option<String>,
    }
    let said: Option<Said> = Deserialize::deserialize(from)?;
    Ok(said.map(|Said { os, architecture, variant }| Platform { os, architecture, variant }))
}

/// Which children of an index come with it. What is for no platform comes, unless it is about an image that does not.
pub(super) fn children(index: &[u8], all: &[Digest], platforms: &BTreeSet<Platform>) -> Vec<Digest> {
    if platforms.is_empty() {
        return all.to_vec();
    }
    // It was read before, by a stricter reader.
    let index: Index = serde_json::from_slice(index).unwrap_or_default();
    let is_for = |child: &Child| {
        let platform = child.platform.as_ref().filter(|platform| platform.os != "unknown")?;
        Some(platforms.iter().any(|wanted| wanted.takes(platform)))
    };
    let left_out: BTreeSet<String> = index
        .manifests
        .iter()
        .filter(|child| is_for(child) == Some(false))
        .map(|child| child.digest.to_string())
        .collect();
    let comes = |child: &Child| {
        let about = child.annotations.as_ref().and_then(|annotations| annotations.get(REFERENCE));
        is_for(child).unwrap_or(true) && !about.is_some_and(|about| left_out.contains(about))
    };
    let wanted: BTreeSet<Digest> =
        index.manifests.iter().filter(|child| comes(child)).map(|child| child.digest).collect();
    all.iter().filter(|digest| wanted.contains(*digest)).copied().collect()
}

/// What a tag is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    /// It never was, or that is forgotten.
    Nothing,
    /// It was deleted at that time, in milliseconds.
    Deleted(u64),
    /// It names a manifest.
    Named {
        digest: Digest,
        /// When it was set, in milliseconds.
        at: u64,
        /// Whether this mirror set it.
        is_ours: bool,
    },
}

/// What becomes of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the same here.
    Same,
    /// It is to be what it is at the upstream.
    Copy,
    /// What is here came later, or the deletion did.
    Later,
    /// A client set it, and the upstream cannot say when it did.
    SetByOthers,
}

/// What becomes of a tag that names `digest` at the upstream since `at`, in milliseconds, if that says so.
pub(super) fn judged(here: Here, digest: Digest, at: Option<u64>) -> Verdict {
    match (here, at) {
        (Here::Named { digest: held, .. }, _) if held == digest => Verdict::Same,
        (Here::Nothing, _) | (Here::Deleted(_) | Here::Named { is_ours: true, .. }, None) => Verdict::Copy,
        (Here::Named { is_ours: false, .. }, None) => Verdict::SetByOthers,
        (Here::Deleted(deleted), Some(at)) if at > deleted => Verdict::Copy,
        (Here::Named { digest: held, at: since, .. }, Some(at)) if (at, digest) > (since, held) => {
            Verdict::Copy
        }
        (Here::Deleted(_) | Here::Named { .. }, Some(_)) => Verdict::Later,
    }
}

#[cfg(test)]
mod tests {
    use stowage_oci::{Algorithm, TagsWanted};

    use super::*;

    fn tags(text: &str) -> BTreeSet<Tag> {
        text.split(' ').map(|tag| tag.parse().unwrap()).collect()
    }

    fn digest(content: &str) -> Digest {
        Digest::of(Algorithm::Sha256, content.as_bytes())
    }

    fn selection(range: &str, newest: Option<usize>, platforms: &[&str]) -> Selection {
        let wanted = TagsWanted::Versions(range.parse().unwrap());
        Selection {
            tags: TagSelection { wanted, exclude: Vec::new() },
            newest,
            platforms: platforms.iter().map(|platform| platform.parse().unwrap()).collect(),
        }
    }

    fn shown(wanted: &Wanted) -> String {
        let one = |(tag, platforms): (&Tag, &BTreeSet<Platform>)| format!("{tag}:{}", platforms.len());
        wanted.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn f22_the_newest_are_the_highest_versions() {
        let tags = tags("1.9 1.10 v1.2 latest 2.0.0-rc1 0.1");
        let newest = selection("*", Some(2), &[]);
        assert_eq!(shown(&wanted(&tags, &[&newest])), "1.10:0 1.9:0");
        assert_eq!(shown(&wanted(&tags, &[&selection(">=1", None, &[])])), "1.10:0 1.9:0 v1.2:0");
        let all = Selection { newest: Some(1), ..Selection::default() };
        assert_eq!(shown(&wanted(&tags, &[&all])), "2.0.0-rc1:0", "a tag that is no version is none of them");
    }

    #[test]
    fn what_several_ask_for_is_copied_for_the_platforms_of_all() {
        let tags = tags("1 2 3");
        let (amd, arm) = (selection("<3", None, &["linux/amd64"]), selection(">1", None, &["linux/arm64"]));
        assert_eq!(shown(&wanted(&tags, &[&amd, &arm])), "1:1 2:2 3:1");
        let all = selection("2", None, &[]);
        assert_eq!(shown(&wanted(&tags, &[&amd, &all, &arm])), "1:1 2:0 3:1");
    }

    #[test]
    fn w883_tags_of_signatures_follow_what_they_are_about() {
        let [signed, failed, orphan] = ["signed", "failed", "orphan"].map(digest);
        let named = |digest: &Digest, kind: &str| format!("sha256-{}{kind}", digest.hex());
        let all =
            [named(&signed, ".sig"), named(&signed, ""), named(&failed, ".sig"), named(&orphan, ".att")];
        let tags = tags(&format!("1.0 {}", all.join(" ")));
        assert_eq!(subject_of(&all[0].parse().unwrap()), Some(signed));
        assert_eq!(subject_of(&"sha256-abc.sig".parse().unwrap()), None);
        let (copied, tried) = (BTreeSet::from([signed]), BTreeSet::from([signed, failed]));
        let followed = |selection: &Selection| {
            let found = followers(&tags, &[selection], &copied, &tried);
            found.iter().map(ToString::to_string).collect::<BTreeSet<_>>()
        };
        let some = BTreeSet::from([all[0].clone(), all[1].clone()]);
        assert_eq!(followed(&selection("*", None, &[])), some, "what failed is not followed");
        let everything = some.iter().cloned().chain([all[3].clone()]).collect();
        assert_eq!(
            followed(&Selection::default()),
            everything,
            "what is about nothing here is a tag like others"
        );
        assert_eq!(shown(&wanted(&tags, &[&Selection::default()])), "1.0:0");
    }

    #[test]
    fn platforms_choose_among_the_children_of_an_index() {
        let [amd, arm, arm7, attested, unattested, odd] =
            ["amd", "arm", "arm7", "attested", "unattested", "odd"].map(digest);
        let platform = |digest: &Digest, os: &str, architecture: &str, variant: &str| {
            format!(
                r#"{{"digest":"{digest}","platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}}}"#
            )
        };
        let about = |digest: &Digest, of: &Digest| {
            format!(
                r#"{{"digest":"{digest}","platform":{{"os":"unknown","architecture":"unknown"}},"annotations":{{"{REFERENCE}":"{of}"}}}}"#
            )
        };
        let index = format!(
            r#"{{"manifests":[{},{},{},{},{},{{"digest":"{odd}"}}]}}"#,
            platform(&amd, "linux", "amd64", ""),
            platform(&arm, "linux", "arm64", ""),
            platform(&arm7, "linux", "arm", r#","variant":"v7""#),
            about(&attested, &amd),
            about(&unattested, &arm7),
        );
        let all = [amd, arm, arm7, attested, unattested, odd];
        let chosen = |platforms: &[&str]| {
            let platforms = platforms.iter().map(|platform| platform.parse().unwrap()).collect();
            children(index.as_bytes(), &all, &platforms)
        };
        assert_eq!(chosen(&[]), all);
        assert_eq!(chosen(&["linux/amd64"]), [amd, attested, odd]);
        assert_eq!(chosen(&["linux/arm64/v8", "linux/arm/v7"]), [arm, arm7, unattested, odd]);
        assert_eq!(chosen(&["linux/arm/v6"]), [odd]);
    }

    #[test]
    fn f53_of_two_registries_the_later_time_wins_and_both_say_so() {
        let (mut one, mut other) = (digest("one"), digest("other"));
        if one > other {
            std::mem::swap(&mut one, &mut other);
        }
        let named = |digest, at| Here::Named { digest, at, is_ours: false };
        for ((held, since), (theirs, at), verdict) in [
            ((one, 5), (other, 6), Verdict::Copy),
            ((other, 6), (one, 5), Verdict::Later),
            ((one, 5), (other, 5), Verdict::Copy),
            ((other, 5), (one, 5), Verdict::Later),
            ((one, 5), (one, 9), Verdict::Same),
        ] {
            assert_eq!(judged(named(held, since), theirs, Some(at)), verdict, "{since} {at}");
        }
        assert_eq!(judged(Here::Deleted(7), one, Some(7)), Verdict::Later, "it was deleted since");
        assert_eq!(judged(Here::Deleted(7), one, Some(8)), Verdict::Copy);
        assert_eq!(judged(Here::Nothing, one, Some(0)), Verdict::Copy);
    }

    #[test]
    fn an_upstream_that_tells_no_times_moves_only_what_it_set() {
        let (one, other) = (digest("one"), digest("other"));
        let named = |is_ours| Here::Named { digest: one, at: 5, is_ours };
        assert_eq!(judged(named(true), other, None), Verdict::Copy);
        assert_eq!(judged(named(false), other, None), Verdict::SetByOthers);
        assert_eq!(judged(named(false), one, None), Verdict::Same);
        assert_eq!(judged(Here::Deleted(9), one, None), Verdict::Copy);
        assert_eq!(judged(Here::Nothing, one, None), Verdict::Copy);
    }
}
