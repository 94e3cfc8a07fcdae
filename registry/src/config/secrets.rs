// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Secrets as files: `<secrets-dir>/<name>/<key>`.
//!
//! Guarantees: what is read prints as `***`. A name that would lead out of the folder is refused.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides the value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for whoever has to use it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The folder with a folder for each Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsDir(PathBuf);

/// A secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is missing or unreadable.
    #[error("cannot read the secret file {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not text.
    #[error("the secret file {} is not UTF-8", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where it stops being text.
        #[source]
        source: std::string::FromUtf8Error,
    },
    /// The name is more than a name.
    #[error("{name:?} cannot be the name of a secret or of its key")]
    Name {
        /// The name.
        name: String,
    },
}

impl SecretsDir {
    /// The folder at this path; it need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file of a key.
    pub fn file(&self, name: &str, key: &str) -> Result<PathBuf, SecretError> {
        for part in [name, key] {
            let mut components = Path::new(part).components();
            let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
            if !plain || part.contains('/') {
                return Err(SecretError::Name { name: part.to_owned() });
            }
        }
        Ok(self.0.join(name).join(key))
    }

    /// The folder of a Secret; it need not exist.
    pub fn folder(&self, name: &str) -> Result<PathBuf, SecretError> {
        // A key that could be any: what is checked is the name.
        self.file(name, "key").map(|_| self.0.join(name))
    }

    /// The bytes of a key.
    pub fn bytes(&self, name: &str, key: &str) -> Result<Secret<Vec<u8>>, SecretError> {
        let path = self.file(name, key)?;
        std::fs::read(&path).map(Secret).map_err(|source| SecretError::Read { path, source })
    }

    /// The text of a key, without the line end that editors leave.
    pub fn text(&self, name: &str, key: &str) -> Result<Secret<String>, SecretError> {
        let Secret(bytes) = self.bytes(name, key)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Secret(text.trim_end_matches(['\n', '\r']).to_owned())),
            Err(source) => Err(SecretError::NotText { path: self.file(name, key)?, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w737_a_secret_does_not_print_itself() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!((format!("{secret}"), format!("{secret:?}")), ("***".to_owned(), "***".to_owned()));
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        let secrets = SecretsDir::new("/secrets");
        for bad in ["", ".", "..", "a/b", "/etc", "a/", "../x"] {
            assert!(secrets.file(bad, "key").is_err() && secrets.file("name", bad).is_err(), "{bad}");
        }
        assert_eq!(secrets.file("name", ".key").unwrap(), Path::new("/secrets/name/.key"));
    }

    #[test]
    fn text_loses_its_last_line_end_only() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pg")).unwrap();
        std::fs::write(folder.path().join("pg/uri"), "a\nb \r\n").unwrap();
        let secrets = SecretsDir::new(folder.path());
        assert_eq!(secrets.text("pg", "uri").unwrap().expose(), "a\nb ");
        assert!(secrets.text("pg", "missing").unwrap_err().to_string().ends_with("pg/missing"));
    }
}
