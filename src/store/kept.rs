//! Connections to SQLite that the busiest reads keep from one statement to the next.
//!
//! A pool tests every connection that comes back to it, which is a trip to the thread of the connection and
//! back: as much as a short statement costs. A connection whose last statement went well needs no test before the
//! next one. So the coalesced calls keep theirs, and send what they ask at the same time as one script.
//!
//! The pool still opens, counts and closes them. What failed, was given up half-way or was kept for a
//! while goes back to it and is tested.
//!
//! Absent on purpose: PostgreSQL, whose connections are few enough that none may lie idle in here.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use sea_orm::{
    DbErr, QueryResult, RuntimeErr, Statement, Values,
    sqlx::{self, AssertSqlSafe, Either, Executor, Sqlite, SqlitePool, pool::PoolConnection},
};
use sea_query_sqlx::SqlxValues;

use super::connect::log_statement;

/// The most connections that lie in here: one for each task that answers coalesced calls. The pool has as many
/// beyond those that everything else uses.
pub(super) const MAX_KEPT: u32 = 4;
/// How long a connection is kept before the pool tests it again.
const KEEP_FOR: Duration = Duration::from_secs(30);

/// Runs statements on connections of a pool; clones share them.
#[derive(Clone)]
pub(super) struct KeptConnections {
    pool: SqlitePool,
    /// Those that nobody uses now; none once they were closed.
    kept: Arc<Mutex<Option<Vec<Kept>>>>,
}

struct Kept {
    connection: PoolConnection<Sqlite>,
    since: Instant,
}

impl KeptConnections {
    pub(super) fn of(pool: SqlitePool) -> Self {
        Self {
            pool,
            kept: Arc::new(Mutex::new(Some(Vec::new()))),
        }
    }

    /// The rows of each of `statements`, which run one after the other in one trip and in no transaction.
    pub(super) async fn query_each<const N: usize>(
        &self,
        statements: [Statement; N],
    ) -> Result<[Vec<QueryResult>; N], DbErr> {
        let (sql, values) = script(statements);
        let started = Instant::now();
        let answers = self.run(&sql, values).await;
        log_statement(&sql, started.elapsed(), answers.is_err());
        answers.map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())))
    }

    async fn run<const N: usize>(
        &self,
        sql: &str,
        values: Values,
    ) -> Result<[Vec<QueryResult>; N], sqlx::Error> {
        let mut kept = self.take().await?;
        let mut answers = [const { Vec::new() }; N];
        let mut ended = 0;
        let query = sqlx::query_with(AssertSqlSafe(sql), SqlxValues(values));
        let mut results = (&mut *kept.connection).fetch_many(query);
        while let Some(result) = results.try_next().await? {
            match (result, answers.get_mut(ended)) {
                (Either::Right(row), Some(rows)) => rows.push(QueryResult::from(row)),
                // Comes after the rows of each statement.
                (Either::Left(_), _) => ended += 1,
                (Either::Right(_), None) => {}
            }
        }
        drop(results);
        self.keep(kept);
        Ok(answers)
    }

    /// Lets the pool close what lies in here; from now on each connection goes back to it at once.
    pub(super) fn close(&self) {
        self.kept().take();
    }

    async fn take(&self) -> Result<Kept, sqlx::Error> {
        let kept = self.kept().as_mut().and_then(Vec::pop);
        if let Some(kept) = kept.filter(|kept| kept.since.elapsed() < KEEP_FOR) {
            return Ok(kept);
        }
        Ok(Kept {
            connection: self.pool.acquire().await?,
            since: Instant::now(),
        })
    }

    fn keep(&self, connection: Kept) {
        if let Some(kept) = self.kept().as_mut()
            && kept.len() < MAX_KEPT as usize
        {
            kept.push(connection);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Vec<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Several statements as one, with the values of all.
fn script<const N: usize>(statements: [Statement; N]) -> (String, Values) {
    let (mut sql, mut values) = (String::new(), Values(Vec::new()));
    for statement in statements {
        if !sql.is_empty() {
            sql.push_str("; ");
        }
        sql.push_str(&statement.sql);
        values.0.extend(statement.values.into_iter().flatten());
    }
    (sql, values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sea_orm::{DbBackend, sqlx::sqlite::SqlitePoolOptions};

    use super::*;

    /// A pool with one connection alone, which so cannot be had while it is kept.
    async fn pool() -> SqlitePool {
        let options = SqlitePoolOptions::new().max_connections(1);
        options.connect("sqlite::memory:").await.unwrap()
    }

    fn statement(sql: &str, value: i64) -> Statement {
        Statement::from_sql_and_values(DbBackend::Sqlite, sql, [value.into()])
    }

    fn numbers(rows: &[QueryResult]) -> Vec<i64> {
        rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
    }

    #[tokio::test]
    async fn each_statement_has_its_own_rows_and_its_own_values() {
        let kept = KeptConnections::of(pool().await);
        for _ in 0..2 {
            let statements = [
                statement("SELECT column1 + ? FROM (VALUES (1), (2))", 10),
                statement("SELECT 1 WHERE 0 = ?", 1),
                statement("SELECT ?", 7),
            ];
            let [first, none, last] = kept.query_each(statements).await.unwrap();
            assert_eq!(numbers(&first), [11, 12]);
            assert_eq!(numbers(&none), [0; 0]);
            assert_eq!(numbers(&last), [7]);
        }
    }

    #[tokio::test]
    async fn a_connection_is_kept_until_a_statement_fails() {
        let pool = pool().await;
        let kept = KeptConnections::of(pool.clone());
        kept.query_each([statement("SELECT ?", 1)]).await.unwrap();
        assert_eq!(pool.num_idle(), 0);
        assert!(pool.try_acquire().is_none());
        let failed = kept.query_each([statement("SELECT ?", 1), statement("SELECT missing, ?", 1)]);
        assert!(failed.await.is_err());
        // The pool has it again, once it was tested.
        drop(pool.acquire().await.unwrap());
        let [rows] = kept.query_each([statement("SELECT ?", 3)]).await.unwrap();
        assert_eq!(numbers(&rows), [3]);
    }

    #[tokio::test]
    async fn nothing_is_kept_once_it_was_closed() {
        let pool = pool().await;
        let kept = KeptConnections::of(pool.clone());
        kept.query_each([statement("SELECT ?", 1)]).await.unwrap();
        kept.close();
        drop(pool.acquire().await.unwrap());
        kept.query_each([statement("SELECT ?", 1)]).await.unwrap();
        drop(pool.acquire().await.unwrap());
        // It waits for each connection that is still out.
        pool.close().await;
        assert!(kept.query_each([statement("SELECT ?", 1)]).await.is_err());
    }
}
