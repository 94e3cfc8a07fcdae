// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The real things that tests run on.

pub(crate) mod s3;
