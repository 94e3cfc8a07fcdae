// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Images that travel as files: `export` and `import`.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use serde_json::json;
use stowage_oci::{Name, Platform};
use stowage_registry::archive::{Archive, ImageName};
use stowage_registry::config::{self, Config};
use stowage_registry::jobs::{
    self, ExportCounts, ExportError, ExportOptions, Exported, Imported, Placement, Rules, Wanted,
};
use tokio::fs::File;

use super::open::{self, Beside};
use super::progress::Progress;
use super::termination::Counts;
use super::{Common, Failure, Output, print, runtime, summary};

/// Flags of `export`.
#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    common: Common,
    /// Images, as `team/app:1.0`, `team/app:1.*` or `team/app@sha256:…`
    #[arg(value_name = "REF", required_unless_present = "images")]
    references: Vec<Wanted>,
    /// File with more of them, one a line; `#` begins a comment
    #[arg(long, value_name = "FILE", env = "STOWAGE_IMAGES")]
    images: Option<PathBuf>,
    /// The tar file to write; `-` is standard output
    #[arg(short = 'o', long, value_name = "FILE", env = "STOWAGE_FILE")]
    file: PathBuf,
    /// Of images for several platforms only this one, as `linux/arm64`; can be repeated. Digests stay as they are
    #[arg(long, value_name = "OS/ARCH", env = "STOWAGE_PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// With signatures, SBOMs and whatever else refers to the images
    #[arg(long, env = "STOWAGE_REFERRERS")]
    referrers: bool,
    /// Form of the result
    #[arg(long, env = "STOWAGE_OUTPUT", default_value = "text")]
    output: Output,
}

/// Flags of `import`.
#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(flatten)]
    common: Common,
    /// The tar file, which may be compressed with gzip: an OCI image layout, or what `docker save`, `podman save` or
    /// `ctr images export` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the names of all repositories begin with
    #[arg(long, value_name = "NAME", env = "STOWAGE_REPOSITORY_PREFIX", conflicts_with = "as_name")]
    repository_prefix: Option<Name>,
    /// The repository of all images, whatever the file calls them; with a tag, if it has one image
    #[arg(id = "as_name", long = "as", value_name = "NAME[:TAG]", env = "STOWAGE_AS")]
    as_name: Option<ImageName>,
    /// Form of the result
    #[arg(long, env = "STOWAGE_OUTPUT", default_value = "text")]
    output: Output,
}

/// Why a list of images cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A line is no reference.
    #[error("{}, line {line}: {problem}", .path.display())]
    Line { path: PathBuf, line: usize, problem: String },
    /// A name that the command cannot use.
    #[error(
        "--as takes NAME or NAME:TAG of a repository of this registry, without a host and a digest, not {0:?}"
    )]
    As(String),
}

/// What a list names, one a line.
pub(super) fn list<T: FromStr<Err: std::fmt::Display>>(path: &Path) -> Result<Vec<T>, ListError> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|source| ListError::Read { path: path.to_owned(), source })?;
    let read = |(at, line): (usize, &str)| {
        let wanted = uncommented(line);
        let wrong = |problem: T::Err| ListError::Line {
            path: path.to_owned(),
            line: at + 1,
            problem: problem.to_string(),
        };
        (!wanted.is_empty()).then(|| wanted.parse().map_err(wrong))
    };
    text.lines().enumerate().filter_map(read).collect()
}

/// A line without its comment, which begins it or stands after a space.
fn uncommented(line: &str) -> &str {
    let line = if line.starts_with('#') { "" } else { line };
    line.split_once(" #").or_else(|| line.split_once("\t#")).map_or(line, |(before, _)| before).trim()
}

impl Export {
    pub(super) fn run(&self) -> Result<Counts, Failure> {
        let config = config::load(&self.common.sources(None))?;
        let mut wanted = self.references.clone();
        if let Some(images) = &self.images {
            wanted.extend(list::<Wanted>(images)?);
        }
        let options = ExportOptions {
            wanted,
            platforms: self.platform.clone(),
            referrers: self.referrers,
            host: config.hosts.first().cloned().unwrap_or_else(|| "localhost".to_owned()),
        };
        let (images, counts) = runtime()?.block_on(self.exported(&config, &options))?;
        let to_stdout = self.file == Path::new("-");
        let lines: Vec<String> = images.iter().map(|image| self.line(image)).collect();
        let counts = counts.counts();
        if to_stdout {
            // There is no other place to say it.
            for image in &images {
                tracing::info!(name = image.name, manifest.digest = %image.digest, "exported");
            }
        } else {
            print(lines.concat().as_bytes())?;
            print(summary(&counts, self.output).as_bytes())?;
        }
        Ok(counts)
    }

    async fn exported(
        &self,
        config: &Config,
        options: &ExportOptions,
    ) -> Result<(Vec<Exported>, ExportCounts), Failure> {
        let beside = open::beside(config, &self.common.data_dir).await?;
        let written = self.written(&beside, options).await;
        beside.close().await;
        Ok(written?)
    }

    async fn written(
        &self,
        beside: &Beside,
        options: &ExportOptions,
    ) -> Result<(Vec<Exported>, ExportCounts), ExportError> {
        let export = jobs::Export::find(beside.registry.domain(), options).await?;
        let images = export.images().collect();
        let progress = Progress::begin();
        let show = |done, total| progress.tell_bytes(done, total);
        let counts = if self.file == Path::new("-") {
            let stdout = fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
            export.write(File::from_std(stdout), show).await.map(|(_, counts)| counts)
        } else {
            self.replaced(&export, show).await
        };
        progress.end();
        Ok((images, counts?))
    }

    /// Writes the file beside its place, and moves it there when it is whole.
    async fn replaced(
        &self,
        export: &jobs::Export<'_>,
        show: impl Fn(u64, u64),
    ) -> Result<ExportCounts, ExportError> {
        let parent = self.file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = parent.unwrap_or_else(|| Path::new("."));
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(".stowage-export-").permissions(permissions());
        let whole = builder.tempfile_in(folder)?;
        let file = File::from_std(whole.reopen()?);
        let (file, counts) = export.write(file, show).await?;
        file.sync_all().await?;
        whole.persist(&self.file).map_err(|error| error.error)?;
        fs::File::open(folder)?.sync_all()?;
        Ok(counts)
    }

    fn line(&self, image: &Exported) -> String {
        let Exported { name, digest, absent } = image;
        match self.output {
            Output::Text if *absent == 0 => format!("exported {name} {digest}\n"),
            Output::Text => format!("exported {name} {digest}, without {absent} of what it lists\n"),
            Output::Json => {
                let line = json!({"result": "exported", "name": name, "digest": digest, "absent": absent});
                format!("{line}\n")
            }
        }
    }
}

/// Those of any new file: the umask takes from them.
fn permissions() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(0o666)
}

impl Import {
    pub(super) fn run(&self) -> Result<Counts, Failure> {
        let placement = self.placement()?;
        let config = config::load(&self.common.sources(None))?;
        let archive = Archive::open(&self.file)?;
        let (images, counts) = runtime()?.block_on(self.imported(&config, &archive, &placement))?;
        let lines: Vec<String> = images.iter().map(|image| self.line(image)).collect();
        print(lines.concat().as_bytes())?;
        print(summary(&counts, self.output).as_bytes())?;
        Ok(counts)
    }

    fn placement(&self) -> Result<Placement, ListError> {
        match (&self.as_name, &self.repository_prefix) {
            (Some(ImageName { host: None, repository, tag, digest: None }), _) => {
                Ok(Placement::As(repository.clone(), tag.clone()))
            }
            (Some(other), _) => Err(ListError::As(other.to_string())),
            (None, Some(prefix)) => Ok(Placement::Below(prefix.clone())),
            (None, None) => Ok(Placement::AsNamed),
        }
    }

    async fn imported(
        &self,
        config: &Config,
        archive: &Archive,
        placement: &Placement,
    ) -> Result<(Vec<Imported>, Counts), Failure> {
        let rules = Rules { mode: config.mode, strict_indexes: config.strict_indexes.clone() };
        let beside = open::beside(config, &self.common.data_dir).await?;
        let progress = Progress::begin();
        let images = std::cell::RefCell::new(Vec::new());
        let tell = |image: &Imported| images.borrow_mut().push(image.clone());
        let show = |done, total| progress.tell_bytes(done, total);
        let domain = beside.registry.domain();
        let counts = Box::pin(jobs::import(domain, archive, placement, &rules, tell, show)).await;
        progress.end();
        beside.close().await;
        Ok((images.into_inner(), counts?.counts()))
    }

    fn line(&self, image: &Imported) -> String {
        let Imported { repository, tag, digest, was_here } = image;
        let result = if *was_here { "present" } else { "imported" };
        let name = tag.as_ref().map_or_else(|| repository.to_string(), |tag| format!("{repository}:{tag}"));
        match self.output {
            Output::Text => format!("{result} {name} {digest}\n"),
            Output::Json => format!("{}\n", json!({"result": result, "name": name, "digest": digest})),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_list_has_comments_and_says_which_line_is_wrong() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# ours\nteam/app:v1\n\n  team/tool:* # all of them\n#team/old:v1\n").unwrap();
        let found: Vec<Wanted> = list(file.path()).unwrap();
        assert_eq!(found, ["team/app:v1", "team/tool:*"].map(|text| text.parse().unwrap()));
        file.write_all(b"Team/app:v1\n").unwrap();
        let error = list::<Wanted>(file.path()).unwrap_err().to_string();
        assert!(error.contains("line 6: \"Team/app:v1\""), "{error}");
    }
}
