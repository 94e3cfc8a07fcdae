// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! A private PostgreSQL for this process, and a database of its own for each test.
//!
//! One server is started by the first test that asks. A shell keeps it: when this process ends, however it ends,
//! the pipe to the shell closes, and the shell stops the server and removes its folder.
//! The tables are made once, in a template; each test gets a copy.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, Executor as _, PgConnection};
use stowage_registry::meta::postgres::{Options, migrate};
use tokio::sync::OnceCell;

use super::certificates::Issued;
use super::program::free_port;
use super::proxy::Proxy;

const TEMPLATE: &str = "stowage_template";

/// Stops the server when its input ends. The server is its child, so that the id cannot be another's.
const KEEPER: &str = r#"
trap '' INT TERM HUP
"$@" >>"$FOLDER/log" 2>&1 &
server=$!
echo started
cat >/dev/null
kill -INT "$server"
wait "$server"
rm -rf "$FOLDER"
"#;

struct Server {
    folder: PathBuf,
    /// Its input is the pipe that keeps the server running.
    _keeper: Child,
}

static SERVER: OnceCell<Server> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The address of a migrated database that nobody else uses.
pub(crate) async fn database() -> String {
    let server = SERVER.get_or_init(start).await;
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    copy_template(server, &name).await;
    server.url(&name)
}

/// The address of a database without tables.
pub(crate) async fn empty_database() -> String {
    let server = SERVER.get_or_init(start).await;
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let mut connection =
        PgConnection::connect(&server.url("postgres")).await.expect("connect to the test server");
    let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    connection.execute(statement).await.expect("create a database");
    connection.close().await.expect("close");
    server.url(&name)
}

/// The same database over a line that can be cut.
pub(crate) async fn proxied(url: &str) -> (Proxy, String) {
    let (address, folder) = url.split_once("?host=").expect("an address of ours");
    let proxy = Proxy::to(Path::new(folder).join(".s.PGSQL.5432")).await;
    let url = address.replace("@localhost/", &format!("@127.0.0.1:{}/", proxy.port()));
    (proxy, format!("{url}?sslmode=disable"))
}

async fn copy_template(server: &Server, name: &str) {
    let mut connection =
        PgConnection::connect(&server.url("postgres")).await.expect("connect to the test server");
    let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"));
    connection.execute(statement).await.expect("copy the template database");
    connection.close().await.expect("close");
}

impl Server {
    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.folder.display())
    }
}

async fn start() -> Server {
    let server = tokio::task::spawn_blocking(launch).await.expect("the server starts");
    let mut connection = connect(&server).await;
    let statement = sqlx::AssertSqlSafe(format!("CREATE DATABASE {TEMPLATE}"));
    connection.execute(statement).await.expect("create the template database");
    connection.close().await.expect("close");
    migrate(&Options::new(server.url(TEMPLATE))).await.expect("migrate the template database");
    server
}

async fn connect(server: &Server) -> PgConnection {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match PgConnection::connect(&server.url("postgres")).await {
            Ok(connection) => return connection,
            Err(error) if Instant::now() > deadline => {
                let log = std::fs::read_to_string(server.folder.join("log")).unwrap_or_default();
                panic!("the test server does not answer: {error}\n{log}");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn launch() -> Server {
    let programs = programs();
    let folder = tempfile::Builder::new().prefix("stowage-postgres-").tempdir().expect("a folder").keep();
    let own = is_root();
    if own {
        // The server refuses to run as root.
        let owner = Command::new("chown").arg("postgres:").arg(&folder).status().expect("run chown");
        assert!(owner.success(), "give the server its folder");
    }
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).expect("close the folder");
    let data = folder.join("data");
    let made = as_server(&programs.join("initdb"), own)
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .arg("--pgdata")
        .arg(&data)
        .output()
        .expect("run initdb");
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let keeper = keep(&programs, &folder, own);
    Server { folder, _keeper: keeper }
}

/// Runs the server below a shell that ends it with us.
fn keep(programs: &Path, folder: &Path, own: bool) -> Child {
    let mut server = as_server(&programs.join("postgres"), own);
    server.arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
    for setting in [
        "listen_addresses=",
        "max_connections=300",
        "fsync=off",
        "full_page_writes=off",
        "shared_buffers=64MB",
        "autovacuum=off",
        "deadlock_timeout=100ms",
    ] {
        server.args(["-c", setting]);
    }
    let mut keeper = Command::new("sh")
        .args(["-c", KEEPER, "sh"])
        .arg(server.get_program())
        .args(server.get_args())
        .env("FOLDER", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Out of reach of the terminal's interrupt, which ends us first.
        .process_group(0)
        .spawn()
        .expect("run sh");
    let mut line = String::new();
    let output = keeper.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut line).expect("read from the keeper");
    assert_eq!(line.trim(), "started");
    keeper
}

/// A program of the server, run as its user.
fn as_server(program: &Path, own: bool) -> Command {
    if !own {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command.current_dir("/");
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("run id");
    id.stdout == b"0\n"
}

/// The folder of the newest server that is installed.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|version| {
            let number: u32 = version.file_name().to_str()?.parse().ok()?;
            let programs = version.path().join("bin");
            (number >= 15 && programs.join("initdb").exists()).then_some((number, programs))
        })
        .max();
    newest.expect("PostgreSQL 15 or later is needed: apt-get install postgresql").1
}

/// A server of one test, that it may stop and start again.
pub(crate) struct Restartable {
    folder: PathBuf,
    /// Settings beside the common ones.
    settings: String,
}

impl Restartable {
    pub(crate) async fn start() -> Self {
        let server = Self::made("-c listen_addresses=".to_owned());
        server.go_on().await;
        server
    }

    /// One that shows this certificate on a port of loopback, and talks to nobody there but over TLS.
    pub(crate) async fn with_certificate(certificate: &Issued) -> (Self, u16) {
        let port = free_port();
        let settings = format!("-c listen_addresses=127.0.0.1 -c port={port} -c ssl=on");
        let server = Self::made(settings);
        server.put("server.crt", &certificate.chain);
        server.put("server.key", &certificate.key);
        server.put("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n");
        server.go_on().await;
        (server, port)
    }

    /// Puts a file for the server alone into its data folder.
    fn put(&self, name: &str, text: &str) {
        let path = self.folder.join("data").join(name);
        std::fs::write(&path, text).expect("write a file of the server");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("close the file");
        if is_root() {
            let owner = Command::new("chown").arg("postgres:").arg(&path).status().expect("run chown");
            assert!(owner.success(), "give the server its file");
        }
    }

    fn made(settings: String) -> Self {
        let folder = tempfile::Builder::new().prefix("stowage-postgres-").tempdir().expect("a folder").keep();
        let server = Self { folder, settings };
        let data = server.folder.join("data");
        if is_root() {
            let owner =
                Command::new("chown").arg("postgres:").arg(&server.folder).status().expect("run chown");
            assert!(owner.success(), "give the server its folder");
        }
        let mut initdb = as_server(&programs().join("initdb"), is_root());
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        assert!(initdb.arg("--pgdata").arg(&data).output().expect("run initdb").status.success());
        server
    }

    /// The address of a migrated database.
    pub(crate) async fn database(&self) -> String {
        let url = format!("postgres://postgres@localhost/postgres?host={}", self.folder.display());
        migrate(&Options::new(&url)).await.expect("migrate the database");
        url
    }

    /// Ends the server and its connections.
    pub(crate) async fn stop(&self) {
        self.control(&["stop", "--mode=fast"]).await;
    }

    /// Starts the server.
    pub(crate) async fn go_on(&self) {
        let options = format!("{} -c fsync=off -k {}", self.settings, self.folder.display());
        let log = self.folder.join("log").display().to_string();
        self.control(&["start", "--log", &log, "--options", &options]).await;
    }

    async fn control(&self, arguments: &[&str]) {
        let mut command = as_server(&programs().join("pg_ctl"), is_root());
        command.arg("--pgdata").arg(self.folder.join("data")).arg("--wait").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = tokio::task::spawn_blocking(move || command.status()).await.expect("it ends");
        assert!(status.expect("run pg_ctl").success(), "pg_ctl {arguments:?}");
    }
}

impl Drop for Restartable {
    fn drop(&mut self) {
        let mut stop = as_server(&programs().join("pg_ctl"), is_root());
        stop.arg("--pgdata").arg(self.folder.join("data")).args(["stop", "--mode=immediate"]);
        // It may be stopped already.
        drop(stop.stdout(Stdio::null()).stderr(Stdio::null()).status());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
