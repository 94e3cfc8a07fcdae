// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The registry's integration tests: one binary.

#[cfg(test)]
mod archive;
#[cfg(test)]
mod blobs_s3;
#[cfg(test)]
mod blobs_s3_wire;
#[cfg(test)]
mod drop_in;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod gc;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod idle;
#[cfg(test)]
mod log;
#[cfg(test)]
mod meta_postgres;
#[cfg(test)]
mod meta_sqlite;
#[cfg(test)]
mod mirror;
#[cfg(test)]
mod purge;
#[cfg(test)]
mod races;
#[cfg(test)]
mod raw;
#[cfg(test)]
#[macro_use]
mod rebuild;
#[cfg(test)]
mod promote;
#[cfg(test)]
mod pulls;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod signatures;
#[cfg(test)]
mod start;
#[cfg(test)]
mod support;
#[cfg(test)]
mod sync;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod trash;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod upstream;
#[cfg(test)]
mod usage;
#[cfg(test)]
mod verify;
#[cfg(test)]
mod virtuals;
#[cfg(test)]
mod wire;
