// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The one challenge we give: where a token is to be had, for which service, and with which scope.

use std::fmt::Write as _;

/// What is wrong with a bearer token that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Expired, not ours, badly signed.
    Invalid,
    /// Valid, but it does not allow the operation.
    InsufficientScope,
}

impl TokenError {
    const fn word(self) -> &'static str {
        match self {
            Self::Invalid => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
        }
    }
}

/// The names under which the registry answers, and where each sends clients for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realms {
    primary: Realm,
    alternates: Vec<Realm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Realm {
    url: String,
    secure: bool,
    /// Lower case, without the scheme's own port.
    host: String,
}

impl Realm {
    fn new(base: &str) -> Self {
        let base = base.trim_end_matches('/');
        let secure = !base.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
        let host = base.split_once("://").map_or(base, |(_, host)| host);
        Self { url: format!("{base}/token"), secure, host: plain(host, secure) }
    }

    fn is_for(&self, host: &str) -> bool {
        plain(host, self.secure) == self.host
    }
}

fn plain(host: &str, secure: bool) -> String {
    let port = if secure { ":443" } else { ":80" };
    host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase()
}

impl Realms {
    /// The external URL, and further ones, each `scheme://host[:port]`.
    pub fn new<'a>(external: &str, alternates: impl IntoIterator<Item = &'a str>) -> Self {
        Self { primary: Realm::new(external), alternates: alternates.into_iter().map(Realm::new).collect() }
    }

    /// The audience of our tokens: host and port of the external URL.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.primary.host
    }

    /// The issuer of our tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.primary.url.strip_suffix("/token").unwrap_or(&self.primary.url)
    }

    /// The token endpoint for a client that sent this `Host`; one we do not know is never repeated (W-604).
    #[must_use]
    pub fn realm(&self, host: Option<&str>) -> &str {
        let known = host.and_then(|host| {
            std::iter::once(&self.primary).chain(&self.alternates).find(|realm| realm.is_for(host))
        });
        &known.unwrap_or(&self.primary).url
    }

    /// The value of `WWW-Authenticate` (W-600).
    #[must_use]
    pub fn challenge(&self, host: Option<&str>, scope: Option<&str>, error: Option<TokenError>) -> String {
        let mut text = format!(r#"Bearer realm="{}",service="{}""#, self.realm(host), self.service());
        let parts = [("scope", scope), ("error", error.map(TokenError::word))];
        for (name, value) in parts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            write!(text, r#",{name}="{value}""#).expect("a String takes any text");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realms() -> Realms {
        Realms::new("https://Registry.example.com", ["http://main.ns.svc:5000", "http://10.1.2.3"])
    }

    #[test]
    fn w600_every_value_is_quoted_and_none_is_empty() {
        assert_eq!(
            realms().challenge(None, Some("repository:a:pull"), Some(TokenError::Invalid)),
            r#"Bearer realm="https://Registry.example.com/token",service="registry.example.com",scope="repository:a:pull",error="invalid_token""#
        );
        assert_eq!(
            realms().challenge(None, None, None),
            r#"Bearer realm="https://Registry.example.com/token",service="registry.example.com""#
        );
    }

    #[test]
    fn w494_no_value_contains_the_name_of_a_scheme() {
        let text = realms().challenge(None, Some("repository:a:pull"), Some(TokenError::InsufficientScope));
        let values = text.strip_prefix("Bearer ").unwrap().to_lowercase();
        assert!(!values.contains("bearer") && !values.contains("basic"));
    }

    #[test]
    fn w548_w603_w604_the_realm_is_that_of_a_known_host_else_the_primary_one() {
        let realms = realms();
        assert_eq!(realms.realm(Some("MAIN.ns.svc:5000")), "http://main.ns.svc:5000/token");
        assert_eq!(realms.realm(Some("10.1.2.3:80")), "http://10.1.2.3/token");
        for host in [None, Some("evil.example"), Some("registry.example.com:443"), Some("127.0.0.1:5000")] {
            assert_eq!(realms.realm(host), "https://Registry.example.com/token", "{host:?}");
        }
    }
}
