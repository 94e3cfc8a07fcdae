// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The controls: a rule of the protocol is taken away, and the model must find that something is wrong.
//! (L-53: a green run proves nothing by itself.)

use std::time::Duration;

use stowage_registry::meta::Timings;

use super::bucket::Manners;
use super::database::Kind;
use super::run::{Plan, run};
use super::times::Times;
use super::world::Setting;
use super::{LATE, UNRELIABLE, registry, sabotage, uploads, wire, with_disasters};

/// How long one world lasts: what is sought happens while it fills, and seldom once all refer to all.
const LIFE: Duration = Duration::from_secs(20);
/// How many are lived through before it is said that nothing goes wrong: on a busy machine less meets less.
const WORLDS: u32 = 40;

/// Runs the plan until what must go wrong has.
async fn is_found(plan: &Plan) {
    let mut seen = Vec::new();
    for world in 0..WORLDS {
        let seed = plan.setting.seed.wrapping_add(world.into());
        let setting = Setting { seed, ..plan.setting };
        let world = run(&Plan { setting, least: Duration::MAX, most: LIFE, ..*plan }).await;
        if plan.is_found(&world) {
            return;
        }
        seen.push(format!("{}: {:#?}", world.summary(), world.violations()));
    }
    panic!("nothing of {:?}: {seen:#?}", plan.until);
}

/// What must go wrong is one of these.
fn set(plan: &Plan, until: &'static [&'static str], change: impl FnOnce(Setting) -> Setting) -> Plan {
    Plan { setting: change(plan.setting), until, ..*plan }
}

/// What is lost when a reference is not seen: the database refuses it, or a pull finds it.
const LOST: &[&str] = &["foreign key", "lacks", "comparison"];

fn tiny(kind: Kind) -> Plan {
    registry(kind, Times::tiny(), 400)
}

fn without_locks(kind: Kind) -> Plan {
    set(&tiny(kind), LOST, |setting| Setting { rewrite: Some(wire::without_row_locks), ..setting })
}

fn with_one_snapshot(kind: Kind) -> Plan {
    // A quick bucket: more meets more.
    let manners = Manners { delay: Duration::from_millis(2), ..LATE };
    set(&tiny(kind), LOST, |setting| Setting { rewrite: Some(wire::in_one_snapshot), manners, ..setting })
}

fn with_keys_named_by_digest(kind: Kind) -> Plan {
    // What goes early goes more often, and what is late meets more.
    set(&registry(kind, Times::tiny(), 100), &["lacks blob"], |setting| Setting {
        manners: Manners { names_by_digest: true, repeats_delete: 0.5, ..LATE },
        ..setting
    })
}

fn with_tags_that_leave_no_row(kind: Kind) -> Plan {
    set(&registry(kind, Times::default(), 60), &["read of", "comparison: tag"], |setting| Setting {
        sabotage: sabotage::deleted_tags_have_no_row(kind),
        ..setting
    })
}

fn with_children_not_counted(kind: Kind) -> Plan {
    set(&tiny(kind), &["lacks child", ": child "], |setting| Setting {
        sabotage: sabotage::children_are_not_counted(kind),
        ..setting
    })
}

fn with_a_trash_that_keeps_nothing(kind: Kind) -> Plan {
    set(&registry(kind, Times::default(), 60), &["is not in the trash"], |setting| Setting {
        sabotage: sabotage::the_trash_keeps_nothing(kind),
        ..setting
    })
}

fn without_records_of_promotions(kind: Kind) -> Plan {
    set(&registry(kind, Times::default(), 60), &["ledger"], |setting| Setting {
        manners: Manners { forgets_ledger: true, ..LATE },
        ..setting
    })
}

fn without_holds(kind: Kind) -> Plan {
    set(&registry(kind, Times::default(), 60), &["an immutable tag named"], |setting| Setting {
        sabotage: sabotage::nothing_is_held(kind),
        ..setting
    })
}

/// Clients rely on what is collected as soon as nothing refers to it.
fn without_leases(kind: Kind) -> Plan {
    let tiny = Times::tiny();
    let times = Times { timings: Timings { lease: Duration::ZERO, ..tiny.timings }, ..tiny };
    set(&registry(kind, times, 400), &["within its lease"], |setting| Setting {
        promised: Duration::from_secs(2),
        ..setting
    })
}

fn with_every_incarnation_believed(kind: Kind) -> Plan {
    set(
        &with_disasters(&registry(kind, Times::default(), 60)),
        &["read of", "lacks", "comparison"],
        |setting| Setting { sabotage: sabotage::every_incarnation_is_believed(kind), ..setting },
    )
}

fn without_epochs(kind: Kind) -> Plan {
    let plan = set(
        &with_disasters(&registry(kind, Times::default(), 60)),
        &["read of", "lacks", "comparison"],
        |setting| Setting { manners: Manners { hides_epochs: true, ..LATE }, ..setting },
    );
    Plan { kinds: &[super::Disaster::Failover, super::Disaster::Deep], ..plan }
}

fn with_uploads_ended_unguarded(kind: Kind) -> Plan {
    let plan = set(&with_disasters(&uploads(kind)), &["would remove the live", "Live"], |setting| Setting {
        rewrite: Some(wire::without_the_guard_of_uploads),
        ..setting
    });
    Plan { kinds: &[super::Disaster::Failover], disasters: Some(Duration::from_secs(1)), ..plan }
}

fn with_part_tags_ignored(kind: Kind) -> Plan {
    set(&uploads(kind), &["other bytes"], |setting| Setting {
        manners: Manners { ignores_tags: true, ..UNRELIABLE },
        ..setting
    })
}

macro_rules! controls {
    ($($kind:ident { $($claim:ident: $plan:ident;)* })*) => {
        $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $claim() {
            is_found(&$plan(Kind::$kind)).await;
        })*)*
    };
}

controls! {
    Postgres {
        l_53_without_row_locks_it_breaks: without_locks;
        l_53_in_one_snapshot_it_breaks: with_one_snapshot;
        l_53_with_keys_named_by_digest_it_breaks: with_keys_named_by_digest;
        l_53_when_deleted_tags_leave_no_row_it_breaks: with_tags_that_leave_no_row;
        l_53_when_children_are_not_counted_it_breaks: with_children_not_counted;
        l_53_without_holds_it_breaks: without_holds;
        l_53_without_leases_it_breaks: without_leases;
        l_53_when_the_trash_keeps_nothing_it_breaks: with_a_trash_that_keeps_nothing;
        l_53_without_records_of_promotions_it_breaks: without_records_of_promotions;
        l_53_when_a_new_incarnation_is_believed_it_breaks: with_every_incarnation_believed;
        l_53_without_epochs_it_breaks: without_epochs;
        l_53_when_restored_uploads_end_without_a_look_at_blobs_it_breaks: with_uploads_ended_unguarded;
        l_53_when_tags_of_parts_are_ignored_it_breaks: with_part_tags_ignored;
    }
    Sqlite {
        l_53_sqlite_with_keys_named_by_digest_it_breaks: with_keys_named_by_digest;
        l_53_sqlite_when_deleted_tags_leave_no_row_it_breaks: with_tags_that_leave_no_row;
        l_53_sqlite_when_children_are_not_counted_it_breaks: with_children_not_counted;
        l_53_sqlite_without_holds_it_breaks: without_holds;
        l_53_sqlite_without_leases_it_breaks: without_leases;
        l_53_sqlite_when_the_trash_keeps_nothing_it_breaks: with_a_trash_that_keeps_nothing;
        l_53_sqlite_without_records_of_promotions_it_breaks: without_records_of_promotions;
        l_53_sqlite_when_a_new_incarnation_is_believed_it_breaks: with_every_incarnation_believed;
        l_53_sqlite_without_epochs_it_breaks: without_epochs;
        l_53_sqlite_when_tags_of_parts_are_ignored_it_breaks: with_part_tags_ignored;
    }
}
