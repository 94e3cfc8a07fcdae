// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The habits of the clients that people use: each pushes, pulls and compares.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use stowage_e2e::{Image, command, repository, succeed, tool};
use tempfile::TempDir;
use tokio::process::Command;

/// A registry, and how a client is started where it can be reached.
pub(crate) struct Site<'a> {
    pub(crate) host: String,
    pub(crate) start: &'a dyn Fn(&Path) -> Result<Command>,
}

impl Site<'_> {
    pub(crate) fn program(&self, name: &str) -> Result<Command> {
        (self.start)(Path::new(name))
    }

    pub(crate) fn pinned(&self, name: &str) -> Result<Command> {
        (self.start)(&tool(name)?)
    }
}

/// An image as a layout folder, and the digest of its manifest.
pub(crate) struct Layout {
    folder: TempDir,
    pub(crate) digest: String,
}

impl Layout {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        Image::new("/bin/true", "/main").furnished().write_layout(folder.path())?;
        let digest = manifest_of(folder.path())?;
        Ok(Self { folder, digest })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// That every blob of this layout is in `other`, byte for byte.
    pub(crate) fn ensure_is_in(&self, other: &Path) -> Result<()> {
        let folder = self.path().join("blobs/sha256");
        for entry in fs::read_dir(&folder).context("list the blobs")? {
            let name = entry.context("list the blobs")?.file_name();
            let (ours, theirs) = (folder.join(&name), other.join("blobs/sha256").join(&name));
            let same = fs::read(ours).ok() == fs::read(theirs).ok();
            ensure!(same, "{} came back differently or not at all", name.display());
        }
        Ok(())
    }
}

/// The digest of the first manifest of a layout.
fn manifest_of(layout: &Path) -> Result<String> {
    let index = fs::read(layout.join("index.json")).context("read the index")?;
    let index: serde_json::Value = serde_json::from_slice(&index).context("read the index")?;
    let digest = index["manifests"][0]["digest"].as_str();
    digest.map(str::to_owned).context("the index names no manifest")
}

pub(crate) async fn crane(site: &Site<'_>) -> Result<()> {
    let layout = Layout::new()?;
    let image = format!("{}/crane/deep/path:1", site.host);
    succeed(site.pinned("crane")?.args(["push", "--insecure"]).arg(layout.path()).arg(&image)).await?;
    let digest = succeed(site.pinned("crane")?.args(["digest", "--insecure", &image])).await?;
    ensure!(digest.trim() == layout.digest, "pushed {}, stored {digest}", layout.digest);
    let back = tempfile::tempdir().context("make a folder")?;
    succeed(site.pinned("crane")?.args(["pull", "--insecure", "--format=oci", &image]).arg(back.path()))
        .await?;
    layout.ensure_is_in(back.path())?;
    let tags =
        succeed(site.pinned("crane")?.args(["ls", "--insecure", &format!("{}/crane/deep/path", site.host)]))
            .await?;
    ensure!(tags == "1\n", "the tags are {tags:?}");
    Ok(())
}

/// Where clients may not delete (`deletes`), the tag is left.
pub(crate) async fn regctl(site: &Site<'_>, deletes: bool) -> Result<()> {
    let layout = Layout::new()?;
    let home = tempfile::tempdir().context("make a folder")?;
    let regctl = || -> Result<Command> {
        let mut regctl = site.pinned("regctl")?;
        regctl.env("HOME", home.path()).arg("--host");
        regctl.arg(format!("reg={},tls=disabled", site.host));
        Ok(regctl)
    };
    let first = format!("{}/regctl/first:1", site.host);
    let second = format!("{}/regctl/second:1", site.host);
    let from = format!("ocidir://{}@{}", layout.path().display(), layout.digest);
    succeed(regctl()?.args(["image", "copy", &from, &first])).await?;
    succeed(regctl()?.args(["image", "copy", &first, &second])).await?;
    let digest = succeed(regctl()?.args(["image", "digest", &second])).await?;
    ensure!(digest.trim() == layout.digest, "pushed {}, copied {digest}", layout.digest);
    if !deletes {
        return Ok(());
    }
    succeed(regctl()?.args(["tag", "delete", &second])).await?;
    let gone = succeed(regctl()?.args(["image", "digest", &second])).await;
    ensure!(gone.is_err(), "the tag is still there after its deletion");
    succeed(regctl()?.args(["image", "digest", &first])).await.map(drop)
}

pub(crate) async fn skopeo(site: &Site<'_>) -> Result<()> {
    let layout = Layout::new()?;
    let image = format!("docker://{}/skopeo/image:1", site.host);
    let back = tempfile::tempdir().context("make a folder")?;
    let mut there = site.program("skopeo")?;
    there.args(["copy", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false"]);
    succeed(there.arg(format!("oci:{}", layout.path().display())).arg(&image)).await?;
    let mut and_back = site.program("skopeo")?;
    and_back.args(["copy", "--insecure-policy", "--preserve-digests", "--src-tls-verify=false"]);
    succeed(and_back.arg(&image).arg(format!("oci:{}:1", back.path().display()))).await?;
    layout.ensure_is_in(back.path())
}

pub(crate) async fn podman(site: &Site<'_>) -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let podman = || -> Result<Command> {
        let mut podman = site.program("podman")?;
        podman.arg("--root").arg(folder.path().join("root"));
        podman.arg("--runroot").arg(folder.path().join("run"));
        podman.args(["--storage-driver=vfs", "--log-level=error"]);
        Ok(podman)
    };
    let image = format!("{}/podman/image:1", site.host);
    let root = file_system(folder.path()).await?;
    let id = succeed(podman()?.args(["import", "--quiet"]).arg(&root)).await?;
    let id = id.trim().trim_start_matches("sha256:");
    succeed(podman()?.args(["push", "--quiet", "--tls-verify=false", id, &image])).await?;
    succeed(podman()?.args(["rmi", "--force", id])).await?;
    let again = succeed(podman()?.args(["pull", "--quiet", "--tls-verify=false", &image])).await?;
    ensure!(again.trim() == id, "pushed {id}, pulled {again}");
    Ok(())
}

pub(crate) async fn oras(site: &Site<'_>) -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let (file, back) = (folder.path().join("report.txt"), folder.path().join("back"));
    fs::write(&file, "all is well\n").context("write a file")?;
    let artifact = format!("{}/oras/artifact:1", site.host);
    let oras = |action: &str| -> Result<Command> {
        let mut oras = site.pinned("oras-client")?;
        oras.args([action, &artifact]);
        Ok(oras)
    };
    succeed(oras("push")?.arg("application/vnd.test.report").arg(&file)).await?;
    let referrer = succeed(oras("attach")?.arg("application/vnd.test.signature").arg(&file)).await?;
    let found = succeed(&mut oras("discover")?).await?;
    let expected = format!("{} application/vnd.test.signature\n", referrer.trim());
    ensure!(found == expected, "attached {expected:?}, discovered {found:?}");
    succeed(oras("pull")?.arg(&back)).await?;
    let text = fs::read_to_string(back.join("report.txt")).context("read what was pulled")?;
    ensure!(text == "all is well\n", "pulled {text:?}");
    Ok(())
}

pub(crate) async fn helm(site: &Site<'_>) -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let [made, back] = ["made", "back"].map(|name| folder.path().join(name));
    fs::create_dir(&back).context("make a folder")?;
    let helm = |arguments: &[&str]| -> Result<Command> {
        let mut helm = site.pinned("helm")?;
        helm.env("HELM_CACHE_HOME", folder.path()).args(arguments);
        Ok(helm)
    };
    let version = "--version=1.2.3+build.4";
    let chart = repository().join("charts/stowage");
    succeed(helm(&["package", version, "--destination"])?.arg(&made).arg(chart)).await?;
    let name = "stowage-1.2.3+build.4.tgz";
    let charts = format!("oci://{}/charts", site.host);
    succeed(helm(&["push", "--plain-http"])?.arg(made.join(name)).arg(&charts)).await?;
    let chart = format!("{charts}/stowage");
    succeed(helm(&["pull", "--plain-http", version, &chart, "--destination"])?.arg(&back)).await?;
    let [sent, returned] = [made, back].map(|folder| fs::read(folder.join(name)));
    ensure!(sent.context("read the chart")? == returned.context("read what came back")?, "another chart");
    let shown = succeed(&mut helm(&["show", "chart", "--plain-http", version, &chart])?).await?;
    ensure!(shown.contains("version: 1.2.3+build.4\n"), "it is {shown}");
    Ok(())
}

/// A tarball that an engine can import as an image's file system.
pub(crate) async fn file_system(folder: &Path) -> Result<PathBuf> {
    let tarball = folder.join("root.tar");
    let mut tar = command("tar");
    tar.args(["--create", "--directory=/usr/share/zoneinfo", "--file"]).arg(&tarball).arg("Europe");
    succeed(&mut tar).await?;
    Ok(tarball)
}
