// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Which release this is.

/// The version of the operator, which the registry shares.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
