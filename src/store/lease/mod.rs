//! The lease: what lets exactly one worker work on an invocation, and stops it when it no longer may.
//!
//! The rule, once. The invocation row is the queue entry. A claim takes a row that nobody holds, adds
//! one to `attempt` and writes `lease_owner` and `lease_expires_at`. From then on the pair of id and
//! attempt is the worker's permission: each of its writes repeats `attempt`, `state = 'processing'` and
//! `lease_owner IS NOT NULL` in its WHERE, in the same transaction as everything else the write does, and
//! changes nothing when the row no longer agrees. Such a write answers [`Held::Lost`], and the worker
//! stops. The lease is taken away by the reaper alone: a lease that has run out but was not reaped can
//! still be renewed, because nobody else can have claimed the row meanwhile.
//!
//! So at any time an invocation is exactly one of these:
//!
//! | state | `lease_owner` | |
//! |---|---|---|
//! | pending | null | waits for its first claim |
//! | processing | set | a worker has it |
//! | processing | null | waits until `next_attempt_at` for the next claim |
//! | complete, failed, cancelled | null | ended |
//!
//! Times are passed in, so that all comparisons of one round use one reading of the store's clock.

mod claim;
mod reap;

use std::time::Duration;

use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect, UpdateMany,
    sea_query::{Expr, LockType},
};
use uuid::Uuid;

pub use self::{
    claim::{CLAIMABLE_TENANTS_SQL, Claim, ClaimLimits, NEXT_OF_TENANT_SQL},
    reap::{Reaped, WORKER_LOST},
};
use super::{
    Store,
    entities::invocation,
    error::StoreError,
    stored::{self, encode, without_nul},
    transition::{in_state, one_more, transition, with_progress},
};
use crate::domain::{
    ids::{InvocationId, WorkerId},
    invocation::{Failure, Invocation, Phase, Progress, StateName, Statistics, Wait},
    time::Timestamp,
};

/// Whether a worker's write was done because it still holds the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a worker that lost its lease has to stop"]
pub enum Held {
    /// It holds the lease; the write is done.
    Held,
    /// It lost the lease; nothing was written.
    Lost,
}

impl Held {
    fn from_rows_affected(rows: u64) -> Self {
        if rows == 1 { Self::Held } else { Self::Lost }
    }
}

/// Whether a lease was extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a worker that lost its lease has to stop"]
pub enum Renewal {
    /// The lease holds until this time.
    Renewed {
        /// When it runs out.
        lease_expires_at: Timestamp,
    },
    /// The worker lost the lease.
    Lost,
}

/// Why an attempt ends without an end of its invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryLater {
    /// From when on it may be claimed again.
    pub next_attempt_at: Timestamp,
    /// Until when and for what it waits, for its watchers.
    pub wait: Wait,
    /// Whether this uses up the retry budget. Waiting for a rate limit does not.
    pub counts_as_failure: bool,
}

/// An attempt as the fence of its writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fence {
    pub(super) id: InvocationId,
    pub(super) attempt: u32,
}

impl Fence {
    /// The row, as long as the attempt holds its lease.
    pub(super) fn update(self) -> UpdateMany<invocation::Entity> {
        invocation::Entity::update_many()
            .filter(invocation::Column::Id.eq(self.id.0))
            .filter(invocation::Column::Attempt.eq(self.attempt))
            .filter(in_state(&[StateName::Processing]))
            .filter(invocation::Column::LeaseOwner.is_not_null())
    }

    /// Whether the attempt holds its lease; if so, nobody can take it before the transaction ends.
    pub(super) async fn holds(self, transaction: &DatabaseTransaction) -> Result<Held, StoreError> {
        let row = invocation::Entity::find_by_id(self.id.0)
            .select_only()
            .column(invocation::Column::Attempt)
            .filter(invocation::Column::Attempt.eq(self.attempt))
            .filter(in_state(&[StateName::Processing]))
            .filter(invocation::Column::LeaseOwner.is_not_null())
            .lock(LockType::Share)
            .into_tuple::<i32>()
            .one(transaction)
            .await?;
        Ok(if row.is_some() { Held::Held } else { Held::Lost })
    }
}

/// Takes the lease away.
fn without_lease(update: UpdateMany<invocation::Entity>) -> UpdateMany<invocation::Entity> {
    update
        .col_expr(invocation::Column::LeaseOwner, Expr::value(None::<Uuid>))
        .col_expr(invocation::Column::LeaseExpiresAt, Expr::value(None::<i64>))
}

/// Writes how far the attempt has come.
pub(super) fn with_report(
    update: UpdateMany<invocation::Entity>,
    progress: &Progress,
) -> Result<UpdateMany<invocation::Entity>, StoreError> {
    let Progress {
        phase,
        wait,
        statistics,
    } = progress;
    let wait = wait.as_ref().map(|wait| {
        let wait = Wait {
            until: wait.until,
            cause: without_nul(&wait.cause),
        };
        encode("invocations.wait", &wait)
    });
    let statistics = encode("invocations.statistics", statistics)?;
    Ok(update
        .col_expr(invocation::Column::Phase, Expr::value(phase.as_str()))
        .col_expr(invocation::Column::Wait, Expr::value(wait.transpose()?))
        .col_expr(invocation::Column::Statistics, Expr::value(statistics)))
}

impl Store {
    /// Extends the lease to `now` plus `lease`.
    ///
    /// # Errors
    /// Those of the database; the lease then runs on as it was.
    pub async fn renew(
        &self,
        id: InvocationId,
        attempt: u32,
        owner: &WorkerId,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Renewal, StoreError> {
        let lease_expires_at = now.plus(lease);
        let update = Fence { id, attempt }
            .update()
            .col_expr(
                invocation::Column::LeaseExpiresAt,
                Expr::value(lease_expires_at.0),
            )
            .filter(invocation::Column::LeaseOwner.eq(owner.0));
        Ok(match self.fenced(update).await? {
            Held::Held => Renewal::Renewed { lease_expires_at },
            Held::Lost => Renewal::Lost,
        })
    }

    /// Writes how far the attempt has come, and the commit it works on once that is known.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn report_progress(
        &self,
        id: InvocationId,
        attempt: u32,
        progress: &Progress,
        resolved_commit: Option<&str>,
    ) -> Result<Held, StoreError> {
        let mut update = with_report(with_progress(Fence { id, attempt }.update()), progress)?;
        if let Some(commit) = resolved_commit {
            update = update.col_expr(invocation::Column::ResolvedCommit, Expr::value(commit));
        }
        self.fenced(update).await
    }

    /// Ends the invocation: everything is in the collection. Returns it as it ended; none when the attempt has lost
    /// its lease.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn complete(
        &self,
        id: InvocationId,
        attempt: u32,
        statistics: Statistics,
        now: Timestamp,
    ) -> Result<Option<Invocation>, StoreError> {
        self.finish(Finish {
            fence: Fence { id, attempt },
            failure: None,
            statistics,
            now,
        })
        .await
    }

    /// Ends the invocation with a failure. Returns it as it ended; none when the attempt has lost its lease.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn fail(
        &self,
        id: InvocationId,
        attempt: u32,
        failure: Failure,
        statistics: Statistics,
        now: Timestamp,
    ) -> Result<Option<Invocation>, StoreError> {
        self.finish(Finish {
            fence: Fence { id, attempt },
            failure: Some(failure),
            statistics,
            now,
        })
        .await
    }

    /// Ends the attempt; the invocation stays in processing and may be claimed again later.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn retry_later(
        &self,
        id: InvocationId,
        attempt: u32,
        later: RetryLater,
        statistics: Statistics,
    ) -> Result<Held, StoreError> {
        let RetryLater {
            next_attempt_at,
            wait,
            counts_as_failure,
        } = later;
        let progress = Progress {
            phase: Phase::Waiting,
            wait: Some(wait),
            statistics,
        };
        let mut update = with_report(with_progress(Fence { id, attempt }.update()), &progress)?
            .col_expr(invocation::Column::NextAttemptAt, Expr::value(next_attempt_at.0));
        if counts_as_failure {
            update = update.col_expr(
                invocation::Column::Failures,
                one_more(invocation::Column::Failures),
            );
        }
        self.fenced(without_lease(update)).await
    }

    /// Hands the invocation back, to be claimed at once by whoever comes first.
    ///
    /// # Errors
    /// Those of the database; the lease then runs out by itself.
    pub async fn release(&self, id: InvocationId, attempt: u32, now: Timestamp) -> Result<Held, StoreError> {
        let wait = Wait {
            until: now,
            cause: "the worker shuts down; another one continues".to_owned(),
        };
        let update = with_progress(Fence { id, attempt }.update())
            .col_expr(invocation::Column::Phase, Expr::value(Phase::Waiting.as_str()))
            .col_expr(
                invocation::Column::Wait,
                Expr::value(Some(encode("invocations.wait", &wait)?)),
            )
            .col_expr(invocation::Column::NextAttemptAt, Expr::value(now.0));
        self.fenced(without_lease(update)).await
    }

    pub(super) async fn fenced(&self, update: UpdateMany<invocation::Entity>) -> Result<Held, StoreError> {
        self.write(update, |transaction, update| {
            Box::pin(run_fenced(transaction, update))
        })
        .await
    }

    async fn finish(&self, finish: Finish) -> Result<Option<Invocation>, StoreError> {
        self.write(finish, |transaction, finish| {
            Box::pin(run_finish(transaction, finish))
        })
        .await
    }
}

async fn run_fenced(
    transaction: &DatabaseTransaction,
    update: &UpdateMany<invocation::Entity>,
) -> Result<Held, StoreError> {
    Ok(Held::from_rows_affected(
        update.clone().exec(transaction).await?.rows_affected,
    ))
}

struct Finish {
    fence: Fence,
    failure: Option<Failure>,
    statistics: Statistics,
    now: Timestamp,
}

async fn run_finish(
    transaction: &DatabaseTransaction,
    finish: &Finish,
) -> Result<Option<Invocation>, StoreError> {
    let Finish {
        fence,
        failure,
        statistics,
        now,
    } = finish;
    let row = end(
        transaction,
        fence.update(),
        failure.as_ref(),
        Some(statistics),
        *now,
    )
    .await?;
    row.map(stored::invocation).transpose()
}

/// Ends the invocation that `update` picks, with a failure or without.
async fn end(
    transaction: &DatabaseTransaction,
    mut update: UpdateMany<invocation::Entity>,
    failure: Option<&Failure>,
    statistics: Option<&Statistics>,
    now: Timestamp,
) -> Result<Option<invocation::Model>, StoreError> {
    let state = match failure {
        None => StateName::Complete,
        Some(_) => StateName::Failed,
    };
    let failure = failure.map(|failure| {
        let message = without_nul(&failure.message);
        encode(
            "invocations.failure",
            &Failure {
                reason: failure.reason.clone(),
                message,
            },
        )
    });
    if let Some(statistics) = statistics {
        let statistics = encode("invocations.statistics", statistics)?;
        update = update.col_expr(invocation::Column::Statistics, Expr::value(statistics));
    }
    let update = without_lease(update)
        .col_expr(invocation::Column::FinishTime, Expr::value(now.0))
        .col_expr(invocation::Column::Failure, Expr::value(failure.transpose()?))
        .col_expr(invocation::Column::Phase, Expr::value(Phase::Done.as_str()))
        .col_expr(invocation::Column::Wait, Expr::value(None::<serde_json::Value>));
    transition(transaction, update, state).await
}
