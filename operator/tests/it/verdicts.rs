// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The table of good and bad resources, put to a real API server.

use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use stowage_crds::{Kind, check, crd};

use crate::support::scene::Scene;
use crate::table::{Verdict, messages, verdicts};

fn api(scene: &Scene, kind: Kind) -> Api<DynamicObject> {
    let names = crd(kind).spec.names;
    let mut resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("stowage.dev", "v1alpha1", kind.as_str()));
    resource.plural = names.plural;
    Api::namespaced_with(scene.client.clone(), &scene.namespace, &resource)
}

/// The server looks at the schema and its rules first: what admission refuses has passed them. Who may is tested in
/// `admission`.
fn passed(error: &kube::Error) -> bool {
    error.to_string().contains("ValidatingAdmissionPolicy 'stowage-promotions'")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_gives_the_verdicts_of_the_table_and_says_why() {
    let Some(scene) = Scene::set().await else { return };
    let write = PatchParams::apply("test").validation_strict();
    let look = PatchParams { dry_run: true, ..write.clone() };
    for Verdict { claim, kind, before, object, refused } in verdicts() {
        let api = api(&scene, kind);
        let name = object["metadata"]["name"].as_str().unwrap();
        if let Some(before) = &before {
            match api.patch(name, &write, &Patch::Apply(before)).await {
                Err(error) if passed(&error) => continue,
                written => drop(written.unwrap()),
            }
        }
        let refusal =
            api.patch(name, &look, &Patch::Apply(&object)).await.err().filter(|error| !passed(error));
        assert_eq!(refusal.is_some(), refused.is_some(), "{claim}: {refusal:?}");
        if let Some(error) = refusal {
            // What a rule says here it says there. Structure is put into words by each in its own way.
            let violations = check::resource(kind, before.as_ref(), &object).unwrap_err();
            let ours = violations.iter().map(|violation| violation.message.as_str());
            let known = messages(kind);
            let mut rules = ours.filter(|message| known.contains(*message));
            assert!(rules.all(|message| error.to_string().contains(message)), "{claim}: {error}");
        }
        if before.is_some() {
            api.delete(name, &DeleteParams::default()).await.unwrap();
        }
    }
}
