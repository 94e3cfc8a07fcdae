// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The admin port. What it serves comes with the features that need it; until then everything is 404.

use axum::Router;

/// The routes of the admin port.
pub fn router() -> Router {
    Router::new()
}
