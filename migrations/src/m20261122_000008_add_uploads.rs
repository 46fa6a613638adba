//! Uploaded files, from before their first byte until their bytes are removed.
//!
//! No foreign key: an upload outlives neither its invocation nor its uploader for long, but its row must
//! outlive both until its bytes are gone.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, boolean, text, uuid, uuid_null},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// What is still uploaded; counted for each tenant.
const OPEN: &str = "invocation_id IS NULL";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        use Uploads as Column;
        let mut table = Table::create();
        table
            .table(Column::Table)
            .col(uuid(Column::Id).primary_key())
            .col(text(Column::Tenant))
            .col(big_integer(Column::CreateTime))
            .col(big_integer(Column::CheckAt))
            .col(boolean(Column::Removing))
            .col(uuid_null(Column::InvocationId));
        manager.create_table(table.to_owned()).await?;
        let mut due = Index::create();
        due.name("uploads_due").table(Column::Table).col(Column::CheckAt);
        manager.create_index(due.to_owned()).await?;
        let mut open = Index::create();
        open.name("uploads_open")
            .table(Column::Table)
            .col(Column::Tenant)
            .col(Column::CheckAt)
            .and_where(Expr::cust(OPEN));
        manager.create_index(open.to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::drop();
        manager.drop_table(table.table(Uploads::Table).to_owned()).await
    }
}

#[derive(DeriveIden)]
enum Uploads {
    Table,
    Id,
    Tenant,
    CreateTime,
    CheckAt,
    Removing,
    InvocationId,
}
