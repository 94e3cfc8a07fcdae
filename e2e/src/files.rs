// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Configuration files of the cluster's parts, filled in for one state folder.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::state::State;

/// Fills the blanks of `template` and writes it to `relative` in the state folder.
pub(crate) fn fill(state: &State, relative: &str, template: &str, blanks: &[(&str, &str)]) -> Result<()> {
    let mut text = template.replace("@STATE@", &state.root().to_string_lossy());
    for (blank, value) in blanks {
        text = text.replace(blank, value);
    }
    write(&state.path(relative), &text)
}

/// Writes a file, and the folder it lies in.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
