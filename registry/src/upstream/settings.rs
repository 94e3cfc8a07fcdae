// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What a client of another registry is told: plain checked values.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use stowage_oci::Name;
use url::{Host, Url};

use super::names;

/// How to reach a registry, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it is.
    pub origin: Origin,
    /// Further host names by which clients and `.dockerconfigjson` know it.
    pub hosts: Vec<String>,
    /// Further hosts whose token endpoint may see the credential. Those of the registry's own domain always may.
    pub realms: Vec<String>,
    /// The folder of a Secret with `.dockerconfigjson`, or `username` and `password`, or `token`.
    pub credentials: Option<PathBuf>,
    /// A file with authorities, in PEM, that are believed beside those of the system.
    pub authorities: Option<PathBuf>,
    /// The folder of a Secret with `tls.crt` and `tls.key`: who we are for the registry's TLS.
    pub client_certificate: Option<PathBuf>,
    /// Whether certificates are verified.
    pub verification: Verification,
    /// A file with the URL of an HTTP proxy, with name and password in it if it asks for them.
    pub proxy: Option<PathBuf>,
    /// Which addresses may be connected to.
    pub network: Network,
    /// Requests at the same time, bodies that are still being read included.
    pub max_concurrent: usize,
    /// Requests a second, those of all replicas together; `None`: any number. Counted by whoever gives turns.
    pub requests_per_second: Option<NonZeroU32>,
    /// Items of a list that are asked for at once. A registry may give fewer, or all.
    pub page: usize,
    /// The id of our own registry, for `Via`.
    pub registry_id: String,
    /// How long to wait for what.
    pub patience: Patience,
}

/// Whether the certificates of an upstream, of its token endpoint and of its storage are verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// They are.
    #[default]
    Verify,
    /// Any certificate will do, by explicit choice.
    Skip,
}

/// Which addresses may be connected to (W-728).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Those of the public internet.
    #[default]
    Public,
    /// Private, loopback and link-local ones too.
    Any,
}

/// How long to wait for what. There is no limit on the whole of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection to one address.
    pub connect: Duration,
    /// From a request to the head of its answer; for a place; and for the whole of a short body.
    pub answer: Duration,
    /// For the next bytes of a body.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), answer: seconds(30), idle: seconds(30) }
    }
}

impl Settings {
    /// An open registry on the public internet.
    #[must_use]
    pub fn new(origin: Origin, registry_id: impl Into<String>) -> Self {
        Self {
            origin,
            hosts: Vec::new(),
            realms: Vec::new(),
            credentials: None,
            authorities: None,
            client_certificate: None,
            verification: Verification::Verify,
            proxy: None,
            network: Network::Public,
            max_concurrent: 16,
            requests_per_second: None,
            page: 1000,
            registry_id: registry_id.into(),
            patience: Patience::default(),
        }
    }

    /// What the registry calls a repository that somebody names: its host may stand before the name, and what Docker Hub
    /// calls `library/alpine` is written `alpine`.
    #[must_use]
    pub fn meant(&self, name: &Name) -> Name {
        let inner = name.as_str().split_once('/').filter(|(host, _)| self.is_named(host));
        let inner = inner.and_then(|(_, rest)| rest.parse().ok());
        names::repository(&self.origin, inner.as_ref().unwrap_or(name))
    }

    /// Whether `host`, with a port where that is not the scheme's, is one of its names.
    pub(super) fn is_named(&self, host: &str) -> bool {
        let hub = self.origin.is_docker_hub() && names::is_docker_hub(host);
        let mut own = [self.origin.host_and_port()].into_iter().chain(self.hosts.iter().cloned());
        hub || own.any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Scheme, host and port of a registry. A name of Docker Hub's is that of its API.
#[derive(Clone, PartialEq, Eq)]
pub struct Origin(Url);

/// Why a text is not the address of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not a URL with a host.
    #[error("must be http://HOST[:PORT] or https://HOST[:PORT]")]
    Malformed,
    /// With a password in it, which belongs into a Secret.
    #[error("must not hold a user name or a password: give them in a Secret")]
    UserInfo,
    /// With more than a host; the API of a registry begins at `/v2/`.
    #[error("must not have a path, a query or a fragment: the API of a registry is at /v2/ of its host")]
    Path,
}

impl Origin {
    pub(super) fn host(&self) -> Option<Host<&str>> {
        self.0.host()
    }

    pub(super) fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    pub(super) fn is_docker_hub(&self) -> bool {
        self.0.host_str() == Some(names::DOCKER_HUB)
    }

    pub(super) fn host_and_port(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// The address of a path, which may have a query.
    pub(super) fn at(&self, path_and_query: &str) -> Url {
        let (path, query) =
            path_and_query.split_once('?').map_or((path_and_query, None), |(p, q)| (p, Some(q)));
        let mut url = self.0.clone();
        url.set_path(path);
        url.set_query(query);
        url
    }

    /// Whether `url` has the same scheme, host and port.
    pub(super) fn is_of(&self, url: &Url) -> bool {
        self.0.origin() == url.origin()
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let mut url = Url::parse(text).map_err(|_any| OriginError::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(OriginError::Malformed);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OriginError::UserInfo);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(OriginError::Path);
        }
        if url.host_str().is_some_and(names::is_docker_hub) {
            url.set_host(Some(names::DOCKER_HUB)).map_err(|_any| OriginError::Malformed)?;
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for (text, shown) in [
            ("https://quay.example.com", "https://quay.example.com"),
            ("https://Quay.example.com:443/", "https://quay.example.com"),
            ("http://[::1]:5000", "http://[::1]:5000"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), shown);
        }
        for (text, why) in [
            ("quay.example.com", OriginError::Malformed),
            ("ftp://quay.example.com", OriginError::Malformed),
            ("https://", OriginError::Malformed),
            ("https://a:b@quay.example.com", OriginError::UserInfo),
            ("https://quay.example.com/v2", OriginError::Path),
            ("https://quay.example.com?a=b", OriginError::Path),
        ] {
            assert_eq!(text.parse::<Origin>(), Err(why), "{text}");
        }
    }

    #[test]
    fn o2_every_name_of_docker_hub_is_its_api() {
        for host in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
            let origin: Origin = format!("https://{host}").parse().unwrap();
            assert_eq!(origin.to_string(), "https://registry-1.docker.io");
            let settings = Settings::new(origin, "us");
            assert!(settings.is_named("docker.io") && settings.is_named("Index.docker.io"));
            assert!(!settings.is_named("auth.docker.io"));
        }
    }

    #[test]
    fn f17_a_repository_is_meant_by_its_short_name_and_behind_the_host() {
        let meant = |origin: &str, name: &str| {
            Settings::new(origin.parse().unwrap(), "us").meant(&name.parse().unwrap()).to_string()
        };
        for name in ["alpine", "library/alpine", "docker.io/alpine", "index.docker.io/library/alpine"] {
            assert_eq!(meant("https://docker.io", name), "library/alpine", "{name}");
        }
        assert_eq!(meant("https://docker.io", "docker.io/acme/app"), "acme/app");
        assert_eq!(meant("https://docker.io", "quay.example.com/app"), "quay.example.com/app");
        assert_eq!(meant("https://quay.example.com", "quay.example.com/app"), "app");
        assert_eq!(meant("https://quay.example.com", "docker.io/alpine"), "docker.io/alpine");
    }

    #[test]
    fn o2_a_registry_has_the_name_of_its_host_and_those_it_is_given() {
        let mut settings = Settings::new("https://hub.example.com:8443".parse().unwrap(), "us");
        settings.hosts = vec!["www.example.com".to_owned()];
        assert!(settings.is_named("hub.example.com:8443") && settings.is_named("www.example.com"));
        assert!(!settings.is_named("hub.example.com") && !settings.is_named("docker.io"));
    }
}
