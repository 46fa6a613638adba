//! What the newer types of source need: which credential a source names, and a note that a fetcher leaves
//! itself about each document, such as the ETag of a page.

use sea_orm_migration::{
    prelude::*,
    schema::{integer_null, text_null},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const BY_CREDENTIAL: &str = "sources_by_aws_credential";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut documents = Table::alter();
        documents
            .table(Documents::Table)
            .add_column(text_null(Documents::Memo));
        manager.alter_table(documents.to_owned()).await?;
        let mut sources = Table::alter();
        sources
            .table(Sources::Table)
            .add_column(integer_null(Sources::AwsCredentialId));
        manager.alter_table(sources.to_owned()).await?;
        let mut index = Index::create();
        index
            .name(BY_CREDENTIAL)
            .table(Sources::Table)
            .col(Sources::Tenant)
            .col(Sources::AwsCredentialId);
        manager.create_index(index.to_owned()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut index = Index::drop();
        index.name(BY_CREDENTIAL).table(Sources::Table);
        manager.drop_index(index.to_owned()).await?;
        let mut sources = Table::alter();
        sources
            .table(Sources::Table)
            .drop_column(Sources::AwsCredentialId);
        manager.alter_table(sources.to_owned()).await?;
        let mut documents = Table::alter();
        documents.table(Documents::Table).drop_column(Documents::Memo);
        manager.alter_table(documents.to_owned()).await
    }
}

#[derive(DeriveIden)]
enum Documents {
    Table,
    Memo,
}

#[derive(DeriveIden)]
enum Sources {
    Table,
    Tenant,
    AwsCredentialId,
}
