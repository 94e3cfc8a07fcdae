// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which tags a policy means.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stowage_oci::{TagSelection, TagsWanted};

use crate::{
    check::{FieldPath, Violation},
    text::{RegexText, TagGlob, TagName, VersionRange},
};

/// Which tags are meant: exactly one of `semver`, `glob`, `regex` and `exact`, without what `exclude` names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct TagSelector {
    /// Tags that are versions in a range. One leading `v` of a tag is dropped, missing parts are 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semver: Option<SemverSelector>,
    /// Tags that one of these patterns fits: `*` is any run of characters, `?` is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub glob: Vec<TagGlob>,
    /// Tags that one of these regular expressions fits as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub regex: Vec<RegexText>,
    /// These tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub exact: Vec<TagName>,
    /// Which of these are not meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub exclude: Vec<TagGlob>,
}

/// Tags that are versions in a range.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct SemverSelector {
    /// The range, as npm writes it: `>=3.20 <4`. Pre-releases are in it only if it names one: `>=1.0.0-0`.
    pub range: VersionRange,
}

impl TagSelector {
    /// The tags it means; what is wrong with it, and where, otherwise.
    pub fn parse(&self, at: &FieldPath) -> Result<TagSelection, Violation> {
        let refused = |path: FieldPath| move |message: String| Violation { path, message };
        let globs = |name: &str, globs: &[TagGlob]| {
            let list = at.field(name);
            let parsed = globs.iter().enumerate().map(|(place, glob)| {
                glob.as_str()
                    .parse()
                    .map_err(|error: stowage_oci::GlobError| refused(list.item(place))(error.to_string()))
            });
            parsed.collect::<Result<Vec<stowage_oci::TagGlob>, _>>()
        };
        let wanted = if let Some(semver) = &self.semver {
            let range = semver.range.as_str().parse::<stowage_oci::VersionRange>();
            let path = at.field("semver").field("range");
            TagsWanted::Versions(range.map_err(|error| refused(path)(error.to_string()))?)
        } else if !self.glob.is_empty() {
            TagsWanted::Globs(globs("glob", &self.glob)?)
        } else if !self.regex.is_empty() {
            let list = at.field("regex");
            let parsed = self.regex.iter().enumerate().map(|(place, text)| {
                let parsed = text.as_str().parse::<stowage_oci::TagExpression>();
                parsed.map_err(|error| refused(list.item(place))(error.to_string()))
            });
            TagsWanted::Expressions(parsed.collect::<Result<_, _>>()?)
        } else if self.exact.is_empty() {
            TagsWanted::All
        } else {
            let list = at.field("exact");
            let parsed = self.exact.iter().enumerate().map(|(place, tag)| {
                let parsed = tag.as_str().parse::<stowage_oci::Tag>();
                parsed.map_err(|error| refused(list.item(place))(error.to_string()))
            });
            TagsWanted::Exactly(parsed.collect::<Result<_, _>>()?)
        };
        Ok(TagSelection { wanted, exclude: globs("exclude", &self.exclude)? })
    }
}
