// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which automatic promotion policies of a Registry would go on for ever. Pure.
//!
//! What one promotes to may be what another promotes from. If that leads back to where it began, an artifact would go
//! round. Decided by patterns, and in doubt it does.
//! Guarantees: the elder stays and the youngest is out, whatever the order of the list, as of [`paths`](crate::paths).

use stowage_oci::{Glob, RepositoryTemplate};

use crate::{
    Kind, PromotionPolicySpec, PromotionTrigger, conditions::Reason, document::Dated, paths::Conflict,
};

/// A policy that promotes by itself.
struct Step<'a> {
    name: &'a str,
    from: Vec<Glob>,
    to: RepositoryTemplate,
}

/// Which of these stay out.
pub(crate) fn conflicts(policies: &[Dated<PromotionPolicySpec>]) -> Vec<Conflict> {
    let mut policies: Vec<_> =
        policies.iter().filter_map(|dated| Some((&dated.made, step(dated)?))).collect();
    policies.sort_by(|(a_made, a), (b_made, b)| (a_made, a.name).cmp(&(b_made, b.name)));
    let (mut kept, mut conflicts): (Vec<Step<'_>>, _) = (Vec::new(), Vec::new());
    for (_, step) in policies {
        match step.way_back(&kept) {
            None => kept.push(step),
            Some(way) => conflicts.push(Conflict {
                kind: Kind::PromotionPolicy,
                name: step.name.to_owned(),
                reason: Reason::PromotionCycle,
                path: "spec.to",
                message: format!("what it promotes would come back to it: {}", way.join(" → ")),
            }),
        }
    }
    conflicts
}

fn step(dated: &Dated<PromotionPolicySpec>) -> Option<Step<'_>> {
    let spec = &dated.entry.spec;
    if spec.trigger != PromotionTrigger::Automatic {
        return None;
    }
    // What cannot be read is refused elsewhere.
    let from = spec.from.repositories.iter().filter_map(|glob| glob.parse().ok());
    Some(Step { name: &dated.entry.name, from: from.collect(), to: spec.to.repository.parse().ok()? })
}

impl Step<'_> {
    fn leads_to(&self, next: &Self) -> bool {
        next.from.iter().any(|glob| self.to.may_match(glob))
    }

    /// The names on the way from this one over others back to it, if there is one.
    fn way_back(&self, others: &[Self]) -> Option<Vec<&str>> {
        let mut ways = vec![vec![self]];
        let mut seen = vec![false; others.len()];
        while let Some(way) = ways.pop() {
            let last = way.last().copied().unwrap_or(self);
            if last.leads_to(self) {
                return Some(way.iter().chain(&[self]).map(|step| step.name).collect());
            }
            for (other, seen) in
                others.iter().zip(&mut seen).filter(|(other, seen)| !**seen && last.leads_to(other))
            {
                *seen = true;
                ways.push(way.iter().copied().chain([other]).collect());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::document::Entry;

    fn policy(name: &str, second: i64, trigger: &str, from: &str, to: &str) -> Dated<PromotionPolicySpec> {
        let spec = json!({
            "registryRef": { "name": "main" }, "trigger": trigger,
            "from": { "repositories": [from] }, "to": { "repository": to },
        });
        let spec = serde_json::from_value(spec).unwrap();
        let made = Some(Time(Timestamp::from_second(second).unwrap()));
        Dated { entry: Entry { name: name.to_owned(), generation: 1, spec }, made }
    }

    fn found(policies: &[Dated<PromotionPolicySpec>]) -> Vec<String> {
        conflicts(policies).into_iter().map(|found| format!("{}: {}", found.name, found.message)).collect()
    }

    #[test]
    fn the_youngest_of_those_that_lead_back_is_out_and_the_way_is_named() {
        let mut three = vec![
            policy("c", 3, "Automatic", "prod/**", "dev/{path}"),
            policy("a", 1, "Automatic", "dev/**", "staging/{path}"),
            policy("b", 2, "Automatic", "staging/**", "prod/{path}"),
        ];
        let expected = ["c: what it promotes would come back to it: c → a → b → c"];
        assert_eq!(found(&three), expected);
        three.reverse();
        assert_eq!(found(&three), expected, "in any order");
        three.retain(|dated| dated.entry.name != "c");
        three.push(policy("c", 3, "Manual", "prod/**", "dev/{path}"));
        assert!(found(&three).is_empty(), "somebody must ask");
    }

    #[test]
    fn a_policy_may_lead_to_itself() {
        let own = |from, to| found(&[policy("own", 1, "Automatic", from, to)]).len();
        assert_eq!(own("**", "prod/{path}"), 1);
        assert_eq!(own("team/*", "team/all"), 1);
        assert_eq!(own("team/app", "all/{name}"), 0);
    }
}
