//! Table `github_apps`.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "github_apps")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant: String,
    /// Unique within the tenant.
    pub app_id: String,
    pub sealed_private_key: Vec<u8>,
    pub create_time: i64,
    /// When the private key was stored.
    pub update_time: i64,
    /// Of the request that stored the private key; unique within the tenant.
    pub request_id: Option<Uuid>,
}

impl ActiveModelBehavior for ActiveModel {}
