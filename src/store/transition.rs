//! The one way an invocation changes its state.
//!
//! A transition is one conditional UPDATE that repeats the legal predecessors of the new state in its
//! WHERE, in the same transaction as the event that records it. Whoever changes the row wins; everyone
//! else changes none and learns so. That alone keeps a cancel and a claim from both winning, and the
//! revisions of an invocation without a gap.

use sea_orm::{DatabaseTransaction, ExprTrait, QueryFilter, UpdateMany, sea_query::Expr};

use super::{
    entities::invocation,
    error::StoreError,
    feed::{self, NewEvent},
    stored::StoredInvocation,
    webhooks,
};
use crate::domain::{invocation::StateName, time::Timestamp};

/// Adds the transition to `state` to `update`, which picks the row and sets what else changes, and runs
/// it. None when no row was in a state from which `state` may be entered.
pub(super) async fn transition(
    transaction: &DatabaseTransaction,
    update: UpdateMany<invocation::Entity>,
    state: StateName,
    now: Timestamp,
) -> Result<Option<invocation::Model>, StoreError> {
    let predecessors = state
        .legal_predecessors()
        .iter()
        .map(|predecessor| predecessor.as_str());
    let update = update
        .col_expr(invocation::Column::State, Expr::value(state.as_str()))
        .col_expr(
            invocation::Column::Revision,
            one_more(invocation::Column::Revision),
        )
        .filter(invocation::COLUMN.state.is_in(predecessors));
    let update = if state.is_terminal() {
        // Nobody writes for the invocation any more.
        update.col_expr(
            invocation::Column::SealedChromaToken,
            Expr::value(None::<Vec<u8>>),
        )
    } else {
        update
    };
    let Some(row) = with_progress(update)
        .exec_with_returning(transaction)
        .await?
        .pop()
    else {
        return Ok(None);
    };
    record_event(transaction, &row, state, now).await?;
    Ok(Some(row))
}

/// Adds one to `progress_version`: watchers compare it to see that something changed.
pub(super) fn with_progress(update: UpdateMany<invocation::Entity>) -> UpdateMany<invocation::Entity> {
    update.col_expr(
        invocation::Column::ProgressVersion,
        one_more(invocation::Column::ProgressVersion),
    )
}

/// The column plus one.
pub(super) fn one_more(column: invocation::Column) -> Expr {
    Expr::col(column).add(1)
}

/// Writes the event of the revision that `row` has now, which it reached by entering `state`.
pub(super) async fn record_event(
    transaction: &DatabaseTransaction,
    row: &invocation::Model,
    state: StateName,
    now: Timestamp,
) -> Result<(), StoreError> {
    let snapshot = StoredInvocation::from_row(row.clone())?;
    let event = NewEvent {
        invocation_id: row.id,
        revision: row.revision,
        state,
        time: now,
        tenant: &row.tenant,
        source_id: row.source_id,
        database: &row.database_name,
        snapshot: &snapshot,
    };
    feed::record(transaction, &[event]).await?;
    if row.webhook_url.is_some() {
        webhooks::state_changed(transaction, row.id, row.revision, now).await?;
    }
    Ok(())
}
