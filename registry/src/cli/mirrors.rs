// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The mirrors of a configuration → those that the registry serves, and back what is wrong with their upstreams.

use stowage_registry::config::{self, Trouble};
use stowage_registry::domain::{MirrorCache, MirrorSettings, Mirrors};
use stowage_registry::upstream::{Kind, Network, Settings, Verification};

/// As the registry takes them. Who we are it adds by itself.
pub(super) fn settings(mirrors: &[config::Mirror]) -> Vec<MirrorSettings> {
    mirrors.iter().filter_map(mirror).collect()
}

fn mirror(mirror: &config::Mirror) -> Option<MirrorSettings> {
    let config::Mirror { name, path, upstream, asks_upstream, is_default, with_referrers, cache, keys } =
        mirror;
    Some(MirrorSettings {
        name: name.clone(),
        path: path.clone(),
        upstream: upstream_of(name, upstream)?,
        asks_upstream: *asks_upstream,
        is_default: *is_default,
        with_referrers: *with_referrers,
        cache: MirrorCache {
            tag_ttl: cache.tag_ttl,
            negative_ttl: cache.negative_ttl,
            stale_for: cache.stale_for,
            quarantine: cache.quarantine,
        },
        keys: keys.clone(),
    })
}

/// How the registry of the mirror `name` is reached.
pub(super) fn upstream_of(name: &str, upstream: &config::Upstream) -> Option<Settings> {
    let origin = upstream.url.to_string().parse();
    let origin = origin.inspect_err(|error| {
        tracing::error!(mirror.name = name, %error, "the upstream of a mirror has an address that cannot be used");
    });
    Some(Settings {
        hosts: upstream.hosts.clone(),
        credentials: upstream.credentials.clone(),
        authorities: upstream.authorities.clone(),
        client_certificate: upstream.client_certificate.clone(),
        verification: match upstream.verification {
            config::TlsVerification::Verify => Verification::Verify,
            config::TlsVerification::Skip => Verification::Skip,
        },
        proxy: upstream.proxy.clone(),
        network: match upstream.network {
            config::UpstreamNetwork::Public => Network::Public,
            config::UpstreamNetwork::Any => Network::Any,
        },
        max_concurrent: upstream.max_concurrent,
        requests_per_second: upstream.requests_per_second,
        ..Settings::new(origin.ok()?, "")
    })
}

/// Which mirrors have an upstream that did not answer when it was asked last.
pub(super) fn troubles(mirrors: &Mirrors) -> Vec<Trouble> {
    let trouble = |(name, error): (&str, stowage_registry::upstream::Error)| {
        let fault = match error.kind {
            Kind::RateLimited { .. } => config::MirrorFault::RateLimited,
            Kind::Refused(_) => config::MirrorFault::AuthenticationFailed,
            Kind::CertificateInvalid => config::MirrorFault::CertificateInvalid,
            Kind::NotARegistry => config::MirrorFault::NotARegistry,
            Kind::NotNow { .. }
            | Kind::Unavailable { .. }
            | Kind::NotFound
            | Kind::TooLarge
            | Kind::WrongContent => config::MirrorFault::UpstreamUnreachable,
        };
        Trouble::of_mirror(name, fault, error.to_string())
    };
    let in_trouble = |mirror: &std::sync::Arc<stowage_registry::domain::Mirror>| {
        mirror.trouble().map(|error| trouble((&mirror.settings.name, error)))
    };
    mirrors.all().filter_map(in_trouble).collect()
}
