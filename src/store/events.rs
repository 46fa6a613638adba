//! What watchers read: every state change in order, and the newest numbers of many invocations.
//!
//! `revision` counts state changes; the events of an invocation carry 1, 2, 3 and so on, without a gap.
//! `progress_version` counts everything that changed, state changes included, and is only a hint to
//! look again.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::{
    Store,
    entities::{invocation, invocation_event},
    error::StoreError,
    paging::padded,
    stored::{StoredInvocation, corrupt, decode, to_sql},
};
use crate::domain::{ids::InvocationId, invocation::Invocation, time::Timestamp};

/// The most events that one call returns. An invocation has three at most today.
const MAX_EVENTS: u64 = 1_000;
/// Invocations whose heads one query reads.
const HEADS_A_QUERY: usize = 8_192;

/// A state change.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Which change it is, from 1.
    pub revision: u64,
    /// When it happened.
    pub time: Timestamp,
    /// The whole invocation as it was then.
    pub invocation: Invocation,
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

    /// Id, revision and progress version of these invocations, in no particular order; unknown ones are
    /// absent.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn heads(&self, ids: &[InvocationId]) -> Result<Vec<(InvocationId, u64, u64)>, StoreError> {
        let mut heads = Vec::with_capacity(ids.len());
        for ids in ids.chunks(HEADS_A_QUERY) {
            let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
            let select = invocation::Entity::find()
                .select_only()
                .columns([
                    invocation::Column::Id,
                    invocation::Column::Revision,
                    invocation::Column::ProgressVersion,
                ])
                .filter(invocation::Column::Id.is_in(padded(&ids)))
                .into_tuple::<(Uuid, i64, i64)>();
            let rows = self
                .read(async |database| Ok(select.all(database).await?))
                .await?;
            for (id, revision, progress_version) in rows {
                let out_of_range = |column| move |_| corrupt(column, id);
                heads.push((
                    InvocationId(id),
                    u64::try_from(revision).map_err(out_of_range("invocations.revision"))?,
                    u64::try_from(progress_version).map_err(out_of_range("invocations.progress_version"))?,
                ));
            }
        }
        Ok(heads)
    }
}

fn read(row: invocation_event::Model) -> Result<Event, StoreError> {
    let id = InvocationId(row.invocation_id);
    let snapshot: StoredInvocation = decode("invocation_events.snapshot", id, row.snapshot)?;
    Ok(Event {
        revision: u64::try_from(row.revision).map_err(|_| corrupt("invocation_events.revision", id))?,
        time: Timestamp(row.time),
        invocation: snapshot.restore()?,
    })
}
