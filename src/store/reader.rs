//! What reads: the connections, and the clock that what they read is compared with.

use futures::future::try_join_all;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, QueryResult, Statement,
    sea_query::{Expr, SelectStatement},
};

use super::{clock::Clock, error::StoreError, kept::KeptConnections};
use crate::domain::time::Timestamp;

/// The time of the PostgreSQL server in milliseconds.
const SERVER_TIME: &str = "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) * 1000) AS BIGINT)";

/// Reads, and knows the time.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) database: DatabaseConnection,
    pub(super) clock: Clock,
    /// What coalesced calls read from where it is SQLite.
    pub(super) kept: Option<KeptConnections>,
}

impl Reader {
    /// The rows of each of `selects`, for the calls that come most often. They see what was committed before
    /// the call, and not necessarily the same as each other.
    pub(super) async fn query_each<const N: usize>(
        &self,
        selects: [SelectStatement; N],
    ) -> Result<[Vec<QueryResult>; N], StoreError> {
        if let Some(kept) = &self.kept {
            let statements = selects.map(|select| DbBackend::Sqlite.build(&select));
            return Ok(kept.query_each(statements).await?);
        }
        let answers = selects.each_ref().map(|select| self.database.query_all(select));
        let mut answers = try_join_all(answers).await?.into_iter();
        Ok(std::array::from_fn(|_| answers.next().unwrap_or_default()))
    }

    /// The time all processes agree on; on PostgreSQL that takes a statement.
    pub(super) async fn now(&self) -> Result<Timestamp, StoreError> {
        match (&self.clock, self.database.get_database_backend()) {
            (Clock::Manual(clock), _) => Ok(clock.now()),
            (Clock::System, DbBackend::Postgres) => {
                let select = format!("SELECT {SERVER_TIME} AS now");
                let select = Statement::from_string(DbBackend::Postgres, select);
                let row = self.database.query_one_raw(select).await?;
                let row = row.ok_or(StoreError::TimedOut)?;
                Ok(Timestamp(row.try_get("", "now")?))
            }
            (Clock::System, _) => Ok(Timestamp::now()),
        }
    }

    /// The same time inside a statement, which so needs no other one to learn it.
    pub(super) fn now_expression(&self) -> Expr {
        match (&self.clock, self.database.get_database_backend()) {
            (Clock::Manual(clock), _) => Expr::value(clock.now().0),
            (Clock::System, DbBackend::Postgres) => Expr::cust(SERVER_TIME),
            (Clock::System, _) => Expr::value(Timestamp::now().0),
        }
    }
}
