// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A Registry through its life.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use stowage_crds::{
    AccessPolicy, Registry,
    conditions::{ConditionType, Reason, is_true},
};
use stowage_operator::objects::Kind;

use crate::support::kubelet::Behaviour;
use crate::support::scene::{Scene, filesystem_registry, of, shared_registry, wait};

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_becomes_ready_and_then_nothing_is_written() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(shared_registry(json!({}))).await;
    let registry = scene.ready().await;
    let status = registry.status.unwrap();
    assert_eq!(status.replica_summary.as_deref(), Some("2/2"));
    assert_eq!(status.registry_id.as_deref(), Some("6f1c0000-0000-4000-8000-000000000000"));
    assert_eq!(status.config_resources, Some(1));
    scene.assert_quiet(&operator, Duration::from_secs(40)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_rolls_the_deployment_and_drift_is_put_back() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    scene.patch(json!({ "spec": { "replicas": 3, "image": { "tag": "0.1.1" } } })).await;
    scene.ready().await;
    let deployment = scene.typed::<Deployment>().get("main").await.unwrap();
    let spec = deployment.spec.unwrap();
    assert_eq!(spec.replicas, Some(3));
    let image = spec.template.spec.unwrap().containers[0].image.clone();
    assert_eq!(image.as_deref(), Some("registry.test/stowage/registry:0.1.1"));
    let jobs = scene.typed::<Job>().list(&ListParams::default()).await.unwrap();
    assert_eq!(jobs.items.len(), 1, "the migration to the old image was pruned");

    let owned = [(Kind::Service, "main"), (Kind::ConfigMap, "main-config"), (Kind::NetworkPolicy, "main")];
    for (kind, name) in owned {
        scene.delete(kind, name).await;
        scene.until_object(kind, name, |object| object.is_some()).await;
    }
    scene
        .merge(Kind::Service, "main", json!({ "spec": { "selector": { "app.kubernetes.io/name": "x" } } }))
        .await;
    scene
        .until_object(Kind::Service, "main", |service| {
            service.unwrap().data["spec"]["selector"]["app.kubernetes.io/name"] == "stowage"
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_object_of_our_name_is_not_taken_over() {
    let Some(scene) = Scene::set().await else { return };
    let foreign: ConfigMap =
        serde_json::from_value(json!({ "metadata": { "name": "main-config" }, "data": { "a": "b" } }))
            .unwrap();
    scene.typed::<ConfigMap>().create(&PostParams::default(), &foreign).await.unwrap();
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    let registry = scene.until_reason(ConditionType::Stalled, Reason::NameTaken).await;
    assert!(!is_true(of(&registry), ConditionType::Ready));
    let config = scene.typed::<ConfigMap>().get("main-config").await.unwrap();
    assert_eq!(config.data, foreign.data);

    scene.delete(Kind::ConfigMap, "main-config").await;
    scene
        .patch(json!({ "metadata": { "annotations": { "stowage.dev/reconcile-requested-at": "now" } } }))
        .await;
    let registry = scene.ready().await;
    assert_eq!(registry.status.unwrap().last_handled_reconcile_at.as_deref(), Some("now"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_registry_is_left_alone_and_its_status_lives_on() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    scene.patch(json!({ "spec": { "suspend": true, "replicas": 2 } })).await;
    scene.until_reason(ConditionType::Suspended, Reason::Suspended).await;
    scene.delete(Kind::NetworkPolicy, "main").await;
    scene.kubelet.behaviour.lock().unwrap().database = Some("Unreachable".into());
    scene.until_reason(ConditionType::DatabaseReachable, Reason::DatabaseUnreachable).await;
    assert!(scene.api(Kind::NetworkPolicy).get_opt("main").await.unwrap().is_none());
    let deployment = scene.typed::<Deployment>().get("main").await.unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(1));

    scene.kubelet.behaviour.lock().unwrap().database = None;
    scene.patch(json!({ "spec": { "suspend": false } })).await;
    let registry = scene.ready().await;
    assert_eq!(registry.status.unwrap().replica_summary.as_deref(), Some("2/2"));
    assert!(scene.api(Kind::NetworkPolicy).get_opt("main").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_migration_keeps_the_old_image_and_an_edit_tries_again() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    scene.kubelet.behaviour.lock().unwrap().job_exit = 2;
    scene.patch(json!({ "spec": { "image": { "tag": "0.2.0" } } })).await;
    scene.until_reason(ConditionType::Stalled, Reason::MigrationFailed).await;
    assert_eq!(image(&scene).await, "registry.test/stowage/registry:0.1.0");

    scene.kubelet.behaviour.lock().unwrap().job_exit = 0;
    scene.patch(json!({ "spec": { "limits": { "maxConcurrentUploads": 8 } } })).await;
    scene.ready().await;
    assert_eq!(image(&scene).await, "registry.test/stowage/registry:0.2.0");
    assert!(scene.events().await.iter().any(|reason| reason == "MigrationFailed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_migration_waits_for_its_version_to_be_approved() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    let manual = json!({ "replicas": 1, "database": { "migrations": { "policy": "Manual" } } });
    scene.apply(shared_registry(manual)).await;
    scene.until_reason(ConditionType::Stalled, Reason::MigrationRequired).await;
    let approve = |version: &str| json!({ "metadata": { "annotations": { "stowage.dev/approve-migration": version } } });
    scene.patch(approve("0.0.9")).await;
    scene.until_reason(ConditionType::Stalled, Reason::MigrationRequired).await;
    assert!(scene.typed::<Job>().list(&ListParams::default()).await.unwrap().items.is_empty());
    scene.patch(approve("0.1.0")).await;
    scene.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_replicas_stay_seven_when_an_autoscaler_takes_over() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 7 }))).await;
    scene.ready().await;
    let mut autoscaled = shared_registry(json!({ "autoscaling": { "minReplicas": 3, "maxReplicas": 12 } }));
    scene.apply(autoscaled.clone()).await;
    scene.until_object(Kind::HorizontalPodAutoscaler, "main", |object| object.is_some()).await;
    let registry = scene.ready().await;
    assert_eq!(registry.status.unwrap().replica_summary.as_deref(), Some("7/7"));

    autoscaled["spec"].as_object_mut().unwrap().remove("autoscaling");
    autoscaled["spec"]["replicas"] = json!(2);
    scene.apply(autoscaled).await;
    scene.until_object(Kind::HorizontalPodAutoscaler, "main", |object| object.is_none()).await;
    let registry = scene.ready().await;
    assert_eq!(registry.status.unwrap().replica_summary.as_deref(), Some("2/2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_on_a_volume_has_one_replica_and_leaves_its_volume_behind() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(filesystem_registry(json!({}))).await;
    scene.ready().await;
    let deployment = scene.typed::<Deployment>().get("main").await.unwrap().spec.unwrap();
    assert_eq!(deployment.strategy.unwrap().type_.as_deref(), Some("Recreate"));
    assert_eq!(deployment.replicas, Some(1));
    assert!(scene.typed::<Job>().list(&ListParams::default()).await.unwrap().items.is_empty());
    scene.assert_quiet(&operator, Duration::from_secs(8)).await;

    scene.registries().delete("main", &DeleteParams::default()).await.unwrap();
    scene.until_object(Kind::Deployment, "main", |object| object.is_none()).await;
    scene.until_object(Kind::ConfigMap, "main-config", |object| object.is_none()).await;
    let claim = scene.typed::<PersistentVolumeClaim>().get("main-data").await.unwrap();
    assert!(claim.metadata.deletion_timestamp.is_none());

    scene.apply(filesystem_registry(json!({}))).await;
    scene.ready().await;
    let again = scene.typed::<PersistentVolumeClaim>().get("main-data").await.unwrap();
    assert_eq!(again.uid(), claim.uid(), "the volume serves the new Registry");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_takes_the_data_stops_the_replicas_and_purges_first() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1, "deletionPolicy": "Delete" }))).await;
    let registry = scene.ready().await;
    assert_eq!(registry.finalizers(), ["stowage.dev/data"]);
    scene.kubelet.behaviour.lock().unwrap().jobs_hang = true;
    scene.registries().delete("main", &DeleteParams::default()).await.unwrap();
    scene.until_object(Kind::Job, "main-purge", |object| object.is_some()).await;
    let pods = scene.replicas().await;
    assert_eq!(pods, 0, "no replica runs while the data are purged");
    let job = scene.typed::<Job>().get("main-purge").await.unwrap();
    let args = job.spec.unwrap().template.spec.unwrap().containers[0].args.clone().unwrap();
    assert_eq!(args.last().map(String::as_str), Some("6f1c0000-0000-4000-8000-000000000000"));

    scene.kubelet.behaviour.lock().unwrap().jobs_hang = false;
    assert!(wait(async || scene.registries().get_opt("main").await.unwrap().is_none()).await);
    assert!(scene.events().await.iter().any(|reason| reason == "DataPurged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_cannot_be_purged_are_left_when_it_is_said() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 0, "deletionPolicy": "Delete" }))).await;
    scene.until("it has its finalizer", |registry| !registry.finalizers().is_empty()).await;
    scene.registries().delete("main", &DeleteParams::default()).await.unwrap();
    scene.until_reason(ConditionType::Stalled, Reason::Refused).await;
    scene.patch(json!({ "metadata": { "annotations": { "stowage.dev/abandon-data": "true" } } })).await;
    assert!(wait(async || scene.registries().get_opt("main").await.unwrap().is_none()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_ready_when_replicas_have_it_and_another_one_does_not_touch_it() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(policy("team-a", &["team-a/**"])).await;
    scene.until_dependent::<AccessPolicy>("team-a", ConditionType::Ready, Reason::RegistryNotFound).await;
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    scene.until_dependent::<AccessPolicy>("team-a", ConditionType::Ready, Reason::Reconciled).await;
    let version = scene.version::<AccessPolicy>("team-a").await;
    scene.apply(policy("team-b", &["team-b/**"])).await;
    scene.until_dependent::<AccessPolicy>("team-b", ConditionType::Ready, Reason::Reconciled).await;
    assert_eq!(scene.version::<AccessPolicy>("team-a").await, version, "another policy does not touch it");
    let registry = scene.ready().await;
    assert_eq!(registry.status.unwrap().config_resources, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_refuse_their_configuration_stall_the_registry() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.kubelet.behaviour.lock().unwrap().replica_exit = Some(2);
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    let registry = scene.until_reason(ConditionType::Stalled, Reason::InvalidConfiguration).await;
    let available = stowage_crds::conditions::find(of(&registry), ConditionType::Available).unwrap();
    assert!(available.message.contains("spec.auth.htpasswd: no such file"), "{}", available.message);

    // What they miss may be the key that the operator makes.
    scene.typed::<Secret>().delete("main-token-key", &DeleteParams::default()).await.unwrap();
    assert!(wait(async || scene.typed::<Secret>().get_opt("main-token-key").await.unwrap().is_some()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_of_a_used_bucket_asks_for_a_rebuild_until_it_is_one_no_more() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    let says = |database: &str| scene.kubelet.behaviour.lock().unwrap().database = Some(database.to_owned());
    says("Empty");
    scene.apply(shared_registry(json!({ "replicas": 2 }))).await;
    let registry = scene.until_reason(ConditionType::Stalled, Reason::RebuildRequired).await;
    for (condition, reason) in [
        (ConditionType::DatabaseMigrated, Reason::RebuildRequired),
        (ConditionType::Ready, Reason::RebuildRequired),
        (ConditionType::DatabaseReachable, Reason::ProbeSucceeded),
        (ConditionType::Available, Reason::MinimumReplicasAvailable),
    ] {
        let found = stowage_crds::conditions::find(of(&registry), condition).unwrap();
        assert_eq!(found.reason, reason.as_str(), "{condition}");
        let advises = found.message.contains("stowage.dev/rebuild");
        assert_eq!(advises, reason == Reason::RebuildRequired, "{}", found.message);
    }
    scene.assert_quiet(&operator, Duration::from_secs(8)).await;
    says("Ok");
    let registry = scene.ready().await;
    assert!(!is_true(of(&registry), ConditionType::Stalled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_made_again_by_a_job_when_the_bucket_is_confirmed() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    let id = "7d444840-9dc0-41d1-b245-5ffdce74fad2";
    scene.patch(json!({ "metadata": { "annotations": { "stowage.dev/rebuild": id } } })).await;
    let looked_at = async |asked: &str| {
        let annotations = json!({ "stowage.dev/reconcile-requested-at": asked });
        scene.patch(json!({ "metadata": { "annotations": annotations } })).await;
        let is_handled = |registry: &Registry| {
            registry.status.as_ref().unwrap().last_handled_reconcile_at.as_deref() == Some(asked)
        };
        scene.until("it was looked at", is_handled).await;
    };
    let job = async || scene.typed::<Job>().get_opt("main-rebuild").await.unwrap();
    let behave = |change: &dyn Fn(&mut Behaviour)| change(&mut scene.kubelet.behaviour.lock().unwrap());
    looked_at("first").await;
    assert!(job().await.is_none(), "nothing is lost");

    behave(&|kubelet| {
        kubelet.jobs_hang = true;
        kubelet.database = Some("Empty".to_owned());
    });
    scene.until_reason(ConditionType::DatabaseMigrated, Reason::Rebuilding).await;
    let registry = scene.until_reason(ConditionType::Reconciling, Reason::Rebuilding).await;
    assert!(!is_true(of(&registry), ConditionType::Stalled));
    let pod = job().await.unwrap().spec.unwrap().template.spec.unwrap();
    let args = pod.containers[0].args.clone().unwrap();
    assert_eq!(args[0], "rebuild");
    assert!(args.ends_with(&["--adopt".to_owned(), format!("--confirm={id}")]), "{args:?}");

    // It is not empty any more, and not complete.
    behave(&|kubelet| kubelet.database = Some("Ok".to_owned()));
    looked_at("second").await;
    scene.until_reason(ConditionType::DatabaseMigrated, Reason::Rebuilding).await;
    behave(&|kubelet| kubelet.jobs_hang = false);
    scene.ready().await;
    assert!(wait(async || job().await.is_none()).await, "it is taken away when it is done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_refused_says_why() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    {
        let mut kubelet = scene.kubelet.behaviour.lock().unwrap();
        kubelet.database = Some("Empty".to_owned());
        kubelet.job_exit = 3;
        kubelet.job_message = Some(
            r#"{"command":"rebuild","result":"Refused","message":"the bucket is another's"}"#.to_owned(),
        );
    }
    scene.patch(json!({ "metadata": { "annotations": { "stowage.dev/rebuild": "somebody" } } })).await;
    let registry = scene.until_reason(ConditionType::Stalled, Reason::RebuildRequired).await;
    let says = |registry: &Registry| {
        let found = stowage_crds::conditions::find(of(registry), ConditionType::DatabaseMigrated).unwrap();
        found.message.contains("the bucket is another's")
    };
    assert!(says(&registry) || says(&scene.until("it says why", says).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_dies_and_an_operator_that_restarts_leave_a_registry_ready() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 2 }))).await;
    let before = scene.ready().await;
    let since = |registry: &Registry| {
        let ready = stowage_crds::conditions::find(of(registry), ConditionType::Ready).unwrap();
        (ready.status.clone(), ready.last_transition_time.clone())
    };
    scene.kubelet.behaviour.lock().unwrap().nothing_starts = true;
    let pods: kube::Api<Pod> = scene.typed();
    let labels = ListParams::default().labels("app.kubernetes.io/component=registry");
    let doomed = pods.list(&labels).await.unwrap().items[0].name_any();
    pods.delete(&doomed, &DeleteParams::default()).await.unwrap();
    scene
        .until("a replica is away", |registry| {
            registry.status.as_ref().unwrap().replica_summary.as_deref() != Some("2/2")
        })
        .await;
    drop(operator);
    let _operator = scene.operator();
    scene.kubelet.behaviour.lock().unwrap().nothing_starts = false;
    let after = scene
        .until("both are back", |registry| {
            registry.status.as_ref().unwrap().replica_summary.as_deref() == Some("2/2")
        })
        .await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(since(&after), since(&before));
    assert_eq!(since(&scene.ready().await), since(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_key_is_made_once_and_never_changed() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1 }))).await;
    scene.ready().await;
    let secret = scene.typed::<Secret>().get("main-token-key").await.unwrap();
    drop(operator);
    let _operator = scene.operator();
    scene.patch(json!({ "spec": { "replicas": 2 } })).await;
    scene.ready().await;
    let again = scene.typed::<Secret>().get("main-token-key").await.unwrap();
    assert_eq!(again.data, secret.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_takes_its_registry_and_leaves_the_data() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    scene.apply(shared_registry(json!({ "replicas": 1, "deletionPolicy": "Delete" }))).await;
    scene.ready().await;
    let namespaces: kube::Api<Namespace> = kube::Api::all(scene.client.clone());
    namespaces.delete(&scene.namespace, &DeleteParams::default()).await.unwrap();
    assert!(wait(async || scene.registries().get_opt("main").await.unwrap().is_none()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_registries_in_one_place_of_a_bucket_stall_the_younger() {
    let Some(scene) = Scene::set().await else { return };
    let _operator = scene.operator();
    let mut elder = shared_registry(json!({ "replicas": 0 }));
    elder["metadata"]["name"] = json!("elder");
    scene.apply(elder).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.apply(shared_registry(json!({ "replicas": 0 }))).await;
    scene.until_reason(ConditionType::Stalled, Reason::StorageConflict).await;
    let stalled = |registry: &Registry| is_true(of(registry), ConditionType::Stalled);
    assert!(!stalled(&scene.registries().get("elder").await.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_said_and_not_hammered() {
    let Some(scene) = Scene::set().await else { return };
    let operator = scene.operator();
    let toleration = json!({ "spec": { "tolerations": [{ "operator": "Nonsense" }] } });
    scene.apply(shared_registry(json!({ "replicas": 1, "template": toleration }))).await;
    let registry = scene.until_reason(ConditionType::Stalled, Reason::InvalidSpec).await;
    let stalled = stowage_crds::conditions::find(of(&registry), ConditionType::Stalled).unwrap();
    assert!(stalled.message.contains("Nonsense"), "{}", stalled.message);
    scene.assert_quiet(&operator, Duration::from_secs(5)).await;
}

fn policy(name: &str, repositories: &[&str]) -> serde_json::Value {
    json!({
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "AccessPolicy",
        "metadata": { "name": name },
        "spec": {
            "registryRef": { "name": "main" },
            "repositories": repositories,
            "subjects": [{ "user": "alice" }],
            "actions": ["Pull", "Push"],
        },
    })
}

async fn image(scene: &Scene) -> String {
    let deployment = scene.typed::<Deployment>().get("main").await.unwrap();
    deployment.spec.unwrap().template.spec.unwrap().containers[0].image.clone().unwrap()
}
