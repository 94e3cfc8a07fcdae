// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Who we are to an upstream, from the files of a Secret.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use serde::Deserialize;

use super::settings::Settings;
use crate::config::Secret;

/// A credential of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    /// A name and a password: sent as they are, or to get a token.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret<String>,
    },
    /// An identity token, for which a token endpoint gives tokens.
    Identity(Secret<String>),
    /// A token for the registry itself.
    Registry(Secret<String>),
}

/// A Secret does not hold a credential for this registry.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialError {
    #[error("the secret file {} cannot be read: {source}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} has neither .dockerconfigjson, nor username and password, nor token", .0.display())]
    Nothing(PathBuf),
    #[error("the secret file {} is not UTF-8", .0.display())]
    NotText(PathBuf),
    // What the parser says could quote the file.
    #[error("{} is not the JSON of a Docker client", .0.display())]
    NotJson(PathBuf),
    #[error("{} has no entry for {host}", .path.display())]
    NoEntry { path: PathBuf, host: String },
    #[error("the entry for {host} in {} holds no credential", .path.display())]
    EmptyEntry { path: PathBuf, host: String },
}

/// The credential in `folder` for this registry.
pub(super) fn read(folder: &Path, settings: &Settings) -> Result<Credential, CredentialError> {
    let folder = current(folder);
    let docker = folder.join(".dockerconfigjson");
    if let Some(text) = text(&docker)? {
        return from_docker(&text, &docker, settings);
    }
    let (user, password) = (text(&folder.join("username"))?, text(&folder.join("password"))?);
    if let (Some(user), Some(password)) = (user, password) {
        return Ok(Credential::Password { user, password: Secret::new(password) });
    }
    match text(&folder.join("token"))? {
        Some(token) => Ok(Credential::Identity(Secret::new(token))),
        None => Err(CredentialError::Nothing(folder)),
    }
}

/// The folder whose files belong together. Kubernetes writes a new one and then turns a link, so that whoever follows
/// the link once never sees one file from before a change and one from after it.
pub(super) fn current(folder: &Path) -> PathBuf {
    fs::canonicalize(folder.join("..data")).unwrap_or_else(|_is_none| folder.to_owned())
}

fn text(path: &Path) -> Result<Option<String>, CredentialError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CredentialError::Read { path: path.to_owned(), source }),
    };
    let text = String::from_utf8(bytes).map_err(|_quotes| CredentialError::NotText(path.to_owned()))?;
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

fn from_docker(text: &str, path: &Path, settings: &Settings) -> Result<Credential, CredentialError> {
    let config: DockerConfig =
        serde_json::from_str(text).map_err(|_quotes| CredentialError::NotJson(path.to_owned()))?;
    let host = || settings.origin.host_and_port();
    let entry = config.auths.into_iter().find(|(key, _)| settings.is_named(host_of(key)));
    let (_, entry) = entry.ok_or_else(|| CredentialError::NoEntry { path: path.to_owned(), host: host() })?;
    entry.credential().ok_or_else(|| CredentialError::EmptyEntry { path: path.to_owned(), host: host() })
}

/// `https://index.docker.io/v1/` and the like, as Docker's clients write them.
fn host_of(key: &str) -> &str {
    let (scheme, rest) = key.split_once("://").unwrap_or(("", key));
    let host = rest.split('/').next().unwrap_or(rest);
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return host,
    };
    host.strip_suffix(default_port).unwrap_or(host)
}

impl Entry {
    fn credential(self) -> Option<Credential> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Some(Credential::Registry(Secret::new(token)));
        }
        if let Some(token) = given(self.identitytoken) {
            return Some(Credential::Identity(Secret::new(token)));
        }
        if let (Some(user), Some(password)) = (given(self.username), given(self.password)) {
            return Some(Credential::Password { user, password: Secret::new(password) });
        }
        let auth = given(self.auth)?;
        let decoded = BASE64_STANDARD.decode(&auth).or_else(|_| BASE64_STANDARD_NO_PAD.decode(&auth)).ok()?;
        let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        Some(Credential::Password { user: user.to_owned(), password: Secret::new(password.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password { user: user.to_owned(), password: Secret::new(password.to_owned()) }
    }

    fn at(origin: &str, files: &[(&str, &str)]) -> Result<Credential, String> {
        let folder = folder(files);
        let settings = Settings::new(origin.parse().unwrap(), "us");
        read(folder.path(), &settings).map_err(|error| error.to_string())
    }

    #[test]
    fn o3_a_secret_holds_a_password_or_a_token() {
        let hub = "https://hub.example.com";
        assert_eq!(at(hub, &[("username", "a\n"), ("password", "p:w \n")]), Ok(password("a", "p:w ")));
        let token = Credential::Identity(Secret::new("t".to_owned()));
        assert_eq!(at(hub, &[("token", "t\n")]), Ok(token));
        assert!(at(hub, &[("username", "a")]).unwrap_err().contains("nor username and password"));
    }

    #[test]
    fn o3_the_entry_of_a_docker_configuration_is_that_of_the_registry() {
        let auth = BASE64_STANDARD.encode("bob:p:w");
        let config = format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}},
                "hub.example.com:8443": {{"username": "carol", "password": "x", "auth": ""}},
                "https://quay.example.com:443": {{"identitytoken": "i"}},
                "empty.example.com": {{}}}}}}"#
        );
        let read = |origin: &str| at(origin, &[(".dockerconfigjson", &config)]);
        assert_eq!(read("https://docker.io"), Ok(password("bob", "p:w")));
        assert_eq!(read("https://hub.example.com:8443"), Ok(password("carol", "x")));
        assert_eq!(read("https://quay.example.com"), Ok(Credential::Identity(Secret::new("i".to_owned()))));
        assert!(read("https://hub.example.com").unwrap_err().ends_with("has no entry for hub.example.com"));
        assert!(read("https://empty.example.com").unwrap_err().contains("holds no credential"));
    }

    #[test]
    fn w737_what_cannot_be_read_is_not_quoted() {
        let error = at("https://a.example", &[(".dockerconfigjson", r#"{"auths": "hunter2"}"#)]).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
