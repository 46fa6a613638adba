//! Table `documents`: the ledger, one row a document and invocation.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "documents")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub invocation_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub ordinal: i64,
    pub document_key: String,
    pub document_key_sha256: Vec<u8>,
    pub version_key: String,
    pub size_bytes: Option<i64>,
    pub outcome: String,
    /// The rule that skipped it, or why it failed.
    pub detail: Option<String>,
    pub chunks: i64,
    /// In words of the fetcher, for the next invocation.
    pub memo: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
