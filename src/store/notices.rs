//! Tells other processes on the same PostgreSQL database what changed, by LISTEN and NOTIFY.
//!
//! A notice only says "look": it may be lost, doubled or late, and whoever needs to know looks by the
//! clock as well. It is sent after the change was committed, for many changes at once, because a
//! transaction with a notice holds a lock of the whole database cluster while it commits. SQLite has
//! nothing of the kind; there the clock alone tells.

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, Statement,
    sqlx::{self, postgres::PgListener},
};
use uuid::Uuid;

use super::{Store, error::StoreError, feed};
use crate::domain::ids::InvocationId;

/// Where changed invocations are told.
const CHANGES: &str = "chroma_sync_changes";
/// Where it is told that an invocation may be waiting for a worker.
const WORK: &str = "chroma_sync_work";
/// Ids in one notice: PostgreSQL takes payloads of less than 8,000 bytes, an id has 32 digits.
const IDS_A_NOTICE: usize = 200;
/// What stands in place of the ids when they are too many.
const MANY: &str = "many";

/// What processes tell each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// These invocations changed, and places in the feed were given.
    Changed(Vec<InvocationId>),
    /// More changed than are told one by one, or notices were lost.
    ManyChanged,
    /// An invocation may be waiting for a worker.
    Work,
}

/// Notices of one process, as they come.
#[derive(Debug)]
pub struct Notices {
    listener: PgListener,
}

impl Store {
    /// Whether processes can tell each other anything, as they can on PostgreSQL.
    pub fn has_notices(&self) -> bool {
        self.backend() == DbBackend::Postgres
    }

    /// Places the events of what changed in the feed and tells everyone who listens. Does nothing on
    /// SQLite.
    ///
    /// # Errors
    /// Those of the database; nothing has been told then.
    pub async fn tell(&self, notice: Notice) -> Result<(), StoreError> {
        if !self.has_notices() {
            return Ok(());
        }
        self.write(notice, |transaction, notice| {
            Box::pin(async move {
                // Whoever hears of the change finds its events in the feed.
                feed::place(transaction).await?;
                notify(transaction, notice).await
            })
        })
        .await
    }

    /// Listens to all processes on this database; none on SQLite. Takes a connection of its own for as
    /// long as it listens.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn listen(&self) -> Result<Option<Notices>, StoreError> {
        if !self.has_notices() {
            return Ok(None);
        }
        let pool = self.inner.reader.database.get_postgres_connection_pool();
        let listening = async {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen_all([CHANGES, WORK]).await?;
            Ok(Some(Notices { listener }))
        };
        self.within(async { listening.await.map_err(away) }).await
    }
}

impl Notices {
    /// The next notice. After the connection was lost, and is there again, that is
    /// [`Notice::ManyChanged`], since notices may have been lost with it.
    ///
    /// # Errors
    /// When the connection is lost for longer; the listener is of no further use then.
    pub async fn next(&mut self) -> Result<Notice, StoreError> {
        let Some(told) = self.listener.try_recv().await.map_err(away)? else {
            return Ok(Notice::ManyChanged);
        };
        if told.channel() == WORK {
            return Ok(Notice::Work);
        }
        let ids: Result<Vec<_>, _> = told
            .payload()
            .split_terminator(',')
            .map(Uuid::parse_str)
            .collect();
        Ok(match ids {
            Ok(ids) => Notice::Changed(ids.into_iter().map(InvocationId).collect()),
            // Among them the word for many.
            Err(_) => Notice::ManyChanged,
        })
    }
}

async fn notify(transaction: &DatabaseTransaction, notice: &Notice) -> Result<(), StoreError> {
    let payloads: Vec<(&str, String)> = match notice {
        Notice::Changed(ids) => ids
            .chunks(IDS_A_NOTICE)
            .map(|ids| ids.iter().map(|id| id.0.simple().to_string()).collect::<Vec<_>>())
            .map(|ids| (CHANGES, ids.join(",")))
            .collect(),
        Notice::ManyChanged => vec![(CHANGES, MANY.to_owned())],
        Notice::Work => vec![(WORK, String::new())],
    };
    for (channel, payload) in payloads {
        let notify = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT pg_notify($1, $2)",
            [channel.into(), payload.into()],
        );
        transaction.execute_raw(notify).await?;
    }
    Ok(())
}

/// A listener only ever fails with its connection.
fn away(error: sqlx::Error) -> StoreError {
    StoreError::from(sea_orm::DbErr::Conn(sea_orm::RuntimeErr::SqlxError(
        std::sync::Arc::new(error),
    )))
}
