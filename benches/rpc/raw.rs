//! The database itself: single rows inserted past the store, and what is read past it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
    sync::Arc,
};

use chroma_sync::store::Store;
use sea_orm::{
    ConnectionTrait, Database, DbBackend, Statement,
    sqlx::{
        self, AssertSqlSafe, ConnectOptions, Connection, SqliteConnection,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    },
};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    harness::postgres::{Cluster, programs},
    load::{Figure, Processes, drive},
};

/// How long pgbench runs.
const SECONDS: &str = "2";

/// The process id of the server of a cluster.
pub fn postmaster(cluster: &Cluster) -> u32 {
    let file = fs::read_to_string(cluster.directory.join("data/postmaster.pid")).unwrap();
    file.lines().next().unwrap().trim().parse().unwrap()
}

/// An INSERT of a row of `invocations` like the one that is there, with these expressions for its id and
/// the name of its collection.
pub async fn insert_like(url: &str, id: &str, collection: &str) -> String {
    let database = Database::connect(url).await.unwrap();
    let backend = database.get_database_backend();
    let columns = [
        "tenant",
        "source_id",
        "source_type",
        "database_name",
        "exclusive",
        "input",
        "plan",
        "create_time",
        "state",
        "revision",
        "phase",
        "statistics",
        "progress_version",
        "attempt",
        "failures",
        "next_attempt_at",
    ];
    let literals = columns.map(|column| match backend {
        DbBackend::Postgres => format!("quote_nullable({column}::text)"),
        _ => format!("quote({column})"),
    });
    let select = format!(
        "SELECT {} AS literals FROM invocations LIMIT 1",
        literals.join(" || ', ' || ")
    );
    let row = database
        .query_one_raw(Statement::from_string(backend, select))
        .await
        .unwrap()
        .unwrap();
    let literals: String = row.try_get("", "literals").unwrap();
    database.close().await.unwrap();
    let columns = columns.join(", ");
    format!(
        "INSERT INTO invocations (id, collection_name, {columns}) VALUES ({id}, {collection}, {literals})"
    )
}

/// Inserts single rows into SQLite, each in a transaction of its own that is synced.
#[derive(Clone)]
pub struct SqliteRows {
    connection: Arc<Mutex<SqliteConnection>>,
    insert: Arc<str>,
}

impl SqliteRows {
    /// Rows of `invocations`, with its indexes.
    pub async fn invocations(url: &str, store: Store) -> Self {
        store.close().await;
        let insert = insert_like(url, "$1", "hex($1)").await;
        Self::open(url, &insert).await
    }

    /// Rows of a table of a key and a number, the least that can be inserted.
    pub async fn least(url: &str) -> Self {
        let rows = Self::open(
            &format!("{url}?mode=rwc"),
            "INSERT INTO least (id, n) VALUES ($1, 1)",
        )
        .await;
        let create = "CREATE TABLE IF NOT EXISTS least (id BLOB PRIMARY KEY, n INTEGER)";
        sqlx::query(create)
            .execute(&mut *rows.connection.lock().await)
            .await
            .unwrap();
        rows
    }

    async fn open(url: &str, insert: &str) -> Self {
        let options = SqliteConnectOptions::from_str(url)
            .unwrap()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        let connection = options.disable_statement_logging().connect().await.unwrap();
        Self {
            connection: Arc::new(Mutex::new(connection)),
            insert: insert.into(),
        }
    }

    pub async fn measure(&self) -> Figure {
        let rows = self.clone();
        drive(1, &Processes(vec![]), move |_| {
            let rows = rows.clone();
            async move {
                let mut connection = rows.connection.lock().await;
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
                sqlx::query(AssertSqlSafe(&*rows.insert))
                    .bind(Uuid::now_v7())
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                transaction.commit().await.unwrap();
            }
        })
        .await
    }
}

/// `pgbench` with an INSERT as its only statement.
pub struct Pgbench {
    directory: PathBuf,
    database: String,
    script: PathBuf,
}

impl Pgbench {
    pub async fn new(cluster: &Cluster, url: &str, directory: &Path) -> Self {
        let insert = insert_like(url, "gen_random_uuid()", "gen_random_uuid()::text").await;
        let script = directory.join("insert.sql");
        fs::write(&script, format!("{insert};\n")).unwrap();
        let database = url::Url::parse(url).unwrap();
        Self {
            directory: cluster.directory.clone(),
            database: database.path().trim_start_matches('/').to_owned(),
            script,
        }
    }

    /// Transactions a second of `clients` clients.
    pub fn measure(&self, clients: usize) -> Figure {
        let clients = clients.to_string();
        let output = Command::new(programs().join("pgbench"))
            .args(["--no-vacuum", "--protocol=prepared", "--username=postgres"])
            .args([
                "--client",
                &clients,
                "--jobs",
                if clients == "1" { "1" } else { "2" },
            ])
            .args(["--time", SECONDS, "--host"])
            .arg(&self.directory)
            .arg("--file")
            .arg(&self.script)
            .arg(&self.database)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.starts_with("tps = ")).unwrap();
        let rate = line.split_whitespace().nth(2).unwrap().parse().unwrap();
        Figure {
            rate,
            server: f64::NAN,
            client: f64::NAN,
        }
    }
}
