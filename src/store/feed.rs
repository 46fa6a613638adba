//! The state changes of all invocations in one order, which watches of many resume by.
//!
//! Every event has a place, its `sequence`. Two things hold for every reader: when it sees a place, no
//! lower one appears later, and the events of one invocation have their places in the order of their
//! revisions. A reader that goes on from the last place it saw therefore misses nothing.
//!
//! On SQLite an event gets its place as it is written: there is one writer at a time, so places are
//! committed in their order. On PostgreSQL transactions commit in any order, so the place stays open
//! until [`Store::place_events`] gives one to what has been committed. It holds a lock until its own
//! commit; so the next one begins with all places of this one visible. An order by transaction
//! id would need no second write, but it waits for every long transaction of the database cluster, puts a
//! second revision before the first one when a transaction waited for the row, and means nothing after
//! the database is restored from a dump.
//!
//! Invariant: the newest event is never deleted, since its place would be given again.

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, Statement, Value,
};
use uuid::Uuid;

use super::{
    Store,
    entities::invocation_event::{self, Column},
    error::StoreError,
    events::{self, Event},
    stored::{StoredInvocation, corrupt, to_sql},
};
use crate::domain::{
    ids::{InvocationId, SourceId},
    invocation::StateName,
    names::{DatabaseName, TenantName},
    time::Timestamp,
};

/// The most events that one call reads or places.
const MAX_EVENTS: u64 = 1_000;

/// Key of the PostgreSQL advisory lock under which events get their places.
const PLACE_LOCK: i64 = 0x6368_726f_6d61_0003;

/// Whether any event waits for its place; reads an index that is empty most of the time.
const ANY_OPEN: &str = "SELECT 1 AS found FROM invocation_events WHERE sequence IS NULL LIMIT 1";

/// Gives places to at most 1,000 events. An event goes after those of its invocation before it, whatever
/// its time says: the time is taken before the row is locked.
const PLACE: &str = "UPDATE invocation_events SET \
     sequence = placed.base + placed.position, \
     tenant = placed.tenant, database_name = placed.database_name, source_id = placed.source_id \
     FROM (SELECT open.invocation_id, open.revision, i.tenant, i.database_name, \
             COALESCE(open.source_id, i.source_id) AS source_id, \
             (SELECT COALESCE(MAX(sequence), 0) FROM invocation_events) AS base, \
             ROW_NUMBER() OVER (ORDER BY open.since, open.invocation_id, open.revision) AS position \
           FROM (SELECT invocation_id, revision, source_id, \
                   MAX(time) OVER (PARTITION BY invocation_id ORDER BY revision) AS since \
                 FROM invocation_events WHERE sequence IS NULL) AS open \
           JOIN invocations i ON i.id = open.invocation_id \
           ORDER BY open.since, open.invocation_id, open.revision LIMIT 1000) AS placed \
     WHERE invocation_events.invocation_id = placed.invocation_id \
       AND invocation_events.revision = placed.revision";

/// What comes before the rows of new events.
const INSERT: &str = "INSERT INTO invocation_events \
     (invocation_id, revision, state, time, tenant, database_name, source_id, snapshot, sequence) VALUES ";
/// The most values that a row of a new event takes.
const VALUES_A_ROW: usize = 8;
/// The source that an invocation's first event names, up to the invocation's id and a bracket.
const FIRST_SOURCE: &str = "(SELECT first.source_id FROM invocation_events AS first \
     WHERE first.revision = 1 AND first.invocation_id = ";
/// The place of the newest event.
const NEWEST: &str = "(SELECT COALESCE(MAX(sequence), 0) FROM invocation_events)";

/// An event to write.
pub(super) struct NewEvent<'a> {
    pub(super) invocation_id: Uuid,
    pub(super) revision: i64,
    pub(super) state: StateName,
    pub(super) time: Timestamp,
    pub(super) tenant: &'a str,
    /// None when the source was deleted; the one of the first event then stands in.
    pub(super) source_id: Option<Uuid>,
    pub(super) database: &'a str,
    pub(super) snapshot: &'a StoredInvocation,
}

/// A state change with its place among those of all invocations.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedEvent {
    /// Its place; larger than those of all events placed before, without being dense.
    pub sequence: u64,
    /// The source the invocation ran, also after that was deleted.
    pub source_id: Option<SourceId>,
    /// The state change.
    pub event: Event,
}

/// Which events a reader of the feed wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeedFilter {
    /// Those of this tenant; none for all.
    pub tenant: Option<TenantName>,
    /// Those of invocations of this source.
    pub source_id: Option<SourceId>,
    /// Those of invocations into one of these databases; none for all.
    pub databases: Option<Vec<DatabaseName>>,
    /// Those that entered one of these states; empty for all.
    pub states: Vec<StateName>,
}

impl FeedFilter {
    /// Whether `placed` is wanted. The same rule as the statement's.
    pub fn matches(&self, placed: &PlacedEvent) -> bool {
        let invocation = &placed.event.invocation;
        let tenant = self.tenant.as_ref().is_none_or(|it| *it == invocation.tenant);
        let source = self.source_id.is_none_or(|it| placed.source_id == Some(it));
        let databases = self.databases.as_ref();
        let database = databases.is_none_or(|them| them.contains(&invocation.database));
        let state = self.states.is_empty() || self.states.contains(&invocation.state.name());
        tenant && source && database && state
    }

    fn condition(&self) -> Condition {
        let names = |databases: &Vec<DatabaseName>| {
            let names: Vec<_> = databases.iter().map(|name| name.as_str().to_owned()).collect();
            Column::DatabaseName.is_in(names)
        };
        let states = self.states.iter().map(|state| state.as_str());
        Condition::all()
            .add_option(
                self.tenant
                    .as_ref()
                    .map(|tenant| Column::Tenant.eq(tenant.as_str())),
            )
            .add_option(self.source_id.map(|id| Column::SourceId.eq(id.0)))
            .add_option(self.databases.as_ref().map(names))
            .add_option((!self.states.is_empty()).then(|| Column::State.is_in(states)))
    }
}

impl Store {
    /// The placed events after `sequence` and up to `until` that `filter` wants, in their order, at most
    /// `limit` (up to 1,000). Everything up to the place of the last one has then been read, or up to
    /// `until` when there are fewer than `limit`.
    ///
    /// Not scoped: the filter says what the caller may see.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn feed_after(
        &self,
        sequence: u64,
        until: u64,
        filter: &FeedFilter,
        limit: u64,
    ) -> Result<Vec<PlacedEvent>, StoreError> {
        let select = invocation_event::Entity::find()
            .filter(Column::Sequence.gt(to_sql(sequence)))
            .filter(Column::Sequence.lte(to_sql(until)))
            .filter(filter.condition())
            .order_by_asc(Column::Sequence)
            .limit(std::cmp::min(limit, MAX_EVENTS));
        let rows = self
            .read(async |database| Ok(select.all(database).await?))
            .await?;
        rows.into_iter().map(read).collect()
    }

    /// The place of the newest event; 0 before the first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn feed_head(&self) -> Result<u64, StoreError> {
        let select = invocation_event::Entity::find()
            .select_only()
            .column_as(Column::Sequence.max(), "head")
            .into_tuple::<Option<i64>>();
        let head = self
            .read(async |database| Ok(select.one(database).await?))
            .await?;
        // Places are positive.
        Ok(head
            .flatten()
            .and_then(|head| u64::try_from(head).ok())
            .unwrap_or(0))
    }

    /// Gives places to committed events that have none, and says how many; see the module. Any process
    /// may do it at any time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn place_events(&self) -> Result<u64, StoreError> {
        let backend = self.backend();
        let mut placed = 0;
        loop {
            let open = Statement::from_string(backend, ANY_OPEN);
            let open = self
                .read(async |database| Ok(database.query_one_raw(open).await?))
                .await?;
            if open.is_none() {
                return Ok(placed);
            }
            placed += self
                .write((), |transaction, ()| Box::pin(place(transaction)))
                .await?;
        }
    }
}

/// Gives places to what is committed, up to 1,000 events.
pub(super) async fn place(transaction: &DatabaseTransaction) -> Result<u64, StoreError> {
    let backend = transaction.get_database_backend();
    if backend == DbBackend::Postgres {
        let lock = format!("SELECT pg_advisory_xact_lock({PLACE_LOCK})");
        transaction.execute_unprepared(&lock).await?;
    }
    let result = transaction
        .execute_raw(Statement::from_string(backend, PLACE))
        .await?;
    Ok(result.rows_affected())
}

/// Writes events in the transaction that changes the states; a later event of an invocation comes later.
pub(super) async fn record(
    transaction: &DatabaseTransaction,
    events: &[NewEvent<'_>],
) -> Result<(), StoreError> {
    let insert = insert(transaction.get_database_backend(), events)?;
    transaction.execute_raw(insert).await?;
    Ok(())
}

/// The statement that writes events. It is written out, since every state change needs it and building it from parts
/// took as long as running it.
pub(super) fn insert(backend: DbBackend, events: &[NewEvent<'_>]) -> Result<Statement, StoreError> {
    let mut sql = INSERT.to_owned();
    let mut values: Vec<Value> = Vec::with_capacity(events.len() * VALUES_A_ROW);
    let mut bind = |sql: &mut String, value: Value| {
        values.push(value);
        match backend {
            DbBackend::Postgres => sql.push_str(&format!("${}", values.len())),
            _ => sql.push('?'),
        }
    };
    for (position, event) in (1..).zip(events) {
        sql.push_str(if position == 1 { "(" } else { ", (" });
        let plain: [Value; 6] = [
            event.invocation_id.into(),
            event.revision.into(),
            event.state.as_str().into(),
            event.time.0.into(),
            event.tenant.into(),
            event.database.into(),
        ];
        for value in plain {
            bind(&mut sql, value);
            sql.push_str(", ");
        }
        match event.source_id {
            Some(id) => bind(&mut sql, id.into()),
            None => {
                sql.push_str(FIRST_SOURCE);
                bind(&mut sql, event.invocation_id.into());
                sql.push(')');
            }
        }
        // As text: a tree of values would be copied on its way to the database.
        let snapshot = serde_json::to_string(event.snapshot);
        let snapshot =
            snapshot.map_err(|_| corrupt("invocation_events.snapshot", InvocationId(event.invocation_id)))?;
        sql.push_str(", ");
        bind(&mut sql, snapshot.into());
        match backend {
            DbBackend::Postgres => sql.push_str("::jsonb, NULL)"),
            _ => sql.push_str(&format!(", {NEWEST} + {position})")),
        }
    }
    Ok(Statement::from_sql_and_values(backend, sql, values))
}

fn read(row: invocation_event::Model) -> Result<PlacedEvent, StoreError> {
    let missing = || corrupt("invocation_events.sequence", InvocationId(row.invocation_id));
    let sequence = row
        .sequence
        .and_then(|it| u64::try_from(it).ok())
        .ok_or_else(missing)?;
    Ok(PlacedEvent {
        sequence,
        source_id: row.source_id.map(SourceId),
        event: events::read(row)?,
    })
}
