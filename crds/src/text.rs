// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Bounded text: strings whose form the schema states.
//!
//! Deserialising does not check the form: the API server has, or [`crate::strict`] does for files, and one odd
//! old object must not stop a watch. The reader that acts on a text parses it into the type it needs.

/// Gives a string-like type its schema: a pattern and a greatest length.
macro_rules! text_schema {
    ($name:ident, $pattern:expr, $max:expr) => {
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern, "maxLength": $max })
            }
        }
    };
}
pub(crate) use text_schema;

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, max $max:expr, pattern $pattern:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text as it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        text_schema!($name, $pattern, $max);
    };
}

text! {
    /// A pattern over repository names: `*` and `?` within a component, `**` for one or more whole components.
    Glob, max 255,
    pattern r"^(\*\*|\*|\*?([a-z0-9._?-]+\*?)+)(/(\*\*|\*|\*?([a-z0-9._?-]+\*?)+))*$"
}

text! {
    /// `scheme://host[:port]` without a path; the scheme is http or https.
    BaseUrl, max 253,
    pattern r"^https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?$"
}

text! {
    /// An http or https URL without user, query or fragment.
    HttpUrl, max 253,
    pattern r"^https?://[A-Za-z0-9._:\[\]-]+(/[!$-;=@-~]*)?$"
}

text! {
    /// What the names of some repositories begin with: legal components joined by `/`, short enough for names below.
    MountPath, max 200,
    pattern r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$"
}

text! {
    /// The name of a repository, or what the names of some begin with.
    Repository, max 255,
    pattern r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$"
}

text! {
    /// `host[:port]` in lower case.
    HostName, max 253,
    pattern r"^(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9.-]*[a-z0-9])?)(:[0-9]{1,5})?$"
}

text! {
    /// The name of an item in a list.
    ItemName, max 63,
    pattern r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
}

text! {
    /// Five fields of cron, or one of the names such as `@daily`.
    Cron, max 64,
    pattern r"^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[0-9A-Za-z*?,/-]+( +[0-9A-Za-z*?,/-]+){4})$"
}

text! {
    /// A name of the time zone database, as `Europe/Berlin`.
    TimeZone, max 64,
    pattern r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"
}

text! {
    /// A tag.
    TagName, max 128,
    pattern r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
}

text! {
    /// A pattern over tags: `*` for any run of characters, `?` for one.
    TagGlob, max 128,
    pattern r"^[A-Za-z0-9_.?*-]+$"
}

text! {
    /// A range of versions as npm writes it.
    VersionRange, max 128,
    pattern r"^[0-9A-Za-z.*+<>=~^| -]+$"
}

text! {
    /// A regular expression.
    RegexText, max 256,
    pattern r"^.+$"
}

text! {
    /// A digest.
    DigestText, max 135,
    pattern r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"
}

text! {
    /// A public key in PEM.
    PublicKeyPem, max 2048,
    pattern r"^-----BEGIN PUBLIC KEY-----"
}

text! {
    /// The name of a repository with the places `{path}` and `{name}`.
    RepositoryTemplateText, max 255,
    pattern r"^[a-z0-9._{}/-]+$"
}

text! {
    /// A tag with the place `{tag}`.
    TagTemplateText, max 128,
    pattern r"^[A-Za-z0-9_.{}-]+$"
}

text! {
    /// The name of a user, as Kubernetes knows it.
    UserName, max 256,
    pattern r"^[!-~]([ -~]*[!-~])?$"
}

text! {
    /// What a statement of in-toto says, as a URI.
    PredicateType, max 253,
    pattern r"^[!-~]+$"
}

text! {
    /// A platform: `os/architecture`, or `os/architecture/variant`.
    PlatformName, max 64,
    pattern r"^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9._]+)?$"
}

text! {
    /// The name of an organization: the first component of the names of its repositories.
    OrganizationName, max 255,
    pattern r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$"
}

impl Glob {
    /// The pattern itself.
    pub fn parse(&self) -> Result<stowage_oci::Glob, stowage_oci::GlobError> {
        self.as_str().parse()
    }
}

impl MountPath {
    /// The path as the prefix of names that it is.
    pub fn parse(&self) -> Result<stowage_oci::Name, stowage_oci::NameError> {
        self.as_str().parse()
    }
}

impl Repository {
    /// The name itself.
    pub fn parse(&self) -> Result<stowage_oci::Name, stowage_oci::NameError> {
        self.as_str().parse()
    }
}

impl RepositoryTemplateText {
    /// The template itself.
    pub fn parse(&self) -> Result<stowage_oci::RepositoryTemplate, stowage_oci::TemplateError> {
        self.as_str().parse()
    }
}

impl TagTemplateText {
    /// The template itself.
    pub fn parse(&self) -> Result<stowage_oci::TagTemplate, stowage_oci::TemplateError> {
        self.as_str().parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;
    use schemars::JsonSchema;

    use super::*;

    fn accepts<T: JsonSchema>(text: &str) -> bool {
        let schema = T::json_schema(&mut schemars::SchemaGenerator::default());
        let max = schema.get("maxLength").unwrap().as_u64().unwrap();
        let pattern = Regex::new(schema.get("pattern").unwrap().as_str().unwrap()).unwrap();
        text.chars().count() as u64 <= max && pattern.is_match(text)
    }

    proptest! {
        #[test]
        fn the_schema_and_the_parser_agree_on_globs(text in "[a?*/_.AZ-]{0,9}") {
            prop_assert_eq!(accepts::<Glob>(&text), Glob::from(text.as_str()).parse().is_ok());
        }

        #[test]
        fn the_schema_and_the_parser_agree_on_names_of_repositories(text in "[a0._/A-]{0,9}") {
            let text = text.as_str();
            prop_assert_eq!(accepts::<Repository>(text), Repository::from(text).parse().is_ok());
            prop_assert_eq!(accepts::<MountPath>(text), MountPath::from(text).parse().is_ok());
        }

        #[test]
        fn the_schema_and_the_parser_agree_on_durations(text in "[0-9.smhdwy]{0,9}") {
            prop_assert_eq!(accepts::<crate::Duration>(&text), text.parse::<crate::Duration>().is_ok());
        }

        #[test]
        fn the_schema_and_the_parser_agree_on_quantities(text in "[0-9.KkMGTPi]{0,9}") {
            prop_assert_eq!(accepts::<crate::Quantity>(&text), text.parse::<crate::Quantity>().is_ok());
        }
    }

    #[test]
    fn the_longest_glob_of_the_schema_is_that_of_the_parser() {
        for length in [stowage_oci::Glob::MAX, stowage_oci::Glob::MAX + 1] {
            let text = "a".repeat(length);
            assert_eq!(accepts::<Glob>(&text), Glob::from(text.as_str()).parse().is_ok());
        }
    }
}
