// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is made of a Registry, as YAML that a reviewer can read; and what holds for all of it.
//!
//! `UPDATE=1` writes the expected files anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use stowage_operator::{
    apis::Apis,
    controllers::registry::validate::Settings,
    objects::OptionalApi,
    render::{RenderError, render},
};

fn settings() -> Settings {
    Settings {
        registry_image: "registry.example.com/stowage/registry:0.1.0".parse().unwrap(),
        operator_namespace: "stowage-system".into(),
    }
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut cases: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn rendered(case: &Path) -> String {
    let input = fs::read_to_string(case.join("in.yaml")).unwrap();
    render(&input, &settings(), &Apis::from(OptionalApi::ALL)).unwrap()
}

fn objects(case: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&rendered(case)).unwrap()
}

#[test]
fn every_case_renders_as_expected() {
    for case in cases() {
        let header = "# SPDX-FileCopyrightText: The Stowage authors\n# SPDX-License-Identifier: EUPL-1.2\n\n";
        let (file, found) = (case.join("expected.yaml"), format!("{header}{}", rendered(&case)));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &found).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        assert!(found == expected, "{} differs; UPDATE=1 writes it anew\n{found}", file.display());
    }
}

#[test]
fn every_object_is_named_once_labelled_and_owned() {
    for case in cases() {
        let mut seen = BTreeSet::new();
        for object in objects(&case) {
            let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
            assert!(seen.insert(name.clone()), "{name} twice");
            let labels = &object["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/managed-by"], "stowage-operator", "{name}");
            assert!(labels["stowage.dev/registry"].is_string(), "{name}");
            let owners = object["metadata"]["ownerReferences"].as_array();
            let retained = object["kind"] == "PersistentVolumeClaim";
            assert_eq!(owners.is_none(), retained, "{name}");
            for owner in owners.into_iter().flatten() {
                assert_eq!(owner["controller"], true, "{name}");
                assert_eq!(owner["blockOwnerDeletion"], true, "{name}");
            }
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The rules of every case.
fn alerts() -> Vec<Value> {
    let all: Vec<Value> = cases().iter().flat_map(|case| objects(case)).collect();
    let rules = all.iter().filter(|object| object["kind"] == "PrometheusRule");
    let groups = rules.flat_map(|object| object["spec"]["groups"].as_array().unwrap());
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn o17_every_alert_has_its_section_and_no_section_is_left_over() {
    let mut named = BTreeSet::new();
    for rule in alerts() {
        let (name, runbook) = (&rule["alert"], rule["annotations"]["runbook"].as_str().unwrap());
        let (page, section) = runbook.split_once('#').unwrap();
        let name = name.as_str().unwrap();
        assert_eq!(section, name.to_lowercase(), "{runbook}");
        assert!(read(page).lines().any(|line| line == format!("## {name}")), "{page} has no section {name}");
        named.insert(name.to_owned());
    }
    let page = read("docs/how-to/alerts.md");
    let sections = page.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned);
    assert_eq!(sections.collect::<BTreeSet<_>>(), named);
}

/// The metrics that the two programs expose and their labels, from the page that is compared with them.
fn served() -> BTreeMap<String, BTreeSet<String>> {
    let page = read("docs/reference/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `stowage_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let mut labels: BTreeSet<String> = cells[3].split(", ").map(str::to_owned).collect();
        if cells[2] == "histogram" {
            labels.insert("le".to_owned());
        }
        (cells[1].trim_matches('`').to_owned(), labels)
    })
    .collect()
}

/// What Prometheus makes a label of each thing that it reads, by objects of the Prometheus operator.
const OF_TARGETS: [&str; 7] = ["namespace", "service", "pod", "container", "endpoint", "job", "instance"];

/// The metrics that an expression names, and by which labels it chooses.
fn asked(expression: &str) -> Vec<(String, Vec<String>)> {
    let of = |rest: &str| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let chosen = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let matchers = chosen.map_or("", |(matchers, _)| matchers).split("\",");
        let labels = matchers.filter_map(|matcher| Some(matcher.split_once('=')?.0.to_owned()));
        (format!("stowage_{name}"), labels.collect())
    };
    expression.split("stowage_").skip(1).map(of).collect()
}

/// The queries of every dashboard.
fn panels() -> Vec<String> {
    let all: Vec<Value> = cases().iter().flat_map(|case| objects(case)).collect();
    let boards = all.iter().filter(|object| object["metadata"]["labels"]["grafana_dashboard"].is_string());
    let files = boards.flat_map(|board| board["data"].as_object().unwrap().values());
    let files: Vec<Value> = files.map(|file| serde_json::from_str(file.as_str().unwrap()).unwrap()).collect();
    let panels = files.iter().flat_map(|file| file["panels"].as_array().unwrap());
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn o17_alerts_and_panels_ask_for_metrics_that_are_served() {
    let served = served();
    let of_rules = alerts().into_iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    let mut compared = 0;
    for expression in of_rules.chain(panels()) {
        for (name, labels) in asked(&expression) {
            let part = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let found = served.get(&name).or_else(|| served.get(part?));
            let known = found.unwrap_or_else(|| panic!("nothing serves {name}: {expression}"));
            for label in labels {
                let is_known = known.contains(&label) || OF_TARGETS.contains(&label.as_str());
                assert!(is_known, "{name} has no label {label}: {expression}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 12, "only {compared} metrics found: was the form of the expressions changed?");
}

#[test]
fn o17_labels_that_prometheus_would_overwrite_are_honoured() {
    let served = served();
    let taken = |name: &&String| served[*name].iter().any(|label| OF_TARGETS.contains(&label.as_str()));
    let honoured: Vec<&String> = served.keys().filter(taken).collect();
    // Of the operator. One of the registry would need the same of the ServiceMonitor.
    assert_eq!(honoured, ["stowage_resource_condition"]);
    let shipped = read("config/manager/podmonitor.yaml");
    let (_, endpoints) = shipped.split_once("  podMetricsEndpoints:\n").unwrap();
    assert!(endpoints.contains("honorLabels: true"));
    assert!(read("charts/stowage/templates/podmonitor.yaml").contains(endpoints.trim_end()), "they differ");
}

#[test]
fn every_pod_meets_the_restricted_standard_and_has_no_token() {
    let mut pods = 0;
    for case in cases() {
        for object in objects(&case) {
            let of_a_schedule = || object.pointer("/spec/jobTemplate/spec/template/spec");
            let Some(spec) = object.pointer("/spec/template/spec").or_else(of_a_schedule) else { continue };
            pods += 1;
            assert_eq!(spec["automountServiceAccountToken"], false);
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            let containers = ["containers", "initContainers"].map(|kind| spec[kind].as_array());
            for container in containers.into_iter().flatten().flatten() {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false);
                assert_eq!(security["readOnlyRootFilesystem"], true);
                assert_eq!(security["capabilities"]["drop"][0], "ALL");
            }
            for volume in spec["volumes"].as_array().unwrap() {
                if volume.get("secret").is_some() {
                    assert_eq!(volume["secret"]["optional"], true, "{volume}");
                }
            }
        }
    }
    assert!(pods >= 7);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for case in cases() {
        assert_eq!(rendered(&case), rendered(&case));
    }
}

#[test]
fn scaling_moves_neither_the_document_nor_the_pods() {
    let case = cases().into_iter().find(|case| case.ends_with("shared")).unwrap();
    let input = fs::read_to_string(case.join("in.yaml")).unwrap();
    let scaled = format!("{input}  replicas: 5\n");
    let of = |text: &str| -> Vec<Value> {
        let rendered = render(text, &settings(), &Apis::new()).unwrap();
        serde_saphyr::from_multiple(&rendered).unwrap()
    };
    for (before, after) in of(&input).iter().zip(of(&scaled)) {
        if before["kind"] == "ConfigMap" {
            assert_eq!(before["data"], after["data"]);
        }
        assert_eq!(before.pointer("/spec/template"), after.pointer("/spec/template"));
    }
}

#[test]
fn without_an_api_nothing_of_it_is_made() {
    let case = cases().into_iter().find(|case| case.ends_with("full")).unwrap();
    let input = fs::read_to_string(case.join("in.yaml")).unwrap();
    let rendered = render(&input, &settings(), &Apis::new()).unwrap();
    for kind in ["HTTPRoute", "ServiceMonitor", "PrometheusRule"] {
        assert!(!rendered.contains(&format!("kind: {kind}\n")), "{kind}");
    }
}

fn refusal(change: &str, to: &str) -> String {
    let case = cases().into_iter().find(|case| case.ends_with("full")).unwrap();
    let input = fs::read_to_string(case.join("in.yaml")).unwrap();
    assert!(input.contains(change));
    match render(&input.replace(change, to), &settings(), &Apis::from(OptionalApi::ALL)) {
        Ok(_) => panic!("{to:?} was not refused"),
        Err(RenderError::Refused { refusal, .. }) => refusal.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_cannot_be_rendered_is_refused_with_its_place() {
    for (change, to, place) in [
        (
            "priorityClassName: high",
            "priorityClasName: high",
            "spec.template: unknown field spec.priorityClasName",
        ),
        ("priorityClassName: high", "priorityClassName: [high]", "spec.template: "),
        (
            "example.com/team: platform",
            "example.com/team: platform\n      labels:\n        app.kubernetes.io/name: mine",
            "spec.template.metadata.labels: app.kubernetes.io/name",
        ),
        (
            "    requests:\n      cpu: 2",
            "    request:\n      cpu: 2",
            "spec.resources: unknown field request",
        ),
        ("https://registry.example.com:8443", "https://192.0.2.7:8443", "spec.externalURL: 192.0.2.7"),
        ("bucket: blobs", "bucket: b", "spec.storage.s3.bucket"),
        ("user: alice", "usr: alice", "document 2"),
    ] {
        let found = refusal(change, to);
        assert!(found.contains(place), "{to:?}: {found}");
    }
}

#[test]
fn the_chart_carries_the_definitions_and_the_policies_that_ship() {
    let root = root();
    let mut compared = 0;
    for entry in fs::read_dir(root.join("config/crd")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("stowage.dev_") {
            continue;
        }
        let copy = root.join("charts/stowage/crds").join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::copy(&file, &copy).unwrap();
        }
        assert!(fs::read(&file).unwrap() == fs::read(copy).unwrap(), "{name} differs; UPDATE=1 copies it");
        compared += 1;
    }
    assert_eq!(compared, stowage_crds::Kind::ALL.len());

    let chart = fs::read_to_string(root.join("charts/stowage/templates/admission.yaml")).unwrap();
    for file in ["secret-references.yaml", "promotions.yaml"] {
        let shipped = fs::read_to_string(root.join("config/admission").join(file)).unwrap();
        let policies = shipped.split_once("\n\n").unwrap().1;
        assert!(
            chart.contains(policies.trim_end()),
            "the chart's policies differ from config/admission/{file}"
        );
    }
}

fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// What a template of the chart gives for the release `stowage`: for all namespaces, or for the one named `one`. Labels
/// that only a release has are left out.
fn of_chart(template: &str, all: bool) -> Vec<Value> {
    let text = read(&format!("charts/stowage/templates/{template}"));
    let (_, text) = text.split_once("*/ -}}\n").unwrap();
    let chosen = match text.split_once("{{- if .Values.watchNamespaces }}\n") {
        None => text.to_owned(),
        Some((before, rest)) => {
            let (named, rest) = rest.split_once("{{- else }}\n").unwrap();
            let (bound, after) = rest.split_once("{{- end }}\n").unwrap();
            [before, if all { bound } else { named }, after].concat()
        }
    };
    let lines = chosen.lines().filter(|line| !line.trim_start().starts_with("{{-"));
    let mut filled = lines.collect::<Vec<_>>().join("\n");
    for (value, with) in [
        ("{{ .Release.Name }}", "stowage"),
        ("{{ $.Release.Name }}", "stowage"),
        ("{{ .Release.Namespace }}", "stowage-system"),
        ("{{ $.Release.Namespace }}", "stowage-system"),
        ("{{ . }}", "one"),
    ] {
        filled = filled.replace(value, with);
    }
    documents(&filled)
}

/// Without the labels that only one of the two has.
fn unlabelled(mut documents: Vec<Value>) -> Vec<Value> {
    for document in &mut documents {
        document["metadata"].as_object_mut().unwrap().remove("labels");
    }
    documents
}

#[test]
fn the_chart_gives_the_rights_that_ship() {
    assert_eq!(of_chart("users.yaml", true), documents(&read("config/rbac/users.yaml")));
    for (template, shipped) in [("rbac.yaml", "operator.yaml"), ("usage.yaml", "usage.yaml")] {
        let shipped = unlabelled(documents(&read(&format!("config/rbac/{shipped}"))));
        assert!(!shipped.is_empty());
        assert_eq!(unlabelled(of_chart(template, true)), shipped, "{template}");
        // Where only some namespaces are watched, the same is bound in each of them.
        let mut bound = unlabelled(of_chart(template, false));
        for binding in bound.iter_mut().filter(|document| document["metadata"]["namespace"] == "one") {
            assert_eq!(binding["kind"], "RoleBinding", "{template}");
            binding["kind"] = "ClusterRoleBinding".into();
            binding["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        assert_eq!(bound, shipped, "{template} for some namespaces");
    }
}
