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
    stored::{StoredInvocation, corrupt},
    webhooks,
};
use crate::domain::{invocation::StateName, time::Timestamp};

/// Adds the transition to `state` to `update`, which picks the row and sets what else changes, the time among it,
/// and runs it. None when no row was in a state from which `state` may be entered.
pub(super) async fn transition(
    transaction: &DatabaseTransaction,
    update: UpdateMany<invocation::Entity>,
    state: StateName,
) -> Result<Option<invocation::Model>, StoreError> {
    let update = update
        .col_expr(invocation::Column::State, Expr::value(state.as_str()))
        .col_expr(
            invocation::Column::Revision,
            one_more(invocation::Column::Revision),
        )
        .filter(in_state(state.legal_predecessors()));
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
    record_event(transaction, &row, state, since(&row, state)?).await?;
    Ok(Some(row))
}

/// Adds one to `progress_version`: watchers compare it to see that something changed.
pub(super) fn with_progress(update: UpdateMany<invocation::Entity>) -> UpdateMany<invocation::Entity> {
    update.col_expr(
        invocation::Column::ProgressVersion,
        one_more(invocation::Column::ProgressVersion),
    )
}

/// When the invocation entered `state`, which it is in.
fn since(row: &invocation::Model, state: StateName) -> Result<Timestamp, StoreError> {
    let time = match state {
        StateName::Pending => Some(row.create_time),
        StateName::Processing => row.start_time,
        StateName::Complete | StateName::Failed | StateName::Cancelled => row.finish_time,
    };
    time.map(Timestamp)
        .ok_or_else(|| corrupt("invocations.state", row.id))
}

/// Whether the invocation is in one of `states`. They are part of the statement and not its parameters: SQLite
/// compares parameters with the conditions of partial indexes when it plans, and so plans such a statement again
/// whenever they are bound.
pub(super) fn in_state(states: &[StateName]) -> Expr {
    let states = states.iter().map(|state| Expr::Constant(state.as_str().into()));
    Expr::col((invocation::Entity, invocation::Column::State)).is_in(states)
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
