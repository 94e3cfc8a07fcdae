// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Rules of the bucket by which objects go without us.

use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule};

use super::client::attempt;
use super::error::classify;
use super::{CONTROL, S3};
use crate::blobs::{Error, Request};

pub(super) async fn expiry_rule(s3: &S3) -> Result<Option<String>, Error> {
    let request = s3.client.get_bucket_lifecycle_configuration().bucket(&*s3.bucket);
    match request.customize().config_override(attempt(CONTROL)).send().await {
        Ok(answer) => {
            let mut rules = answer.rules().iter();
            let rule = rules.find(|rule| expires_below(rule, &s3.prefix));
            Ok(rule.map(|rule| rule.id().unwrap_or("without a name").to_owned()))
        }
        Err(error) => match classify(Request::Head, "", error) {
            // There are none, the service knows no such thing, or we may not look.
            Error::Refused { .. } => Ok(None),
            error => Err(error),
        },
    }
}

/// Whether the rule removes current objects below the prefix. A rule for objects with a tag does not: ours have
/// none.
fn expires_below(rule: &LifecycleRule, prefix: &str) -> bool {
    let enabled = *rule.status() == ExpirationStatus::Enabled;
    let by_age = rule.expiration().is_some_and(|when| when.days().is_some() || when.date().is_some());
    let filter = rule.filter();
    let both = filter.and_then(|filter| filter.and());
    let tagged = filter.is_some_and(|filter| filter.tag().is_some())
        || both.is_some_and(|both| !both.tags().is_empty());
    let of_filter = filter.and_then(|filter| filter.prefix()).or(both.and_then(|both| both.prefix()));
    #[expect(deprecated, reason = "services still have rules of the old form")]
    let below = of_filter.or(rule.prefix()).unwrap_or_default();
    enabled && by_age && !tagged && (prefix.starts_with(below) || below.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{LifecycleExpiration, LifecycleRuleFilter, Tag};

    use super::*;

    fn rule(filter: LifecycleRuleFilter) -> LifecycleRule {
        let expiration = LifecycleExpiration::builder().days(30).build();
        let rule = LifecycleRule::builder().status(ExpirationStatus::Enabled).expiration(expiration);
        rule.filter(filter).build().unwrap()
    }

    fn below(prefix: &str) -> LifecycleRule {
        rule(LifecycleRuleFilter::builder().prefix(prefix).build())
    }

    #[test]
    fn a_rule_is_found_where_it_meets_our_prefix() {
        for (filter, ours) in
            [("", ""), ("", "a/"), ("a/", ""), ("a/", "a/"), ("a", "a/"), ("a/v1/blob/", "a/")]
        {
            assert!(expires_below(&below(filter), ours), "{filter:?} {ours:?}");
        }
        for (filter, ours) in [("b/", "a/"), ("a/b/", "a/c/")] {
            assert!(!expires_below(&below(filter), ours), "{filter:?} {ours:?}");
        }
    }

    #[test]
    fn a_rule_that_cannot_touch_our_objects_is_none() {
        let tag = Tag::builder().key("k").value("v").build().unwrap();
        assert!(!expires_below(&rule(LifecycleRuleFilter::builder().tag(tag).build()), ""));
        let mut off = below("");
        off.status = ExpirationStatus::Disabled;
        assert!(!expires_below(&off, ""));
        let mut uploads = below("");
        uploads.expiration = None;
        assert!(!expires_below(&uploads, ""));
    }
}
