// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What the scenarios stand on.

pub(crate) mod cluster;
pub(crate) mod faults;
pub(crate) mod kubelet;
pub(crate) mod leases;
pub(crate) mod scene;
