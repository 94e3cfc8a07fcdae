// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A registry made of real parts: replicas, a PostgreSQL server, an S3 server, another registry that is mirrored, and the
//! lines between them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use stowage_e2e::history::{Action, Moment, Operation, Outage, Outcome, Part, Policy, Recorder};
use stowage_e2e::load::{Load, Odds};
use stowage_e2e::{binary, command, free_port, succeed, tool, until};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::line::Line;
use crate::postgres::{self, Postgres};
use crate::program::{Program, User};
use crate::upstream::{self, Upstream};

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
  garbageCollection: {gracePeriod: 10s}
  trash: {retainFor: 5s}
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

/// A blip is what an outage leaves behind: connections that were made during it, a pool that fills up again. Over a
/// line that is dead without a word a write is given up after 15 seconds.
const RECOVERY: Duration = Duration::from_secs(16);
/// Half the grace period: for less than that a blob that is known to be there may stay without being looked at.
const GRACE: Duration = Duration::from_secs(5);

/// The parts, and the book of what happens to them.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) postgres: Mutex<Postgres>,
    pub(crate) s3: Mutex<S3>,
    pub(crate) to_postgres: Line,
    pub(crate) to_s3: Line,
    pub(crate) upstream: Upstream,
    /// The replicas that a Service sends nobody to.
    out_of_service: Arc<AtomicU64>,
    folder: TempDir,
    /// Each waits until a database that was away was compared with the bucket.
    comparisons: std::sync::Mutex<JoinSet<()>>,
}

impl Site {
    /// Starts everything; returns when every replica is ready. Of several replicas the first has a clock that is off by
    /// so many hours.
    pub(crate) async fn start(replicas: usize, hours: i8) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stowage-chaos-").tempdir().context("make a folder")?;
        // The database's server is another user.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), everybody).context("open the folder")?;
        let postgres = Postgres::start_new(&folder.path().join("postgres")).await?;
        let s3 = S3::start_new(folder.path()).await?;
        let to_postgres = Line::to(postgres.port()).await?;
        let to_s3 = Line::to(s3.port).await?;
        let upstream = Upstream::start_new(folder.path()).await?;
        configure(folder.path(), &to_postgres, &to_s3, &upstream)?;
        let mut migrate = command(binary("stowage-registry")?);
        succeed(migrate.arg("migrate").args(configuration(folder.path()))).await?;
        let replica = |number| {
            let mut arguments = configuration(folder.path());
            arguments.extend(["--data-dir".into(), folder.path().join(format!("data-{number}")).into()]);
            Replica::new(number, folder.path(), arguments)
        };
        let mut replicas = (0..replicas).map(replica).collect::<Result<Vec<_>>>()?;
        replicas[0].hours = hours;
        let policy =
            Policy { recovery: RECOVERY, blob_grace: Some(GRACE), mirror: Some(upstream::promise()) };
        let site = Self {
            recorder: Arc::new(Recorder::start(policy)),
            replicas,
            postgres: Mutex::new(postgres),
            s3: Mutex::new(s3),
            to_postgres,
            to_s3,
            upstream,
            out_of_service: Arc::default(),
            folder,
            comparisons: std::sync::Mutex::default(),
        };
        for replica in &site.replicas {
            replica.start().await?;
        }
        ensure!(site.replicas[0].hours_off().await? == hours, "no clock is off");
        Ok(site)
    }

    /// A place for more.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
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
            patience: Duration::from_mins(3),
            // More than a request may take that carries a whole part to a bucket that vanished (34 s), and then waits
            // for a database that did (a hold of 20 s, whose last attempt takes 15 s).
            timeout: Duration::from_secs(75),
            odds: Odds { large_layer: 0.01, crash: 0.02 },
            out_of_service: Arc::clone(&self.out_of_service),
            upstream: None,
        }
    }

    /// Replaces every replica, one after the other, as a Deployment does: no new request goes to one that ends.
    pub(crate) async fn roll_out(&self) -> Result<()> {
        for replica in &self.replicas {
            self.outage(Part::Replica(replica.number), "it is replaced", async || {
                let ending = replica.stop();
                let told = async {
                    // Those who send it requests learn of its end a little later.
                    sleep(Duration::from_millis(200)).await;
                    self.out_of_service.fetch_or(1 << replica.number, Ordering::Relaxed);
                };
                tokio::join!(ending, told).0?;
                replica.start().await?;
                self.out_of_service.fetch_and(!(1 << replica.number), Ordering::Relaxed);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Does something to a part and undoes it; meanwhile, and until it works again, the part is known to be out.
    pub(crate) async fn outage<T>(
        &self,
        part: Part,
        reason: &str,
        deed: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let compared = (part == Part::Database).then(|| self.recorder.outage(Part::References, reason));
        let outage = self.recorder.outage(part, reason);
        let done = deed().await.with_context(|| reason.to_owned())?;
        self.recorder.over(outage);
        if let Some(compared) = compared {
            let (recorder, port) = (Arc::clone(&self.recorder), self.to_postgres.port());
            let mut comparisons = self.comparisons.lock().unwrap_or_else(PoisonError::into_inner);
            comparisons.spawn(async move {
                while !is_compared(port).await {
                    sleep(Duration::from_millis(100)).await;
                }
                recorder.over(compared);
            });
        }
        Ok(done)
    }

    /// Returns when the database was compared with all of the bucket.
    pub(crate) async fn compared(&self) -> Result<()> {
        until("the comparison of the database with the bucket", PATIENCE, async || {
            Ok(is_compared(self.to_postgres.port()).await.then_some(()))
        })
        .await
    }

    /// How many pushes of manifests began since then and were acknowledged.
    pub(crate) fn acknowledged_since(&self, since: Moment) -> usize {
        let is_push = |done: &&Operation| {
            matches!(done.action, Action::PushManifest { .. }) && done.outcome == Outcome::Acknowledged
        };
        let history = self.recorder.history();
        history.operations.iter().filter(|done| done.invoked >= since).filter(is_push).count()
    }

    /// Whether database or bucket were out, or not yet to be relied on, at some time since then.
    pub(crate) fn was_out_since(&self, since: Moment) -> bool {
        let parts = [Part::Database, Part::Bucket, Part::References];
        let is_over = |outage: &Outage| outage.until.is_some_and(|until| until.after(RECOVERY) < since);
        self.recorder.outages().iter().any(|outage| parts.contains(&outage.part) && !is_over(outage))
    }

    /// A command of the registry's program, over all its parts.
    pub(crate) fn registry(&self, subcommand: &str) -> Result<Command> {
        let mut registry = command(binary("stowage-registry")?);
        registry.args(["--log-format", "text", subcommand]).args(configuration(self.folder.path()));
        registry.kill_on_drop(true);
        Ok(registry)
    }

    /// That database and bucket agree, object by object.
    pub(crate) async fn verify(&self) -> Result<()> {
        self.compared().await?;
        succeed(&mut self.registry("verify")?).await.map(drop)
    }

    /// Keeps what is needed to see what went wrong, and says where.
    pub(crate) fn keep(self) -> Result<PathBuf> {
        self.recorder
            .history()
            .keep(&self.folder.path().join("history.jsonl"))
            .context("write the history")?;
        Ok(self.folder.keep())
    }
}

fn configure(folder: &Path, to_postgres: &Line, to_s3: &Line, upstream: &Upstream) -> Result<()> {
    let resources = RESOURCES.replace("@BUCKET@", BUCKET).replace("@S3@", &to_s3.port().to_string());
    let resources = resources + &upstream.resources();
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

/// What says where the configuration is.
fn configuration(folder: &Path) -> Vec<OsString> {
    let folder = |name| folder.join(name).into_os_string();
    vec!["--config".into(), folder("config"), "--secrets-dir".into(), folder("secrets")]
}

/// Whether the incarnation of the database that is reached by `port` was compared with all of the bucket.
async fn is_compared(port: u16) -> bool {
    let question = "SELECT reconciled = epoch AND fence = pg_postmaster_start_time() FROM meta";
    let answer = timeout(Duration::from_secs(3), postgres::ask(port, question)).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.trim() == "t"))
}

/// A replica, wherever it is in its life.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) number: usize,
    address: String,
    operations: String,
    log: PathBuf,
    /// Where its configuration and its data are.
    arguments: Vec<OsString>,
    /// The command that the program is started by, if it is not started by itself.
    started_by: Vec<OsString>,
    /// How far its clock is off.
    hours: i8,
    running: Mutex<Option<Program>>,
}

impl Replica {
    /// One that writes its log into `folder`.
    pub(crate) fn new(number: usize, folder: &Path, arguments: Vec<OsString>) -> Result<Self> {
        let address = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
        let (address, operations) = (address()?, address()?);
        let log = folder.join(format!("replica-{number}.log"));
        let (started_by, running) = (Vec::new(), Mutex::default());
        Ok(Self { number, address, operations, log, arguments, started_by, hours: 0, running })
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
        .with_context(|| format!("its log ends:\n{}", end_of(&self.log)))
    }

    fn program(&self, name: &str) -> Result<Program> {
        let mut start = self.started_by.clone();
        start.push(binary("stowage-registry")?.into());
        let mut serve = command(&start[0]);
        serve.args(&start[1..]).env("STOWAGE_LOG", "info").args(["--log-format", "text", "serve"]);
        serve
            .args(&self.arguments)
            .args(["--listen", &self.address, "--ops-listen", &self.operations])
            .args(["--admin-listen", &format!("127.0.0.1:{}", free_port()?)])
            // Longer than a busy machine may take to tell the clients.
            .args(["--drain-delay", "3", "--drain-timeout", "30"]);
        if self.hours != 0 {
            serve.env("LD_PRELOAD", another_clock()?).env("FAKETIME", format!("{:+}h", self.hours));
            // Clocks that only measure go as they do.
            serve.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        Program::start(name, &serve, User::Own, &self.log)
    }

    /// The same, started by a command.
    pub(crate) fn started_by(self, command: &[OsString]) -> Self {
        Self { started_by: command.to_vec(), ..self }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How far its clock is off, by the date of its answers.
    async fn hours_off(&self) -> Result<i8> {
        let mut ask = command("curl");
        ask.args(["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%header{date}"]);
        let date = succeed(ask.arg(format!("http://{}/v2/", self.address))).await?;
        let seconds = async |of: &str| -> Result<i64> {
            let printed = succeed(command("date").args(["+%s", "--date", of])).await?;
            printed.trim().parse().context("read a time")
        };
        let minutes = (seconds(&date).await? - seconds("now").await?) / 60;
        Ok(i8::try_from((minutes + 30 * minutes.signum()) / 60)?)
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

/// The last lines of a log, which a folder that is not kept takes with it.
fn end_of(log: &Path) -> String {
    let said = match fs::read(log) {
        Ok(said) => String::from_utf8_lossy(&said).into_owned(),
        Err(error) => return format!("{}: {error}", log.display()),
    };
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
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

/// The library that lets a program see another time.
fn another_clock() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib").context("look into /usr/lib")?;
    let libraries = folders.filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")));
    let mut libraries = libraries.filter(|library| library.is_file());
    libraries.next().context("libfaketime is missing: `tools/packages` installs it")
}
