//! Deliveries to webhooks: one row an invocation, which says what is sent next and when.
//!
//! What is sent are the events of the invocation, in the order of their revisions: the row counts them, and a
//! state change writes its number here in its own transaction. So an event that was committed is due, whoever
//! delivers and whatever was lost meanwhile. A claim takes rows that are due and nobody holds, by one UPDATE
//! that repeats the condition; its id then fences the one write that settles the attempt. A claim whose
//! process is gone runs out, and the row is due again: a receiver may get an event twice, never out of order.
//!
//! Times are passed in, so that all comparisons of one round use one reading of the store's clock.

use std::{collections::HashMap, time::Duration};

use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, ExprTrait,
    QueryFilter, QuerySelect, UpdateMany,
    sea_query::{CaseStatement, Expr, Func, LockBehavior, LockType, Order, Query},
};
use uuid::Uuid;

use super::{
    Store,
    entities::webhook_delivery::{self, Column},
    error::StoreError,
    lease::Held,
    stored::{corrupt, to_sql, without_nul},
};
use crate::{
    domain::{
        ids::InvocationId,
        invocation::Invocation,
        names::TenantName,
        time::Timestamp,
        webhook::{DeliveryState, Webhook, WebhookDelivery, WebhookUrl},
    },
    secret::Sealed,
};

/// Invocations whose deliveries one query reads.
const IDS_A_QUERY: usize = 1_024;

/// A delivery that a process has taken: it alone may send, until the lease runs out.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryClaim {
    /// Whose state changes.
    pub invocation_id: InvocationId,
    /// Whose invocation.
    pub tenant: TenantName,
    /// Where to send to.
    pub url: WebhookUrl,
    /// What to sign with.
    pub sealed_secret: Option<Sealed>,
    /// The revision to send; the next one there is when it has been deleted.
    pub revision: u64,
    /// Attempts at it that failed so far.
    pub attempts: u32,
    /// When it was first tried: now, unless attempts failed.
    pub first_attempt_at: Timestamp,
    owner: Uuid,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver has it.
    Delivered {
        /// What was sent.
        revision: u64,
        /// Whether it was the last state change of the invocation.
        last: bool,
    },
    /// It is tried again.
    Retry {
        /// Why, in words for the owner.
        error: String,
        /// When.
        at: Timestamp,
    },
    /// It is never tried again, and the next state change is due.
    GivenUp {
        /// Why, in words for the owner.
        error: String,
        /// What was not sent.
        revision: u64,
        /// Whether it was the last state change of the invocation.
        last: bool,
    },
    /// Nothing is sent any more.
    Stopped {
        /// Why, in words for the owner.
        error: String,
    },
}

struct ClaimRequest {
    now: Timestamp,
    lease_expires_at: Timestamp,
    limit: u64,
    busy_receivers: Vec<String>,
    owner: Uuid,
}

struct Settlement {
    invocation_id: Uuid,
    owner: Uuid,
    outcome: DeliveryOutcome,
    now: Timestamp,
}

impl Store {
    /// When the next delivery is due, or the lease of one runs out; none when nothing is to be sent.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn next_delivery_time(&self) -> Result<Option<Timestamp>, StoreError> {
        let select = webhook_delivery::Entity::find()
            .select_only()
            .column_as(Column::NextAttemptAt.min(), "next")
            .filter(pending())
            .into_tuple::<Option<i64>>();
        let next = self
            .read(async |database| Ok(select.one(database).await?))
            .await?;
        Ok(next.flatten().map(Timestamp))
    }

    /// Takes at most `limit` deliveries that are due, the longest due first, until `now` plus `lease`;
    /// passes by those to `busy_receivers`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn claim_deliveries(
        &self,
        now: Timestamp,
        lease: Duration,
        limit: usize,
        busy_receivers: Vec<String>,
    ) -> Result<Vec<DeliveryClaim>, StoreError> {
        let request = ClaimRequest {
            now,
            lease_expires_at: now.plus(lease),
            limit: u64::try_from(limit).unwrap_or(u64::MAX),
            busy_receivers,
            owner: Uuid::now_v7(),
        };
        self.write(request, |transaction, request| {
            Box::pin(claim(transaction, request))
        })
        .await
    }

    /// Writes how the attempt ended; [`Held::Lost`] when another process has taken the delivery since.
    ///
    /// # Errors
    /// Those of the database; the delivery is then due again when the lease runs out.
    pub async fn settle_delivery(
        &self,
        claim: &DeliveryClaim,
        outcome: DeliveryOutcome,
        now: Timestamp,
    ) -> Result<Held, StoreError> {
        let settlement = Settlement {
            invocation_id: claim.invocation_id.0,
            owner: claim.owner,
            outcome,
            now,
        };
        self.write(settlement, |transaction, settlement| {
            Box::pin(settle(transaction, settlement))
        })
        .await
    }
}

/// The condition of the index `webhook_deliveries_due`, word for word, or the databases do not use it.
fn pending() -> Expr {
    Expr::cust("state = 'pending'")
}

async fn claim(
    transaction: &DatabaseTransaction,
    request: &ClaimRequest,
) -> Result<Vec<DeliveryClaim>, StoreError> {
    let busy = &request.busy_receivers;
    let due = Condition::all()
        .add(pending())
        .add(Column::NextAttemptAt.lte(request.now.0))
        .add_option((!busy.is_empty()).then(|| Column::Receiver.is_not_in(busy.iter().cloned())));
    let mut longest_due = Query::select()
        .column(Column::InvocationId)
        .from(webhook_delivery::Entity)
        .cond_where(due.clone())
        .order_by(Column::NextAttemptAt, Order::Asc)
        .order_by(Column::InvocationId, Order::Asc)
        .limit(request.limit)
        .to_owned();
    if transaction.get_database_backend() == DbBackend::Postgres {
        // Only a speed-up: the UPDATE repeats the condition.
        longest_due.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    }
    let rows = webhook_delivery::Entity::update_many()
        .col_expr(Column::LeaseOwner, Expr::value(Some(request.owner)))
        .col_expr(Column::NextAttemptAt, Expr::value(request.lease_expires_at.0))
        .col_expr(
            Column::FirstAttemptAt,
            Func::coalesce([Expr::col(Column::FirstAttemptAt), Expr::value(request.now.0)]).into(),
        )
        .filter(Column::InvocationId.in_subquery(longest_due))
        .filter(due)
        .exec_with_returning(transaction)
        .await?;
    rows.into_iter().map(|row| taken(row, request)).collect()
}

fn taken(row: webhook_delivery::Model, request: &ClaimRequest) -> Result<DeliveryClaim, StoreError> {
    let id = row.invocation_id;
    Ok(DeliveryClaim {
        invocation_id: InvocationId(id),
        tenant: TenantName::from_stored(row.tenant),
        url: WebhookUrl::from_stored(&row.url).ok_or_else(|| corrupt("webhook_deliveries.url", id))?,
        sealed_secret: row.sealed_secret.map(Sealed::from_bytes),
        revision: u64::try_from(row.next_revision)
            .map_err(|_| corrupt("webhook_deliveries.next_revision", id))?,
        attempts: u32::try_from(row.attempts).map_err(|_| corrupt("webhook_deliveries.attempts", id))?,
        first_attempt_at: row.first_attempt_at.map_or(request.now, Timestamp),
        owner: request.owner,
    })
}

async fn settle(transaction: &DatabaseTransaction, settlement: &Settlement) -> Result<Held, StoreError> {
    let Settlement {
        invocation_id,
        owner,
        outcome,
        now,
    } = settlement;
    let update = webhook_delivery::Entity::update_many()
        .col_expr(Column::LeaseOwner, Expr::value(None::<Uuid>))
        .filter(Column::InvocationId.eq(*invocation_id))
        .filter(Column::LeaseOwner.eq(*owner));
    let one_more = || Expr::col(Column::Attempts).add(1);
    let update = match outcome {
        DeliveryOutcome::Delivered { revision, last } => {
            let update = update
                .col_expr(Column::DeliveredRevision, Expr::value(to_sql(*revision)))
                .col_expr(Column::Attempts, Expr::value(0))
                .col_expr(Column::LastError, Expr::value(None::<String>));
            go_on(update, *revision, *last, DeliveryState::Delivered, *now)
        }
        DeliveryOutcome::Retry { error, at } => {
            let update = update.col_expr(Column::Attempts, one_more());
            with_error(update, error).col_expr(Column::NextAttemptAt, Expr::value(at.0))
        }
        DeliveryOutcome::GivenUp {
            error,
            revision,
            last,
        } => {
            let attempts = CaseStatement::new()
                .case(more_than(*revision), 0)
                .finally(one_more());
            let update = with_error(update, error)
                .col_expr(Column::GivenUp, Expr::col(Column::GivenUp).add(1))
                .col_expr(Column::Attempts, attempts.into());
            go_on(update, *revision, *last, DeliveryState::Failed, *now)
        }
        DeliveryOutcome::Stopped { error } => without_secret(with_error(update, error))
            .col_expr(Column::Attempts, one_more())
            .col_expr(Column::State, Expr::value(DeliveryState::Stopped.as_str())),
    };
    let settled = update.exec(transaction).await?.rows_affected == 1;
    Ok(if settled { Held::Held } else { Held::Lost })
}

/// Whether another state change has happened after `revision`.
fn more_than(revision: u64) -> Expr {
    Expr::col(Column::LatestRevision).gt(to_sql(revision))
}

fn with_error(
    update: UpdateMany<webhook_delivery::Entity>,
    error: &str,
) -> UpdateMany<webhook_delivery::Entity> {
    update.col_expr(Column::LastError, Expr::value(without_nul(error)))
}

/// Makes the state change after `revision` due, or `otherwise` the state when none has happened.
fn go_on(
    update: UpdateMany<webhook_delivery::Entity>,
    revision: u64,
    last: bool,
    otherwise: DeliveryState,
    now: Timestamp,
) -> UpdateMany<webhook_delivery::Entity> {
    let state = CaseStatement::new()
        .case(more_than(revision), DeliveryState::Pending.as_str())
        .finally(otherwise.as_str());
    let update = update
        .col_expr(Column::State, state.into())
        .col_expr(
            Column::NextRevision,
            Expr::value(to_sql(revision.saturating_add(1))),
        )
        .col_expr(Column::FirstAttemptAt, Expr::value(None::<i64>))
        .col_expr(Column::NextAttemptAt, Expr::value(now.0));
    if last { without_secret(update) } else { update }
}

/// Forgets the secret: nothing is signed any more.
fn without_secret(update: UpdateMany<webhook_delivery::Entity>) -> UpdateMany<webhook_delivery::Entity> {
    update.col_expr(Column::SealedSecret, Expr::value(None::<Vec<u8>>))
}

/// Says that an invocation reached `revision`, in the transaction that changes its state. The row is written
/// in any case, so that this and a settlement at the same moment see each other.
pub(super) async fn state_changed(
    transaction: &DatabaseTransaction,
    invocation_id: Uuid,
    revision: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let idle = [DeliveryState::Delivered, DeliveryState::Failed].map(DeliveryState::as_str);
    let idle = || Column::State.is_in(idle);
    let state = CaseStatement::new()
        .case(idle(), DeliveryState::Pending.as_str())
        .finally(Expr::col(Column::State));
    let attempts = CaseStatement::new()
        .case(idle(), 0)
        .finally(Expr::col(Column::Attempts));
    let next_attempt_at = CaseStatement::new()
        .case(idle(), now.0)
        .finally(Expr::col(Column::NextAttemptAt));
    webhook_delivery::Entity::update_many()
        .col_expr(Column::LatestRevision, Expr::value(revision))
        .col_expr(Column::State, state.into())
        .col_expr(Column::Attempts, attempts.into())
        .col_expr(Column::NextAttemptAt, next_attempt_at.into())
        .filter(Column::InvocationId.eq(invocation_id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// The row of an invocation that was just created.
pub(super) fn first_delivery(
    id: InvocationId,
    tenant: &TenantName,
    webhook: &Webhook,
    now: Timestamp,
) -> webhook_delivery::ActiveModel {
    webhook_delivery::ActiveModel {
        invocation_id: Set(id.0),
        tenant: Set(tenant.as_str().to_owned()),
        url: Set(webhook.url.as_str().to_owned()),
        receiver: Set(webhook.url.receiver()),
        sealed_secret: Set(webhook.sealed_secret.clone().map(Sealed::into_bytes)),
        state: Set(DeliveryState::Pending.as_str().to_owned()),
        latest_revision: Set(1),
        next_revision: Set(1),
        delivered_revision: Set(0),
        attempts: Set(0),
        given_up: Set(0),
        last_error: NotSet,
        first_attempt_at: NotSet,
        next_attempt_at: Set(now.0),
        lease_owner: NotSet,
    }
}

/// Inserts the deliveries of new invocations.
pub(super) async fn insert(
    transaction: &DatabaseTransaction,
    deliveries: Vec<webhook_delivery::ActiveModel>,
) -> Result<(), StoreError> {
    if !deliveries.is_empty() {
        webhook_delivery::Entity::insert_many(deliveries)
            .exec_without_returning(transaction)
            .await?;
    }
    Ok(())
}

/// Adds how far the deliveries have come to those invocations that have a webhook; asks nothing when none
/// has.
pub(super) async fn add_deliveries<'a>(
    database: &impl ConnectionTrait,
    invocations: impl IntoIterator<Item = &'a mut Invocation>,
) -> Result<(), StoreError> {
    let mut with_webhook: Vec<&mut Invocation> = invocations
        .into_iter()
        .filter(|invocation| invocation.webhook.is_some())
        .collect();
    for invocations in with_webhook.chunks_mut(IDS_A_QUERY) {
        let ids: Vec<Uuid> = invocations.iter().map(|invocation| invocation.id.0).collect();
        let rows = webhook_delivery::Entity::find()
            .filter(Column::InvocationId.is_in(ids))
            .all(database)
            .await?;
        let mut rows: HashMap<Uuid, _> = rows.into_iter().map(|row| (row.invocation_id, row)).collect();
        for invocation in invocations {
            let row = rows.remove(&invocation.id.0);
            invocation.webhook_delivery = row.map(shown).transpose()?;
        }
    }
    Ok(())
}

fn shown(row: webhook_delivery::Model) -> Result<WebhookDelivery, StoreError> {
    let id = row.invocation_id;
    let out_of_range = |column| move |_| corrupt(column, id);
    let state =
        DeliveryState::from_name(&row.state).ok_or_else(|| corrupt("webhook_deliveries.state", id))?;
    let waits = state == DeliveryState::Pending && row.lease_owner.is_none();
    Ok(WebhookDelivery {
        state,
        delivered_revision: u64::try_from(row.delivered_revision)
            .map_err(out_of_range("webhook_deliveries.delivered_revision"))?,
        attempts: u32::try_from(row.attempts).map_err(out_of_range("webhook_deliveries.attempts"))?,
        given_up: u32::try_from(row.given_up).map_err(out_of_range("webhook_deliveries.given_up"))?,
        last_error: row.last_error,
        next_attempt_time: waits.then_some(Timestamp(row.next_attempt_at)),
    })
}
