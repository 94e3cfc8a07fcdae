// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Damage of every kind is made by hand; it is found, named, and put right or left as said.
//!
//! Over both back ends: PostgreSQL with a real S3 server, SQLite with a folder.

mod command;
mod damage;
mod load;
mod orphans;
mod site;
