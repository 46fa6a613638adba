//! Table `invocation_events`: one row a state change, never updated.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "invocation_events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub invocation_id: Uuid,
    /// From 1, without a gap.
    #[sea_orm(primary_key, auto_increment = false)]
    pub revision: i64,
    pub state: String,
    pub time: i64,
    /// The whole invocation as it was.
    #[sea_orm(column_type = "JsonBinary")]
    pub snapshot: Json,
}

impl ActiveModelBehavior for ActiveModel {}
