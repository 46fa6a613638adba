//! Lists invocations by repository and GitHub App, and keeps the sealed Chroma token that an
//! invocation is to write with.
//!
//! The two filter columns repeat what the source has, because invocations outlive their sources.

use sea_orm_migration::{
    prelude::*,
    schema::{blob_null, text_null},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// Index name and column of each filter.
const FILTERS: [(&str, Invocations); 2] = [
    ("invocations_by_github_repository", Invocations::GithubRepository),
    ("invocations_by_github_app", Invocations::GithubAppId),
];

/// Invocations whose source was deleted before keep a null and are found by neither filter.
const COPY_FROM_SOURCES: &str = "UPDATE invocations SET \
     github_repository = (SELECT s.github_repository FROM sources s WHERE s.id = invocations.source_id), \
     github_app_id = (SELECT s.github_app_id FROM sources s WHERE s.id = invocations.source_id) \
     WHERE source_id IS NOT NULL";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column a statement.
        for mut column in [
            text_null(Invocations::GithubRepository),
            text_null(Invocations::GithubAppId),
            blob_null(Invocations::SealedChromaToken),
        ] {
            let mut alter = Table::alter();
            manager
                .alter_table(alter.table(Invocations::Table).add_column(&mut column).to_owned())
                .await?;
        }
        manager
            .get_connection()
            .execute_unprepared(COPY_FROM_SOURCES)
            .await?;
        for (name, column) in FILTERS {
            let mut index = Index::create();
            index
                .name(name)
                .table(Invocations::Table)
                .col(Invocations::Tenant)
                .col(column)
                .col(Invocations::Id);
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in FILTERS {
            let mut index = Index::drop();
            manager
                .drop_index(index.name(name).table(Invocations::Table).to_owned())
                .await?;
        }
        for column in [
            Invocations::SealedChromaToken,
            Invocations::GithubAppId,
            Invocations::GithubRepository,
        ] {
            let mut alter = Table::alter();
            manager
                .alter_table(alter.table(Invocations::Table).drop_column(column).to_owned())
                .await?;
        }
        Ok(())
    }
}

#[derive(DeriveIden, Clone, Copy)]
enum Invocations {
    Table,
    Id,
    Tenant,
    GithubRepository,
    GithubAppId,
    SealedChromaToken,
}
