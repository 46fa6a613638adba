//! Table `api_keys`: one row a key; revoked and expired ones stay.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "api_keys")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub name: String,
    pub tenant: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
    /// Unique.
    pub token_sha256: Vec<u8>,
    /// List of names; null opens every database.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub databases: Option<Json>,
    pub create_time: i64,
    pub expire_time: Option<i64>,
    pub revoke_time: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
