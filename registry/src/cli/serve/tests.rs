// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A process whose configuration changes while clients use it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use stowage_oci::{Algorithm, Digest};
use stowage_registry::config::{SecretsDir, Sources};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;

const SWAPS: usize = 100;
const CLIENTS: usize = 4;

/// A folder in which all of the configuration is replaced at once, as Kubernetes does it: by a link.
struct Folder {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Folder {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), authority }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The next configuration, with a certificate of its own, which is returned.
    fn swap(&self, number: usize) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let next = self.path().join(format!("v{number}"));
        fs::create_dir_all(next.join("config")).unwrap();
        fs::create_dir_all(next.join("secrets/tls")).unwrap();
        fs::write(next.join("secrets/tls/tls.crt"), certificate.pem()).unwrap();
        fs::write(next.join("secrets/tls/tls.key"), key.serialize_pem()).unwrap();
        fs::write(next.join("config/registry.yaml"), resources(number)).unwrap();
        let link = self.path().join("link");
        symlink(&next, &link).unwrap();
        fs::rename(&link, self.path().join("current")).unwrap();
        certificate.der().clone()
    }

    fn sources(&self) -> Sources {
        Sources {
            paths: vec![self.path().join("current/config")],
            registry: None,
            secrets: SecretsDir::new(self.path().join("current/secrets")),
            data_dir: self.path().join("data"),
            listen: Some(([127, 0, 0, 1], 5000).into()),
        }
    }

    /// Trusts what the authority signs.
    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

fn resources(number: usize) -> String {
    let limit = 500 + number;
    let mode = if number.is_multiple_of(2) { "ReadWrite" } else { "NoDelete" };
    format!(
        "apiVersion: stowage.dev/v1alpha1\nkind: Registry\nmetadata: {{name: main}}\nspec:\n  \
         externalURL: https://localhost\n  storage: {{filesystem: {{}}}}\n  database: {{sqlite: {{}}}}\n  \
         tls: {{secretRef: {{name: tls}}}}\n  auth: {{anonymous: PullPush}}\n  mode: {mode}\n  \
         limits: {{maxConcurrentRequests: {limit}, cacheMemory: {limit}Mi}}\n\
         ---\napiVersion: stowage.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: p{number}}}\n\
         spec: {{registryRef: {{name: main}}, repositories: [\"n{number}/**\"], \
         subjects: [{{user: alice}}], actions: [Pull]}}\n"
    )
}

/// A client of the data port.
struct Client {
    address: SocketAddr,
    connector: TlsConnector,
}

type Sender = SendRequest<Full<Bytes>>;

impl Client {
    async fn connect(&self) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        self.connector.connect(name, TcpStream::connect(self.address).await?).await
    }

    async fn certificate(&self) -> CertificateDer<'static> {
        let tls = self.connect().await.unwrap();
        tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    async fn open(&self, tasks: &Tasks) -> Result<Sender, String> {
        let tls = self.connect().await.map_err(|error| format!("connect: {error}"))?;
        let (sender, connection) = handshake(TokioIo::new(tls)).await.map_err(|error| error.to_string())?;
        // What ends it shows in the requests.
        drop(tasks.spawn(connection));
        Ok(sender)
    }

    /// Pushes blobs and pulls them until it is `enough`: half of the time over one connection, else over new
    /// ones. How many requests were answered as they should be, and what went wrong.
    async fn work(&self, number: usize, enough: &AtomicBool, tasks: &Tasks) -> (usize, Vec<String>) {
        let (mut asked, mut failures) = (0, Vec::new());
        let mut lasting = self.open(tasks).await.unwrap();
        for round in 0.. {
            if enough.load(Ordering::Relaxed) {
                break;
            }
            let content = format!("{number} {round}");
            let outcome = if round % 2 == 0 {
                round_trip(&mut lasting, &content).await
            } else {
                match self.open(tasks).await {
                    Ok(mut sender) => round_trip(&mut sender, &content).await,
                    Err(error) => Err(error),
                }
            };
            asked += 2;
            failures.extend(outcome.err());
        }
        (asked, failures)
    }
}

async fn round_trip(sender: &mut Sender, content: &str) -> Result<(), String> {
    let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
    let target = format!("/v2/app/blobs/uploads/?digest={digest}");
    let (status, _) = ask(sender, Method::POST, &target, content).await?;
    if status != StatusCode::CREATED {
        return Err(format!("push: {status}"));
    }
    let (status, body) = ask(sender, Method::GET, &format!("/v2/app/blobs/{digest}"), "").await?;
    if status != StatusCode::OK || body != content { Err(format!("pull: {status}")) } else { Ok(()) }
}

async fn ask(
    sender: &mut Sender,
    method: Method,
    target: &str,
    body: &str,
) -> Result<(StatusCode, Bytes), String> {
    let failed = |error: hyper::Error| format!("{target}: {error}");
    sender.ready().await.map_err(failed)?;
    let request = Request::builder().method(method).uri(target).header("host", "localhost");
    let request = request.body(Full::from(body.to_owned())).unwrap();
    let answer = sender.send_request(request).await.map_err(failed)?;
    let status = answer.status();
    Ok((status, answer.into_body().collect().await.map_err(failed)?.to_bytes()))
}

async fn until_in_force(live: &Live, hash: &str) {
    for _ in 0..5000 {
        if live.current().hash == hash {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("never in force: {:?}", live.rejected());
}

#[tokio::test(flavor = "multi_thread")]
async fn p17_a_hundred_changes_of_configuration_and_certificate_fail_no_request() {
    let folder = Folder::new();
    folder.swap(0);
    let sources = folder.sources();
    let live = Arc::new(Live::new(config::load(&sources).unwrap()));
    let (health, tasks, mut counted) = (Arc::new(Health::new()), Tasks::new(), Counted::default());
    let (http_metrics, metrics) = (HttpMetrics::register(&mut counted), Metrics::register(&mut counted));
    let stores = open::stores(&live.current(), &sources.data_dir, &metrics, &health).await.unwrap();
    let process = Process::open(
        Arc::clone(&live),
        health,
        tasks.clone(),
        (
            http_metrics,
            CollectionMetrics::default(),
            stowage_registry::ops::metrics::MirrorMetrics::default(),
        ),
        &stores,
    )
    .await
    .unwrap();
    process.watch(sources.clone(), &stores, Arc::default(), Duration::from_millis(5));
    let [data, admin] = [bind(([127, 0, 0, 1], 0).into()).await, bind(([127, 0, 0, 1], 0).into()).await];
    let (data, end) = (data.unwrap(), End::default());
    let client = Client { address: address(&data).unwrap(), connector: folder.connector() };
    let serving = process.serve(data, admin.unwrap(), &end);

    let enough = AtomicBool::new(false);
    let clients = join_all((0..CLIENTS).map(|number| client.work(number, &enough, &tasks)));
    let story = async {
        for number in 1..=SWAPS {
            let certificate = folder.swap(number);
            until_in_force(&live, &config::show(&sources).unwrap().hash).await;
            assert_eq!(client.certificate().await, certificate, "swap {number}");
        }
        enough.store(true, Ordering::Relaxed);
    };
    let (worked, ()) = tokio::join!(clients, story);
    let asked: usize = worked.iter().map(|(asked, _)| asked).sum();
    let failures: Vec<&String> = worked.iter().flat_map(|(_, failures)| failures).collect();
    assert!(asked >= SWAPS, "only {asked} requests");
    assert!(failures.is_empty(), "{} of {asked}: {failures:#?}", failures.len());
    end.drain.cancel();
    end.cut.cancel();
    serving.await;
    process.registry.close().await;
}
