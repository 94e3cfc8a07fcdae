// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! TLS between the load generator and the registries. All of them show the same certificate.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A certificate for this machine that is its own authority, and clients that trust it.
pub(crate) struct Tls {
    /// As PEM.
    pub(crate) certificate: String,
    /// As PEM.
    pub(crate) key: String,
    client: TlsConnector,
}

impl Tls {
    /// Makes a certificate.
    pub(crate) fn make() -> Result<Self> {
        let made =
            rcgen::generate_simple_self_signed([LOOPBACK.to_string()]).context("make a certificate")?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).context("trust the certificate")?;
        let mut client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // Each connection is a handshake of its own, for all registries alike.
        client.resumption = Resumption::disabled();
        Ok(Self {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
            client: TlsConnector::from(Arc::new(client)),
        })
    }

    /// Shakes hands with a registry of this machine.
    pub(crate) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        self.client.connect(ServerName::from(LOOPBACK), stream).await.context("begin TLS")
    }
}
