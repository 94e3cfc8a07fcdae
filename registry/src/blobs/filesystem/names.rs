// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Keys as paths, and back.
//!
//! A file system may not tell upper from lower case, so an upper-case letter is written `+x`. A component that
//! would become longer than file systems allow is all upper case, and is written `+=` and its lower case.

use std::path::{Path, PathBuf};

/// The folder for files that are no objects yet.
pub(super) const TEMPORARY: &str = "tmp";

/// What file systems allow.
const LONGEST: usize = 255;

/// The key cannot be a path.
#[derive(Debug, thiserror::Error)]
#[error("not a key that this store can hold")]
pub(super) struct NotAPath;

/// Where the object `key` lies.
pub(super) fn path(root: &Path, key: &str) -> Result<PathBuf, NotAPath> {
    if key.split('/').next() == Some(TEMPORARY) {
        return Err(NotAPath);
    }
    let mut path = root.to_owned();
    for component in key.split('/') {
        path.push(encode(component).ok_or(NotAPath)?);
    }
    Ok(path)
}

/// The name of the file or folder of one component of a key.
fn encode(component: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~');
    if matches!(component, "" | "." | "..") || !component.chars().all(allowed) {
        return None;
    }
    let mut name = String::with_capacity(component.len());
    for c in component.chars() {
        if c.is_ascii_uppercase() {
            name.push('+');
        }
        name.push(c.to_ascii_lowercase());
    }
    if name.len() <= LONGEST {
        return Some(name);
    }
    let shouted = component.chars().all(|c| c.is_ascii_uppercase());
    let name = format!("+={}", component.to_ascii_lowercase());
    (shouted && name.len() <= LONGEST).then_some(name)
}

/// The component that `name` is the file or folder of, if it is one of ours.
pub(super) fn decode(name: &str) -> Option<String> {
    let component = match name.strip_prefix("+=") {
        Some(shouted) => shouted.to_ascii_uppercase(),
        None => unescape(name),
    };
    encode(&component).filter(|again| again == name).map(|_| component)
}

fn unescape(name: &str) -> String {
    let mut component = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        match c {
            '+' => upper = true,
            c => component.push(if std::mem::take(&mut upper) { c.to_ascii_uppercase() } else { c }),
        }
    }
    component
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_component_reads_back_from_its_name(component in "[A-Za-z0-9_~][A-Za-z0-9._~-]{0,127}") {
            let name = encode(&component).unwrap();
            prop_assert!(name.len() <= LONGEST);
            prop_assert!(!name.chars().any(|c| c.is_ascii_uppercase()));
            prop_assert_eq!(decode(&name), Some(component));
        }
    }

    #[test]
    fn the_longest_tag_in_upper_case_fits() {
        let tag = "T".repeat(128);
        let name = encode(&tag).unwrap();
        assert!(name.len() <= LONGEST);
        assert_eq!(decode(&name), Some(tag));
    }

    #[test]
    fn what_is_no_key_has_no_path() {
        for key in
            ["", "/a", "a//b", "a/", "../a", "a/./b", "a/..", "tmp", "tmp/a", "a+b", "a\\b", "a\0b", "ä"]
        {
            assert!(path(Path::new("/"), key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn what_we_have_not_written_is_no_component() {
        for name in ["A", "a+", "++a", "+1", "+=A", "+=a", "a b", ".."] {
            assert_eq!(decode(name), None, "{name:?}");
        }
    }
}
