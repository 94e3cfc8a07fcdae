// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! `usage report`, as another cluster calls it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::purge::Place;
use crate::support::program::{Program, free_port, program};

/// Tells what runs in `edge-1`.
fn report(port: u16, cluster: &str, credentials: &str, running: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stowage-registry"))
        .args(["usage", "report", "--cluster", cluster, "--credentials-dir", credentials])
        .arg(format!("--to=http://127.0.0.1:{port}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(running.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_a_cluster_reports_what_it_runs_by_the_command_line() {
    let place = Place::clustered().await;
    let hash = bcrypt::hash("pw", 4).unwrap();
    place.write("secrets/users/htpasswd", &format!("edge-1:{hash}\nother:{hash}\n"));
    place.specify(
        "  auth: {htpasswd: {secretRef: {name: users, key: htpasswd}}}\n  \
         usageProtection: {scope: RemotesOnly, remotes: [{name: edge-1, reporter: {user: edge-1}}]}\n",
    );
    for user in ["edge-1", "other"] {
        place.write(&format!("{user}/username"), user);
        place.write(&format!("{user}/password"), "pw");
    }
    let port = free_port();
    let mut serve = program(&["serve", "--drain-delay=0"], place.path());
    serve.args(["--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"]);
    serve.arg(format!("--admin-listen=127.0.0.1:{port}"));
    let process = Program::start(&mut serve).await;
    let folder = |user: &str| place.path().join(user).display().to_string();
    let digest = format!("sha256:{}", "a".repeat(64));
    let running = format!("docker-pullable://registry.example.com/team/app@{digest}\nteam/app:2\n{digest}\n");

    let taken = report(port, "edge-1", &folder("edge-1"), &running);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert_eq!(String::from_utf8_lossy(&taken.stdout), "reported 1 digests and 2 references\n");
    for (cluster, user) in [("edge-1", "other"), ("edge-2", "edge-1")] {
        let refused = report(port, cluster, &folder(user), &running);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains("what runs was not reported"), "{told}");
    }
    process.stop().await;
    let reports = place.open().await.meta.usage_reports().await.unwrap();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!(reports[0].digests, [digest.parse().unwrap()]);
    assert_eq!(
        reports[0].references,
        [format!("registry.example.com/team/app@{digest}"), "team/app:2".to_owned()]
    );
}
