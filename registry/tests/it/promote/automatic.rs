// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Promotions that nobody asks for.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stowage_oci::Digest;
use stowage_registry::domain::{Ending, PromotionRule, Since, Trigger, Wanted};
use stowage_registry::meta::faulty::{Effect, Occasion};
use stowage_registry::ops::tasks::Tasks;
use stowage_registry::signatures::Keys;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{gate, listening, ready, rule};
use crate::rebuild::stand::{Replica, Stand};
use crate::signatures::cosign::{At, Form, Signer};

on_both!(
    n5_what_is_pushed_goes_from_dev_to_prod_by_itself_and_nothing_else_does,
    n5_what_waits_goes_on_when_its_signature_comes,
    n5_what_was_there_before_the_policy_is_found_and_promoted_once,
    n5_a_tag_that_moves_is_promoted_as_it_is_then,
    n5_a_promotion_that_was_not_noticed_is_found,
    n5_what_comes_back_from_the_trash_is_promoted_without_a_search,
    n5_what_waits_longer_than_its_deadline_has_ended,
    n5_what_waits_is_found_again_when_the_database_is_lost,
    n5_two_replicas_promote_once,
);

/// Promotes in the background until it is dropped.
struct Promoting {
    told: Arc<Mutex<Vec<Ending>>>,
    _task: AbortOnDropHandle<()>,
}

impl Promoting {
    fn by(replica: &Replica, rules: Vec<PromotionRule>) -> Self {
        let domain = replica.registry.domain().clone();
        domain.set_promotions(rules);
        let told = Arc::<Mutex<Vec<Ending>>>::default();
        let endings = Arc::clone(&told);
        let task = Tasks::new().spawn(async move {
            let note = |_: &_, promotion: &stowage_registry::domain::Promotion| {
                endings.lock().unwrap().push(promotion.ending);
            };
            domain.keep_promoting(note, &CancellationToken::new()).await;
        });
        Self { told, _task: AbortOnDropHandle::new(task) }
    }

    /// How promotions have ended, once there are so many.
    async fn ended(&self, count: usize) -> Vec<Ending> {
        until("so many promotions end", async || {
            Some(self.told.lock().unwrap().clone()).filter(|told| told.len() >= count)
        })
        .await
    }
}

/// What is true in the end. Waits a minute for it.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn automatic(gates: Vec<stowage_registry::domain::Gate>) -> PromotionRule {
    PromotionRule { trigger: Trigger::Automatic, ..rule(gates) }
}

fn signed(keys: Keys) -> PromotionRule {
    automatic(vec![gate("signed", Wanted::Signature { keys, required: 1 })])
}

async fn becomes(replica: &Replica, repository: &str, tag: &str, digest: Digest) {
    until(&format!("{repository}:{tag} is {digest}"), async || {
        replica.api.resolve(repository, tag).await.filter(|found| *found == digest)
    })
    .await;
}

async fn waiting(stand: &Stand) -> Vec<String> {
    let all = "SELECT policy FROM promotion_candidates";
    stand.texts(all, all).await
}

/// Once what was noticed is in the table.
async fn until_waiting(stand: &Stand, count: usize) {
    until(&format!("{count} wait"), async || (waiting(stand).await.len() == count).then_some(())).await;
}

async fn n5_what_is_pushed_goes_from_dev_to_prod_by_itself_and_nothing_else_does(stand: Stand) {
    let replica = ready(&stand).await;
    let to_staging = PromotionRule {
        name: "to-staging".to_owned(),
        from: vec!["dev/**".parse().unwrap()],
        to: "staging/{path}".parse().unwrap(),
        ..automatic(Vec::new())
    };
    let came = gate("order", Wanted::PromotedBy("to-staging".to_owned()));
    let promoting = Promoting::by(&replica, vec![to_staging, automatic(vec![came])]);
    let image = replica.api.push_image("dev/app", Some("1.0"), "x").await;
    becomes(&replica, "prod/app", "1.0", image).await;
    assert_eq!(promoting.ended(2).await, [Ending::Promoted, Ending::Promoted]);
    replica.api.push_image("staging/other", Some("1.0"), "pushed by hand").await;
    until_waiting(&stand, 1).await;
    assert_eq!(replica.api.resolve("prod/other", "1.0").await, None, "it did not come by the other policy");
    drop(promoting);
    replica.stop().await;
}

async fn n5_what_waits_goes_on_when_its_signature_comes(stand: Stand) {
    let replica = ready(&stand).await;
    let address = listening(&replica).await;
    let release = Signer::new("release");
    let promoting = Promoting::by(&replica, vec![signed(release.only())]);
    let images = [
        replica.api.push_image("staging/app", Some("1.0"), "one").await,
        replica.api.push_image("staging/app", Some("2.0"), "two").await,
    ];
    until_waiting(&stand, 2).await;
    tokio::task::spawn_blocking(move || {
        let at = || At { address: &address, repository: "staging/app", login: None };
        release.sign(at(), &images[0], Form::Bundle);
        release.sign(at(), &images[1], Form::Tag);
    })
    .await
    .unwrap();
    becomes(&replica, "prod/app", "1.0", images[0]).await;
    becomes(&replica, "prod/app", "2.0", images[1]).await;
    drop(promoting);
    replica.stop().await;
}

async fn n5_what_was_there_before_the_policy_is_found_and_promoted_once(stand: Stand) {
    let replica = ready(&stand).await;
    let image = replica.api.push_image("staging/app", Some("1.0"), "x").await;
    let promoting = Promoting::by(&replica, vec![automatic(Vec::new())]);
    becomes(&replica, "prod/app", "1.0", image).await;
    promoting.ended(1).await;
    replica.api.delete("/v2/prod/app/manifests/1.0").await;
    let edited = PromotionRule { hash: "sha256:1".to_owned(), ..automatic(Vec::new()) };
    replica.registry.domain().set_promotions(vec![edited]);
    let later = replica.api.push_image("staging/app", Some("2.0"), "later").await;
    becomes(&replica, "prod/app", "2.0", later).await;
    assert_eq!(replica.api.resolve("prod/app", "1.0").await, None, "it was promoted, and deleted");
    until_waiting(&stand, 0).await;
    drop(promoting);
    replica.stop().await;
}

async fn n5_a_tag_that_moves_is_promoted_as_it_is_then(stand: Stand) {
    let replica = ready(&stand).await;
    let soaked = gate("soaked", Wanted::MinimumAge { age: Duration::from_secs(3), since: Since::Pushed });
    let promoting = Promoting::by(&replica, vec![automatic(vec![soaked])]);
    let old = replica.api.push_image("staging/app", Some("1.0"), "old").await;
    until_waiting(&stand, 1).await;
    let new = replica.api.push_image("staging/app", Some("1.0"), "new").await;
    becomes(&replica, "prod/app", "1.0", new).await;
    assert_eq!(promoting.ended(1).await, [Ending::Promoted], "{old} was not promoted");
    drop(promoting);
    replica.stop().await;
}

async fn n5_a_promotion_that_was_not_noticed_is_found(stand: Stand) {
    let replica = ready(&stand).await;
    let promoting = Promoting::by(&replica, vec![automatic(Vec::new())]);
    replica.database.inject("await_promotion", Occasion::First(1), Effect::Fail);
    let image = replica.api.push_image("staging/app", Some("1.0"), "x").await;
    becomes(&replica, "prod/app", "1.0", image).await;
    drop(promoting);
    replica.stop().await;
}

async fn n5_what_comes_back_from_the_trash_is_promoted_without_a_search(stand: Stand) {
    let replica = ready(&stand).await;
    let image = replica.api.push_image("staging/app", Some("1.0"), "x").await;
    replica.api.delete("/v2/staging/app/manifests/1.0").await;
    let promoting = Promoting::by(&replica, vec![automatic(Vec::new())]);
    let calls = |step| replica.database.calls(step);
    until("the first search has ended", async || (calls("next_candidate") > 0).then_some(())).await;
    let searches = calls("unpromoted");
    assert!(searches > 0, "it has looked");
    replica.registry.domain().restore(&"staging/app:1.0".parse().unwrap(), false).await.unwrap();
    becomes(&replica, "prod/app", "1.0", image).await;
    assert_eq!((promoting.ended(1).await, calls("unpromoted")), (vec![Ending::Promoted], searches));
    drop(promoting);
    replica.stop().await;
}

async fn n5_what_waits_longer_than_its_deadline_has_ended(stand: Stand) {
    let replica = ready(&stand).await;
    let keys = Signer::new("release").only();
    let rule = PromotionRule { deadline: Duration::from_secs(1), ..signed(keys) };
    let promoting = Promoting::by(&replica, vec![rule]);
    replica.api.push_image("staging/app", Some("1.0"), "x").await;
    assert_eq!(promoting.ended(1).await, [Ending::Expired]);
    until_waiting(&stand, 0).await;
    let all = "SELECT outcome FROM promotions";
    assert_eq!(stand.texts(all, all).await, ["Expired"]);
    drop(promoting);
    replica.stop().await;
}

async fn n5_what_waits_is_found_again_when_the_database_is_lost(mut stand: Stand) {
    let keys = Signer::new("release").only();
    let replica = ready(&stand).await;
    let promoting = Promoting::by(&replica, vec![signed(keys.clone())]);
    let image = replica.api.push_image("staging/app", Some("1.0"), "x").await;
    until_waiting(&stand, 1).await;
    drop(promoting);
    replica.stop().await;
    stand.lose().await;
    stand.adopt().await;
    assert!(waiting(&stand).await.is_empty());
    let replica = ready(&stand).await;
    let promoting = Promoting::by(&replica, vec![signed(keys)]);
    until_waiting(&stand, 1).await;
    let edited = PromotionRule { hash: "sha256:1".to_owned(), ..automatic(Vec::new()) };
    replica.registry.domain().set_promotions(vec![edited]);
    becomes(&replica, "prod/app", "1.0", image).await;
    drop(promoting);
    replica.stop().await;
}

async fn n5_two_replicas_promote_once(stand: Stand) {
    let replica = ready(&stand).await;
    let (one, other) = (
        Promoting::by(&replica, vec![automatic(Vec::new())]),
        Promoting::by(&replica, vec![automatic(Vec::new())]),
    );
    for number in 0..10 {
        let tag = format!("1.{number}");
        let image = replica.api.push_image("staging/app", Some(&tag), &tag).await;
        becomes(&replica, "prod/app", &tag, image).await;
    }
    let all = "SELECT outcome FROM promotions";
    assert_eq!(stand.texts(all, all).await.len(), 10);
    drop((one, other));
    replica.stop().await;
}
