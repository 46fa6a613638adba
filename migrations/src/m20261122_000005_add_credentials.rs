//! What gives access to sources that are not public: access keys of AWS and GitHub Apps.
//!
//! Secrets are sealed before they come here. The number by which sources name an access key is not its
//! place in a listing: it is chosen at random, so that it tells nothing about other tenants.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, blob, integer, text, text_null, uuid, uuid_null},
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(aws_credentials()).await?;
        manager.create_table(github_apps()).await?;
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table(GithubApps::Table).to_owned())
            .await?;
        manager
            .drop_table(Table::drop().table(AwsCredentials::Table).to_owned())
            .await
    }
}

fn aws_credentials() -> TableCreateStatement {
    use AwsCredentials as Column;
    Table::create()
        .table(Column::Table)
        .col(uuid(Column::Id).primary_key())
        .col(text(Column::Tenant))
        .col(integer(Column::Number))
        .col(text_null(Column::Name))
        .col(text(Column::AccessKeyId))
        .col(blob(Column::SealedSecret))
        .col(big_integer(Column::CreateTime))
        .col(uuid_null(Column::RequestId))
        .to_owned()
}

fn github_apps() -> TableCreateStatement {
    use GithubApps as Column;
    Table::create()
        .table(Column::Table)
        .col(uuid(Column::Id).primary_key())
        .col(text(Column::Tenant))
        .col(text(Column::AppId))
        .col(blob(Column::SealedPrivateKey))
        .col(big_integer(Column::CreateTime))
        .col(big_integer(Column::UpdateTime))
        .col(uuid_null(Column::RequestId))
        .to_owned()
}

fn indexes() -> [IndexCreateStatement; 6] {
    use AwsCredentials as Key;
    use GithubApps as App;
    [
        index(
            "aws_credentials_number",
            Key::Table,
            Key::Tenant,
            Key::Number,
            true,
        ),
        index(
            "aws_credentials_request",
            Key::Table,
            Key::Tenant,
            Key::RequestId,
            true,
        ),
        index(
            "aws_credentials_by_tenant",
            Key::Table,
            Key::Tenant,
            Key::Id,
            false,
        ),
        index("github_apps_app", App::Table, App::Tenant, App::AppId, true),
        index(
            "github_apps_request",
            App::Table,
            App::Tenant,
            App::RequestId,
            true,
        ),
        index("github_apps_by_tenant", App::Table, App::Tenant, App::Id, false),
    ]
}

fn index<T: Iden + Copy + 'static>(
    name: &str,
    table: T,
    first: T,
    second: T,
    unique: bool,
) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(name).table(table).col(first).col(second);
    if unique {
        index.unique();
    }
    index
}

#[derive(DeriveIden, Clone, Copy)]
enum AwsCredentials {
    Table,
    Id,
    Tenant,
    Number,
    Name,
    AccessKeyId,
    SealedSecret,
    CreateTime,
    RequestId,
}

#[derive(DeriveIden, Clone, Copy)]
enum GithubApps {
    Table,
    Id,
    Tenant,
    AppId,
    SealedPrivateKey,
    CreateTime,
    UpdateTime,
    RequestId,
}
