// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What is taken away from the protocol, one rule at a time: then the model must find something. By triggers,
//! so that production code has no switch for it.

use super::database::Kind;

/// Statements that break a database.
pub(super) type Sabotage = &'static [&'static str];

/// The row of a deleted tag goes at once, instead of waiting for slower pushes to lose against it.
pub(super) fn deleted_tags_have_no_row(kind: Kind) -> Sabotage {
    match kind {
        Kind::Postgres => &[
            "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
               DELETE FROM tags WHERE repo_id = NEW.repo_id AND name = NEW.name;
               RETURN NULL;
             END $$",
            "CREATE TRIGGER forget AFTER UPDATE ON tags
             FOR EACH ROW WHEN (NEW.trashed_until IS NOT NULL) EXECUTE FUNCTION forget()",
        ],
        Kind::Sqlite => &["CREATE TRIGGER forget AFTER UPDATE ON tags WHEN NEW.trashed_until IS NOT NULL
             BEGIN
               DELETE FROM tags WHERE repo_id = NEW.repo_id AND name = NEW.name;
             END"],
    }
}

/// Nobody knows which children an index wants.
pub(super) fn children_are_not_counted(kind: Kind) -> Sabotage {
    match kind {
        Kind::Postgres => &[
            "CREATE FUNCTION ignore() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
            "CREATE TRIGGER ignore BEFORE INSERT ON manifest_children
             FOR EACH ROW EXECUTE FUNCTION ignore()",
        ],
        Kind::Sqlite => &["CREATE TRIGGER ignore BEFORE INSERT ON manifest_children
             BEGIN SELECT RAISE(IGNORE); END"],
    }
}

/// How an upload is closed is recorded nowhere.
pub(super) fn nothing_is_planned(kind: Kind) -> Sabotage {
    match kind {
        Kind::Postgres => &[
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$",
            "CREATE TRIGGER keep BEFORE UPDATE ON uploads
             FOR EACH ROW WHEN (NEW.plan_digest IS NOT NULL) EXECUTE FUNCTION keep()",
        ],
        Kind::Sqlite => &["CREATE TRIGGER keep AFTER UPDATE ON uploads WHEN NEW.plan_digest IS NOT NULL
             BEGIN
               UPDATE uploads SET plan_digest = NULL, plan_form = NULL, plan_tail = NULL, plan_size = NULL,
                 parts = OLD.parts, off = OLD.off, hash = OLD.hash, tails = OLD.tails, spec = OLD.spec
               WHERE id = NEW.id;
             END"],
    }
}

/// What was deleted may go at once.
pub(super) fn the_trash_keeps_nothing(kind: Kind) -> Sabotage {
    match kind {
        Kind::Postgres => &[
            "CREATE FUNCTION hurry() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
               NEW.trashed_until := clock_timestamp();
               RETURN NEW;
             END $$",
            "CREATE TRIGGER hurry BEFORE UPDATE ON tags
             FOR EACH ROW WHEN (NEW.trashed_until IS NOT NULL) EXECUTE FUNCTION hurry()",
        ],
        Kind::Sqlite => {
            &["CREATE TRIGGER hurry AFTER UPDATE OF trashed_until ON tags WHEN NEW.trashed_until IS NOT NULL
             BEGIN
               UPDATE tags SET trashed_until = (SELECT now FROM clock)
                 WHERE repo_id = NEW.repo_id AND name = NEW.name;
             END"]
        }
    }
}

/// Nobody knows which tags a push that is under way will set.
pub(super) fn nothing_is_held(kind: Kind) -> Sabotage {
    match kind {
        Kind::Postgres => &[
            "CREATE FUNCTION let_go() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
               NEW.tags := NULL;
               RETURN NEW;
             END $$",
            "CREATE TRIGGER let_go BEFORE INSERT ON intents FOR EACH ROW EXECUTE FUNCTION let_go()",
        ],
        Kind::Sqlite => &["CREATE TRIGGER let_go AFTER INSERT ON intents WHEN NEW.tags IS NOT NULL
             BEGIN
               UPDATE intents SET tags = NULL WHERE id = NEW.id;
             END"],
    }
}

/// A new incarnation is believed as it is.
pub(super) fn every_incarnation_is_believed(kind: Kind) -> Sabotage {
    match kind {
        Kind::Postgres => &[
            "CREATE FUNCTION believe() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
               NEW.reconciled := NEW.epoch;
               RETURN NEW;
             END $$",
            "CREATE TRIGGER believe BEFORE UPDATE ON meta
             FOR EACH ROW WHEN (NEW.epoch <> OLD.epoch) EXECUTE FUNCTION believe()",
        ],
        Kind::Sqlite => &["CREATE TRIGGER believe AFTER UPDATE ON meta WHEN NEW.epoch <> OLD.epoch
             BEGIN
               UPDATE meta SET reconciled = NEW.epoch, walked_at = (SELECT now FROM clock);
             END"],
    }
}

/// No sabotage: the times that have no option, shortened. A crash in a take-over, or in a walk, holds nobody up
/// for longer.
pub(super) fn haste(kind: Kind) -> Sabotage {
    match kind {
        Kind::Postgres => &[
            "CREATE FUNCTION hasten() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
               NEW.claim_until := clock_timestamp() + interval '0.3 s';
               RETURN NEW;
             END $$",
            "CREATE TRIGGER hasten BEFORE UPDATE ON meta FOR EACH ROW
             WHEN (NEW.claim_until > clock_timestamp() + interval '1 s') EXECUTE FUNCTION hasten()",
            "CREATE FUNCTION hasten_walk() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
               NEW.until := clock_timestamp() + interval '0.5 s';
               RETURN NEW;
             END $$",
            "CREATE TRIGGER hasten_walk BEFORE UPDATE ON shards FOR EACH ROW
             WHEN (NEW.until > clock_timestamp() + interval '1 s') EXECUTE FUNCTION hasten_walk()",
        ],
        Kind::Sqlite => &[
            "CREATE TRIGGER hasten AFTER UPDATE OF claim_until ON meta
             WHEN NEW.claim_until > (SELECT now + 1000000 FROM clock)
             BEGIN
               UPDATE meta SET claim_until = (SELECT now + 300000 FROM clock);
             END",
            "CREATE TRIGGER hasten_walk AFTER UPDATE OF until ON shards
             WHEN NEW.until > (SELECT now + 1000000 FROM clock)
             BEGIN
               UPDATE shards SET until = (SELECT now + 500000 FROM clock) 
                 WHERE epoch = NEW.epoch AND job = NEW.job AND shard = NEW.shard;
             END",
        ],
    }
}
