//! Table `aws_credentials`: never updated, but for the key that seals the secrets.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "aws_credentials")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant: String,
    /// What sources name it by; unique within the tenant.
    pub number: i32,
    pub name: Option<String>,
    pub access_key_id: String,
    pub sealed_secret: Vec<u8>,
    pub create_time: i64,
    /// Unique within the tenant.
    pub request_id: Option<Uuid>,
}

impl ActiveModelBehavior for ActiveModel {}
