//! Table `invocations`: the invocation, its queue entry and its lease in one row.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "invocations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant: String,
    /// Null once the source was deleted.
    pub source_id: Option<Uuid>,
    pub source_type: String,
    pub database_name: String,
    pub collection_name: String,
    /// Whether no other live invocation may write to the collection.
    pub exclusive: bool,
    #[sea_orm(column_type = "JsonBinary")]
    pub input: Json,
    /// Which object or file is synced, for those types of source that name one.
    pub object_key: Option<String>,
    #[sea_orm(column_type = "JsonBinary")]
    pub plan: Json,
    /// Unique within the tenant.
    pub request_id: Option<Uuid>,
    /// What was asked for under `request_id`.
    pub request_sha256: Option<Vec<u8>>,
    pub create_time: i64,
    pub state: String,
    pub start_time: Option<i64>,
    pub finish_time: Option<i64>,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub failure: Option<Json>,
    pub revision: i64,
    pub phase: String,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub wait: Option<Json>,
    #[sea_orm(column_type = "JsonBinary")]
    pub statistics: Json,
    pub progress_version: i64,
    pub resolved_commit: Option<String>,
    pub attempt: i32,
    /// Attempts that failed, for the retry budget.
    pub failures: i32,
    /// The worker that holds the lease; null when nobody does.
    pub lease_owner: Option<Uuid>,
    pub lease_expires_at: Option<i64>,
    /// From when on it may be claimed, while nobody holds the lease.
    pub next_attempt_at: i64,
    /// Lower case, as in `sources`; kept here because invocations outlive their sources.
    pub github_repository: Option<String>,
    pub github_app_id: Option<String>,
    /// What the invocation writes to Chroma with, sealed; null once it has ended.
    pub sealed_chroma_token: Option<Vec<u8>>,
    /// Whether there is a row in `webhook_deliveries`, and its `url`.
    pub webhook_url: Option<String>,
    /// What its records are made with; null before the first attempt knows.
    pub fingerprint: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
