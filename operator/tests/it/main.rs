// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The operator against a real API server, with real controllers and simulated kubelets.

#[cfg(test)]
mod support;
#[cfg(test)]
mod tenants;

#[cfg(test)]
mod admission;
#[cfg(test)]
mod collection;
#[cfg(test)]
mod interruptions;
#[cfg(test)]
mod lease;
#[cfg(test)]
mod mirrors;
#[cfg(test)]
mod optional_apis;
#[cfg(test)]
mod process;
#[cfg(test)]
mod promotions;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod rendered;
#[cfg(test)]
mod replication;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod retention;
#[cfg(test)]
#[path = "../../../crds/tests/it/table.rs"]
mod table;
#[cfg(test)]
mod usage;
#[cfg(test)]
mod verdicts;
