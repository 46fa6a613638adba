//! Table `uploads`: one row an uploaded file, from before its first byte until its bytes are removed.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "uploads")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub tenant: String,
    pub create_time: i64,
    /// When the row is looked at: until then whoever uploads has it, or its invocation is kept.
    pub check_at: i64,
    /// Whether somebody removes the bytes; then nobody may have the upload any more.
    pub removing: bool,
    /// Whose input it is; null while it is uploaded.
    pub invocation_id: Option<Uuid>,
}

impl ActiveModelBehavior for ActiveModel {}
