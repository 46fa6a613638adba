//! Taking back the leases of workers that are gone.

use std::time::Duration;

use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::Expr,
};

use super::{
    super::{
        Store,
        entities::invocation,
        error::StoreError,
        stored::{corrupt, encode},
        transition::{in_state, one_more, with_progress},
    },
    end, without_lease,
};
use crate::domain::{
    ids::InvocationId,
    invocation::{Failure, Phase, StateName, Wait},
    time::Timestamp,
};

/// The most leases that one call takes back.
const MAX_REAPED: u64 = 100;

/// `Failure::reason` of an invocation whose workers were lost too often.
pub const WORKER_LOST: &str = "WORKER_LOST";

/// An invocation whose lease ran out and was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// Which invocation.
    pub id: InvocationId,
    /// The attempt that lost its lease.
    pub attempt: u32,
    /// Attempts that failed so far, this one included.
    pub failures: u32,
    /// From when on it may be claimed again; none when its budget is used up and it failed.
    pub next_attempt_at: Option<Timestamp>,
}

struct Request {
    now: Timestamp,
    max_failures: u32,
    delay: Duration,
}

impl Store {
    /// Takes back the leases that ran out by `now`, at most 100 of them, oldest first.
    ///
    /// Each counts as a failed attempt. An invocation with fewer than `max_failures` of them may be
    /// claimed again after `delay`; any other fails with the reason [`WORKER_LOST`].
    ///
    /// # Errors
    /// Those of the database.
    pub async fn reap(
        &self,
        now: Timestamp,
        max_failures: u32,
        delay: Duration,
    ) -> Result<Vec<Reaped>, StoreError> {
        let expired = self.read(async |database| expired(database, now).await).await?;
        if expired.is_empty() {
            return Ok(Vec::new());
        }
        let request = Request {
            now,
            max_failures,
            delay,
        };
        self.write(request, |transaction, request| {
            Box::pin(reap(transaction, request))
        })
        .await
    }
}

async fn expired(
    database: &impl ConnectionTrait,
    now: Timestamp,
) -> Result<Vec<invocation::Model>, StoreError> {
    let rows = invocation::Entity::find()
        // The condition of the index `invocations_leased`, word for word.
        .filter(Expr::cust("state = 'processing' AND lease_owner IS NOT NULL"))
        .filter(invocation::Column::LeaseExpiresAt.lte(now.0))
        .order_by_asc(invocation::Column::LeaseExpiresAt)
        // Two reapers that lock rows in the same order cannot block each other.
        .order_by_asc(invocation::Column::Id)
        .limit(MAX_REAPED)
        .all(database)
        .await?;
    Ok(rows)
}

async fn reap(transaction: &DatabaseTransaction, request: &Request) -> Result<Vec<Reaped>, StoreError> {
    let mut reaped = Vec::new();
    for row in expired(transaction, request.now).await? {
        reaped.extend(reap_one(transaction, request, row).await?);
    }
    Ok(reaped)
}

/// None when the worker renewed its lease, or ended, since the row was read.
async fn reap_one(
    transaction: &DatabaseTransaction,
    request: &Request,
    row: invocation::Model,
) -> Result<Option<Reaped>, StoreError> {
    let id = InvocationId(row.id);
    let attempt = u32::try_from(row.attempt).map_err(|_| corrupt("invocations.attempt", id))?;
    let failures = u32::try_from(row.failures).map_err(|_| corrupt("invocations.failures", id))? + 1;
    let update = invocation::Entity::update_many()
        .col_expr(
            invocation::Column::Failures,
            one_more(invocation::Column::Failures),
        )
        .filter(invocation::Column::Id.eq(row.id))
        .filter(invocation::Column::Attempt.eq(row.attempt))
        .filter(in_state(&[StateName::Processing]))
        .filter(invocation::Column::LeaseExpiresAt.lte(request.now.0));
    if failures >= request.max_failures {
        let failure = Failure {
            reason: WORKER_LOST.to_owned(),
            message: format!(
                "the worker was lost in {failures} attempts; create the invocation again, \
                 and ask the operator to look at the worker's log if it fails again"
            ),
        };
        let row = end(transaction, update, Some(&failure), None, request.now).await?;
        return Ok(row.map(|_| Reaped {
            id,
            attempt,
            failures,
            next_attempt_at: None,
        }));
    }
    let next_attempt_at = request.now.plus(request.delay);
    let wait = Wait {
        until: next_attempt_at,
        cause: "the worker was lost; another one continues".to_owned(),
    };
    let update = with_progress(without_lease(update))
        .col_expr(invocation::Column::Phase, Expr::value(Phase::Waiting.as_str()))
        .col_expr(
            invocation::Column::Wait,
            Expr::value(Some(encode("invocations.wait", &wait)?)),
        )
        .col_expr(invocation::Column::NextAttemptAt, Expr::value(next_attempt_at.0));
    let returned = update.exec(transaction).await?.rows_affected == 1;
    Ok(returned.then_some(Reaped {
        id,
        attempt,
        failures,
        next_attempt_at: Some(next_attempt_at),
    }))
}
