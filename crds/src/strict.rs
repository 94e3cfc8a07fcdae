// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Structure: whether an object has the fields, types, bounds and patterns that its schema states.
//!
//! For files there is no API server to say so, and none to fill in defaults; this does both and gives the same
//! verdict. It reads the schema that `config/crd` ships, so the two cannot differ; a keyword it does not know
//! stops the reading of the schema. Beyond an API server it refuses unknown fields, as `kubectl` does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use regex::Regex;
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Map, Value, json};

use crate::{
    API_VERSION, Kind,
    check::{FieldPath, Violation},
    schema,
};

/// An object with its defaults, as an API server would store it.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// The object: nulls dropped, defaults filled in, without a status.
    pub object: Value,
    /// What its structure breaks.
    pub violations: Vec<Violation>,
    /// Fields that its kind does not have, which an API server would drop.
    pub unknown: Vec<FieldPath>,
}

/// Looks at the structure of an object.
#[must_use]
pub fn admit(kind: Kind, object: &Value) -> Admitted {
    static NODES: LazyLock<BTreeMap<Kind, Node>> =
        LazyLock::new(|| Kind::ALL.into_iter().map(|kind| (kind, Node::of(kind))).collect());
    let node = &NODES[&kind];
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let mut walk = Walk::default();
    walk.node(node, &mut object, &FieldPath::root());
    Admitted { object, violations: walk.violations, unknown: walk.unknown }
}

/// The fields of `object` that its kind does not have.
#[must_use]
pub fn unknown_fields(kind: Kind, object: &Value) -> Vec<FieldPath> {
    admit(kind, object).unknown
}

/// One node of a schema. Every keyword that our schemas use is here; another one fails the reading.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    #[serde(rename = "type")]
    type_: Type,
    #[serde(default)]
    default: Option<Value>,
    #[serde(default)]
    properties: BTreeMap<String, Node>,
    #[serde(default)]
    required: Vec<String>,
    additional_properties: Option<Box<Node>>,
    min_properties: Option<usize>,
    max_properties: Option<usize>,
    items: Option<Box<Node>>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    #[serde(rename = "enum", default)]
    enum_: Vec<Value>,
    pattern: Option<Pattern>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    minimum: Option<i64>,
    maximum: Option<i64>,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields", default)]
    freeform: bool,
    #[serde(rename = "x-kubernetes-list-type", default)]
    list_type: ListType,
    #[serde(rename = "x-kubernetes-list-map-keys", default)]
    list_map_keys: Vec<String>,
    // A title is the kind's name. `format` says no more than `minimum` and `maximum` do; the rules are `crate::rules`.
    #[serde(rename = "format")]
    _format: Option<IgnoredAny>,
    #[serde(rename = "title")]
    _title: Option<IgnoredAny>,
    #[serde(rename = "description")]
    _description: Option<IgnoredAny>,
    #[serde(rename = "x-kubernetes-validations")]
    _validations: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Boolean,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ListType {
    #[default]
    Atomic,
    Set,
    Map,
}

#[derive(Debug)]
struct Pattern(Regex);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Regex::new(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Node {
    /// What an item of this list must not have in common with another.
    fn identity(&self, item: &Value) -> Option<String> {
        match self.list_type {
            ListType::Atomic => None,
            ListType::Set => Some(item.to_string()),
            ListType::Map => {
                let keys =
                    self.list_map_keys.iter().map(|key| item.get(key).unwrap_or(&Value::Null).to_string());
                Some(keys.collect::<Vec<_>>().join(" "))
            }
        }
    }

    /// The schema of a kind, with what every object has and an API server knows by itself.
    fn of(kind: Kind) -> Self {
        let mut schema = schema::schema(kind);
        let root = schema["properties"].as_object_mut().expect("an object has fields");
        root.insert("apiVersion".to_owned(), json!({ "type": "string", "enum": [API_VERSION] }));
        root.insert("kind".to_owned(), json!({ "type": "string", "enum": [kind.as_str()] }));
        root.insert("metadata".to_owned(), metadata());
        root.remove("status");
        schema["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
        serde_json::from_value(schema).expect("our schemas hold only the keywords of Node")
    }
}

/// What `metadata` may hold: what people write, and what a printed object has besides.
fn metadata() -> Value {
    let text = json!({ "type": "string" });
    let texts = json!({ "type": "object", "additionalProperties": text });
    let objects = json!({ "type": "array", "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": text, "namespace": text, "labels": texts, "annotations": texts, "generateName": text,
            "uid": text, "resourceVersion": text, "generation": { "type": "integer" }, "selfLink": text,
            "creationTimestamp": text, "deletionTimestamp": text, "deletionGracePeriodSeconds": { "type": "integer" },
            "finalizers": { "type": "array", "items": text }, "ownerReferences": objects, "managedFields": objects,
        },
    })
}

/// A walk over an object and its schema together.
#[derive(Default)]
struct Walk {
    violations: Vec<Violation>,
    unknown: Vec<FieldPath>,
}

impl Walk {
    fn refuse(&mut self, path: &FieldPath, message: impl Into<String>) {
        self.violations.push(Violation { path: path.clone(), message: message.into() });
    }

    fn node(&mut self, node: &Node, value: &mut Value, path: &FieldPath) {
        match (node.type_, value) {
            (Type::Object, Value::Object(fields)) => self.object(node, fields, path),
            (Type::Array, Value::Array(items)) => self.array(node, items, path),
            (Type::String, Value::String(text)) => self.string(node, text, path),
            (Type::Integer, Value::Number(number)) if number.is_i64() => {
                self.integer(node, number.as_i64(), path);
            }
            (Type::Boolean, Value::Bool(_)) => {}
            (expected, found) => self.refuse(path, mistyped(expected, found)),
        }
    }

    fn object(&mut self, node: &Node, fields: &mut Map<String, Value>, path: &FieldPath) {
        if node.freeform {
            return;
        }
        fields.retain(|_, value| !value.is_null());
        for (name, property) in &node.properties {
            if let (Some(default), false) = (&property.default, fields.contains_key(name)) {
                fields.insert(name.clone(), default.clone());
            }
        }
        for name in node.required.iter().filter(|name| !fields.contains_key(*name)) {
            self.refuse(&path.field(name), "is required");
        }
        if node.min_properties.is_some_and(|min| fields.len() < min) {
            self.refuse(path, format!("has less than {} entries", node.min_properties.unwrap_or_default()));
        }
        if node.max_properties.is_some_and(|max| fields.len() > max) {
            self.refuse(path, format!("has more than {} entries", node.max_properties.unwrap_or_default()));
        }
        fields.retain(|name, value| {
            let path = path.field(name);
            let known = node.properties.get(name).or(node.additional_properties.as_deref());
            match known {
                Some(child) => self.node(child, value, &path),
                None => self.unknown.push(path),
            }
            known.is_some()
        });
    }

    fn array(&mut self, node: &Node, items: &mut [Value], path: &FieldPath) {
        if node.min_items.is_some_and(|min| items.len() < min) {
            self.refuse(path, format!("has fewer than {} items", node.min_items.unwrap_or_default()));
        }
        if node.max_items.is_some_and(|max| items.len() > max) {
            self.refuse(path, format!("has more than {} items", node.max_items.unwrap_or_default()));
        }
        let mut seen = BTreeSet::new();
        for (at, item) in items.iter_mut().enumerate() {
            let path = path.item(at);
            if let Some(child) = &node.items {
                self.node(child, item, &path);
            }
            if node.identity(item).is_some_and(|identity| !seen.insert(identity)) {
                self.refuse(&path, "is there twice");
            }
        }
    }

    fn string(&mut self, node: &Node, text: &str, path: &FieldPath) {
        let length = text.chars().count();
        if let Some(min) = node.min_length.filter(|min| length < *min) {
            self.refuse(path, format!("is shorter than {min} characters"));
        }
        if let Some(max) = node.max_length.filter(|max| length > *max) {
            self.refuse(path, format!("is longer than {max} characters"));
        }
        if let Some(pattern) = node.pattern.as_ref().filter(|pattern| !pattern.0.is_match(text)) {
            self.refuse(path, format!("{text:?} does not match {}", pattern.0));
        }
        if !node.enum_.is_empty() && !node.enum_.iter().any(|word| word == text) {
            let words: Vec<_> = node.enum_.iter().filter_map(Value::as_str).collect();
            self.refuse(path, format!("{text:?} is none of {}", words.join(", ")));
        }
    }

    fn integer(&mut self, node: &Node, number: Option<i64>, path: &FieldPath) {
        if let (Some(min), Some(number)) = (node.minimum, number)
            && number < min
        {
            self.refuse(path, format!("is less than {min}"));
        }
        if let (Some(max), Some(number)) = (node.maximum, number)
            && number > max
        {
            self.refuse(path, format!("is more than {max}"));
        }
    }
}

fn mistyped(expected: Type, found: &Value) -> String {
    let quote = expected == Type::String && !found.is_array() && !found.is_object() && !found.is_null();
    let hint = if quote { "; quote it" } else { "" };
    let expected = match expected {
        Type::Object => "an object",
        Type::Array => "a list",
        Type::String => "text",
        Type::Integer => "a whole number",
        Type::Boolean => "true or false",
    };
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => found.to_string(),
        Value::String(text) => format!("the text {text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    format!("expected {expected}, found {found}{hint}")
}
