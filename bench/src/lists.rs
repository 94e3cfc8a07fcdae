// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Long lists: what registries know when they have run for years, and the pages that clients read of it.
//!
//! Nobody can push that much before a benchmark. One of each kind is pushed; the others are copies, written where the
//! registry keeps such things: rows of its database, or folders. Every page is looked at: it must hold what follows
//! the item that was named.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};
use stowage_oci::{Algorithm, Digest};

use crate::load::{Client, Connection, NOTHING, Pieces};
use crate::scene::{Backing, Ground};
use crate::servers::Kind;
use crate::work::{Image, MANIFEST, Task, leap};

/// How many tags repositories have.
pub(crate) const TAGS: [u32; 3] = [100, 10_000, 1_000_000];
/// How many manifests name one as their subject.
pub(crate) const REFERRERS: u32 = 10_000;
/// How many repositories there are.
pub(crate) const REPOSITORIES: u32 = 100_000;
/// How many items of a list are asked for.
const PAGE: u32 = 100;
/// The fewest referrers of a page: its length is for the registry to say.
const REFERRERS_PAGE: usize = 100;
/// The one tag that is pushed. All others come before it.
const PUSHED: &str = "v0";
const REFERRED: &str = "lists/referrers";
/// Before the names of the repositories that have tags.
const CATALOG: &str = "catalog/r";
/// How long a registry may take to compare an empty database with an empty bucket.
const PATIENCE: Duration = Duration::from_secs(30);

fn tagged(count: u32) -> String {
    format!("lists/tags-{count}")
}

fn tag(number: u32) -> String {
    format!("t{number:07}")
}

fn repository(number: u32) -> String {
    format!("{CATALOG}{number:07}")
}

/// Makes the lists of a registry that has just been started.
pub(crate) async fn fill(
    kind: Kind,
    address: &str,
    ground: Ground,
    backing: &Backing,
    scratch: &Path,
) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    connection.with(push).await.context("push what is copied")?;
    let folder = backing.folder(kind, scratch)?;
    match kind {
        Kind::Stowage => {
            connection.with(until_trusted).await?;
            match backing.database() {
                Some(url) => copy_in_postgres(url).await,
                None => copy_in_sqlite(&folder.join("meta.sqlite")).await,
            }
        }
        Kind::Distribution | Kind::DockerRegistry => {
            copy_folders(&folder.join("docker/registry/v2/repositories"), ground)
        }
    }?;
    rustix::fs::sync();
    Ok(())
}

async fn push(client: &mut Client) -> Result<()> {
    for count in TAGS {
        Image::new(&tagged(count), 0).push(client).await?;
    }
    let image = referred();
    image.push(client).await?;
    let signature = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.signature",
        "config": image.config(), "layers": [], "subject": image.descriptor(),
        "annotations": { "org.opencontainers.image.created": "2026-01-01T00:00:00Z" },
    });
    let body = signature.to_string();
    let path = format!("/v2/{REFERRED}/manifests/{}", Digest::of(Algorithm::Sha256, body.as_bytes()));
    let header = Some((CONTENT_TYPE, MANIFEST));
    let answer = client.send_with(Method::PUT, &path, header, Pieces::from([body.into()])).await?;
    answer.expect(StatusCode::CREATED).map(drop).context("put the referrer")
}

/// Waits until the registry has compared its database with its bucket: it would miss the objects of what is copied.
async fn until_trusted(client: &mut Client) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while client.send(Method::GET, "/v2/_catalog").await?.status() != StatusCode::OK {
        if Instant::now() > end {
            bail!("no catalog within {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Rows to copy, and the statements that do it.
struct Copies {
    name: String,
    count: u32,
    sqlite: &'static str,
    postgres: &'static str,
}

fn copies() -> Vec<Copies> {
    let tags = TAGS.into_iter().map(|count| Copies {
        name: tagged(count),
        count,
        sqlite: include_str!("lists/tags.sqlite.sql"),
        postgres: include_str!("lists/tags.postgres.sql"),
    });
    let referrers = Copies {
        name: REFERRED.to_owned(),
        count: REFERRERS,
        sqlite: include_str!("lists/referrers.sqlite.sql"),
        postgres: include_str!("lists/referrers.postgres.sql"),
    };
    let repositories = Copies {
        name: CATALOG.to_owned(),
        count: REPOSITORIES,
        sqlite: include_str!("lists/repositories.sqlite.sql"),
        postgres: include_str!("lists/repositories.postgres.sql"),
    };
    tags.chain([referrers, repositories]).collect()
}

async fn copy_in_sqlite(file: &Path) -> Result<()> {
    let mut database = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await?;
    for Copies { name, count, sqlite, .. } in copies() {
        let copied = sqlx::query(sqlite).bind(&name).bind(count).execute(&mut database).await;
        copied.with_context(|| format!("copy {name}"))?;
    }
    Ok(())
}

async fn copy_in_postgres(url: &str) -> Result<()> {
    let mut database = PgConnection::connect(url).await?;
    for Copies { name, count, postgres, .. } in copies() {
        let copied = sqlx::query(postgres).bind(&name).bind(i64::from(count)).execute(&mut database).await;
        copied.with_context(|| format!("copy {name}"))?;
    }
    // As autovacuum would, at a moment that nobody chooses.
    database.execute("VACUUM ANALYZE").await.context("vacuum").map(drop)
}

/// In a folder of its own, distribution follows symbolic links: a copy is one more name. The S3 server follows none,
/// and there only lists are made that do not take minutes.
fn copy_folders(repositories: &Path, ground: Ground) -> Result<()> {
    let made = TAGS.into_iter().filter(|&count| Task::Tags(count).suits(Kind::Distribution, ground));
    for count in made {
        let tags = repositories.join(tagged(count)).join("_manifests/tags");
        for number in 0..count {
            let copy = tags.join(tag(number));
            match ground {
                Ground::Filesystem => symlink(PUSHED, &copy),
                Ground::S3 => copy_tag(&tags.join(PUSHED), &copy),
            }
            .with_context(|| format!("make {}", copy.display()))?;
        }
    }
    if Task::Catalog.suits(Kind::Distribution, ground) {
        let copy = |number| repositories.join(repository(number));
        fs::create_dir_all(copy(0).parent().expect("a repository lies in a folder"))?;
        let pushed = Path::new("..").join(tagged(TAGS[0]));
        for number in 0..REPOSITORIES {
            symlink(&pushed, copy(number)).with_context(|| format!("make {}", repository(number)))?;
        }
    }
    Ok(())
}

fn copy_tag(pushed: &Path, copy: &Path) -> io::Result<()> {
    let current = copy.join("current");
    fs::create_dir_all(&current)?;
    fs::copy(pushed.join("current/link"), current.join("link")).map(drop)
}

#[derive(Deserialize)]
struct Tags {
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Repositories {
    repositories: Vec<String>,
}

#[derive(Deserialize)]
struct Referrers {
    manifests: Vec<IgnoredAny>,
}

/// Reads one of all pages of tags there may be, going through them by leaps.
pub(crate) async fn tags(client: &mut Client, turn: u64, count: u32) -> Result<()> {
    let page = page(turn, count);
    let path = format!("/v2/{}/tags/list?{}", tagged(count), after(&page, tag));
    let list: Tags = serde_json::from_slice(&client.fetch(&path, NOTHING).await?)?;
    ensure!(list.tags.into_iter().eq(page.map(tag)), "{path} has other tags");
    Ok(())
}

/// The same of repositories.
pub(crate) async fn catalog(client: &mut Client, turn: u64) -> Result<()> {
    let page = page(turn, REPOSITORIES);
    let path = format!("/v2/_catalog?{}", after(&page, repository));
    let list: Repositories = serde_json::from_slice(&client.fetch(&path, NOTHING).await?)?;
    ensure!(list.repositories.into_iter().eq(page.map(repository)), "{path} has other repositories");
    Ok(())
}

/// Reads the first page of what names the manifest of this digest as its subject.
pub(crate) async fn referrers(client: &mut Client, subject: &Digest) -> Result<()> {
    let path = format!("/v2/{REFERRED}/referrers/{subject}");
    let list: Referrers = serde_json::from_slice(&client.fetch(&path, NOTHING).await?)?;
    let read = list.manifests.len();
    ensure!(read >= REFERRERS_PAGE, "{path} has {read} where a page was expected");
    Ok(())
}

/// The manifest that has referrers.
pub(crate) fn referred() -> Image {
    Image::new(REFERRED, 0)
}

/// The numbers of the items on the page of this turn.
fn page(turn: u64, count: u32) -> Range<u32> {
    let pages = u64::from(count - PAGE + 1);
    let first = u32::try_from(leap(turn, pages)).expect("it is less than the count");
    first..first + PAGE
}

/// The query that asks for this page.
fn after(page: &Range<u32>, name: fn(u32) -> String) -> String {
    let last = page.start.checked_sub(1).map(|before| format!("&last={}", name(before)));
    format!("n={PAGE}{}", last.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for_by_the_item_before_it() {
        assert_eq!(after(&(0..100), tag), "n=100");
        assert_eq!(after(&(7..107), tag), "n=100&last=t0000006");
        assert_eq!(after(&(7..107), repository), "n=100&last=catalog/r0000006");
    }

    #[test]
    fn pages_lie_within_the_list_and_all_over_it() {
        assert_eq!(page(5, 100), 0..100);
        let pages: Vec<_> = (0..1000).map(|turn| page(turn, 1_000_000)).collect();
        assert!(pages.iter().all(|page| page.end <= 1_000_000 && page.len() == 100));
        assert!(
            pages.iter().any(|page| page.start > 900_000) && pages.iter().any(|page| page.start < 100_000)
        );
    }

    #[test]
    fn what_is_pushed_comes_after_its_copies() {
        assert!(PUSHED > tag(u32::MAX).as_str() && tagged(100).as_str() > repository(u32::MAX).as_str());
    }

    #[test]
    fn copies_of_a_tag_are_tags() {
        let folder = tempfile::tempdir().unwrap();
        let tags = folder.path().join(tagged(100)).join("_manifests/tags");
        fs::create_dir_all(tags.join("v0/current")).unwrap();
        fs::write(tags.join("v0/current/link"), "sha256:0").unwrap();
        copy_tag(&tags.join("v0"), &tags.join("t0")).unwrap();
        symlink(PUSHED, tags.join("t1")).unwrap();
        for copy in ["t0", "t1"] {
            assert_eq!(fs::read(tags.join(copy).join("current/link")).unwrap(), b"sha256:0");
        }
    }
}
