// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The contract of the custom resources: what ships, what is accepted, what is refused.

#[cfg(test)]
mod documents;
#[cfg(test)]
mod manifests;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod table;
#[cfg(test)]
mod verdicts;
