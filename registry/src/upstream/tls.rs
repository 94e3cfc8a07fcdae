// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Whom we believe, and who we are, in TLS with an upstream.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::settings::Verification;
use crate::config::Secret;

/// A certificate chain and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) chain: Vec<u8>,
    pub(super) key: Secret<Vec<u8>>,
}

/// Authorities or our own certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("{0} is no PEM: {1}")]
    Pem(&'static str, #[source] pem::Error),
    #[error("{0} holds no certificate")]
    Empty(&'static str),
    #[error("{0} cannot be used: {1}")]
    Unusable(&'static str, #[source] rustls::Error),
}

const AUTHORITIES: &str = "the file of certificate authorities";
const CHAIN: &str = "tls.crt of the client certificate";
const KEY: &str = "tls.key of the client certificate";

/// TLS 1.2 and 1.3, with these authorities beside those of the system.
pub(super) fn client(
    authorities: Option<&[u8]>,
    identity: Option<&Identity>,
    verification: Verification,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Unusable("TLS", error))?;
    let builder = match verification {
        Verification::Verify => builder.with_root_certificates(roots(authorities)?),
        Verification::Skip => {
            let anyone = Arc::new(Anyone(provider));
            builder.dangerous().with_custom_certificate_verifier(anyone)
        }
    };
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(CHAIN, &identity.chain)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.expose());
    let key = key.map_err(|error| TlsError::Pem(KEY, error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| TlsError::Unusable(CHAIN, error))
}

fn roots(authorities: Option<&[u8]>) -> Result<RootCertStore, TlsError> {
    let mut roots = system_roots().clone();
    if let Some(pem) = authorities {
        for authority in certificates(AUTHORITIES, pem)? {
            roots.add(authority).map_err(|error| TlsError::Unusable(AUTHORITIES, error))?;
        }
    }
    Ok(roots)
}

/// The authorities of the system, read once. An image may come without; some may be of no use.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    })
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| TlsError::Pem(what, error))?;
    if all.is_empty() { Err(TlsError::Empty(what)) } else { Ok(all) }
}

/// Believes any certificate, of whoever holds its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_certificate_without_its_key_is_refused() {
        let made = rcgen::generate_simple_self_signed(["us".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["us".to_owned()]).unwrap();
        let identity = |key: &rcgen::KeyPair| Identity {
            chain: made.cert.pem().into_bytes(),
            key: Secret::new(key.serialize_pem().into_bytes()),
        };
        let used = |identity: &Identity| client(None, Some(identity), Verification::Verify);
        assert!(used(&identity(&made.signing_key)).is_ok());
        let foreign = used(&identity(&other.signing_key)).unwrap_err();
        assert!(
            foreign.to_string().starts_with("tls.crt of the client certificate cannot be used"),
            "{foreign}"
        );
        let empty = Identity { chain: Vec::new(), ..identity(&made.signing_key) };
        assert_eq!(
            used(&empty).unwrap_err().to_string(),
            "tls.crt of the client certificate holds no certificate"
        );
        let none = client(Some(b"nothing"), None, Verification::Verify).unwrap_err();
        assert_eq!(none.to_string(), "the file of certificate authorities holds no certificate");
    }
}
