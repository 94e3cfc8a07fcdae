// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The virtual repositories of the document → values that hold.
//!
//! A member may name a mirror that is not there: it has nothing then, and the others stay.

use stowage_crds::document::{Document, Entry};
use stowage_crds::paths::is_below;
use stowage_crds::{ItemName, MirrorMode, MountPath, RemoteShadowing, TagResolution, VirtualRepositorySpec};
use stowage_oci::{Digest, DigestError, Glob, Name, Tag, TagError};

use super::build::{field, globs};
use super::error::ConfigError;

/// One path over several sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// Its name.
    pub name: String,
    /// What its names begin with.
    pub path: Name,
    /// Its sources, by precedence.
    pub members: Vec<Member>,
    /// Which tags are listed.
    pub tag_resolution: TagResolution,
    /// Whether a mirror may answer for a name that exists here.
    pub remote_shadowing: RemoteShadowing,
    /// Tags that name what is said here.
    pub pins: Vec<Pin>,
    /// Whether its paths answer 503.
    pub is_suspended: bool,
}

/// A tag that names one manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The name below the path.
    pub repository: Name,
    /// The tag.
    pub tag: Tag,
    /// What it names.
    pub digest: Digest,
}

/// One source of a virtual repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is.
    pub source: Source,
    /// Names it is asked for; all if there are none.
    pub include: Vec<Glob>,
    /// Names it is not asked for.
    pub exclude: Vec<Glob>,
    /// Whether what is pushed goes to it.
    pub takes_pushes: bool,
}

/// Where a member's repositories are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Below this prefix, here.
    Local(Name),
    /// Below this prefix, to which a mirror copies.
    Copied(Name),
    /// Below the path of the mirror of this name.
    Mirror(String),
}

pub(super) fn virtuals(document: &Document) -> Result<Vec<Virtual>, ConfigError> {
    let made = |entry| virtual_repository(entry, document);
    document.virtual_repositories.iter().map(made).collect()
}

/// Whether a mirror copies to repositories below this prefix.
fn is_copied(prefix: &Name, document: &Document) -> bool {
    let copies = document.mirrors.iter().filter(|entry| entry.spec.mode == MirrorMode::Replicate);
    let mut paths = copies.filter_map(|entry| entry.spec.path.as_ref());
    paths.any(|path| is_below(prefix.as_str(), path.as_str()))
}

/// Where a mirror's copies are, if it copies below a path.
fn copied_to<'a>(mirror: &str, document: &'a Document) -> Option<&'a MountPath> {
    let found = document.mirrors.iter().find(|entry| entry.name == mirror)?;
    found.spec.path.as_ref().filter(|_| found.spec.mode == MirrorMode::Replicate)
}

fn virtual_repository(
    entry: &Entry<VirtualRepositorySpec>,
    document: &Document,
) -> Result<Virtual, ConfigError> {
    let spec = &entry.spec;
    let at = |path: &str| format!("VirtualRepository {}: spec.{path}", entry.name);
    let pin = |(place, asked): (usize, &stowage_crds::Pin)| {
        let at = |name: &str| at(&format!("pins[{place}].{name}"));
        let tag = asked.tag.as_str().parse().map_err(|error: TagError| field(at("tag"), error));
        let digest = asked.digest.as_str().parse().map_err(|error: DigestError| field(at("digest"), error));
        Ok(Pin {
            repository: asked.repository.parse().map_err(|error| field(at("repository"), error))?,
            tag: tag?,
            digest: digest?,
        })
    };
    let mut members = Vec::new();
    for (place, asked) in spec.members.iter().enumerate() {
        let path = |name: &str| at(&format!("members[{place}].{name}"));
        let source = match (&asked.repository, &asked.mirror_ref) {
            (Some(prefix), _) => {
                let prefix = prefix.parse().map_err(|error| field(path("repository"), error))?;
                if is_copied(&prefix, document) { Source::Copied(prefix) } else { Source::Local(prefix) }
            }
            (None, Some(wanted)) => match copied_to(&wanted.name, document) {
                Some(prefix) => {
                    Source::Copied(prefix.parse().map_err(|error| field(path("mirrorRef"), error))?)
                }
                None => Source::Mirror(wanted.name.clone()),
            },
            // Refused at the door: one of them is set.
            (None, None) => continue,
        };
        members.push(Member {
            source,
            include: globs(&path("include"), &asked.include)?,
            exclude: globs(&path("exclude"), &asked.exclude)?,
            takes_pushes: spec.push_to.as_ref().map(ItemName::as_str) == Some(asked.name.as_str()),
        });
    }
    Ok(Virtual {
        name: entry.name.clone(),
        path: spec.path.parse().map_err(|error| field(at("path"), error))?,
        members,
        tag_resolution: spec.tag_resolution,
        remote_shadowing: spec.remote_shadowing,
        pins: spec.pins.iter().enumerate().map(pin).collect::<Result<_, _>>()?,
        is_suspended: spec.suspend,
    })
}
