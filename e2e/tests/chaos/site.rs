// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A registry made of real parts: replicas, a PostgreSQL server, an S3 server, and the lines between them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use stowage_e2e::history::{Part, Policy, Recorder};
use stowage_e2e::load::{Load, Odds};
use stowage_e2e::{binary, command, succeed, tool, until};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::line::Line;
use crate::postgres::Postgres;
use crate::program::{Program, User, free_port};

const PATIENCE: Duration = Duration::from_mins(1);
const BUCKET: &str = "chaos";
const ACCESS_KEY: &str = "chaos";
const SECRET_KEY: &str = "chaos-secret";
const LOGIN: (&str, &str) = ("chaos", "stowage");
/// That password with little work: it is looked up on every request.
const HTPASSWD: &str = "chaos:$2b$04$abcdefghijklmnopqrstuuPCbHTjSlbbnGGMURazs7ze7lFMEP4nW\n";

const RESOURCES: &str = "\
apiVersion: stowage.dev/v1alpha1
kind: Registry
metadata: {name: main}
spec:
  externalURL: http://registry.example
  storage:
    s3:
      bucket: @BUCKET@
      endpoint: http://127.0.0.1:@S3@
      forcePathStyle: true
      credentialsSecretRef: {name: s3}
  database:
    postgres:
      urlSecretRef: {name: database, key: url}
  auth:
    htpasswd:
      secretRef: {name: users, key: htpasswd}
---
apiVersion: stowage.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all}
spec:
  registryRef: {name: main}
  repositories: ['**']
  subjects: [{user: chaos}]
  actions: [Pull, Push, Delete]
";

/// The parts, and the book of what happens to them.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) postgres: Mutex<Postgres>,
    pub(crate) s3: Mutex<S3>,
    pub(crate) to_postgres: Line,
    pub(crate) to_s3: Line,
    folder: TempDir,
}

impl Site {
    /// Starts everything; returns when every replica is ready.
    pub(crate) async fn start(replicas: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stowage-chaos-").tempdir().context("make a folder")?;
        // The database's server is another user.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), everybody).context("open the folder")?;
        let postgres = Postgres::start_new(&folder.path().join("postgres")).await?;
        let s3 = S3::start_new(folder.path()).await?;
        let to_postgres = Line::to(postgres.port()).await?;
        let to_s3 = Line::to(s3.port).await?;
        configure(folder.path(), &to_postgres, &to_s3)?;
        let mut migrate = command(binary("stowage-registry")?);
        succeed(with_configuration(migrate.arg("migrate"), folder.path())).await?;
        let replicas =
            (0..replicas).map(|number| Replica::new(number, folder.path())).collect::<Result<Vec<_>>>()?;
        // A blip is what an outage leaves behind: connections that were made during it, a pool that fills up again.
        let policy = Policy { recovery: Duration::from_secs(10), blob_grace: None };
        let site = Self {
            recorder: Arc::new(Recorder::start(policy)),
            replicas,
            postgres: Mutex::new(postgres),
            s3: Mutex::new(s3),
            to_postgres,
            to_s3,
            folder,
        };
        for replica in &site.replicas {
            replica.start().await?;
        }
        Ok(site)
    }

    /// What clients do here.
    pub(crate) fn load(&self, seed: u64) -> Load {
        Load {
            seed,
            clients: 8,
            repositories: ["app", "team/web", "team/db"].map(str::to_owned).to_vec(),
            tags: 8,
            replicas: self.replicas.iter().map(|replica| replica.address.clone()).collect(),
            login: Some((LOGIN.0.to_owned(), LOGIN.1.to_owned())),
            patience: Duration::from_mins(2),
            timeout: Duration::from_secs(45),
            odds: Odds { large_layer: 0.01, crash: 0.02 },
        }
    }

    /// Does something to a part and undoes it; meanwhile, and until it works again, the part is known to be out.
    pub(crate) async fn outage<T>(
        &self,
        part: Part,
        reason: &str,
        deed: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let outage = self.recorder.outage(part, reason);
        let done = deed().await.with_context(|| reason.to_owned())?;
        self.recorder.over(outage);
        Ok(done)
    }

    /// Keeps what is needed to see what went wrong, and says where.
    pub(crate) fn keep(self) -> Result<PathBuf> {
        let folder = self.folder.keep();
        let file = fs::File::create(folder.join("history.jsonl")).context("make the file of the history")?;
        let mut file = std::io::BufWriter::new(file);
        self.recorder.history().write(&mut file).context("write the history")?;
        std::io::Write::flush(&mut file).context("write the history")?;
        Ok(folder)
    }
}

fn configure(folder: &Path, to_postgres: &Line, to_s3: &Line) -> Result<()> {
    let resources = RESOURCES.replace("@BUCKET@", BUCKET).replace("@S3@", &to_s3.port().to_string());
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", to_postgres.port());
    for (path, text) in [
        ("config/registry.yaml", resources.as_str()),
        ("secrets/s3/accessKeyId", ACCESS_KEY),
        ("secrets/s3/secretAccessKey", SECRET_KEY),
        ("secrets/database/url", &url),
        ("secrets/users/htpasswd", HTPASSWD),
    ] {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().context("a file lies in a folder")?).context("make a folder")?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn with_configuration<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command.arg("--config").arg(folder.join("config")).arg("--secrets-dir").arg(folder.join("secrets"))
}

/// A replica, wherever it is in its life.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) number: usize,
    address: String,
    operations: String,
    folder: PathBuf,
    running: Mutex<Option<Program>>,
}

impl Replica {
    fn new(number: usize, folder: &Path) -> Result<Self> {
        let address = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
        let folder = folder.to_owned();
        Ok(Self { number, address: address()?, operations: address()?, folder, running: Mutex::default() })
    }

    /// Starts it; returns when it is ready. If it ends before that, it is started again, as a kubelet would.
    pub(crate) async fn start(&self) -> Result<()> {
        let name = format!("replica-{}", self.number);
        let mut running = self.running.lock().await;
        until(&name, 2 * PATIENCE, async || {
            if running.as_mut().is_none_or(|program| !matches!(program.exit(), Ok(None))) {
                *running = Some(self.program(&name)?);
            }
            Ok(self.is_ready().await.then_some(()))
        })
        .await
        .with_context(|| format!("see {}", self.log(&name).display()))
    }

    fn program(&self, name: &str) -> Result<Program> {
        let mut serve = command(binary("stowage-registry")?);
        serve.env("STOWAGE_LOG", "info").args(["--log-format", "text", "serve"]);
        with_configuration(&mut serve, &self.folder)
            .args(["--listen", &self.address, "--ops-listen", &self.operations])
            .args(["--admin-listen", &format!("127.0.0.1:{}", free_port()?)])
            .args(["--drain-delay", "1", "--drain-timeout", "30", "--data-dir"])
            .arg(self.folder.join(name));
        Program::start(name, &serve, User::Own, &self.log(name))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    async fn is_ready(&self) -> bool {
        let mut ask = command("curl");
        ask.args(["--silent", "--fail", "--max-time", "2", "--output", "/dev/null"]);
        ask.arg(format!("http://{}/readyz", self.operations));
        ask.status().await.is_ok_and(|status| status.success())
    }

    /// Ends it in order, as a rollout does.
    pub(crate) async fn stop(&self) -> Result<()> {
        let mut running = self.running.lock().await;
        if let Some(mut program) = running.take() {
            program.signal(Signal::TERM)?;
            let ended = program.ended(PATIENCE).await?;
            ensure!(ended.success(), "replica {} did not end in order: {ended}", self.number);
        }
        Ok(())
    }

    /// Ends it where it stands.
    pub(crate) async fn kill(&self) -> Result<()> {
        let mut running = self.running.lock().await;
        if let Some(mut program) = running.take() {
            program.signal(Signal::KILL)?;
            program.ended(PATIENCE).await?;
        }
        Ok(())
    }

    /// Stops it from doing anything, or lets it go on.
    pub(crate) async fn signal(&self, signal: Signal) -> Result<()> {
        self.running.lock().await.as_ref().map_or(Ok(()), |program| program.signal(signal))
    }
}

/// The S3 server.
#[derive(Debug)]
pub(crate) struct S3 {
    folder: PathBuf,
    port: u16,
    running: Option<Program>,
}

impl S3 {
    /// A new server with an empty bucket, that answers.
    async fn start_new(folder: &Path) -> Result<Self> {
        let mut server = Self { folder: folder.to_owned(), port: free_port()?, running: None };
        fs::create_dir_all(folder.join("s3").join(BUCKET)).context("make the bucket")?;
        server.start().await?;
        Ok(server)
    }

    /// Starts it; returns when it answers.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let mut serve = command(tool("versitygw")?);
        let address = format!("127.0.0.1:{}", self.port);
        serve
            .env("ROOT_ACCESS_KEY_ID", ACCESS_KEY)
            .env("ROOT_SECRET_ACCESS_KEY", SECRET_KEY)
            .args(["--keep-alive", "--quiet", "--port", &address, "posix"])
            .arg(self.folder.join("s3"));
        self.running = Some(Program::start("s3", &serve, User::Own, &self.folder.join("s3.log"))?);
        until("the S3 server", PATIENCE, async || Ok(TcpStream::connect(&address).await.ok())).await.map(drop)
    }

    /// Ends it where it stands.
    pub(crate) async fn crash(&mut self) -> Result<()> {
        if let Some(mut program) = self.running.take() {
            program.signal(Signal::KILL)?;
            program.ended(PATIENCE).await?;
        }
        Ok(())
    }
}
