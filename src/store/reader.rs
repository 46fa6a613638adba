//! What reads: the connections, and the clock that what they read is compared with.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, sea_query::Expr};

use super::{clock::Clock, error::StoreError};
use crate::domain::time::Timestamp;

/// The time of the PostgreSQL server in milliseconds.
const SERVER_TIME: &str = "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) * 1000) AS BIGINT)";

/// Reads, and knows the time.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) database: DatabaseConnection,
    pub(super) clock: Clock,
}

impl Reader {
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
