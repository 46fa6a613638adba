//! What watchers of an invocation read: every state change in order, and how far it has come.
//!
//! `revision` counts state changes; the events of an invocation carry 1, 2, 3 and so on, without a gap.
//! `progress_version` counts everything that changed, state changes included, and is only a hint to
//! look again.

use std::sync::Arc;

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::{
    Store,
    entities::invocation_event,
    error::StoreError,
    invocations,
    stored::{StoredInvocation, corrupt, decode, to_sql},
};
use crate::domain::{ids::InvocationId, invocation::Invocation, time::Timestamp};

/// The most events that one call returns. An invocation has three at most today.
const MAX_EVENTS: u64 = 1_000;
/// Invocations that one query reads.
const IDS_A_QUERY: usize = 1_024;

/// A state change.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Which change it is, from 1.
    pub revision: u64,
    /// When it happened.
    pub time: Timestamp,
    /// The whole invocation as it was then.
    pub invocation: Arc<Invocation>,
}

impl Store {
    /// The state changes after `after_revision`, oldest first, at most `limit` (up to 1,000).
    ///
    /// Not scoped: the caller has looked the invocation up in its scope before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn events_after(
        &self,
        id: InvocationId,
        after_revision: u64,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let select = invocation_event::Entity::find()
            .filter(invocation_event::Column::InvocationId.eq(id.0))
            .filter(invocation_event::Column::Revision.gt(to_sql(after_revision)))
            .order_by_asc(invocation_event::Column::Revision)
            .limit(u64::from(limit).min(MAX_EVENTS));
        let rows = self
            .read(async |database| Ok(select.all(database).await?))
            .await?;
        rows.into_iter().map(read).collect()
    }

    /// These invocations as they are now, in no particular order; unknown ones are absent.
    ///
    /// Not scoped: the callers have looked them up in their scopes before.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn current(&self, ids: &[InvocationId]) -> Result<Vec<Invocation>, StoreError> {
        let mut current = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS_A_QUERY) {
            let found = invocations::find(&self.inner.reader, ids);
            for invocation in self.within(found).await? {
                current.extend(invocation?);
            }
        }
        Ok(current)
    }
}

pub(super) fn read(row: invocation_event::Model) -> Result<Event, StoreError> {
    let id = InvocationId(row.invocation_id);
    let snapshot: StoredInvocation = decode("invocation_events.snapshot", id, row.snapshot)?;
    Ok(Event {
        revision: u64::try_from(row.revision).map_err(|_| corrupt("invocation_events.revision", id))?,
        time: Timestamp(row.time),
        invocation: Arc::new(snapshot.restore()?),
    })
}
