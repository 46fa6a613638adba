//! The embedding cache: what a model made of a text before, by a digest of everything that went into it.
//!
//! The rows are worth nothing but the time to compute them again, and the store's own writes must not wait for
//! them. On PostgreSQL they lie in a table that is not logged. On SQLite they lie in a file of their own beside
//! the store's, `{store}-embeddings`, with a writer of its own: a window of 128 vectors of 384 numbers is 200 KB
//! that would otherwise go through the one writer that all state changes wait for, with a sync of the disk for
//! each. That file may be deleted whenever no process has it open.
//!
//! The size is counted in the transaction that changes it, so that no write has to add all rows up. What was used
//! least lately goes first. A use is written down at most every six hours, so that reading costs no writes.
//!
//! Absent on purpose: tenants and models. The digest stands for them; see the worker's `embedding_cache`.

use std::{collections::HashMap, time::Duration};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, QueryResult, Statement, Value,
};

use super::{
    Store, StoreOptions, checkpoint, connect,
    error::StoreError,
    paging::padded,
    reader::Reader,
    stored::{corrupt, to_sql},
    write::{Body, Writer},
};
use crate::domain::time::Timestamp;

/// What an embedding is found by.
pub type EmbeddingDigest = [u8; 32];

/// Rows that one statement inserts; of a power of two, so that few statements are prepared.
const ROWS_AN_INSERT: usize = 32;
/// Digests that one statement looks for.
const DIGESTS_A_QUERY: usize = 256;
/// Rows that one transaction evicts at most.
const ROWS_AN_EVICTION: i64 = 1_000;
/// How old the written use of a row may be before another one is written.
const USE_GRANULARITY: Duration = Duration::from_secs(6 * 3_600);
/// What a row takes beside its payload, in bytes: the digest in the table and its index, the other columns, and
/// the unused ends of pages.
const ROW_OVERHEAD: i64 = 192;

/// Tables of a file of SQLite; on PostgreSQL a migration makes the same ones.
const SQLITE_TABLES: &str = "\
    CREATE TABLE IF NOT EXISTS embedding_cache (\
        digest BLOB NOT NULL PRIMARY KEY, payload BLOB NOT NULL, tokens INTEGER NOT NULL, \
        truncated INTEGER NOT NULL, used_at INTEGER NOT NULL); \
    CREATE INDEX IF NOT EXISTS embedding_cache_by_use ON embedding_cache (used_at); \
    CREATE TABLE IF NOT EXISTS embedding_cache_size (id INTEGER PRIMARY KEY, bytes INTEGER NOT NULL)";

/// What is kept of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEmbedding {
    /// The vector, in a form that is the caller's.
    pub payload: Vec<u8>,
    /// Tokens that the model read.
    pub tokens: u32,
    /// Whether the model read only the beginning of the text.
    pub truncated: bool,
}

impl StoredEmbedding {
    /// Bytes that it takes in the cache.
    pub fn size(&self) -> u64 {
        self.payload.len() as u64 + ROW_OVERHEAD.unsigned_abs()
    }
}

/// What a look into the cache found.
#[derive(Debug, Default)]
pub struct FoundEmbeddings {
    /// What there is.
    pub found: HashMap<EmbeddingDigest, StoredEmbedding>,
    /// Those of them whose use is to be written down again: see [`EmbeddingTable::write`].
    pub unmarked: Vec<EmbeddingDigest>,
}

/// What is written at once.
#[derive(Debug, Clone, Default)]
pub struct EmbeddingWrite {
    /// To be kept. What is there already stays as it is.
    pub insert: Vec<(EmbeddingDigest, StoredEmbedding)>,
    /// To be marked as used now.
    pub mark: Vec<EmbeddingDigest>,
}

/// The table of one database; clones share its connections.
#[derive(Clone)]
pub struct EmbeddingTable {
    reader: Reader,
    writer: Writer,
    call_timeout: Duration,
    /// Whether the connections are its own rather than those of a store.
    owned: bool,
}

impl std::fmt::Debug for EmbeddingTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EmbeddingTable").finish_non_exhaustive()
    }
}

impl Store {
    /// The embedding cache that belongs to this database; a file of SQLite is made where it is missing.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn embeddings(&self, options: &StoreOptions) -> Result<EmbeddingTable, StoreError> {
        let clock = options.clock.clone();
        let call_timeout = options.call_timeout;
        match self.backend() {
            DbBackend::Postgres => Ok(EmbeddingTable {
                reader: Reader {
                    database: self.inner.reader.database.clone(),
                    clock,
                    kept: None,
                },
                writer: self.inner.writer.clone(),
                call_timeout,
                owned: false,
            }),
            _ => {
                let (writer, readers) = connect::embeddings(options).await?;
                writer.execute_unprepared(SQLITE_TABLES).await?;
                let commits = checkpoint::start(readers.clone());
                Ok(EmbeddingTable {
                    reader: Reader {
                        database: readers,
                        clock,
                        kept: None,
                    },
                    writer: Writer::grouped(writer, commits),
                    call_timeout,
                    owned: true,
                })
            }
        }
    }
}

impl EmbeddingTable {
    /// What there is of `digests`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find(&self, digests: &[EmbeddingDigest]) -> Result<FoundEmbeddings, StoreError> {
        let database = &self.reader.database;
        let stale = self.now().0.saturating_sub(milliseconds(USE_GRANULARITY));
        let look = async {
            let mut found = FoundEmbeddings::default();
            for digests in digests.chunks(DIGESTS_A_QUERY) {
                for row in database.query_all_raw(find_statement(database, digests)).await? {
                    let (digest, embedding, used_at) = read(&row)?;
                    if used_at < stale {
                        found.unmarked.push(digest);
                    }
                    found.found.insert(digest, embedding);
                }
            }
            Ok(found)
        };
        self.within(look).await
    }

    /// Inserts and marks, both or neither. Returns how many bytes the cache takes then.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn write(&self, mut write: EmbeddingWrite) -> Result<u64, StoreError> {
        // Two that write the same rows in one order never wait for each other in a circle.
        write.insert.sort_unstable_by_key(|(digest, _)| *digest);
        write.mark.sort_unstable();
        let input = (write, self.now());
        self.run(input, |transaction, (write, now)| {
            Box::pin(insert(transaction, write, *now))
        })
        .await
    }

    /// Removes what was used least lately until `bytes` are free, at most a thousand rows. Returns how many bytes
    /// the cache takes then.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn evict(&self, bytes: u64) -> Result<u64, StoreError> {
        let input = (self.now(), to_sql(bytes));
        self.run(input, |transaction, (now, bytes)| {
            Box::pin(evict(transaction, *now, *bytes))
        })
        .await
    }

    /// Waits for the writes under way; later ones are refused. What shares the store's connections leaves them.
    pub async fn close(&self) {
        if self.owned {
            self.writer.close().await;
            // What cannot be closed properly is closed by the end of the process.
            self.reader.database.close_by_ref().await.ok();
        }
    }

    /// Of this machine's clock: uses are only compared with one another, and hours apart.
    fn now(&self) -> Timestamp {
        match &self.reader.clock {
            super::Clock::Manual(clock) => clock.now(),
            super::Clock::System => Timestamp::now(),
        }
    }

    async fn run<I, T>(&self, input: I, body: Body<I, T>) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        self.within(self.writer.write(input, body)).await
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let answer = tokio::time::timeout(self.call_timeout, call).await;
        answer.map_err(|_| StoreError::TimedOut)?
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// `$first, $first+1, ...`, as many as `count`.
fn placeholders(first: usize, count: usize) -> String {
    let names: Vec<String> = (first..first + count).map(|n| format!("${n}")).collect();
    names.join(", ")
}

fn find_statement(database: &DatabaseConnection, digests: &[EmbeddingDigest]) -> Statement {
    let digests = padded(digests);
    let sql = format!(
        "SELECT digest, payload, tokens, truncated, used_at FROM embedding_cache WHERE digest IN ({})",
        placeholders(1, digests.len())
    );
    let values = digests.iter().map(|digest| Value::from(digest.to_vec()));
    Statement::from_sql_and_values(database.get_database_backend(), sql, values)
}

fn read(row: &QueryResult) -> Result<(EmbeddingDigest, StoredEmbedding, i64), StoreError> {
    let digest: Vec<u8> = row.try_get_by_index(0)?;
    let name = hex::encode(&digest);
    let tokens: i64 = row.try_get_by_index(2)?;
    let embedding = StoredEmbedding {
        payload: row.try_get_by_index(1)?,
        tokens: u32::try_from(tokens).map_err(|_| corrupt("embedding_cache.tokens", &name))?,
        truncated: row.try_get_by_index(3)?,
    };
    let digest = EmbeddingDigest::try_from(digest).map_err(|_| corrupt("embedding_cache.digest", &name))?;
    Ok((digest, embedding, row.try_get_by_index(4)?))
}

async fn insert(
    transaction: &DatabaseTransaction,
    write: &EmbeddingWrite,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let mut added = 0;
    for rows in write.insert.chunks(ROWS_AN_INSERT) {
        added += changed_bytes(transaction, insert_statement(transaction, rows, now)).await?;
    }
    for digests in write.mark.chunks(DIGESTS_A_QUERY) {
        let digests = padded(digests);
        let sql = format!(
            "UPDATE embedding_cache SET used_at = $1 WHERE digest IN ({})",
            placeholders(2, digests.len())
        );
        let marks = digests.iter().map(|digest| Value::from(digest.to_vec()));
        let values = std::iter::once(Value::from(now.0)).chain(marks);
        let update = Statement::from_sql_and_values(transaction.get_database_backend(), sql, values);
        transaction.execute_raw(update).await?;
    }
    add_to_size(transaction, added).await
}

fn insert_statement(
    transaction: &DatabaseTransaction,
    rows: &[(EmbeddingDigest, StoredEmbedding)],
    now: Timestamp,
) -> Statement {
    // A row that is repeated is in conflict with itself, so padding inserts nothing.
    let rows = padded(rows);
    let tuples: Vec<String> = (0..rows.len())
        .map(|row| format!("({})", placeholders(row * 5 + 1, 5)))
        .collect();
    let sql = format!(
        "INSERT INTO embedding_cache (digest, payload, tokens, truncated, used_at) VALUES {} \
         ON CONFLICT (digest) DO NOTHING RETURNING CAST(length(payload) AS BIGINT)",
        tuples.join(", ")
    );
    let values = rows.into_iter().flat_map(|(digest, embedding)| {
        [
            Value::from(digest.to_vec()),
            Value::from(embedding.payload),
            Value::from(i64::from(embedding.tokens)),
            Value::from(embedding.truncated),
            Value::from(now.0),
        ]
    });
    Statement::from_sql_and_values(transaction.get_database_backend(), sql, values)
}

async fn evict(transaction: &DatabaseTransaction, now: Timestamp, bytes: i64) -> Result<u64, StoreError> {
    // The bound on the time lets both databases walk along the index. A row goes as long as those before it do
    // not free enough.
    let sql = format!(
        "DELETE FROM embedding_cache WHERE digest IN (\
         SELECT digest FROM (\
         SELECT digest, SUM(bytes) OVER (ORDER BY used_at, digest) - bytes AS freed FROM (\
         SELECT digest, used_at, CAST(length(payload) + {ROW_OVERHEAD} AS BIGINT) AS bytes FROM embedding_cache \
         WHERE used_at <= $1 ORDER BY used_at LIMIT {ROWS_AN_EVICTION}) AS waiting) AS candidates \
         WHERE freed < $2) RETURNING CAST(length(payload) AS BIGINT)"
    );
    let values = [Value::from(now.0), Value::from(bytes)];
    let delete = Statement::from_sql_and_values(transaction.get_database_backend(), sql, values);
    let removed = changed_bytes(transaction, delete).await?;
    add_to_size(transaction, -removed).await
}

/// Runs a statement that returns the length of each payload it inserted or deleted; adds up what their rows take.
async fn changed_bytes(transaction: &DatabaseTransaction, statement: Statement) -> Result<i64, StoreError> {
    let mut bytes = 0;
    for row in transaction.query_all_raw(statement).await? {
        let length: i64 = row.try_get_by_index(0)?;
        bytes += length + ROW_OVERHEAD;
    }
    Ok(bytes)
}

/// Counts the change of a transaction and returns the size after it. The row is missing in a new cache.
async fn add_to_size(transaction: &DatabaseTransaction, change: i64) -> Result<u64, StoreError> {
    let sql = "INSERT INTO embedding_cache_size (id, bytes) VALUES (1, $1) \
               ON CONFLICT (id) DO UPDATE SET bytes = embedding_cache_size.bytes + excluded.bytes \
               RETURNING bytes";
    let count =
        Statement::from_sql_and_values(transaction.get_database_backend(), sql, [Value::from(change)]);
    let row = transaction.query_one_raw(count).await?;
    let row = row.ok_or_else(|| corrupt("embedding_cache_size.bytes", 1))?;
    let bytes: i64 = row.try_get_by_index(0)?;
    Ok(u64::try_from(bytes).unwrap_or_default())
}
