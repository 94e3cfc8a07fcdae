// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! The clients that people use, against the embedded registry as `stowage-registry serve` starts it.

#[path = "support/archives.rs"]
mod archives;
#[path = "support/clients.rs"]
mod clients;
mod support;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clients::{Site, file_system};
use stowage_e2e::{command, succeed};
use support::{Docker, Registry, USER};
use tokio::process::Command;

/// An embedded registry, and clients on the machine itself.
async fn on_embedded(client: impl AsyncFnOnce(&Site<'_>) -> Result<()>) -> Result<()> {
    let registry = Registry::start().await?;
    client(&Site { host: registry.host().to_owned(), start: &|program| Ok(command(program)) }).await
}

#[tokio::test]
async fn crane_pushes_and_pulls_byte_for_byte() -> Result<()> {
    on_embedded(clients::crane).await
}

#[tokio::test]
async fn crane_lists_the_catalog() -> Result<()> {
    on_embedded(async |site| {
        clients::crane(site).await?;
        let catalog = succeed(site.pinned("crane")?.args(["catalog", &site.host])).await?;
        ensure!(catalog == "crane/deep/path\n", "the catalog is {catalog:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn regctl_imports_copies_and_deletes_a_tag() -> Result<()> {
    on_embedded(async |site| clients::regctl(site, true).await).await
}

#[tokio::test]
async fn skopeo_copies_there_and_back_byte_for_byte() -> Result<()> {
    on_embedded(clients::skopeo).await
}

#[tokio::test]
async fn podman_pushes_and_pulls_the_same_image() -> Result<()> {
    on_embedded(clients::podman).await
}

#[tokio::test]
async fn oras_pushes_attaches_discovers_and_pulls() -> Result<()> {
    on_embedded(clients::oras).await
}

#[tokio::test]
async fn p30_helm_pushes_pulls_and_shows_a_chart() -> Result<()> {
    on_embedded(clients::helm).await
}

#[tokio::test]
async fn o9_archives_of_crane_skopeo_and_podman_are_imported() -> Result<()> {
    let registry = Registry::start().await?;
    archives::are_imported(&registry).await
}

#[tokio::test]
async fn f38c_what_is_exported_is_read_by_skopeo_and_podman() -> Result<()> {
    let registry = Registry::start().await?;
    archives::are_read(&registry).await
}

#[tokio::test]
async fn o9_what_the_classic_docker_engine_saved_is_imported() -> Result<()> {
    let (registry, docker) = (Registry::start().await?, Docker::start().await?);
    let folder = tempfile::tempdir().context("make a folder")?;
    let (root, saved) = (file_system(folder.path()).await?, folder.path().join("saved.tar"));
    let image = format!("{}/saved/image:1", registry.host());
    succeed(docker.client().arg("import").arg(&root).arg(&image)).await?;
    let id = succeed(docker.client().args(["images", "--quiet", "--no-trunc", &image])).await?;
    succeed(docker.client().arg("save").arg("--output").arg(&saved).arg(&image)).await?;
    succeed(docker.client().args(["rmi", &image])).await?;
    succeed(registry.beside("import")?.arg(&saved)).await?;
    succeed(docker.client().args(["pull", "--quiet", &image])).await?;
    let again = succeed(docker.client().args(["images", "--quiet", "--no-trunc", &image])).await?;
    ensure!(id == again, "saved {id}, pulled {again}");
    Ok(())
}

#[tokio::test]
async fn the_classic_docker_engine_pushes_and_pulls_the_same_image() -> Result<()> {
    docker(&Registry::start().await?, &Docker::start().await?).await
}

async fn docker(registry: &Registry, docker: &Docker) -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let root = file_system(folder.path()).await?;
    let image = format!("{}/docker/image:1", registry.host());
    succeed(docker.client().arg("import").arg(&root).arg(&image)).await?;
    let id = succeed(docker.client().args(["images", "--quiet", "--no-trunc", &image])).await?;
    succeed(docker.client().args(["push", "--quiet", &image])).await?;
    succeed(docker.client().args(["rmi", &image])).await?;
    succeed(docker.client().args(["pull", "--quiet", &image])).await?;
    let again = succeed(docker.client().args(["images", "--quiet", "--no-trunc", &image])).await?;
    ensure!(id == again, "pushed {id}, pulled {again}");
    Ok(())
}

/// A client of a private registry: it is refused, also with a wrong password, until it has logged in.
async fn logs_in(
    login: impl Fn(&Site<'_>) -> Result<Command>,
    client: impl AsyncFn(&Site<'_>) -> Result<()>,
) -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let registry = Registry::start_private(folder.path()).await?;
    let credentials = folder.path().join("config.json");
    // All but the classic engine's client and oras read this one file.
    let start = |program: &Path| {
        let mut client = command(program);
        client.env("DOCKER_CONFIG", folder.path());
        client.env("REGISTRY_AUTH_FILE", &credentials).env("HELM_REGISTRY_CONFIG", &credentials);
        Ok(client)
    };
    let site = Site { host: registry.host().to_owned(), start: &start };
    ensure!(client(&site).await.is_err(), "somebody without a name was served");
    let [user, password] = USER;
    let wrong = succeed(login(&site)?.args(["--username", user, "--password", "wrong", &site.host])).await;
    ensure!(wrong.is_err() || client(&site).await.is_err(), "a wrong password was taken");
    succeed(login(&site)?.args(["--username", user, "--password", password, &site.host])).await?;
    client(&site).await
}

#[tokio::test]
async fn crane_is_served_once_it_has_logged_in() -> Result<()> {
    let login = |site: &Site<'_>| {
        let mut crane = site.pinned("crane")?;
        crane.args(["auth", "login"]);
        Ok(crane)
    };
    logs_in(login, clients::crane).await
}

#[tokio::test]
async fn skopeo_is_served_once_it_has_logged_in() -> Result<()> {
    let login = |site: &Site<'_>| {
        let mut skopeo = site.program("skopeo")?;
        skopeo.args(["login", "--tls-verify=false"]);
        Ok(skopeo)
    };
    logs_in(login, clients::skopeo).await
}

#[tokio::test]
async fn podman_is_served_once_it_has_logged_in() -> Result<()> {
    let login = |site: &Site<'_>| {
        let mut podman = site.program("podman")?;
        podman.args(["login", "--tls-verify=false"]);
        Ok(podman)
    };
    logs_in(login, clients::podman).await
}

#[tokio::test]
async fn helm_is_served_once_it_has_logged_in() -> Result<()> {
    let login = |site: &Site<'_>| {
        let mut helm = site.pinned("helm")?;
        helm.args(["registry", "login", "--plain-http"]);
        Ok(helm)
    };
    logs_in(login, clients::helm).await
}

#[tokio::test]
async fn oras_is_served_with_a_password() -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let registry = Registry::start_private(folder.path()).await?;
    let with = async |password: &str| {
        let start = |program: &Path| {
            let mut client = command(program);
            client.env("ORAS_USER", USER[0]).env("ORAS_PASSWORD", password);
            Ok(client)
        };
        clients::oras(&Site { host: registry.host().to_owned(), start: &start }).await
    };
    ensure!(with("wrong").await.is_err(), "a wrong password was taken");
    with(USER[1]).await
}

#[tokio::test]
async fn the_classic_docker_engine_is_served_once_it_has_logged_in() -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let (registry, engine) = (Registry::start_private(folder.path()).await?, Docker::start().await?);
    ensure!(docker(&registry, &engine).await.is_err(), "somebody without a name was served");
    let login = async |password: &str| {
        let mut login = engine.client();
        login.args(["login", "--username", USER[0], "--password", password, registry.host()]);
        succeed(&mut login).await
    };
    ensure!(login("wrong").await.is_err(), "a wrong password was taken");
    login(USER[1]).await?;
    docker(&registry, &engine).await
}
