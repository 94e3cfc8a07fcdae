// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! TLS, with authorities and certificates of all sorts; proxies; and addresses that must not be connected to.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use stowage_oci::Reference;
use stowage_registry::upstream::{Error, Kind, Network, Refusal, Settings, Span, Upstream, Verification};

use super::content::{layer, read};
use super::front::{Front, Notary};
use super::servers::{
    Image, Scripted, Stowage, answer, challenge, distribution, impatient, push, secret, settings, tinyproxy,
};
use crate::support::certificates::Authority;

const UNAVAILABLE: Kind = Kind::Unavailable { retry_after: None };

async fn pull(settings: &Settings) -> Result<Vec<u8>, Error> {
    let reference = Reference::Tag("1".parse().unwrap());
    let found = Upstream::new(settings.clone()).manifest(&"app".parse().unwrap(), &reference).await?;
    Ok(found.value.bytes.to_vec())
}

/// A Stowage with a certificate of `authority`, and with authorities of clients if there are some.
pub(crate) async fn over_tls(authority: &Authority, clients: Option<&Authority>) -> (Stowage, Image) {
    let mut server = Stowage::open().await;
    let image = push(&server.address(), "", "app", "1", &layer());
    let issued = authority.issue(&["127.0.0.1", "localhost"]);
    server.place.write("secrets/tls/tls.crt", &issued.chain);
    server.place.write("secrets/tls/tls.key", &issued.key);
    let mut lines = "  tls:\n    secretRef: {name: tls}\n".to_owned();
    if let Some(clients) = clients {
        server.place.write("secrets/clients/ca.crt", &clients.pem());
        lines += "    clientCASecretRef: {name: clients, key: ca.crt}\n";
    }
    server.restart("https", &lines).await;
    (server, image)
}

fn trusting(server: &Stowage, authorities: &Path) -> Settings {
    let origin = format!("https://{}", server.address());
    Settings { authorities: Some(authorities.to_owned()), ..settings(&origin) }
}

#[tokio::test]
async fn o3_a_private_authority_is_believed_and_others_are_not() {
    let authority = Authority::new("theirs");
    let (server, image) = over_tls(&authority, None).await;
    let files = secret(&[("ca.crt", &authority.pem()), ("other.crt", &Authority::new("other").pem())]);
    let believing = trusting(&server, &files.path().join("ca.crt"));
    assert_eq!(pull(&believing,).await.unwrap(), image.manifest);
    assert_eq!(
        read(&Upstream::new(believing.clone()), "app", &image.layer_digest, Span::default()).await,
        image.layer
    );
    let other = Settings { authorities: Some(files.path().join("other.crt")), ..believing.clone() };
    let system = Settings { authorities: None, ..believing.clone() };
    for wrong in [&other, &system] {
        let error = pull(wrong).await.unwrap_err();
        assert_eq!(error.kind, Kind::CertificateInvalid, "{error}");
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    }
    let missing = Settings { authorities: Some(files.path().join("none")), ..believing.clone() };
    assert_eq!(pull(&missing).await.unwrap_err().kind, Kind::CertificateInvalid);
    let skipping = Settings { verification: Verification::Skip, ..system };
    assert_eq!(pull(&skipping).await.unwrap(), image.manifest);
}

#[tokio::test]
async fn o3_a_certificate_of_another_name_is_not_believed() {
    let authority = Authority::new("theirs");
    let (server, _) = over_tls(&authority, None).await;
    let issued = authority.issue(&["hub.example.com"]);
    server.place.write("secrets/tls/tls.crt", &issued.chain);
    server.place.write("secrets/tls/tls.key", &issued.key);
    let mut server = server;
    server.restart("https", "  tls:\n    secretRef: {name: tls}\n").await;
    let files = secret(&[("ca.crt", &authority.pem())]);
    let error = pull(&trusting(&server, &files.path().join("ca.crt"))).await.unwrap_err();
    assert_eq!(error.kind, Kind::CertificateInvalid, "{error}");
}

#[tokio::test]
async fn o3_a_certificate_that_has_expired_is_not_believed_and_the_next_one_is() {
    let server = distribution(&serde_json::Value::Null, &[]).await;
    let image = push(server.address(), "", "app", "1", b"layer");
    let notary = Notary::new();
    let front = Front::to(server.address(), &notary.expired()).await;
    let files = secret(&[("ca.crt", &notary.pem())]);
    let believing = Settings { authorities: Some(files.path().join("ca.crt")), ..settings(&front.origin()) };
    let error = pull(&believing).await.unwrap_err();
    assert_eq!(error.kind, Kind::CertificateInvalid, "{error}");
    assert!(error.to_string().contains("expired") && !error.is_passing(), "{error}");
    let skipping = Settings { verification: Verification::Skip, ..believing.clone() };
    assert_eq!(pull(&skipping).await.unwrap(), image.manifest);
    front.show(&notary.valid());
    assert_eq!(pull(&believing).await.unwrap(), image.manifest);
}

#[tokio::test]
async fn o3_a_registry_that_asks_for_a_client_certificate_gets_the_one_on_disk_now() {
    let (authority, clients) = (Authority::new("theirs"), Authority::new("of clients"));
    let (server, image) = over_tls(&authority, Some(&clients)).await;
    let (us, stranger) = (clients.issue(&["us"]), Authority::new("other").issue(&["us"]));
    let files = secret(&[("ca.crt", &authority.pem())]);
    let nobody = trusting(&server, &files.path().join("ca.crt"));
    let error = pull(&nobody).await.unwrap_err();
    assert_eq!(error.kind, Kind::Refused(Refusal::Credential), "{error}");

    let own = secret(&[("tls.crt", &stranger.chain), ("tls.key", &stranger.key)]);
    let known = Settings { client_certificate: Some(own.path().to_owned()), ..nobody };
    let upstream = Upstream::new(known);
    let reference = Reference::Tag("1".parse().unwrap());
    let name = "app".parse().unwrap();
    let error = upstream.manifest(&name, &reference).await.unwrap_err();
    assert_eq!(error.kind, Kind::Refused(Refusal::Credential), "{error}");
    std::fs::write(own.path().join("tls.crt"), &us.chain).unwrap();
    let half = upstream.manifest(&name, &reference).await.unwrap_err();
    assert_eq!(half.kind, Kind::CertificateInvalid, "{half}");
    std::fs::write(own.path().join("tls.key"), &us.key).unwrap();
    assert_eq!(upstream.manifest(&name, &reference).await.unwrap().value.bytes, image.manifest);
}

#[tokio::test]
async fn what_speaks_no_tls_or_no_http_is_no_registry() {
    let authority = Authority::new("theirs");
    let (tls, _) = over_tls(&authority, None).await;
    let plain = Stowage::open().await;
    let error = pull(&settings(&format!("https://{}", plain.address()))).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotARegistry, "{error}");
    let error = pull(&settings(&format!("http://{}", tls.address()))).await.unwrap_err();
    assert!(matches!(error.kind, Kind::NotARegistry | Kind::Unavailable { .. }), "{error}");
    let other = Scripted::answering(|_| b"SSH-2.0-none\r\n".to_vec());
    let error = pull(&settings(&other.origin())).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotARegistry, "{error}");
}

#[tokio::test]
async fn o3_a_proxy_is_gone_through_with_and_without_tls() {
    let authority = Authority::new("theirs");
    let (tls, image) = over_tls(&authority, None).await;
    let plain = distribution(&serde_json::Value::Null, &[]).await;
    push(plain.address(), "", "app", "1", &layer());
    let proxy = tinyproxy(Some(("us", "pass"))).await;
    let url = |login: &str| format!("http://{login}{}\n", proxy.address());
    let files = secret(&[("ca.crt", &authority.pem()), ("proxy", &url("us:pass@"))]);
    let path = files.path().join("proxy");
    let through = |settings: Settings| Settings { proxy: Some(path.clone()), ..settings };
    let over_tls = through(trusting(&tls, &files.path().join("ca.crt")));
    let over_tcp = through(settings(&plain.origin()));
    for settings in [&over_tls, &over_tcp] {
        assert_eq!(pull(settings).await.unwrap(), image.manifest);
        assert_eq!(
            read(&Upstream::new(settings.clone()), "app", &image.layer_digest, Span::default()).await,
            image.layer
        );
    }
    for login in ["", "us:wr0ng@"] {
        std::fs::write(&path, url(login)).unwrap();
        for settings in [&over_tls, &over_tcp] {
            let error = pull(settings).await.unwrap_err();
            assert_eq!(error.kind, UNAVAILABLE, "{error}");
            assert!(!error.to_string().contains("wr0ng"), "{error}");
        }
    }
    std::fs::write(&path, url("us:pass@")).unwrap();
    drop(proxy);
    assert_eq!(pull(&over_tcp).await.unwrap_err().kind, UNAVAILABLE);
}

#[tokio::test]
async fn w728_an_address_that_is_not_public_is_not_connected_to() {
    let server = Scripted::answering(|_| answer(200, "", "{}"));
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1"] {
        let mut settings = impatient(&format!("http://{host}:{}", server.port()));
        settings.network = Network::Public;
        let error = pull(&settings).await.unwrap_err();
        assert_eq!(error.kind, UNAVAILABLE, "{error}");
        assert!(error.to_string().contains("not on the public internet"), "{error}");
    }
    assert!(server.asked().is_empty());
}

/// A proxy behind which every name is this server.
fn everywhere(address: &str) -> Scripted {
    let address = address.to_owned();
    Scripted::doing(move |asked, client| {
        assert!(asked.line().starts_with("CONNECT hub.example.com:80"), "{}", asked.head);
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let mut server = TcpStream::connect(&address).unwrap();
        let mut buffer = vec![0; 16 << 10];
        let read = client.read(&mut buffer).unwrap();
        server.write_all(&buffer[..read]).unwrap();
        // The server closes after its answer.
        drop(std::io::copy(&mut server, client));
    })
}

#[tokio::test]
async fn w728_w787_a_redirect_or_a_realm_does_not_lead_to_an_address_that_is_not_public() {
    let inside = Scripted::answering(|_| answer(200, "", r#"{"token":"t"}"#));
    let port = inside.port().to_owned();
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "169.254.169.254", "2130706433"] {
        let target = format!("http://{host}:{port}/token");
        let redirecting = {
            let target = target.clone();
            Scripted::answering(move |_| answer(307, &format!("Location: {target}\r\n"), ""))
        };
        let asking = Scripted::answering(move |_| challenge(&target, "repository:app:pull"));
        for server in [redirecting, asking] {
            let proxy = everywhere(&server.address);
            let files = secret(&[("proxy", &proxy.origin())]);
            let mut settings = impatient("http://hub.example.com");
            settings.network = Network::Public;
            settings.proxy = Some(files.path().join("proxy"));
            let error = pull(&settings).await.unwrap_err();
            assert_eq!(error.kind, UNAVAILABLE, "{error}");
            assert!(error.to_string().contains("not on the public internet"), "{error}");
            assert_eq!(server.asked().len(), 1);
        }
    }
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn w787_a_redirect_does_not_lead_out_of_tls() {
    let inside = Scripted::answering(|_| answer(200, "", "{}"));
    let target = inside.origin();
    let front = Scripted::answering(move |_| answer(307, &format!("Location: {target}/x\r\n"), ""));
    let notary = Notary::new();
    let tls = Front::to(&front.address, &notary.valid()).await;
    let files = secret(&[("ca.crt", &notary.pem())]);
    let mut settings = settings(&tls.origin());
    settings.authorities = Some(files.path().join("ca.crt"));
    let error = pull(&settings).await.unwrap_err();
    assert_eq!(error.kind, Kind::WrongContent, "{error}");
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn names_that_do_not_resolve_and_ports_that_are_closed_pass() {
    let closed = format!("http://127.0.0.1:{}", crate::support::program::free_port());
    for origin in [closed.as_str(), "http://hub.invalid"] {
        let mut settings = settings(origin);
        settings.patience.answer = Duration::from_secs(20);
        let error = pull(&settings).await.unwrap_err();
        assert!(error.is_passing() && error.kind == UNAVAILABLE, "{error}");
    }
}
