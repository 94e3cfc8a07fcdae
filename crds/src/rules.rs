// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The rules that a schema's structure cannot state, each in CEL for the API server and in Rust for a process
//! that has none.
//!
//! Both forms stand side by side and share the place they look at and the message they give, and a table of good
//! and bad objects runs through both. As in an API server, a rule is asked only where its place exists, sees
//! defaults filled in, and, if it compares with the old object, only on a change of something that existed before.

use serde_json::Value;

use crate::Kind;

/// A rule beyond structure.
pub(crate) struct Rule {
    /// The kind it is for.
    pub(crate) kind: Kind,
    /// The place it looks at: names and `[*]` from the root of the object; empty for the root itself.
    pub(crate) at: &'static str,
    /// The rule for the API server.
    pub(crate) cel: &'static str,
    /// What is said when it is broken.
    pub(crate) message: &'static str,
    /// The same rule over the node at that place and the node that was there before.
    holds: Holds,
}

enum Holds {
    Always(fn(&Value) -> bool),
    Transition(fn(&Value, &Value) -> bool),
}

impl Rule {
    /// Whether `node` obeys the rule, given what was at its place before.
    pub(crate) fn holds(&self, node: &Value, before: Option<&Value>) -> bool {
        match self.holds {
            Holds::Always(holds) => holds(node),
            Holds::Transition(holds) => before.is_none_or(|before| holds(node, before)),
        }
    }
}

/// The rules of a kind.
pub(crate) fn of(kind: Kind) -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(move |rule| rule.kind == kind)
}

const NAME_CEL: &str =
    "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 40";
const NAME_MESSAGE: &str = "metadata.name must begin with a letter, hold only a-z, 0-9 and '-', not end in '-', and \
                            have at most 40 characters: names of Services and CronJobs are made from it";

const TAGS_CEL: &str =
    "[has(self.semver), has(self.glob), has(self.regex), has(self.exact)].filter(x, x).size() == 1";
const TAGS_MESSAGE: &str =
    "exactly one of semver, glob, regex and exact must be set; for all but some, glob [\"*\"] and exclude";
const SUBJECT_CEL: &str = "[has(self.user), has(self.group), has(self.anonymous), has(self.authenticated)].filter(x, x).size() == 1";
const SUBJECT_MESSAGE: &str = "exactly one of user, group, anonymous and authenticated must be set";

static RULES: &[Rule] = &[
    Rule {
        kind: Kind::Registry,
        at: "",
        cel: NAME_CEL,
        message: NAME_MESSAGE,
        holds: Holds::Always(is_named),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec",
        cel: "!(has(self.replicas) && has(self.autoscaling))",
        message: "replicas and autoscaling exclude each other: autoscaling chooses the number of replicas",
        holds: Holds::Always(|spec| !(has(spec, "replicas") && has(spec, "autoscaling"))),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec",
        cel: "!(has(self.storage.filesystem) || has(self.database.sqlite)) || (!has(self.autoscaling) && (!has(self.replicas) || self.replicas <= 1))",
        message: "filesystem and sqlite are for one replica: remove autoscaling, and set replicas to 1 at most",
        holds: Holds::Always(|spec| {
            !on_volume(spec)
                || (!has(spec, "autoscaling") && (!has(spec, "replicas") || integer(spec, "replicas") <= 1))
        }),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec",
        cel: "!has(self.storage.s3) || !has(self.database.postgres) || !has(self.volume)",
        message: "volume is for filesystem or sqlite; s3 with postgres needs none",
        holds: Holds::Always(|spec| {
            !has(&spec["storage"], "s3") || !has(&spec["database"], "postgres") || !has(spec, "volume")
        }),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec",
        cel: "self.deletionPolicy == 'Retain' || !has(self.volume) || !has(self.volume.claimName)",
        message: "deletionPolicy Delete cannot be used with volume.claimName: the claim is not the registry's to delete",
        holds: Holds::Always(|spec| {
            spec["deletionPolicy"] == "Retain" || !has(spec, "volume") || !has(&spec["volume"], "claimName")
        }),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.storage",
        cel: "[has(self.s3), has(self.filesystem)].filter(x, x).size() == 1",
        message: "exactly one of s3 and filesystem must be set",
        holds: Holds::Always(|storage| has_one_of(storage, &["s3", "filesystem"])),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.storage",
        cel: "has(self.s3) == has(oldSelf.s3)",
        message: "the kind of storage cannot change: make a new Registry and copy the content",
        holds: Holds::Transition(|storage, before| has(storage, "s3") == has(before, "s3")),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.storage.s3",
        cel: "self.bucket == oldSelf.bucket && self.prefix == oldSelf.prefix",
        message: "bucket and prefix cannot change: make a new Registry and copy the content",
        holds: Holds::Transition(|s3, before| {
            s3["bucket"] == before["bucket"] && s3["prefix"] == before["prefix"]
        }),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.database",
        cel: "[has(self.postgres), has(self.sqlite)].filter(x, x).size() == 1",
        message: "exactly one of postgres and sqlite must be set",
        holds: Holds::Always(|database| has_one_of(database, &["postgres", "sqlite"])),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.database",
        cel: "has(self.postgres) == has(oldSelf.postgres)",
        message: "the kind of database cannot change",
        holds: Holds::Transition(|database, before| has(database, "postgres") == has(before, "postgres")),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.autoscaling",
        cel: "self.minReplicas <= self.maxReplicas",
        message: "minReplicas must not exceed maxReplicas",
        holds: Holds::Always(|scaling| integer(scaling, "minReplicas") <= integer(scaling, "maxReplicas")),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.volume",
        cel: "!has(self.claimName) || !has(self.storageClassName)",
        message: "claimName names a claim that exists: storageClassName has no effect on it",
        holds: Holds::Always(|volume| !has(volume, "claimName") || !has(volume, "storageClassName")),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.expose",
        cel: "[has(self.ingress), has(self.httpRoute), has(self.service)].filter(x, x).size() == 1",
        message: "exactly one of ingress, httpRoute and service must be set",
        holds: Holds::Always(|expose| has_one_of(expose, &["ingress", "httpRoute", "service"])),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.telemetry",
        cel: "!self.otlpEndpoint.matches('^[^/]*//[^/]*:4317(/|$)')",
        message: "port 4317 of a collector takes OTLP over gRPC, which is not spoken here: name its port for OTLP over HTTP, by custom 4318",
        holds: Holds::Always(|telemetry| !has_port(&telemetry["otlpEndpoint"], "4317")),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.pullTracking.ignoreSubjects[*]",
        cel: SUBJECT_CEL,
        message: SUBJECT_MESSAGE,
        holds: Holds::Always(is_one_subject),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.usageProtection",
        cel: "(self.scope == 'Namespaces') == has(self.namespaces) && (self.scope != 'RemotesOnly' || has(self.remotes))",
        message: "scope Namespaces needs namespaces, and no other has them; scope RemotesOnly needs remotes",
        holds: Holds::Always(|usage| {
            (usage["scope"] == "Namespaces") == has(usage, "namespaces")
                && (usage["scope"] != "RemotesOnly" || has(usage, "remotes"))
        }),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.usageProtection.remotes[*].reporter",
        cel: SUBJECT_CEL,
        message: SUBJECT_MESSAGE,
        holds: Holds::Always(is_one_subject),
    },
    Rule {
        kind: Kind::AccessPolicy,
        at: "",
        cel: NAME_CEL,
        message: NAME_MESSAGE,
        holds: Holds::Always(is_named),
    },
    Rule {
        kind: Kind::AccessPolicy,
        at: "spec",
        cel: "self.registryRef == oldSelf.registryRef",
        message: "registryRef cannot change: make a new AccessPolicy",
        holds: Holds::Transition(|spec, before| spec["registryRef"] == before["registryRef"]),
    },
    Rule {
        kind: Kind::AccessPolicy,
        at: "spec",
        cel: "!self.subjects.exists(s, has(s.anonymous)) || self.actions.all(a, a in ['Pull', 'Push'])",
        message: "anonymous may be granted Pull and Push only",
        holds: Holds::Always(|spec| {
            !items(spec, "subjects").any(|subject| has(subject, "anonymous"))
                || items(spec, "actions").all(|action| action == "Pull" || action == "Push")
        }),
    },
    Rule {
        kind: Kind::AccessPolicy,
        at: "spec.subjects[*]",
        cel: SUBJECT_CEL,
        message: SUBJECT_MESSAGE,
        holds: Holds::Always(is_one_subject),
    },
    Rule { kind: Kind::Mirror, at: "", cel: NAME_CEL, message: NAME_MESSAGE, holds: Holds::Always(is_named) },
    Rule {
        kind: Kind::Mirror,
        at: "spec",
        cel: "self.registryRef == oldSelf.registryRef && self.mode == oldSelf.mode && has(self.path) == has(oldSelf.path) && (!has(self.path) || self.path == oldSelf.path)",
        message: "registryRef, mode and path cannot change: make a new Mirror",
        holds: Holds::Transition(|spec, before| {
            ["registryRef", "mode", "path"].iter().all(|field| spec.get(field) == before.get(field))
        }),
    },
    Rule {
        kind: Kind::Mirror,
        at: "spec",
        cel: "self.mode == 'Replicate' || has(self.path)",
        message: "mode PullThrough needs a path",
        holds: Holds::Always(|spec| replicates(spec) || has(spec, "path")),
    },
    Rule {
        kind: Kind::Mirror,
        at: "spec",
        cel: "self.mode == 'Replicate' ? has(self.artifacts) : !has(self.artifacts)",
        message: "mode Replicate needs artifacts, which say what is copied; mode PullThrough has none",
        holds: Holds::Always(|spec| replicates(spec) == has(spec, "artifacts")),
    },
    Rule {
        kind: Kind::Mirror,
        at: "spec",
        cel: "self.mode == 'Replicate' || (!has(self.schedule) && !has(self.interval) && !has(self.timeZone) && !has(self.limits) && self.prune == 'Never')",
        message: "schedule, interval, timeZone, limits and prune are for mode Replicate",
        holds: Holds::Always(|spec| {
            let none = ["schedule", "interval", "timeZone", "limits"].iter().all(|field| !has(spec, field));
            replicates(spec) || (none && spec["prune"] == "Never")
        }),
    },
    Rule {
        kind: Kind::Mirror,
        at: "spec",
        cel: "self.mode == 'PullThrough' || (!has(self.cache) && !self.default && !has(self.upstream.hosts))",
        message: "cache, default and upstream.hosts are for mode PullThrough",
        holds: Holds::Always(|spec| {
            let default = spec["default"].as_bool().unwrap_or_default();
            !replicates(spec) || (!has(spec, "cache") && !default && !has(&spec["upstream"], "hosts"))
        }),
    },
    Rule {
        kind: Kind::Mirror,
        at: "spec",
        cel: "!(has(self.schedule) && has(self.interval)) && (!has(self.timeZone) || has(self.schedule))",
        message: "schedule and interval exclude each other, and timeZone is that of a schedule",
        holds: Holds::Always(|spec| {
            !(has(spec, "schedule") && has(spec, "interval"))
                && (!has(spec, "timeZone") || has(spec, "schedule"))
        }),
    },
    Rule {
        kind: Kind::Mirror,
        at: "spec",
        cel: "!has(self.interval) || self.interval.matches('[1-9]')",
        message: "interval must be longer than nothing: 1m is a run after the other",
        holds: Holds::Always(|spec| {
            let interval = spec["interval"].as_str().unwrap_or_default();
            !has(spec, "interval") || interval.contains(|c: char| matches!(c, '1'..='9'))
        }),
    },
    Rule {
        kind: Kind::Mirror,
        at: "spec.cache.eviction",
        cel: "has(self.unusedFor) || has(self.maxAge) || has(self.maxSize)",
        message: "unusedFor, maxAge or maxSize must say what goes; without eviction nothing does",
        holds: Holds::Always(|eviction| {
            ["unusedFor", "maxAge", "maxSize"].iter().any(|field| has(eviction, field))
        }),
    },
    Rule {
        kind: Kind::Mirror,
        at: "spec.limits",
        cel: "!has(self.bytesPerSecond) || self.bytesPerSecond.matches('[1-9]')",
        message: "bytesPerSecond must be more than nothing; suspend stops a mirror",
        holds: Holds::Always(|limits| {
            let rate = limits["bytesPerSecond"].as_str().unwrap_or_default();
            !has(limits, "bytesPerSecond") || rate.contains(|c: char| matches!(c, '1'..='9'))
        }),
    },
    Rule {
        kind: Kind::Mirror,
        at: "spec.artifacts[*]",
        cel: "[has(self.repository), has(self.discover)].filter(x, x).size() == 1",
        message: "exactly one of repository and discover must be set",
        holds: Holds::Always(|artifacts| has_one_of(artifacts, &["repository", "discover"])),
    },
    Rule {
        kind: Kind::Mirror,
        at: "spec.artifacts[*].discover",
        cel: "[has(self.catalog), has(self.quayOrganization)].filter(x, x).size() == 1",
        message: "exactly one of catalog and quayOrganization must be set",
        holds: Holds::Always(|discover| has_one_of(discover, &["catalog", "quayOrganization"])),
    },
    Rule {
        kind: Kind::Mirror,
        at: "spec.artifacts[*].tags",
        cel: TAGS_CEL,
        message: TAGS_MESSAGE,
        holds: Holds::Always(|tags| has_one_of(tags, &["semver", "glob", "regex", "exact"])),
    },
    Rule {
        kind: Kind::Registry,
        at: "spec.immutability[*].tags",
        cel: "[has(self.semver), has(self.glob), has(self.regex), has(self.exact)].filter(x, x).size() == 1",
        message: "exactly one of semver, glob, regex and exact must be set; for all but some, glob [\"*\"] and exclude",
        holds: Holds::Always(|tags| has_one_of(tags, &["semver", "glob", "regex", "exact"])),
    },
    Rule {
        kind: Kind::VirtualRepository,
        at: "",
        cel: NAME_CEL,
        message: NAME_MESSAGE,
        holds: Holds::Always(is_named),
    },
    Rule {
        kind: Kind::VirtualRepository,
        at: "spec",
        cel: "self.registryRef == oldSelf.registryRef && self.path == oldSelf.path",
        message: "registryRef and path cannot change: make a new VirtualRepository",
        holds: Holds::Transition(|spec, before| {
            ["registryRef", "path"].iter().all(|field| spec[field] == before[field])
        }),
    },
    Rule {
        kind: Kind::VirtualRepository,
        at: "spec",
        cel: "self.members.all(m, self.members.exists_one(o, o.name == m.name))",
        message: "every member needs a name of its own",
        holds: Holds::Always(|spec| {
            let named = |name: &Value| items(spec, "members").filter(|other| other["name"] == *name).count();
            items(spec, "members").all(|member| named(&member["name"]) == 1)
        }),
    },
    Rule {
        kind: Kind::VirtualRepository,
        at: "spec",
        cel: "!has(self.pushTo) || self.members.exists(m, m.name == self.pushTo && has(m.repository))",
        message: "pushTo must name a member with a repository: nobody can push to a mirror",
        holds: Holds::Always(|spec| {
            let takes = |member: &Value| member["name"] == spec["pushTo"] && has(member, "repository");
            !has(spec, "pushTo") || items(spec, "members").any(takes)
        }),
    },
    Rule {
        kind: Kind::VirtualRepository,
        at: "spec.members[*]",
        cel: "[has(self.repository), has(self.mirrorRef)].filter(x, x).size() == 1",
        message: "exactly one of repository and mirrorRef must be set",
        holds: Holds::Always(|member| has_one_of(member, &["repository", "mirrorRef"])),
    },
    Rule {
        kind: Kind::PromotionPolicy,
        at: "",
        cel: NAME_CEL,
        message: NAME_MESSAGE,
        holds: Holds::Always(is_named),
    },
    Rule {
        kind: Kind::PromotionPolicy,
        at: "spec",
        cel: "self.registryRef == oldSelf.registryRef",
        message: "registryRef cannot change: make a new PromotionPolicy",
        holds: Holds::Transition(|spec, before| spec["registryRef"] == before["registryRef"]),
    },
    Rule {
        kind: Kind::PromotionPolicy,
        at: "spec",
        cel: "!self.to.repository.contains('{path}') || self.from.repositories.all(g, g == '**' || g.endsWith('/**'))",
        message: "to.repository has {path}: then each of from.repositories must be ** or end in /**",
        holds: Holds::Always(|spec| {
            let target = spec["to"]["repository"].as_str().unwrap_or_default();
            let ends = |glob: &Value| glob.as_str().is_some_and(|glob| glob == "**" || glob.ends_with("/**"));
            !target.contains("{path}") || items(&spec["from"], "repositories").all(ends)
        }),
    },
    Rule {
        kind: Kind::PromotionPolicy,
        at: "spec",
        cel: "self.trigger == 'Manual' || !has(self.gates) || !self.gates.exists(g, has(g.approval))",
        message: "with the trigger Automatic nobody asks, so nobody can approve: make it Manual, or leave the approval out",
        holds: Holds::Always(|spec| {
            spec["trigger"] == "Manual" || !items(spec, "gates").any(|gate| gate.get("approval").is_some())
        }),
    },
    Rule {
        kind: Kind::PromotionPolicy,
        at: "spec.from.tags",
        cel: "[has(self.semver), has(self.glob), has(self.regex), has(self.exact)].filter(x, x).size() == 1",
        message: "exactly one of semver, glob, regex and exact must be set; for all but some, glob [\"*\"] and exclude",
        holds: Holds::Always(|tags| has_one_of(tags, &["semver", "glob", "regex", "exact"])),
    },
    Rule {
        kind: Kind::PromotionPolicy,
        at: "spec.gates[*]",
        cel: "[has(self.signature), has(self.attestation), has(self.minimumAge), has(self.approval), has(self.labels), has(self.promotedBy)].filter(x, x).size() == 1",
        message: "exactly one of signature, attestation, minimumAge, approval, labels and promotedBy must be set",
        holds: Holds::Always(|gate| has_one_of(gate, GATES)),
    },
    Rule {
        kind: Kind::PromotionPolicy,
        at: "spec.gates[*].signature",
        cel: "self.required <= self.keys.size()",
        message: "required is more than there are keys",
        holds: Holds::Always(|gate| {
            integer(gate, "required") <= i64::try_from(items(gate, "keys").count()).unwrap_or(i64::MAX)
        }),
    },
    Rule {
        kind: Kind::Promotion,
        at: "",
        cel: NAME_CEL,
        message: NAME_MESSAGE,
        holds: Holds::Always(is_named),
    },
    Rule {
        kind: Kind::Promotion,
        at: "spec",
        cel: "self.policyRef == oldSelf.policyRef && self.artifact == oldSelf.artifact && self.requestedBy == oldSelf.requestedBy && has(self.reason) == has(oldSelf.reason) && (!has(self.reason) || self.reason == oldSelf.reason)",
        message: "policyRef, artifact, requestedBy and reason cannot change: make a new Promotion",
        holds: Holds::Transition(|spec, before| {
            ["policyRef", "artifact", "requestedBy", "reason"]
                .iter()
                .all(|field| spec[field] == before[field])
        }),
    },
    Rule {
        kind: Kind::Promotion,
        at: "spec",
        cel: "!has(oldSelf.approvals) || (has(self.approvals) && oldSelf.approvals.all(o, self.approvals.exists(a, a == o)))",
        message: "an approval that was given stays: approvals are only added",
        holds: Holds::Transition(|spec, before| {
            items(before, "approvals").all(|old| items(spec, "approvals").any(|new| new == old))
        }),
    },
    Rule {
        kind: Kind::Promotion,
        at: "spec",
        cel: "!has(self.approvals) || self.approvals.all(a, a.user != self.requestedBy)",
        message: "who asks for a promotion cannot approve it",
        holds: Holds::Always(|spec| {
            items(spec, "approvals").all(|approval| approval["user"] != spec["requestedBy"])
        }),
    },
    Rule {
        kind: Kind::Promotion,
        at: "spec.artifact",
        cel: "has(self.tag) || has(self.digest)",
        message: "one of tag and digest must be set",
        holds: Holds::Always(|artifact| has(artifact, "tag") || has(artifact, "digest")),
    },
    Rule {
        kind: Kind::RetentionPolicy,
        at: "",
        cel: NAME_CEL,
        message: NAME_MESSAGE,
        holds: Holds::Always(is_named),
    },
    Rule {
        kind: Kind::RetentionPolicy,
        at: "spec",
        cel: "self.registryRef == oldSelf.registryRef",
        message: "registryRef cannot change: make a new RetentionPolicy",
        holds: Holds::Transition(|spec, before| spec["registryRef"] == before["registryRef"]),
    },
    Rule {
        kind: Kind::RetentionPolicy,
        at: "spec",
        cel: "self.mode != 'Enforce' || has(self.keep)",
        message: "mode Enforce needs keep: a policy without it would delete everything that it matches",
        holds: Holds::Always(|spec| spec["mode"] != "Enforce" || has(spec, "keep")),
    },
    Rule {
        kind: Kind::RetentionPolicy,
        at: "spec.keep[*]",
        cel: "has(self.tags) || has(self.labels) || has(self.pushedWithin) || has(self.pulledWithin) || has(self.promoted) || has(self.mostRecent) || self.always",
        message: "a rule needs a condition: one of tags, labels, pushedWithin, pulledWithin, promoted and mostRecent; or always: true",
        holds: Holds::Always(|rule| {
            let conditions = ["tags", "labels", "pushedWithin", "pulledWithin", "promoted", "mostRecent"];
            conditions.iter().any(|field| has(rule, field)) || rule["always"] == true
        }),
    },
    Rule {
        kind: Kind::RetentionPolicy,
        at: "spec.keep[*].tags",
        cel: TAGS_CEL,
        message: TAGS_MESSAGE,
        holds: Holds::Always(|tags| has_one_of(tags, &["semver", "glob", "regex", "exact"])),
    },
];

/// What a gate can ask for.
const GATES: &[&str] = &["signature", "attestation", "minimumAge", "approval", "labels", "promotedBy"];

fn is_named(object: &Value) -> bool {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= 40
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(legal)
}

fn is_one_subject(subject: &Value) -> bool {
    has_one_of(subject, &["user", "group", "anonymous", "authenticated"])
}

fn replicates(spec: &Value) -> bool {
    spec["mode"] == "Replicate"
}

fn on_volume(spec: &Value) -> bool {
    has(&spec["storage"], "filesystem") || has(&spec["database"], "sqlite")
}

/// Whether a URL names that port.
fn has_port(url: &Value, port: &str) -> bool {
    let url = url.as_str().unwrap_or_default();
    let authority = url.split_once("//").and_then(|(_, rest)| rest.split('/').next());
    authority.and_then(|authority| authority.rsplit_once(':')).is_some_and(|(_, found)| found == port)
}

fn has(node: &Value, field: &str) -> bool {
    node.get(field).is_some_and(|value| !value.is_null())
}

fn has_one_of(node: &Value, fields: &[&str]) -> bool {
    fields.iter().filter(|field| has(node, field)).count() == 1
}

fn integer(node: &Value, field: &str) -> i64 {
    node[field].as_i64().unwrap_or_default()
}

fn items<'a>(node: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    node[field].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_compares_with_the_old_object_in_both_forms_or_in_none() {
        for rule in RULES {
            let transition = matches!(rule.holds, Holds::Transition(_));
            assert_eq!(rule.cel.contains("oldSelf"), transition, "{}", rule.cel);
        }
    }
}
