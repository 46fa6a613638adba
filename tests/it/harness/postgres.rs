//! A real PostgreSQL server of the test process's own.
//!
//! One cluster a process, in a directory of its own, reachable through a unix socket alone, so nothing
//! collides with another run. Each test gets a fresh database in it. The server dies with the process,
//! however that ends; what it leaves on the disk is removed by the next run.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use sea_orm::{ConnectionTrait, Database};

use super::process::die_with_parent;

/// How long the server may take until it accepts connections.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Directories of clusters are called this, followed by the id of the process that made them.
const DIRECTORY_PREFIX: &str = "chroma-sync-postgres-";

/// Settings that make tests fast and lose everything with the machine.
const FORGETFUL: &[&str] = &[
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "autovacuum=off",
    "max_connections=300",
];

/// A server that runs.
pub struct Cluster {
    /// Holds its socket, and its files in `data`.
    pub directory: PathBuf,
    databases: AtomicU32,
}

/// The URL of a new, empty database in the cluster that all tests share.
pub async fn fresh_database() -> String {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| start(FORGETFUL)).fresh_database().await
}

impl Cluster {
    /// The URL of a new, empty database.
    pub async fn fresh_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let server = Database::connect(self.url("postgres")).await.unwrap();
        server
            .execute_unprepared(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        server.close().await.unwrap();
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        let socket_directory = self.directory.to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@localhost/{database}?host={socket_directory}")
    }
}

/// Starts a cluster with these settings, `name=value`. One a process: its directory is named by the process.
pub fn start(settings: &[&str]) -> Cluster {
    remove_stale_directories();
    let programs = programs();
    let directory = std::env::temp_dir().join(format!("{DIRECTORY_PREFIX}{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    let account = Account::of_the_server();
    account.give(&directory);
    let data = directory.join("data");

    let mut initdb = Command::new(programs.join("initdb"));
    initdb.args([
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
        "--pgdata",
    ]);
    let output = account.run_as(initdb.arg(&data), &directory).output().unwrap();
    assert!(
        output.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );

    let mut server = Command::new(programs.join("postgres"));
    server
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(&directory)
        .args(["-c", "listen_addresses="]);
    for setting in settings {
        server.args(["-c", setting]);
    }
    account
        .run_as(&mut server, &directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    wait_until_ready(server);
    Cluster {
        directory,
        databases: AtomicU32::new(0),
    }
}

/// Starts the server from a thread that lives as long as the process: the signal that ends the server is
/// tied to the thread that started it.
fn wait_until_ready(mut server: Command) {
    let (ready, is_ready) = mpsc::channel();
    thread::Builder::new()
        .name("postgres".to_owned())
        .spawn(move || {
            die_with_parent(&mut server, libc::SIGQUIT);
            let mut child = server.spawn().unwrap();
            let mut log = Vec::new();
            for line in BufReader::new(child.stderr.take().unwrap()).lines() {
                let line = line.unwrap_or_default();
                if line.ends_with("database system is ready to accept connections") {
                    ready.send(Ok(())).ok();
                }
                // Kept for the case that it never gets ready; afterwards only the newest lines matter.
                log.truncate(100);
                log.push(line);
            }
            ready.send(Err(log.join("\n"))).ok();
            child.wait().ok();
        })
        .unwrap();
    match is_ready.recv_timeout(START_DEADLINE) {
        Ok(Ok(())) => {}
        Ok(Err(log)) => panic!("PostgreSQL ended before it was ready:\n{log}"),
        Err(_) => panic!("PostgreSQL was not ready within {START_DEADLINE:?}"),
    }
}

/// The account that the server runs as: PostgreSQL refuses to run as root.
struct Account(Option<(u32, u32)>);

impl Account {
    fn of_the_server() -> Self {
        // SAFETY: geteuid has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            return Self(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap();
        let find = |name: &str| {
            let line = accounts
                .lines()
                .find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2).map(str::parse::<u32>);
            Some((fields.next()?.ok()?, fields.next()?.ok()?))
        };
        let account = find("postgres").or_else(|| find("nobody"));
        Self(Some(account.expect(
            "tests that run as root need an account postgres or nobody; run `make peers`",
        )))
    }

    fn give(&self, path: &Path) {
        if let Some((user, group)) = self.0 {
            std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
        }
    }

    fn run_as<'a>(&self, command: &'a mut Command, directory: &Path) -> &'a mut Command {
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command.current_dir(directory)
    }
}

/// The directory with `initdb`, `postgres` and its other programs.
pub fn programs() -> PathBuf {
    let provided = Path::new(env!("CARGO_MANIFEST_DIR")).join(".peers/postgres/bin");
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let mut installed: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|v| v.path().join("bin"))
        .collect();
    installed.sort();
    std::iter::once(provided)
        .chain(std::env::split_paths(&search_path))
        .chain(installed.into_iter().rev())
        .find(|directory| {
            ["initdb", "postgres"]
                .iter()
                .all(|program| directory.join(program).is_file())
        })
        // The server's account may not be able to walk through the directories of the link.
        .map(|directory| {
            fs::canonicalize(directory.join("postgres"))
                .unwrap()
                .parent()
                .unwrap()
                .to_owned()
        })
        .expect("PostgreSQL (initdb, postgres) is not installed; run `make peers`")
}

/// Removes what earlier runs left behind whose process is gone.
fn remove_stale_directories() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(DIRECTORY_PREFIX));
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            // Another run may be removing it, too.
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}
