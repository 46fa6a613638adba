//! Table `invocation_events`: one row a state change. Once it has its place in the feed it is never
//! updated.

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
    /// Null when the release before wrote the row, until it has its place; so are the next two.
    pub tenant: Option<String>,
    /// Stays when the source is deleted.
    pub source_id: Option<Uuid>,
    pub database_name: Option<String>,
    /// Its place among the events of all invocations; null until it has one.
    pub sequence: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
