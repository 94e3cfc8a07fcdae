// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The certificate of the data port, made ready for use.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

/// The certificate, its key, or the authorities of clients cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM.
    #[error("{0} is no PEM")]
    Pem(&'static str, #[source] pem::Error),
    /// No certificate in the file.
    #[error("{0} holds no certificate")]
    Empty(&'static str),
    /// The key does not fit, or is of a kind that is not supported.
    #[error("the certificate and its key cannot be used")]
    Unusable(#[source] rustls::Error),
    /// The authorities of clients.
    #[error("the certificate authorities of clients cannot be used")]
    ClientAuthorities(#[source] rustls::server::VerifierBuilderError),
}

/// TLS 1.2 and 1.3 with this certificate; with authorities, clients must show a certificate of theirs.
pub(super) fn server(
    chain: &[u8],
    key: &[u8],
    client_ca: Option<&[u8]>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = certificates("tls.crt", chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Pem("tls.key", error))?;
    let verifier: Arc<dyn ClientCertVerifier> = match client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for authority in certificates("clientCASecretRef", pem)? {
                roots.add(authority).map_err(TlsError::Unusable)?;
            }
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(TlsError::ClientAuthorities)?
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| TlsError::Pem(what, error))?;
    if all.is_empty() { Err(TlsError::Empty(what)) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        assert!(server(chain.as_bytes(), key.as_bytes(), None).is_ok());
        assert!(server(chain.as_bytes(), key.as_bytes(), Some(chain.as_bytes())).is_ok());
        let foreign = other.signing_key.serialize_pem();
        assert!(matches!(server(chain.as_bytes(), foreign.as_bytes(), None), Err(TlsError::Unusable(_))));
        assert!(matches!(server(b"", key.as_bytes(), None), Err(TlsError::Empty("tls.crt"))));
        assert!(matches!(server(chain.as_bytes(), b"", None), Err(TlsError::Pem("tls.key", _))));
    }
}
