// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The rows of uploads: as a request holds them, and what they leave in the bucket when they end.

use stowage_oci::{Algorithm, Digest, Name};
use uuid::Uuid;

use super::values::{digest as digest_column, form, from_json, parsed, unreadable};
use crate::key::{Form, Generation, Part};
use crate::meta::steps::Leftovers;
use crate::meta::{Error, LeasedUpload, Multipart, Plan, Progress, Tail};

/// A row that a request has just taken.
#[derive(sqlx::FromRow)]
pub(super) struct LeasedColumns {
    id: Uuid,
    repo_id: i32,
    r#gen: Uuid,
    lease: u32,
    parts: String,
    spec: Option<String>,
    off: i64,
    alg: u8,
    hash: Vec<u8>,
    tails: String,
    restored: bool,
    #[sqlx(flatten)]
    multipart: MultipartColumns,
    #[sqlx(flatten)]
    plan: PlanColumns,
}

#[derive(sqlx::FromRow)]
struct MultipartColumns {
    multipart_id: Option<String>,
    part_size: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct PlanColumns {
    #[sqlx(rename = "plan_digest")]
    digest: Option<Vec<u8>>,
    #[sqlx(rename = "plan_form")]
    form: Option<i64>,
    #[sqlx(rename = "plan_tail")]
    tail: Option<u32>,
    #[sqlx(rename = "plan_size")]
    size: Option<i64>,
}

fn size(value: i64) -> Result<u64, Error> {
    u64::try_from(value).map_err(|error| unreadable("uploads", error))
}

impl MultipartColumns {
    fn into_value(self) -> Result<Option<Multipart>, Error> {
        match (self.multipart_id, self.part_size) {
            (None, None) => Ok(None),
            (Some(id), Some(part_size)) => Ok(Some(Multipart { id, part_size: size(part_size)? })),
            _ => Err(unreadable("uploads", "half a multipart upload")),
        }
    }
}

impl PlanColumns {
    fn into_value(self) -> Result<Option<Plan>, Error> {
        let Some(digest) = self.digest else { return Ok(None) };
        let missing = || unreadable("uploads", "half a plan");
        let form = form("uploads", self.form.ok_or_else(missing)?, self.tail)?;
        let size = size(self.size.ok_or_else(missing)?)?;
        Ok(Some(Plan { digest: digest_column("uploads", &digest)?, form, size }))
    }
}

impl LeasedColumns {
    pub(super) fn into_upload(self) -> Result<LeasedUpload, Error> {
        let algorithm =
            Algorithm::from_code(self.alg).ok_or_else(|| unreadable("uploads", "hash algorithm"))?;
        let progress = Progress {
            offset: size(self.off)?,
            parts: from_json::<Vec<Part>>("uploads", &self.parts)?,
            spec: self.spec.map(|spec| from_json::<Part>("uploads", &spec)).transpose()?,
            hash: self.hash,
            tails: from_json::<Vec<Tail>>("uploads", &self.tails)?,
        };
        Ok(LeasedUpload {
            id: self.id,
            repository: self.repo_id,
            generation: Generation::from_uuid(self.r#gen),
            restored: self.restored,
            lease: self.lease,
            multipart: self.multipart.into_value()?,
            progress,
            algorithm,
            plan: self.plan.into_value()?,
        })
    }
}

/// A row that was deleted, or its old generation.
#[derive(sqlx::FromRow)]
pub(super) struct EndedColumns {
    repo_id: i32,
    repository: String,
    r#gen: Uuid,
    first_lease: u32,
    lease: u32,
    tails: String,
    #[sqlx(flatten)]
    multipart: MultipartColumns,
    #[sqlx(flatten)]
    plan: PlanColumns,
}

/// An upload that has ended.
pub(super) struct Ended {
    pub(super) repository_id: i32,
    pub(super) repository: Name,
    pub(super) generation: Generation,
    pub(super) multipart: Option<Multipart>,
    /// Those that may have staged something, whether or not they came to tell.
    leases: Vec<u32>,
    /// Those whose staged bytes are part of the content.
    counted: Vec<u32>,
    plan: Option<Plan>,
}

impl EndedColumns {
    pub(super) fn into_ended(self) -> Result<Ended, Error> {
        Ok(Ended {
            repository_id: self.repo_id,
            repository: parsed("repositories", &self.repository)?,
            generation: Generation::from_uuid(self.r#gen),
            multipart: self.multipart.into_value()?,
            counted: from_json::<Vec<Tail>>("uploads", &self.tails)?.iter().map(|tail| tail.lease).collect(),
            leases: (self.first_lease..=self.lease).collect(),
            plan: self.plan.into_value()?,
        })
    }
}

impl Ended {
    /// What it was to become.
    pub(super) fn planned(&self) -> Option<Digest> {
        self.plan.map(|plan| plan.digest)
    }

    /// As the request that closed it leaves it: that has staged only what counts, and sees to the records that
    /// the plan names itself.
    pub(super) fn closed(mut self) -> Self {
        let last = self.leases.last().copied();
        self.leases.retain(|lease| Some(*lease) != last || self.counted.contains(lease));
        self.plan = None;
        self
    }

    /// What it may have left in the bucket, but for `kept`, which a blob is now made of.
    pub(super) fn leftovers(&self, kept: Option<Form>, linked: bool) -> Leftovers {
        Leftovers {
            generation: self.generation,
            multipart: self.multipart.as_ref().map(|multipart| multipart.id.clone()),
            leases: self.leases.clone(),
            plan: self.plan.map(|plan| (self.repository.clone(), plan)),
            kept,
            linked,
        }
    }
}
