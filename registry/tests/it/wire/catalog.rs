// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The catalog and the extensions.

use serde_json::{Value, json};

use super::registry::Registry;

super::both_stores!(
    w420_w422_w777_the_catalog_lists_every_repository_in_pages,
    w423_the_extensions_are_listed,
);

async fn w420_w422_w777_the_catalog_lists_every_repository_in_pages(registry: Registry) {
    assert_eq!(registry.get("/v2/_catalog").send().await.json(), json!({ "repositories": [] }));
    for repository in ["a/b", "a", "a.b", "a-b", "a/b/c"] {
        registry.push_blob(repository, b"x").await;
    }
    let all = ["a", "a-b", "a.b", "a/b", "a/b/c"];
    for query in ["", "?n=1000", "?n=1000000"] {
        let answer = registry.get(&format!("/v2/_catalog{query}")).send().await;
        assert_eq!(answer.json(), json!({ "repositories": all }), "{query}");
        assert!(!answer.has("link"));
    }
    let mut found = Vec::new();
    let mut target = Some("/v2/_catalog?n=2".to_owned());
    while let Some(next) = target {
        let answer = registry.get(&next).send().await;
        found.extend(answer.json()["repositories"].as_array().unwrap().iter().map(Value::to_string));
        target =
            answer.has("link").then(|| answer.header("link").split(['<', '>']).nth(1).unwrap().to_owned());
    }
    assert_eq!(found, all.map(|name| format!("{name:?}")));
    assert_eq!(registry.get("/v2/_catalog?n=0").send().await.json(), json!({ "repositories": [] }));
}

async fn w423_the_extensions_are_listed(registry: Registry) {
    for target in ["/v2/_oci/ext/discover", "/v2/a/b/_oci/ext/discover"] {
        let answer = registry.get(target).send().await;
        let list = answer.json();
        let names: Vec<&str> =
            list["extensions"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!((answer.status, names), (200, vec!["_catalog", "_oci"]));
        for extension in list["extensions"].as_array().unwrap() {
            assert!(extension["url"].is_string() && extension["description"].is_string());
            assert!(extension["endpoints"].is_array());
        }
    }
}
