//! The database: sources, invocations with their events and leases, the ledger, credentials and API keys.
//!
//! The same code serves SQLite and PostgreSQL; every statement runs on both, and so does every test.
//! Nothing above knows SQL, and nothing in here decides what a caller may do: functions for callers
//! take a [`Scope`] and see nothing outside it, functions for workers take the lease (see [`lease`]).
//!
//! The calls that come most often share statements (see `coalesce`): each answer is still read after
//! its call came.
//!
//! Absent on purpose: caches of what it holds. The database is the truth; a notice (see [`notices`]) only saves the wait for
//! the next look at it.

pub mod api_keys;
pub mod auto_sync;
mod checkpoint;
pub mod clock;
mod coalesce;
mod connect;
mod create_invocation;
pub mod credentials;
pub mod documents;
pub mod donors;
pub mod embeddings;
mod entities;
pub mod error;
pub mod events;
pub mod feed;
pub mod invocations;
mod kept;
pub mod lease;
pub mod migrations;
pub mod notices;
pub mod owned;
mod paging;
mod reader;
pub mod scope;
pub mod sealed;
pub mod sources;
mod stored;
mod stored_kinds;
mod transition;
pub mod uploads;
pub mod webhooks;
mod write;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use sea_orm::{DatabaseConnection, DbBackend};

pub use self::{
    clock::{Clock, ManualClock},
    credentials::{CreateCredential, DeleteCredential},
    documents::{DocumentPage, OutcomeName, Settled},
    donors::DonorRequest,
    embeddings::{EmbeddingDigest, EmbeddingTable, EmbeddingWrite, FoundEmbeddings, StoredEmbedding},
    error::StoreError,
    events::Event,
    feed::{FeedFilter, PlacedEvent},
    invocations::{CancelInvocation, CreateInvocation},
    lease::{Claim, ClaimLimits, Held, Reaped, Renewal, RetryLater},
    migrations::MigrationState,
    notices::{Notice, Notices},
    owned::{OwnedDocument, OwnedDocuments},
    scope::Scope,
    sealed::{Resealed, SealedColumn, SealedValue},
    sources::CreateSource,
    uploads::TakenUploads,
    webhooks::{DeliveryClaim, DeliveryOutcome},
};
use self::{
    coalesce::Coalescer,
    connect::Pools,
    create_invocation::{Creator, NewRow},
    kept::KeptConnections,
    reader::Reader,
    write::{Body, Writer},
};
use crate::domain::{
    ids::{InvocationId, SourceId},
    invocation::Invocation,
    source::Source,
    time::Timestamp,
};

/// How to reach the database, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `sqlite:///path/to/file` or `postgres://user@host/database`.
    pub url: String,
    /// The most connections to PostgreSQL. SQLite has one that writes and nine that read.
    pub max_connections: u32,
    /// How long to wait for a connection.
    pub acquire_timeout: Duration,
    /// How long PostgreSQL may work on one statement.
    pub statement_timeout: Duration,
    /// How long SQLite waits for another process that writes.
    pub busy_timeout: Duration,
    /// How long a call may take altogether, waiting included.
    pub call_timeout: Duration,
    /// Where the time comes from.
    pub clock: Clock,
}

impl StoreOptions {
    /// The defaults, for the database at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 16,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(20),
            busy_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            clock: Clock::System,
        }
    }
}

/// A connected database. Clones share its connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Store")
            .field("backend", &self.backend())
            .finish_non_exhaustive()
    }
}

struct Inner {
    reader: Reader,
    writer: Writer,
    coalesced: Coalesced,
    call_timeout: Duration,
}

/// The calls that come most often, and share their statements.
struct Coalesced {
    api_keys: Coalescer<[u8; 32], Option<api_keys::FoundKey>>,
    sources: Coalescer<SourceId, Option<Source>>,
    invocations: Coalescer<InvocationId, Option<Invocation>>,
    keyed_invocations: Coalescer<([u8; 32], InvocationId), api_keys::FoundKeyAndInvocation>,
    creations: Coalescer<Arc<NewRow>, CreateInvocation>,
}

impl Coalesced {
    fn start(reader: &Reader, writer: &Writer, limit: Duration) -> Self {
        let turns = match reader.database.get_database_backend() {
            DbBackend::Postgres => 2,
            _ => 1,
        };
        let creator = Creator {
            reader: reader.clone(),
            writer: writer.clone(),
        };
        Self {
            api_keys: Coalescer::start(reader.clone(), api_keys::find, turns, limit),
            sources: Coalescer::start(reader.clone(), sources::find, turns, limit),
            invocations: Coalescer::start(reader.clone(), invocations::find, turns, limit),
            keyed_invocations: Coalescer::start(
                reader.clone(),
                api_keys::find_with_invocations,
                turns,
                limit,
            ),
            creations: Coalescer::start(creator, create_invocation::create, turns, limit),
        }
    }
}

impl Store {
    /// Connects. The schema is not touched; see [`Store::migrate`].
    ///
    /// # Errors
    /// [`StoreError::InvalidUrl`], or [`StoreError::Unavailable`] when nothing answers there.
    pub async fn connect(options: &StoreOptions) -> Result<Self, StoreError> {
        let (database, kept, writer) = match connect::connect(options).await? {
            Pools::Postgres(pool) => (pool.clone(), None, Writer::Concurrent(pool)),
            Pools::Sqlite { writer, readers } => {
                let kept = KeptConnections::of(readers.get_sqlite_connection_pool().clone());
                let commits = checkpoint::start(readers.clone());
                (readers, Some(kept), Writer::grouped(writer, commits))
            }
        };
        let clock = options.clock.clone();
        let reader = Reader {
            database,
            clock,
            kept,
        };
        let call_timeout = options.call_timeout;
        Ok(Self {
            inner: Arc::new(Inner {
                coalesced: Coalesced::start(&reader, &writer, call_timeout),
                reader,
                writer,
                call_timeout,
            }),
        })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// The reason why it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read(async |database| Ok(database.ping().await?)).await
    }

    /// The time all processes agree on: that of the server on PostgreSQL, of the machine on SQLite.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        self.within(self.inner.reader.now()).await
    }

    /// Waits for the writes under way and closes the connections; later calls fail.
    pub async fn close(&self) {
        self.inner.writer.close().await;
        if let Some(kept) = &self.inner.reader.kept {
            kept.close();
        }
        // What cannot be closed properly is closed by the end of the process.
        self.inner.reader.database.close_by_ref().await.ok();
    }

    fn backend(&self) -> DbBackend {
        self.inner.reader.database.get_database_backend()
    }

    /// Reads, within the time a call may take.
    async fn read<'a, T, F>(
        &'a self,
        query: impl FnOnce(&'a DatabaseConnection) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.within(query(&self.inner.reader.database)).await
    }

    /// Writes, within the time a call may take; the answer means that the write is durable.
    async fn write<I, T>(&self, input: I, body: Body<I, T>) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        self.within(self.inner.writer.write(input, body)).await
    }

    /// Writes, however long it takes.
    async fn write_unbounded<I, T>(&self, input: I, body: Body<I, T>) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        self.inner.writer.write(input, body).await
    }

    /// Gives up after the time a call may take.
    async fn within<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let answer = tokio::time::timeout(self.inner.call_timeout, call).await;
        answer.map_err(|_| StoreError::TimedOut)?
    }
}
