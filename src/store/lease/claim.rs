//! Taking an invocation to work on it.
//!
//! Fair across tenants: the tenant with the fewest invocations in work goes first, among those the one
//! whose oldest invocation waits longest; within a tenant the longest due goes first. A tenant has at
//! most [`ClaimLimits::per_tenant`] invocations in work; one that waits for its next attempt is not in
//! work.
//!
//! Cost: two index probes a waiting tenant, however many invocations wait, and no write at all when
//! none does. The tenants are found by skipping through the index `invocations_claimable` from one
//! tenant to the next.

use std::time::Duration;

use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, QueryFilter, Statement,
    UpdateMany, sea_query::Expr,
};
use uuid::Uuid;

use super::super::{
    Store,
    entities::invocation,
    error::StoreError,
    stored::{self, StoredPlan, corrupt, decode},
    transition::{in_state, one_more, transition, with_progress},
};
use crate::{
    domain::{
        ids::{InvocationId, WorkerId},
        invocation::{Invocation, Phase, Plan, StateName},
        time::Timestamp,
    },
    seal::Sealed,
};

/// The condition of the index `invocations_claimable`, word for word, or the databases do not use it.
macro_rules! claimable {
    () => {
        "state IN ('pending', 'processing') AND lease_owner IS NULL"
    };
}

/// The tenants with something to claim at `$1` and fewer than `$2` in work, the next one first.
///
/// Public so that tests can look at its plan.
pub const CLAIMABLE_TENANTS_SQL: &str = concat!(
    "WITH RECURSIVE waiting (tenant) AS (",
    "SELECT MIN(tenant) FROM invocations WHERE ",
    claimable!(),
    " UNION ALL ",
    "SELECT (SELECT MIN(tenant) FROM invocations WHERE ",
    claimable!(),
    " AND tenant > waiting.tenant) FROM waiting WHERE waiting.tenant IS NOT NULL",
    "), candidates (tenant, due, in_work) AS (",
    "SELECT tenant, ",
    "(SELECT MIN(next_attempt_at) FROM invocations WHERE ",
    claimable!(),
    " AND tenant = waiting.tenant), ",
    "(SELECT COUNT(*) FROM invocations ",
    "WHERE state = 'processing' AND lease_owner IS NOT NULL AND tenant = waiting.tenant) ",
    "FROM waiting WHERE tenant IS NOT NULL) ",
    "SELECT tenant FROM candidates WHERE due <= $1 AND in_work < $2 ",
    "ORDER BY in_work, due, tenant LIMIT 32",
);

/// The invocation of tenant `$1` that is longest due at `$2`.
///
/// Public so that tests can look at its plan. On PostgreSQL `FOR UPDATE SKIP LOCKED` follows.
pub const NEXT_OF_TENANT_SQL: &str = concat!(
    "SELECT id, state FROM invocations WHERE ",
    claimable!(),
    " AND tenant = $1 AND next_attempt_at <= $2 ORDER BY next_attempt_at, id LIMIT 1",
);

/// Passes by a row that is being cancelled instead of waiting for it. Only a speed-up: the UPDATE that
/// follows decides.
const SKIP_LOCKED: &str = " FOR UPDATE SKIP LOCKED";

/// Key of the PostgreSQL advisory lock that one claim holds at a time. Two claims at once would each
/// count the tenant's invocations without the other's, and exceed its bound by one.
const CLAIM_LOCK: i64 = 0x6368_726f_6d61_0002;

/// How much one tenant may have in work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimLimits {
    /// The most invocations of one tenant that workers hold at a time, over all workers.
    pub per_tenant: u32,
}

/// An invocation that a worker has taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The invocation after the claim.
    pub invocation: Invocation,
    /// The settings to work with.
    pub plan: Plan,
    /// Which attempt this is, from 1. Every later write repeats it.
    pub attempt: u32,
    /// When the lease runs out unless it is renewed.
    pub lease_expires_at: Timestamp,
    /// Attempts that failed so far.
    pub failures: u32,
    /// Whether nobody has worked on the invocation before.
    pub first: bool,
    /// What to write to Chroma with, instead of the service's own token.
    pub chroma_token: Option<Sealed>,
}

struct Request {
    owner: WorkerId,
    now: Timestamp,
    lease_expires_at: Timestamp,
    limits: ClaimLimits,
}

impl Store {
    /// Takes one invocation for `owner` until `now` plus `lease`; none when nothing is due, or every
    /// tenant has as much in work as it may.
    ///
    /// The first claim of an invocation is its transition to processing, with an event; a later one
    /// changes no state.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn claim(
        &self,
        owner: &WorkerId,
        now: Timestamp,
        lease: Duration,
        limits: ClaimLimits,
    ) -> Result<Option<Claim>, StoreError> {
        // Workers ask often and mostly in vain, so the question alone must not take a write lock.
        let tenants = self
            .read(async |database| claimable_tenants(database, now, limits).await)
            .await?;
        if tenants.is_empty() {
            return Ok(None);
        }
        let request = Request {
            owner: *owner,
            now,
            lease_expires_at: now.plus(lease),
            limits,
        };
        self.write(request, |transaction, request| {
            Box::pin(claim(transaction, request))
        })
        .await
    }
}

async fn claim(transaction: &DatabaseTransaction, request: &Request) -> Result<Option<Claim>, StoreError> {
    if transaction.get_database_backend() == DbBackend::Postgres {
        let lock = "SELECT pg_advisory_xact_lock($1)";
        let lock = Statement::from_sql_and_values(DbBackend::Postgres, lock, [CLAIM_LOCK.into()]);
        transaction.execute_raw(lock).await?;
    }
    for tenant in claimable_tenants(transaction, request.now, request.limits).await? {
        if let Some((id, state)) = next_of_tenant(transaction, &tenant, request.now).await?
            && let Some(row) = take(transaction, id, state, request).await?
        {
            return granted(row, request.lease_expires_at).map(Some);
        }
    }
    Ok(None)
}

async fn claimable_tenants(
    database: &impl ConnectionTrait,
    now: Timestamp,
    limits: ClaimLimits,
) -> Result<Vec<String>, StoreError> {
    let values = [now.0.into(), i64::from(limits.per_tenant).into()];
    let backend = database.get_database_backend();
    let select = Statement::from_sql_and_values(backend, CLAIMABLE_TENANTS_SQL, values);
    let rows = database.query_all_raw(select).await?;
    rows.into_iter()
        .map(|row| Ok(row.try_get("", "tenant")?))
        .collect()
}

async fn next_of_tenant(
    transaction: &DatabaseTransaction,
    tenant: &str,
    now: Timestamp,
) -> Result<Option<(InvocationId, StateName)>, StoreError> {
    let backend = transaction.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => format!("{NEXT_OF_TENANT_SQL}{SKIP_LOCKED}"),
        _ => NEXT_OF_TENANT_SQL.to_owned(),
    };
    let select = Statement::from_sql_and_values(backend, sql, [tenant.into(), now.0.into()]);
    let Some(row) = transaction.query_one_raw(select).await? else {
        return Ok(None);
    };
    let id: Uuid = row.try_get("", "id")?;
    let state: String = row.try_get("", "state")?;
    let state = StateName::parse("state", &state).map_err(|_| corrupt("invocations.state", id))?;
    Ok(Some((InvocationId(id), state)))
}

/// Writes the lease; none when someone else changed the row since it was read.
async fn take(
    transaction: &DatabaseTransaction,
    id: InvocationId,
    state: StateName,
    request: &Request,
) -> Result<Option<invocation::Model>, StoreError> {
    let update = invocation::Entity::update_many()
        .col_expr(invocation::Column::Attempt, one_more(invocation::Column::Attempt))
        .col_expr(invocation::Column::LeaseOwner, Expr::value(Some(request.owner.0)))
        .col_expr(
            invocation::Column::LeaseExpiresAt,
            Expr::value(Some(request.lease_expires_at.0)),
        )
        .col_expr(invocation::Column::Phase, Expr::value(Phase::Fetching.as_str()))
        .col_expr(invocation::Column::Wait, Expr::value(None::<serde_json::Value>))
        .filter(invocation::Column::Id.eq(id.0))
        .filter(invocation::Column::LeaseOwner.is_null());
    match state {
        StateName::Pending => {
            let update = update.col_expr(invocation::Column::StartTime, Expr::value(Some(request.now.0)));
            transition(transaction, update, StateName::Processing).await
        }
        StateName::Processing => take_again(transaction, update).await,
        // The query that found the row selects no other state.
        StateName::Complete | StateName::Failed | StateName::Cancelled => Ok(None),
    }
}

/// A further attempt is no change of state, so it makes no event.
async fn take_again(
    transaction: &DatabaseTransaction,
    update: UpdateMany<invocation::Entity>,
) -> Result<Option<invocation::Model>, StoreError> {
    let update = update.filter(in_state(&[StateName::Processing]));
    Ok(with_progress(update)
        .exec_with_returning(transaction)
        .await?
        .pop())
}

fn granted(row: invocation::Model, lease_expires_at: Timestamp) -> Result<Claim, StoreError> {
    let id = row.id;
    let plan: StoredPlan = decode("invocations.plan", id, row.plan.clone())?;
    let failures = u32::try_from(row.failures).map_err(|_| corrupt("invocations.failures", id))?;
    let chroma_token = row.sealed_chroma_token.clone().map(Sealed::from_bytes);
    let invocation = stored::invocation(row)?;
    Ok(Claim {
        chroma_token,
        plan: plan.restore().ok_or_else(|| corrupt("invocations.plan", id))?,
        attempt: invocation.attempt,
        lease_expires_at,
        failures,
        first: invocation.attempt == 1,
        invocation,
    })
}
