// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

use std::pin::pin;

use bytes::Bytes;
use http_body_util::Full;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;

const HELLO: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// A listener on a free port that answers every request after `delay`.
async fn start(certificate: Certificate, delay: Duration) -> (SocketAddr, End, impl Future<Output = ()>) {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap().with_certificate(certificate);
    let (address, end) = (listener.address().unwrap(), End::default());
    let answer = move |_: SocketAddr| {
        service_fn(move |_: Request<Incoming>| async move {
            tokio::time::sleep(delay).await;
            Ok(Response::new(Full::new(Bytes::from_static(b"hello"))))
        })
    };
    (address, end.clone(), listener.serve(answer, end))
}

async fn ask(address: SocketAddr) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_request_that_runs_is_finished_and_no_new_connection_is_taken() {
    let (address, end, serving) = start(Certificate::default(), Duration::from_millis(200)).await;
    let story = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        end.drain.cancel();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(TcpStream::connect(address).await.is_err());
    };
    let ((), answer, ()) = tokio::join!(serving, ask(address), story);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_client_is_told_to_leave_before_its_connection_is_closed() {
    let (address, end, serving) = start(Certificate::default(), Duration::ZERO).await;
    let story = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut part = [0; 1024];
        client.write_all(HELLO).await.unwrap();
        let length = client.read(&mut part).await.unwrap();
        let first = String::from_utf8_lossy(&part[..length]).to_lowercase();
        assert!(!first.contains("connection: close"), "{first}");
        end.leave.cancel();
        client.write_all(HELLO).await.unwrap();
        let mut last = String::new();
        client.read_to_string(&mut last).await.unwrap();
        assert!(last.to_lowercase().contains("connection: close") && last.ends_with("hello"), "{last}");
        assert!(ask(address).await.ends_with("hello"), "new connections are still taken");
        end.drain.cancel();
    };
    tokio::join!(serving, story);
}

#[tokio::test]
async fn what_is_not_finished_in_time_is_cut() {
    let (address, end, serving) = start(Certificate::default(), Duration::from_mins(10)).await;
    let story = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        end.drain.cancel();
        end.cut.cancel();
    };
    let ((), answer, ()) = tokio::join!(serving, ask(address), story);
    assert_eq!(answer, "");
}

struct Made {
    server: Arc<ServerConfig>,
    authority: CertificateDer<'static>,
}

fn certificate(versions: &[&'static rustls::SupportedProtocolVersion]) -> (Made, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let authority = made.cert.der().clone();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![authority.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Made { server: Arc::new(server), authority }, client)
}

async fn ask_tls(address: SocketAddr, client: ClientConfig) -> io::Result<CertificateDer<'static>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = TlsConnector::from(Arc::new(client)).connect(name, tcp).await?;
    tls.write_all(HELLO).await?;
    let mut start = [0; 12];
    tls.read_exact(&mut start).await?;
    assert_eq!(&start, b"HTTP/1.1 200");
    Ok(tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
}

#[tokio::test]
async fn a_new_certificate_holds_from_the_next_connection_on() {
    let (first, client) = certificate(&[&rustls::version::TLS12]);
    let (second, next_client) = certificate(&[&rustls::version::TLS13]);
    let in_force = Certificate::default();
    in_force.store(Some(Arc::clone(&first.server)));
    let (address, end, serving) = start(Arc::clone(&in_force), Duration::ZERO).await;
    let story = async {
        assert_eq!(ask_tls(address, client).await.unwrap(), first.authority);
        in_force.store(Some(Arc::clone(&second.server)));
        assert_eq!(ask_tls(address, next_client.clone()).await.unwrap(), second.authority);
        in_force.store(Some(Arc::clone(&first.server)));
        assert!(ask_tls(address, next_client).await.is_err());
        end.drain.cancel();
        end.cut.cancel();
    };
    tokio::join!(serving, story);
}

#[tokio::test]
async fn both_versions_of_http_are_spoken() {
    let (address, end, serving) = start(Certificate::default(), Duration::ZERO).await;
    let story = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let io = TokioIo::new(tcp);
        let exec = TokioExecutor::new();
        let (mut send, conversation) = hyper::client::conn::http2::handshake(exec, io).await.unwrap();
        let request = Request::get("http://x/").body(Full::<Bytes>::default()).unwrap();
        let answer = pin!(send.send_request(request));
        let version = tokio::select! {
            answer = answer => answer.unwrap().version(),
            _ = conversation => panic!("the connection ended before its answer"),
        };
        assert_eq!(version, http::Version::HTTP_2);
        end.drain.cancel();
        end.cut.cancel();
    };
    tokio::join!(serving, story);
}
