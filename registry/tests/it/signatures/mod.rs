// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Mirrors that take signed images only. Everything is signed by cosign itself, in both of its forms.

pub(crate) mod cosign;
mod pulls;
mod runs;
