//! Opens the pools of connections that a store works with.

use std::{ffi::OsString, path::PathBuf, str::FromStr, time::Duration};

use sea_orm::{
    ConnectOptions, Database, DatabaseConnection, metric,
    sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{StoreOptions, checkpoint::LOG_PAGES, error::StoreError, kept::MAX_KEPT};

/// Connections that read from SQLite at once, beside those that are kept and the one of checkpoints. Reads are short,
/// and more only contend for the cache.
const SQLITE_READERS: u32 = 4;
/// Rows that a SQLite connection reads ahead: those of a full batch of coalesced calls.
const ROW_BUFFER: usize = 128;
/// What the file of the embedding cache has behind the name of the store's.
const EMBEDDINGS_SUFFIX: &str = "-embeddings";
/// How often opening a SQLite file is tried while another process changes its journal mode.
const SQLITE_OPEN_TRIES: u32 = 20;
/// The pause between those tries.
const SQLITE_OPEN_PAUSE: Duration = Duration::from_millis(50);
/// How long a pooled connection may be idle before it is checked when it is next used.
const CHECK_AFTER_IDLE: Duration = Duration::from_secs(30);

/// What `log.filter` calls the log of statements: `info,sql=debug` shows each.
const STATEMENT_LOG: &str = "sql";
/// A statement that takes longer is logged as a warning, whatever the log's filter says of others.
const SLOW_STATEMENT: Duration = Duration::from_secs(1);

/// The pools of one database.
pub(super) enum Pools {
    /// One pool reads and writes.
    Postgres(DatabaseConnection),
    /// One connection writes, others read.
    Sqlite {
        writer: DatabaseConnection,
        readers: DatabaseConnection,
    },
}

/// Connects to the database that `options.url` names; a SQLite file is created when it is missing.
pub(super) async fn connect(options: &StoreOptions) -> Result<Pools, StoreError> {
    let url = url::Url::parse(&options.url).map_err(|_| StoreError::InvalidUrl {
        problem: "it cannot be read as a URL",
    })?;
    match url.scheme() {
        "postgres" | "postgresql" => Ok(Pools::Postgres(postgres(options).await?)),
        "sqlite" if is_file(&options.url) => Ok(Pools::Sqlite {
            // The writer goes first: it creates the file and turns the write-ahead log on.
            writer: sqlite(options, SqliteFile::Store, SqliteAccess::Write).await?,
            readers: sqlite(options, SqliteFile::Store, SqliteAccess::Read).await?,
        }),
        "sqlite" => Err(StoreError::InvalidUrl {
            problem: "it must name a file, not memory",
        }),
        _ => Err(StoreError::InvalidUrl {
            problem: "its scheme is neither sqlite nor postgres",
        }),
    }
}

/// A database in memory belongs to one connection, so the readers would see another, empty one.
fn is_file(url: &str) -> bool {
    let path = url
        .split_once(':')
        .map_or("", |(_, path)| path.trim_start_matches('/'));
    !path.is_empty() && !path.starts_with(':') && !path.starts_with('?') && !url.contains("mode=memory")
}

fn common(options: &StoreOptions, connections: u32) -> ConnectOptions {
    let mut connect = ConnectOptions::new(options.url.clone());
    connect
        .max_connections(connections)
        .acquire_timeout(options.acquire_timeout)
        .connect_timeout(options.acquire_timeout)
        .test_before_acquire_if_idle_for(CHECK_AFTER_IDLE)
        .sqlx_logging(false)
        .record_stmt_in_spans(false);
    connect
}

async fn postgres(options: &StoreOptions) -> Result<DatabaseConnection, StoreError> {
    // One more than configured, which listens.
    let mut connect = common(options, options.max_connections.saturating_add(1));
    connect
        .statement_timeout(options.statement_timeout)
        .set_application_name("chroma-sync");
    let mut database = Database::connect(connect).await?;
    database.set_metric_callback(log_ran);
    Ok(database)
}

/// Tells of each statement that ran, and louder of a slow one. Values are left out: they may be secret.
pub(super) fn log_statement(sql: &str, elapsed: Duration, failed: bool) {
    let milliseconds = elapsed.as_secs_f64() * 1e3;
    if elapsed >= SLOW_STATEMENT {
        tracing::warn!(target: STATEMENT_LOG, milliseconds, failed, sql, "slow statement");
    } else {
        tracing::debug!(target: STATEMENT_LOG, milliseconds, failed, sql, "statement");
    }
}

fn log_ran(ran: &metric::Info<'_>) {
    log_statement(&ran.statement.sql, ran.elapsed, ran.failed);
}

/// Opens the file of the embedding cache beside the store that `options.url` names, which is a file of SQLite:
/// the connection that writes, and those that read.
pub(super) async fn embeddings(
    options: &StoreOptions,
) -> Result<(DatabaseConnection, DatabaseConnection), StoreError> {
    let store = SqliteConnectOptions::from_str(&options.url).map_err(|_| StoreError::InvalidUrl {
        problem: "it names no file of SQLite",
    })?;
    let mut path = OsString::from(store.get_filename());
    path.push(EMBEDDINGS_SUFFIX);
    let file = SqliteFile::Embeddings(path.into());
    let writer = sqlite(options, file.clone(), SqliteAccess::Write).await?;
    Ok((writer, sqlite(options, file, SqliteAccess::Read).await?))
}

/// What a file of SQLite is for.
#[derive(Clone)]
enum SqliteFile {
    /// The one that the URL names.
    Store,
    /// The embedding cache, with its path.
    Embeddings(PathBuf),
}

#[derive(Clone, Copy)]
enum SqliteAccess {
    Read,
    Write,
}

async fn sqlite(
    options: &StoreOptions,
    file: SqliteFile,
    access: SqliteAccess,
) -> Result<DatabaseConnection, StoreError> {
    let connections = match (access, &file) {
        (SqliteAccess::Read, SqliteFile::Store) => SQLITE_READERS + 1 + MAX_KEPT,
        (SqliteAccess::Read, SqliteFile::Embeddings(_)) => SQLITE_READERS + 1,
        (SqliteAccess::Write, _) => 1,
    };
    let busy_timeout = options.busy_timeout;
    let mut connect = common(options, connections);
    connect.map_sqlx_sqlite_opts(move |sqlite| {
        let sqlite = match &file {
            // With the write-ahead log, only FULL syncs each commit to the disk.
            SqliteFile::Store => sqlite.synchronous(SqliteSynchronous::Full),
            // NORMAL may lose the last commits with the power, and never breaks the file.
            SqliteFile::Embeddings(path) => sqlite.filename(path).synchronous(SqliteSynchronous::Normal),
        };
        let sqlite = sqlite
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .foreign_keys(true)
            .busy_timeout(busy_timeout)
            // The thread of a connection need not wait for its reader before a batch is complete.
            .row_buffer_size(ROW_BUFFER);
        match access {
            SqliteAccess::Read => sqlite.pragma("query_only", "on"),
            SqliteAccess::Write => sqlite.pragma("wal_autocheckpoint", LOG_PAGES),
        }
    });
    let mut tries = 0;
    loop {
        tries += 1;
        // Turning the log on needs the file alone for a moment, and does not wait for it.
        match Database::connect(connect.clone()).await.map_err(StoreError::from) {
            Err(StoreError::Contended(_)) if tries < SQLITE_OPEN_TRIES => {
                tokio::time::sleep(SQLITE_OPEN_PAUSE).await;
            }
            Err(error) => return Err(error),
            Ok(mut database) => {
                database.set_metric_callback(log_ran);
                return Ok(database);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_file;

    #[test]
    fn a_sqlite_url_must_name_a_file() {
        assert!(is_file("sqlite:///var/lib/chroma-sync/store.db"));
        assert!(is_file("sqlite://store.db?mode=rwc"));
        for url in [
            "sqlite::memory:",
            "sqlite://:memory:",
            "sqlite://",
            "sqlite:///x?mode=memory",
        ] {
            assert!(!is_file(url), "{url}");
        }
    }
}
