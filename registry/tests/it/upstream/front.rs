// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! TLS in front of a server, with a certificate that can be another at any moment, and an authority whose certificates
//! are valid or have expired.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::Issued;

/// The server; it ends when it is dropped.
pub(crate) struct Front {
    address: String,
    shown: watch::Sender<Arc<ServerConfig>>,
    _tasks: JoinSet<()>,
}

impl Front {
    pub(crate) async fn to(target: &str, issued: &Issued) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (shown, state) = watch::channel(config(issued));
        let target = target.to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                open.spawn(carry(client, target.clone(), state.clone()));
            }
        });
        Self { address, shown, _tasks: tasks }
    }

    pub(crate) fn origin(&self) -> String {
        format!("https://{}", self.address)
    }

    /// It has this certificate from now on; connections that are open end.
    pub(crate) fn show(&self, issued: &Issued) {
        self.shown.send_replace(config(issued));
    }
}

async fn carry(client: TcpStream, target: String, mut shown: watch::Receiver<Arc<ServerConfig>>) {
    let config = Arc::clone(&shown.borrow_and_update());
    // Whoever does not believe us hangs up.
    let Ok(mut client) = TlsAcceptor::from(config).accept(client).await else { return };
    let Ok(mut server) = TcpStream::connect(&target).await else { return };
    tokio::select! {
        _ended = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _changed = shown.changed() => {}
    }
}

fn config(issued: &Issued) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// Signs certificates for this machine.
pub(crate) struct Notary(CertifiedIssuer<'static, KeyPair>);

impl Notary {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn valid(&self) -> Issued {
        self.until(2100)
    }

    /// One whose time is over.
    pub(crate) fn expired(&self) -> Issued {
        self.until(2021)
    }

    fn until(&self, year: i32) -> Issued {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.0).unwrap().pem();
        Issued { chain, key: key.serialize_pem() }
    }
}
