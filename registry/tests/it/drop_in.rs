// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A script of a user, against the registry that it was written for and against ours.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::program::{Program, free_port, serve, until};
use crate::support::s3::tool;

/// distribution 3.1.2, as it is configured in the examples it comes with, deletion allowed.
struct Distribution {
    address: String,
    process: Child,
}

impl Distribution {
    async fn start(folder: &Path) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let config = folder.join("config.yaml");
        let data = folder.join("data");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: \"{address}\"}}\n\
                 storage: {{filesystem: {{rootdirectory: \"{}\"}}, delete: {{enabled: true}}}}\n",
                data.display()
            ),
        )
        .unwrap();
        let mut process = Command::new(tool("registry"));
        process.env("OTEL_TRACES_EXPORTER", "none").arg("serve").arg(config);
        let process = process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let distribution = Self { address, process: process.spawn().unwrap() };
        until("distribution answers", || TcpStream::connect(&distribution.address).ok()).await;
        distribution
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What the script says about the registry at this address.
fn says(address: &str) -> String {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/drop_in.sh");
    let folder = tempfile::tempdir().unwrap();
    let mut run = Command::new("sh");
    run.arg(script).arg(address).current_dir(folder.path()).env("HOME", folder.path());
    let output = run.env("CRANE", tool("crane")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{address}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    // Where it asked is all that may differ.
    said.replace(address, "REGISTRY")
}

#[tokio::test(flavor = "multi_thread")]
async fn c19_a_script_that_pushes_lists_pulls_and_deletes_runs_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let distribution = Distribution::start(folder.path()).await;
    let ours = tempfile::tempdir().unwrap();
    fs::create_dir(ours.path().join("config")).unwrap();
    let registry = "apiVersion: stowage.dev/v1alpha1\nkind: Registry\nmetadata: {name: main}\n\
                    spec: {externalURL: \"http://localhost:5000\", storage: {filesystem: {}}, database: {sqlite: {}}}\n";
    fs::write(ours.path().join("config/registry.yaml"), registry).unwrap();
    let process = Program::start(&mut serve(ours.path())).await;
    let expected = says(&distribution.address);
    assert!(expected.ends_with("deleted\n") && expected.contains("sha256:"), "{expected}");
    assert_eq!(says(process.address("listen")), expected);
}
