// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Files with images in them, as other programs write and read them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use stowage_e2e::{command, succeed, tool};
use tokio::process::Command;

use super::clients::Layout;
use super::support::Registry;

fn crane(arguments: &[&str]) -> Result<Command> {
    let mut crane = command(tool("crane")?);
    crane.args(arguments).arg("--insecure");
    Ok(crane)
}

fn skopeo(from: &str, to: &str) -> Command {
    let mut skopeo = command("skopeo");
    skopeo.args(["copy", "--insecure-policy", "--src-tls-verify=false", from, to]);
    skopeo
}

fn podman(folder: &Path, arguments: &[&str]) -> Command {
    let mut podman = command("podman");
    podman.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
    podman.args(["--storage-driver=vfs", "--log-level=error"]).args(arguments);
    podman
}

/// An image of ours is there as `team/app:1`.
async fn pushed(registry: &Registry) -> Result<Layout> {
    let layout = Layout::new()?;
    let image = format!("{}/team/app:1", registry.host());
    succeed(crane(&["push"])?.arg(layout.path()).arg(&image)).await?;
    Ok(layout)
}

pub(crate) async fn are_imported(registry: &Registry) -> Result<()> {
    let layout = pushed(registry).await?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let image = format!("{}/team/app:1", registry.host());
    let there = format!("docker://{image}");
    succeed(&mut crane(&["pull", "--format=tarball", &image, &file("crane.tar")])?).await?;
    succeed(&mut crane(&["pull", "--format=legacy", &image, &file("legacy.tar")])?).await?;
    succeed(&mut skopeo(&there, &format!("docker-archive:{}:team/app:1", file("skopeo.tar")))).await?;
    succeed(skopeo(&there, &format!("oci-archive:{}:team/app:1", file("oci.tar"))).arg("--preserve-digests"))
        .await?;
    let id = succeed(&mut podman(folder.path(), &["pull", "--quiet", "--tls-verify=false", &image])).await?;
    for format in ["docker-archive", "oci-archive"] {
        let output = file(&format!("podman-{format}.tar"));
        let save = ["save", "--quiet", "--format", format, "--output", &output, &image];
        succeed(&mut podman(folder.path(), &save)).await?;
    }
    succeed(&mut podman(folder.path(), &["rmi", "--force", id.trim()])).await?;
    for name in ["crane", "legacy", "skopeo", "oci", "podman-docker-archive", "podman-oci-archive"] {
        let prefix = format!("from/{name}");
        let mut import = registry.beside("import")?;
        let told =
            succeed(import.args(["--repository-prefix", &prefix]).arg(file(&format!("{name}.tar")))).await;
        let told = told.with_context(|| format!("import what {name} wrote"))?;
        ensure!(told.contains(&format!("{prefix}/team/app:1 sha256:")), "{name}: {told}");
        let imported = format!("{}/{prefix}/team/app:1", registry.host());
        // podman unpacks every layer and compares it with the config, whose digest is the id.
        let mut pull = podman(folder.path(), &["pull", "--quiet", "--tls-verify=false", &imported]);
        let found = succeed(&mut pull).await.with_context(|| format!("pull what {name} wrote"))?;
        ensure!(found == id, "{name}: {id} came back as {found}");
        succeed(&mut podman(folder.path(), &["rmi", "--force", id.trim()])).await?;
        if name == "oci" {
            ensure!(told.contains(&layout.digest), "{} became {told}", layout.digest);
        }
    }
    Ok(())
}

pub(crate) async fn are_read(registry: &Registry) -> Result<()> {
    let layout = pushed(registry).await?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let (file, back) = (folder.path().join("images.tar"), folder.path().join("back"));
    succeed(registry.beside("export")?.arg("team/app:1").arg("--file").arg(&file)).await?;
    let from = format!("oci-archive:{}", file.display());
    succeed(skopeo(&from, &format!("oci:{}:1", back.display())).arg("--preserve-digests")).await?;
    layout.ensure_is_in(&back)?;
    let path = file.display().to_string();
    let loaded = succeed(&mut podman(folder.path(), &["load", "--quiet", "--input", &path])).await?;
    ensure!(loaded.contains("/team/app:1"), "podman loaded {loaded}");
    Ok(())
}
