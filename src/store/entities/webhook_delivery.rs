//! Table `webhook_deliveries`: one row an invocation with a webhook.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "webhook_deliveries")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub invocation_id: Uuid,
    pub tenant: String,
    pub url: String,
    /// Scheme, host and port of `url`.
    pub receiver: String,
    /// Null once nothing is sent any more.
    pub sealed_secret: Option<Vec<u8>>,
    /// `pending`, `delivered`, `failed` or `stopped`.
    pub state: String,
    /// The invocation's revision.
    pub latest_revision: i64,
    /// The revision to send next.
    pub next_revision: i64,
    /// The last one that was delivered; 0 before.
    pub delivered_revision: i64,
    /// Attempts that failed at the revision that is due, or was given up last.
    pub attempts: i32,
    /// Revisions that were given up.
    pub given_up: i32,
    pub last_error: Option<String>,
    /// When the revision that is due was first tried.
    pub first_attempt_at: Option<i64>,
    /// While a lease is held, when it runs out.
    pub next_attempt_at: i64,
    /// The attempt that holds the lease; null when none does.
    pub lease_owner: Option<Uuid>,
}

impl ActiveModelBehavior for ActiveModel {}
