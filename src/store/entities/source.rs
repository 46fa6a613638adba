//! Table `sources`: never updated.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sources")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant: String,
    pub database_name: String,
    pub source_type: String,
    /// Lowercase, because GitHub compares names without regard to case; the name as it was given is
    /// in `settings`.
    pub github_repository: Option<String>,
    pub github_app_id: Option<String>,
    pub aws_credential_id: Option<i32>,
    #[sea_orm(column_type = "JsonBinary")]
    pub settings: Json,
    #[sea_orm(column_type = "JsonBinary")]
    pub embedding: Json,
    #[sea_orm(column_type = "JsonBinary")]
    pub chunking: Json,
    /// Unique within the tenant.
    pub fingerprint: Vec<u8>,
    pub create_time: i64,
    /// Unique within the tenant.
    pub request_id: Option<Uuid>,
    pub webhook_url: Option<String>,
    pub sealed_webhook_secret: Option<Vec<u8>>,
    /// The bucket whose events concern the source; null for one that follows none.
    pub auto_sync_bucket: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
