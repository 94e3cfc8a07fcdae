// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `stowage-history` judges what a test left behind.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

const PUSH: &str = r#"{"operation":{"id":0,"client":1,"action":{"push_manifest":{"repository":"app","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000001","tag":"a"}},"invoked":1,"ended":2,"outcome":"acknowledged"}}"#;
const PULL: &str = r#"{"operation":{"id":1,"client":2,"action":{"pull_manifest":{"repository":"app","reference":{"tag":"a"}}},"invoked":3,"ended":4,"outcome":"absent"}}"#;

fn judge(lines: &[&str]) -> Result<Output> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let file = folder.path().join("history.jsonl");
    fs::write(&file, lines.join("\n")).context("write a history")?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_stowage-history"));
    command.arg("check").arg(&file).output().context("judge it")
}

#[test]
fn l_77_a_kept_history_is_judged_again() -> Result<()> {
    let legal = judge(&[PUSH])?;
    ensure!(legal.status.code() == Some(0), "{legal:?}");
    let lost = judge(&[PUSH, PULL])?;
    let says = String::from_utf8_lossy(&lost.stdout);
    ensure!(lost.status.code() == Some(1), "{lost:?}");
    for named in ["LostPush: the tag app:a", "#1 client 2", "#0 client 1", "1 violations"] {
        ensure!(says.contains(named), "{named} is not in:\n{says}");
    }
    let torn = judge(&[PUSH, "{"])?;
    ensure!(torn.status.code() == Some(1), "{torn:?}");
    ensure!(String::from_utf8_lossy(&torn.stderr).contains("line 2"), "{torn:?}");
    Ok(())
}
