// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which token endpoints are asked, and which of them may see our credential (pure; W-729).
//!
//! A registry names its token endpoint itself. One that was taken over, or a proxy in front of it, could name any.
//! So a credential goes to the registry's own host, to hosts of its registrable domain (by the public suffix list),
//! and to those that the configuration names; and never without TLS, unless the registry itself is without. Without a
//! credential there is nothing to lose, and any endpoint may be asked.

use url::{Host, Url};

use super::settings::Settings;

/// Why a token endpoint is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RealmError {
    #[error("is not a URL")]
    Malformed,
    #[error("is not https, and the registry is")]
    Plain,
    #[error("is on a host that must not see the credential")]
    Foreign,
}

/// The address of a token endpoint that may be asked, with the credential if there is one.
pub(super) fn check(realm: &str, settings: &Settings, has_credential: bool) -> Result<Url, RealmError> {
    let url = Url::parse(realm).map_err(|_any| RealmError::Malformed)?;
    let is_http = matches!(url.scheme(), "http" | "https");
    let (Some(host), Some(own), true) = (url.host(), settings.origin.host(), is_http) else {
        return Err(RealmError::Malformed);
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(RealmError::Malformed);
    }
    if url.scheme() == "http" && !settings.origin.is_plain() {
        return Err(RealmError::Plain);
    }
    let is_named = || settings.realms.iter().any(|name| name.eq_ignore_ascii_case(&host.to_string()));
    if has_credential && host != own && !is_same_domain(&host, &own) && !is_named() {
        return Err(RealmError::Foreign);
    }
    Ok(url)
}

fn is_same_domain(one: &Host<&str>, other: &Host<&str>) -> bool {
    let (Host::Domain(one), Host::Domain(other)) = (one, other) else { return false };
    psl::domain_str(one).is_some_and(|domain| psl::domain_str(other) == Some(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(origin: &str, realm: &str) -> Result<(), RealmError> {
        let mut settings = Settings::new(origin.parse().unwrap(), "us");
        settings.realms = vec!["login.example.net".to_owned()];
        check(realm, &settings, true).map(drop)
    }

    #[test]
    fn w729_a_credential_goes_to_the_registrable_domain_and_to_configured_hosts() {
        let hub = "https://docker.io";
        assert_eq!(checked(hub, "https://auth.docker.io/token"), Ok(()));
        assert_eq!(checked("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"), Ok(()));
        assert_eq!(checked("https://hub.example.com:8443", "https://hub.example.com/token"), Ok(()));
        assert_eq!(checked("https://10.0.0.1:5000", "https://10.0.0.1:5001/token"), Ok(()));
        assert_eq!(checked(hub, "https://login.example.net/t"), Ok(()));
        assert_eq!(checked("http://localhost:5000", "http://localhost:5001/token"), Ok(()));
    }

    #[test]
    fn w729_w773_w799_a_credential_goes_nowhere_else() {
        let hub = "https://docker.io";
        for foreign in [
            "https://evil.example.com/token",
            "https://docker.io.evil.example/token",
            "https://evildocker.io/token",
            "https://127.0.0.1/token",
            "https://0x7f.1/token",
            "https://[::1]/token",
            "https://localhost/token",
        ] {
            assert_eq!(checked(hub, foreign), Err(RealmError::Foreign), "{foreign}");
        }
        // Two customers of one public suffix.
        let (one, other) = ("https://registry.one.co.uk", "https://auth.other.co.uk/token");
        assert_eq!(checked(one, other), Err(RealmError::Foreign));
        assert_eq!(checked("https://one.github.io", "https://two.github.io/t"), Err(RealmError::Foreign));
        assert_eq!(checked("https://10.0.0.1", "https://10.0.0.2/token"), Err(RealmError::Foreign));
        assert_eq!(checked(hub, "http://auth.docker.io/token"), Err(RealmError::Plain));
        for malformed in ["", "/token", "ftp://auth.docker.io", "https://a:b@auth.docker.io/", "token"] {
            assert_eq!(checked(hub, malformed), Err(RealmError::Malformed), "{malformed}");
        }
    }

    #[test]
    fn f18_without_a_credential_any_realm_is_asked_but_none_without_tls() {
        let settings = Settings::new("https://hub.example.com".parse().unwrap(), "us");
        assert!(check("https://login.other.example/token", &settings, false).is_ok());
        assert_eq!(check("http://login.other.example/t", &settings, false), Err(RealmError::Plain));
    }
}
