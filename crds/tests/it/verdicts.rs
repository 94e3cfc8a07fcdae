// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Two verdicts on every object of `verdicts.yaml`: ours, and that of the CEL rules in the shipped definitions.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use stowage_crds::{
    AccessPolicy, Kind, Mirror, Promotion, PromotionPolicy, Registry, RetentionPolicy, VirtualRepository,
    check, strict,
};

use crate::table::{messages, patched, schema, verdicts};

#[test]
fn our_check_gives_the_verdict_of_the_table() {
    for case in verdicts() {
        let found = check::resource(case.kind, case.before.as_ref(), &case.object);
        let paths = found.clone().err().unwrap_or_default();
        match &case.refused {
            None => assert!(found.is_ok(), "{}: {paths:?}", case.claim),
            Some(path) => assert!(
                paths.iter().any(|violation| violation.path.as_str() == path),
                "{}: expected a refusal at {path:?}, found {paths:?}",
                case.claim
            ),
        }
    }
}

#[test]
fn structure_and_cel_give_the_verdict_of_the_table() {
    for case in verdicts() {
        let admitted = strict::admit(case.kind, &case.object);
        let before = case.before.as_ref().map(|before| strict::admit(case.kind, before).object);
        // An API server does not ask the rules of an object whose structure is wrong.
        let refused =
            !admitted.violations.is_empty() || breaks_cel(case.kind, &admitted.object, before.as_ref());
        assert_eq!(refused, case.refused.is_some(), "{}", case.claim);
    }
}

fn breaks_cel(kind: Kind, object: &Value, before: Option<&Value>) -> bool {
    let schema = schema(kind);
    let Err(errors) = kube_cel::validate(&schema, object, before) else { return false };
    for error in errors.as_slice() {
        assert!(matches!(error.kind, kube_cel::ErrorKind::ValidationFailure), "{error:?}");
    }
    true
}

#[test]
fn every_rule_is_broken_by_an_object_of_the_table_and_by_no_good_one() {
    for kind in Kind::ALL {
        let mut unbroken = messages(kind);
        for case in verdicts().into_iter().filter(|case| case.kind == kind) {
            for violation in
                check::resource(kind, case.before.as_ref(), &case.object).err().unwrap_or_default()
            {
                unbroken.remove(&violation.message);
            }
        }
        assert!(unbroken.is_empty(), "no bad object for: {unbroken:?}");
    }
}

#[test]
fn what_is_accepted_is_read_into_its_type_and_stays_what_it_is() {
    for case in verdicts().into_iter().filter(|case| case.refused.is_none()) {
        let admitted = check::resource(case.kind, None, &case.object).unwrap();
        let read = match case.kind {
            Kind::Registry => through::<Registry>(&admitted),
            Kind::AccessPolicy => through::<AccessPolicy>(&admitted),
            Kind::Mirror => through::<Mirror>(&admitted),
            Kind::VirtualRepository => through::<VirtualRepository>(&admitted),
            Kind::PromotionPolicy => through::<PromotionPolicy>(&admitted),
            Kind::Promotion => through::<Promotion>(&admitted),
            Kind::RetentionPolicy => through::<RetentionPolicy>(&admitted),
        };
        // Empty lists and maps are not written again: they say what their absence says.
        assert_eq!(read, admitted, "{}", case.claim);
    }
}

fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
}

#[test]
fn an_unknown_field_is_named_with_its_path() {
    let mut object = verdicts().remove(0).object;
    object["spec"]["storage"]["s3"]["bukket"] = "blobs".into();
    object["spec"]["quotas"] = json!([]);
    object["extra"] = 1.into();
    object["metadata"]["labels"] = json!({ "any.example.com/label": "x" });
    object["status"] = json!({ "whatever": true });
    let unknown = strict::unknown_fields(Kind::Registry, &object);
    let unknown: Vec<_> = unknown.iter().map(ToString::to_string).collect();
    assert_eq!(unknown, ["extra", "spec.quotas", "spec.storage.s3.bukket"]);
    assert!(check::resource(Kind::Registry, None, &object).is_err());
}

#[test]
fn a_null_counts_as_absent() {
    let mut object = verdicts().remove(0).object;
    object["spec"]["mode"] = Value::Null;
    object["spec"]["auth"] = Value::Null;
    let admitted = check::resource(Kind::Registry, None, &object).unwrap();
    assert_eq!(admitted["spec"]["mode"], "ReadWrite");
    assert_eq!(admitted["spec"].get("auth"), None);
}

#[test]
fn resources_for_one_process_must_fit_together() {
    let registry = verdicts().remove(0).object;
    let policy = verdicts().into_iter().find(|case| case.kind == Kind::AccessPolicy).unwrap().object;
    assert_eq!(check::together(&[registry.clone(), policy.clone()]), []);

    let mut stray = policy.clone();
    stray["metadata"] = json!({ "name": "stray", "namespace": "elsewhere" });
    stray["spec"]["registryRef"]["name"] = "gone".into();
    let misfits = check::together(&[registry, policy.clone(), policy, stray]);
    let found: Vec<_> =
        misfits.iter().map(|misfit| (misfit.resource, misfit.violation.path.as_str())).collect();
    assert_eq!(found, [(2, "metadata.name"), (3, "metadata.namespace"), (3, "spec.registryRef.name")]);
}

fn of_kind(kind: Kind, name: &str, patch: &Value) -> Value {
    let mut object = verdicts().into_iter().find(|case| case.kind == kind).unwrap().object;
    object["metadata"]["name"] = name.into();
    patched(&object, patch)
}

#[test]
fn policies_for_one_process_must_name_each_other() {
    let registry = verdicts().remove(0).object;
    let by = |name: &str| json!([{ "name": "order", "promotedBy": { "policyRef": { "name": name } } }]);
    let policy = |name: &str, gates: Value| {
        of_kind(Kind::PromotionPolicy, name, &json!({ "spec": { "gates": gates } }))
    };
    let (first, second) = (
        policy("to-staging", json!([{ "name": "old", "minimumAge": { "duration": "1h" } }])),
        policy("to-prod", by("to-staging")),
    );
    assert_eq!(check::together(&[registry.clone(), first.clone(), second.clone()]), []);
    let automatic = |policy: &Value, from: &str, to: &str| {
        let spec =
            json!({ "trigger": "Automatic", "from": { "repositories": [from] }, "to": { "repository": to } });
        patched(policy, &json!({ "spec": spec }))
    };
    let circle = [
        registry.clone(),
        automatic(&first, "prod/**", "staging/{path}"),
        automatic(&second, "staging/**", "prod/{path}"),
    ];
    let misfits = check::together(&circle);
    let found: Vec<_> = misfits.iter().map(|misfit| misfit.violation.path.as_str()).collect();
    assert_eq!(found, ["spec.to"]);
    let misfits = check::together(&[registry, second]);
    let found: Vec<_> = misfits.iter().map(|misfit| misfit.violation.path.as_str()).collect();
    assert_eq!(found, ["spec.gates[0].promotedBy.policyRef.name"]);
}

#[test]
fn paths_and_members_for_one_process_must_fit_together() {
    let registry = verdicts().remove(0).object;
    let hub = of_kind(Kind::Mirror, "hub", &json!({ "spec": { "path": "hub" } }));
    let members = |name: &str| json!([{ "name": "hub", "mirrorRef": { "name": name } }]);
    let virtuals = |name: &str, path: &str, member: &str| {
        of_kind(
            Kind::VirtualRepository,
            name,
            &json!({ "spec": { "path": path, "members": members(member) } }),
        )
    };
    assert_eq!(check::together(&[registry.clone(), hub.clone(), virtuals("all", "all", "hub")]), []);

    let own = json!({ "spec": { "path": "own", "upstream": { "url": "https://registry.example.com" } } });
    let own = of_kind(Kind::Mirror, "own", &own);
    let resources = [registry, hub, virtuals("some", "hub/some", "hub"), virtuals("few", "few", "gone"), own];
    let misfits = check::together(&resources);
    let found: Vec<_> =
        misfits.iter().map(|misfit| (misfit.resource, misfit.violation.path.as_str())).collect();
    assert_eq!(found, [(4, "spec.upstream"), (2, "spec.path"), (3, "spec.members[0].mirrorRef.name")]);
}
