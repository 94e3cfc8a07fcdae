// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The only room that knows axum, status codes and headers.

mod parse;
mod query;
pub mod token;
