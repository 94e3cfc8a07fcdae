// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The client library, set up so that it speaks with every service we know, and costs no more than it must.

use std::path::PathBuf;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    self, BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const CONNECT: Duration = Duration::from_secs(2);
/// Idle connections that are kept.
const IDLE: usize = 64;
/// And for how long. When a host vanishes without a word, each that is kept costs a request the time of an attempt:
/// with the library's minute and a half, three silent seconds took the bucket away for as long.
const KEPT: Duration = Duration::from_secs(5);

/// Where a bucket is and how to reach it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bucket's name.
    pub bucket: String,
    /// What all keys begin with; no `/` at its end is needed.
    pub prefix: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The service's URL; `None` is AWS.
    pub endpoint: Option<String>,
    /// Whether the bucket is named in the path instead of in the host name.
    pub force_path_style: bool,
    /// Who we are.
    pub credentials: Credentials,
    /// Certificates in PEM, to trust instead of the system's.
    pub ca: Option<Vec<u8>>,
}

impl Settings {
    /// Empty, or ends in `/`.
    pub(super) fn key_prefix(&self) -> String {
        match self.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }
}

/// Who we are for the service.
#[derive(Clone)]
pub enum Credentials {
    /// What the surroundings offer: environment, profile, web identity, instance metadata.
    Ambient,
    /// The files `accessKeyId`, `secretAccessKey` and, if it is there, `sessionToken` in a folder. They can be
    /// replaced: they are read again after 15 minutes, for which the old ones must still work.
    Folder(PathBuf),
    /// These.
    Static {
        /// The key's name.
        access_key_id: String,
        /// The key.
        secret_access_key: String,
        /// The token of a temporary key.
        session_token: Option<String>,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ambient => f.write_str("Ambient"),
            Self::Folder(folder) => f.debug_tuple("Folder").field(folder).finish(),
            Self::Static { access_key_id, .. } => {
                f.debug_struct("Static").field("access_key_id", access_key_id).finish_non_exhaustive()
            }
        }
    }
}

/// The settings cannot be meant.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The endpoint is no URL.
    #[error("endpoint {0:?} does not begin with http:// or https://")]
    Endpoint(String),
    /// The certificates cannot be read.
    #[error("the certificates to trust are not valid PEM")]
    Certificates(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There are none.
    #[error("the certificates to trust hold no certificate")]
    NoCertificate,
    /// Nothing around us says who we are.
    #[error("there are no credentials, and the surroundings offer none")]
    NoCredentials,
}

/// The client for these settings.
pub(super) async fn connect(settings: &Settings) -> Result<Client, SettingsError> {
    let config = config::Config::builder()
        // Fixed, so that an update of the library changes no default.
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(settings.region.clone()))
        .credentials_provider(credentials(settings).await?)
        .http_client(http_client(trust(settings)?))
        .force_path_style(settings.force_path_style)
        // Many services refuse the checksum trailers that the library would add.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        // Mistakes a slow reader for a slow service. We watch content ourselves.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .retry_config(retries(3))
        // What one bucket's bad day costs in retries is not taken from another's.
        .retry_partition(RetryPartition::custom(settings.bucket.clone()).build())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build());
    let config = match &settings.endpoint {
        Some(endpoint) => config.endpoint_url(endpoint),
        None => config,
    };
    Ok(Client::from_conf(config.build()))
}

fn retries(attempts: u32) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(attempts)
        .with_initial_backoff(Duration::from_millis(50))
        .with_max_backoff(Duration::from_secs(2))
}

/// A request of which each attempt may take `time`; of a read, until its content begins.
pub(super) fn attempt(time: Duration) -> config::Builder {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(time);
    config::Config::builder().timeout_config(timeouts.build())
}

/// A request that must not be repeated.
pub(super) fn once(time: Duration) -> config::Builder {
    attempt(time).retry_config(retries(1))
}

fn http_client(trust: TrustStore) -> SharedHttpClient {
    let context = TlsContext::builder().with_trust_store(trust).build();
    aws_smithy_http_client::Builder::new()
        .pool_max_idle_per_host(IDLE)
        .pool_idle_timeout(KEPT)
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context.expect("the builder has no way to fail"))
        .build_https()
}

fn trust(settings: &Settings) -> Result<TrustStore, SettingsError> {
    let none = || TrustStore::empty().with_native_roots(false);
    match &settings.endpoint {
        Some(endpoint) if endpoint.starts_with("http://") => return Ok(none()),
        Some(endpoint) if !endpoint.starts_with("https://") => {
            return Err(SettingsError::Endpoint(endpoint.clone()));
        }
        _ => {}
    }
    let Some(pem) = &settings.ca else { return Ok(TrustStore::default()) };
    check(pem)?;
    Ok(none().with_pem_certificate(pem.clone()))
}

/// The library would panic over certificates that it cannot read.
fn check(pem: &[u8]) -> Result<(), SettingsError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| SettingsError::Certificates(error.into()))?;
        roots.add(certificate).map_err(|error| SettingsError::Certificates(error.into()))?;
    }
    if roots.is_empty() { Err(SettingsError::NoCertificate) } else { Ok(()) }
}

async fn credentials(settings: &Settings) -> Result<SharedCredentialsProvider, SettingsError> {
    match &settings.credentials {
        Credentials::Ambient => {
            let surroundings = aws_config::defaults(BehaviorVersion::v2026_01_12())
                .region(Region::new(settings.region.clone()))
                .http_client(http_client(TrustStore::default()));
            let found = surroundings.load().await.credentials_provider();
            found.ok_or(SettingsError::NoCredentials)
        }
        Credentials::Folder(folder) => Ok(SharedCredentialsProvider::new(Folder(folder.clone()))),
        Credentials::Static { access_key_id, secret_access_key, session_token } => {
            let these = config::Credentials::new(
                access_key_id,
                secret_access_key,
                session_token.clone(),
                None,
                "settings",
            );
            Ok(SharedCredentialsProvider::new(these))
        }
    }
}

/// Credentials in files.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    async fn read(&self) -> Result<config::Credentials, CredentialsError> {
        let unreadable = |error: std::io::Error| CredentialsError::provider_error(error);
        let key = self.file("accessKeyId").await.map_err(unreadable)?;
        let secret = self.file("secretAccessKey").await.map_err(unreadable)?;
        let token = match self.file("sessionToken").await {
            Ok(token) => Some(token),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(unreadable(error)),
        };
        Ok(config::Credentials::new(key, secret, token, None, "folder"))
    }

    async fn file(&self, name: &str) -> std::io::Result<String> {
        Ok(tokio::fs::read_to_string(self.0.join(name)).await?.trim().to_owned())
    }
}

impl ProvideCredentials for Folder {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.read())
    }
}
