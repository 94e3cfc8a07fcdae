// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The real parts that tests run over.

pub(crate) mod certificates;
pub(crate) mod line;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod s3;
pub(crate) mod stores;
