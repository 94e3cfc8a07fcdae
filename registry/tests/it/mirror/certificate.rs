// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A mirror over TLS, and what becomes of it when the certificate of its upstream expires.

use std::fs;
use std::time::Duration;

use stowage_registry::ops::clock;
use stowage_registry::upstream::Kind;

use super::blobs::{sha256, stored};
use super::site::{Site, get};
use crate::purge::Place;
use crate::support::program::{Program, ask, serve, until};
use crate::upstream::front::{Front, Notary};
use crate::upstream::servers::{distribution, push, secret};

const TAG: &str = "/v2/hub/team/app/manifests/1.0";

super::both_stores!(
    w116_w872_o3_past_the_end_of_the_certificate_what_is_here_is_answered_and_the_rest_says_why,
);

async fn w116_w872_o3_past_the_end_of_the_certificate_what_is_here_is_answered_and_the_rest_says_why(
    mut site: Site,
) {
    let notary = Notary::new();
    let front = Front::to(&site.line.address, &notary.valid()).await;
    let files = secret(&[("ca.crt", &notary.pem())]);
    site.set(|mirror| {
        mirror.upstream.origin = front.origin().parse().unwrap();
        mirror.upstream.authorities = Some(files.path().join("ca.crt"));
        mirror.cache.tag_ttl = Duration::from_millis(1);
    });
    let image = push(site.upstream.address(), "", "team/app", "1.0", b"layer");
    let blob = format!("/v2/hub/team/app/blobs/{}", image.layer_digest);
    assert_eq!((get(&site.one, TAG).await.status, get(&site.one, &blob).await.status), (200, 200));
    stored(&site.one, &blob).await;
    site.line.asked();

    front.show(&notary.expired());
    let replica = site.newcomer().await;
    let stale = get(&replica, TAG).await;
    assert_eq!((stale.status, &stale.body[..]), (200, &image.manifest[..]));
    assert!(stale.header("warning").starts_with("110 - "), "{stale:?}");
    for here in [&blob, &format!("/v2/hub/team/app/manifests/{}", image.digest)] {
        let answer = get(&replica, here).await;
        assert_eq!((answer.status, answer.header("warning")), (200, ""), "{here}");
    }
    for missing in ["manifests/2.0".to_owned(), format!("blobs/{}", sha256(b"{}"))] {
        let refused = get(&replica, &format!("/v2/hub/team/app/{missing}")).await;
        let text = String::from_utf8_lossy(&refused.body);
        assert_eq!(refused.status, 503, "{missing}: {text}");
        assert!(text.contains("\"UNAVAILABLE\"") && text.contains("expired"), "{missing}: {text}");
        assert_ne!(refused.header("retry-after"), "", "{missing}");
    }
    let trouble = replica.mirrors().all().next().unwrap().trouble().unwrap();
    assert_eq!(trouble.kind, Kind::CertificateInvalid, "{trouble}");
    assert_eq!(site.line.asked(), [""; 0], "nothing is said to whom we do not believe");

    front.show(&notary.valid());
    let replica = site.newcomer().await;
    assert_eq!(get(&replica, TAG).await.header("warning"), "");
    assert!(replica.mirrors().all().next().unwrap().trouble().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p41_that_the_certificate_of_an_upstream_has_expired_is_told_until_it_has_another() {
    let upstream = distribution(&serde_json::Value::Null, &[]).await;
    push(upstream.address(), "", "team/app", "1.0", b"layer");
    let notary = Notary::new();
    let front = Front::to(upstream.address(), &notary.expired()).await;
    let place = Place::embedded();
    place.write("secrets/hub-ca/ca.crt", &notary.pem());
    let file = place.path().join("config/registry.yaml");
    let mirror = format!(
        "\n---\napiVersion: stowage.dev/v1alpha1\nkind: Mirror\nmetadata: {{name: hub}}\nspec:\n  \
         registryRef: {{name: main}}\n  path: hub\n  mode: PullThrough\n  upstream: {{url: \"{}\", \
         network: Any, caSecretRef: {{name: hub-ca, key: ca.crt}}}}\n  cache: {{negativeTTL: 0s}}\n",
        front.origin()
    );
    fs::write(&file, fs::read_to_string(&file).unwrap() + &mirror).unwrap();
    let program = Program::start(&mut serve(place.path())).await;
    let told = || {
        let (_, _, body) = ask(program.address("ops_listen"), "GET", "/config", "", b"");
        let report: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let resources = report["resources"].as_array().unwrap().clone();
        resources.into_iter().find(|resource| resource["kind"] == "Mirror")
    };
    let refused = program.ask("GET", TAG, "", b"");
    assert_eq!(refused.0, 503);
    let mirror =
        until("it is told", || told().filter(|mirror| mirror["reason"] == "CertificateInvalid")).await;
    assert!(mirror["message"].as_str().unwrap().contains("expired at "), "{mirror}");
    let told_in = clock::seconds();
    until("the next second", || (clock::seconds() > told_in).then_some(())).await;
    assert_eq!(program.ask("GET", "/v2/hub/team/app/manifests/2.0", "", b"").0, 503);
    let later =
        until("it is told", || told().filter(|mirror| mirror["reason"] == "CertificateInvalid")).await;
    assert_eq!(later["message"], mirror["message"], "else a condition would be written again and again");

    front.show(&notary.valid());
    until("it is in order again", || {
        let is_told = told().is_some_and(|mirror| mirror["reason"] == "CertificateInvalid");
        (program.ask("GET", TAG, "", b"").0 == 200 && !is_told).then_some(())
    })
    .await;
}
