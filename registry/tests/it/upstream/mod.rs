// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Other registries, as their client: against distribution and a second Stowage, open and closed, over TLS and through
//! a proxy, on lines that break; and against a scripted server for what no real registry does.

mod broken;
mod content;
pub(crate) mod front;
mod lies;
mod limits;
pub(crate) mod login;
pub(crate) mod secure;
pub(crate) mod servers;
