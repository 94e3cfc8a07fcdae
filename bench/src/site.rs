// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A Stowage of its own, on storage of its own: it serves, and commands run beside it as an administrator or a Job runs
//! them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};

use crate::measure::waited_for;
use crate::scaling;
use crate::scene::{Backing, Ground};
use crate::servers::{Kind, Programs};
use crate::stowage::{Done, More, Stowage};

/// How long a walk after the start may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// A command that has ended.
pub(crate) struct Ran {
    pub(crate) printed: String,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
    pub(crate) storage_cpu: Option<Duration>,
    /// The most memory that was resident in it, in bytes.
    pub(crate) peak: u64,
}

impl Ran {
    /// What the summary counts under this name.
    pub(crate) fn count(&self, what: &str) -> u64 {
        let counts = self.printed.lines().filter_map(|line| line.split_once(' '));
        let counts = counts.filter(|(name, _)| name.trim_end_matches(':') == what);
        counts.filter_map(|(_, count)| count.parse::<u64>().ok()).sum()
    }

    pub(crate) fn check(&self, what: &str, expected: u64) -> Result<()> {
        let found = self.count(what);
        let last: Vec<&str> = self.printed.lines().rev().take(20).collect();
        ensure!(found == expected, "{what} {found}, where {expected} were expected:\n{}", last.join("\n"));
        Ok(())
    }
}

/// Where a registry of its own lies.
pub(crate) struct Site {
    pub(crate) backing: Backing,
    pub(crate) stowage: Stowage,
    /// The objects.
    pub(crate) bucket: PathBuf,
    /// The database, if it is a file.
    sqlite: Option<PathBuf>,
}

impl Site {
    pub(crate) async fn make(
        ground: Ground,
        programs: &Programs,
        scratch: &Path,
        more: Option<&More>,
    ) -> Result<Self> {
        const KIND: Kind = Kind::Stowage;
        std::fs::create_dir_all(scratch).with_context(|| format!("make {}", scratch.display()))?;
        let backing = Backing::start(ground, &[KIND], programs, scratch).await?;
        let storage = backing.storage(KIND, scratch, None)?;
        let home = scratch.join(KIND.name());
        let stowage = Stowage::with(programs, &storage, backing.database(), &home, more)?;
        let bucket = match &backing.s3 {
            Some(s3) => s3.create_bucket(KIND.name())?,
            None => home.join("data"),
        };
        let sqlite = backing.postgres.is_none().then(|| bucket.join("meta.sqlite"));
        let site = Self { backing, stowage, bucket, sqlite };
        site.migrate()?;
        Ok(site)
    }

    fn migrate(&self) -> Result<()> {
        if self.sqlite.is_none() {
            self.stowage.run(&["migrate"])?;
        }
        Ok(())
    }

    /// An empty database takes the place of the one there was.
    pub(crate) async fn lose_database(&self) -> Result<()> {
        if let Some(file) = &self.sqlite {
            for end in ["", "-wal", "-shm"] {
                // Not all are there.
                drop(std::fs::remove_file(file.with_extension(format!("sqlite{end}"))));
            }
            return Ok(());
        }
        self.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public", "").await?;
        self.migrate()
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Result<Ran> {
        let (cpu, storage) = (waited_for()?, self.backing.cpu()?);
        let begun = Instant::now();
        let done = self.stowage.run(words)?;
        let elapsed = begun.elapsed();
        self.ran(done, elapsed, cpu, storage)
    }

    /// The same, on a thread of its own.
    pub(crate) async fn run_apart(&self, words: &'static [&str]) -> Result<Ran> {
        let (cpu, storage) = (waited_for()?, self.backing.cpu()?);
        let stowage = self.stowage.clone();
        let begun = Instant::now();
        let done = tokio::task::spawn_blocking(move || stowage.run(words)).await??;
        self.ran(done, begun.elapsed(), cpu, storage)
    }

    fn ran(
        &self,
        Done { printed, peak }: Done,
        elapsed: Duration,
        cpu: Duration,
        storage: Option<Duration>,
    ) -> Result<Ran> {
        let storage_cpu =
            self.backing.cpu()?.zip(storage).map(|(after, before)| after.saturating_sub(before));
        Ok(Ran { printed, elapsed, cpu: waited_for()?.saturating_sub(cpu), storage_cpu, peak })
    }

    /// Waits until the database is compared with the bucket: after its start with SQLite, a registry does.
    pub(crate) async fn until_trusted(&self) -> Result<()> {
        const TRUSTED: &str = "SELECT count(*) FROM meta WHERE reconciled = epoch";
        let end = Instant::now() + PATIENCE;
        loop {
            let trusted: i64 = match &self.sqlite {
                Some(file) => sqlx::query_scalar(TRUSTED).fetch_one(&mut open(file).await?).await?,
                None => sqlx::query_scalar(TRUSTED).fetch_one(&mut self.connect().await?).await?,
            };
            if trusted == 1 {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("the database is not compared with the bucket after {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Makes everything a month older. Nobody works meanwhile.
    pub(crate) async fn age(&self) -> Result<()> {
        self.execute(include_str!("age.postgres.sql"), include_str!("age.sqlite.sql")).await?;
        // Each row was written anew, which a month does not.
        self.execute("VACUUM", "PRAGMA wal_checkpoint(PASSIVE)").await
    }

    /// Writes the rows of so many images, a hundred in each of their repositories, into a database that has none.
    pub(crate) async fn grow(&self, repositories: u64) -> Result<()> {
        let manifests = repositories * scaling::IMAGES;
        let Some(file) = &self.sqlite else {
            let postgres = self.backing.postgres.as_ref().context("there is no Postgres")?;
            return scaling::grow(postgres.url(), manifests, repositories).await;
        };
        // What refers to what is right by construction: to check it takes longer than to write it.
        let options = SqliteConnectOptions::new().filename(file).foreign_keys(false);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        connection.execute("CREATE TEMP TABLE bench (manifests INTEGER, repositories INTEGER)").await?;
        sqlx::query("INSERT INTO bench VALUES (?, ?)")
            .bind(i64::try_from(manifests)?)
            .bind(i64::try_from(repositories)?)
            .execute(&mut connection)
            .await?;
        connection.execute(include_str!("grown.sqlite.sql")).await.context("write the rows")?;
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        Ok(())
    }

    pub(crate) async fn execute(&self, postgres: &'static str, sqlite: &'static str) -> Result<()> {
        match &self.sqlite {
            Some(file) => open(file).await?.execute(sqlite).await.map(|_| ())?,
            None => self.connect().await?.execute(postgres).await.map(|_| ())?,
        }
        Ok(())
    }

    async fn connect(&self) -> Result<PgConnection> {
        let postgres = self.backing.postgres.as_ref().context("there is no Postgres")?;
        Ok(PgConnection::connect(postgres.url()).await?)
    }
}

async fn open(file: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(file);
    Ok(SqliteConnection::connect_with(&options).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read_with_colons_and_without() {
        let ran = Ran {
            printed: "delete a:deletedTags NoRuleKeeps\ndeletedTags: 12\ndeletedObjects 7\n".to_owned(),
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            storage_cpu: None,
            peak: 0,
        };
        assert_eq!((ran.count("deletedTags"), ran.count("deletedObjects"), ran.count("other")), (12, 7, 0));
    }
}
