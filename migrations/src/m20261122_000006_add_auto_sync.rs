//! By which bucket the sources are found that an event about one of its objects concerns.

use sea_orm_migration::{prelude::*, schema::text_null};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const INDEX: &str = "sources_by_auto_sync_bucket";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut alter = Table::alter();
        let alter = alter
            .table(Sources::Table)
            .add_column(text_null(Sources::AutoSyncBucket));
        manager.alter_table(alter.to_owned()).await?;
        let mut index = Index::create();
        let index = index
            .name(INDEX)
            .table(Sources::Table)
            .col(Sources::AutoSyncBucket)
            .and_where(Expr::cust("auto_sync_bucket IS NOT NULL"));
        manager.create_index(index.to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut drop = Index::drop();
        manager
            .drop_index(drop.name(INDEX).table(Sources::Table).to_owned())
            .await?;
        let mut alter = Table::alter();
        let alter = alter.table(Sources::Table).drop_column(Sources::AutoSyncBucket);
        manager.alter_table(alter.to_owned()).await
    }
}

#[derive(DeriveIden)]
enum Sources {
    Table,
    AutoSyncBucket,
}
