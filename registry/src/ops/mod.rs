// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! What every room needs to run: the clock, tasks that shutdown knows.

pub mod clock;
pub mod tasks;
