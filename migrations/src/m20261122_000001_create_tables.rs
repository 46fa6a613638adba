//! Keys, sources, invocations with their events, and the ledger of documents.
//!
//! The partial indexes carry literals: a bound parameter would keep PostgreSQL from using them under
//! a generic plan. The queries of the store repeat the same words.

use sea_orm_migration::{
    prelude::*,
    schema::{
        big_integer, big_integer_null, blob, blob_null, boolean, integer, json_binary, json_binary_null,
        text, text_null, uuid, uuid_null,
    },
};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// Rows that a worker may take, except for their time.
const CLAIMABLE: &str = "state IN ('pending', 'processing') AND lease_owner IS NULL";
/// Rows that a worker holds.
const LEASED: &str = "state = 'processing' AND lease_owner IS NOT NULL";
/// Rows whose collection nobody else may write to.
const WRITING_ALONE: &str = "exclusive AND state IN ('pending', 'processing')";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            api_keys(),
            sources(),
            invocations(),
            invocation_events(),
            documents(),
        ] {
            manager.create_table(table).await?;
        }
        let indexes = [
            api_key_indexes(),
            source_indexes(),
            invocation_indexes(),
            document_indexes(),
        ];
        for index in indexes.into_iter().flatten() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table(Documents::Table).to_owned())
            .await?;
        manager
            .drop_table(Table::drop().table(InvocationEvents::Table).to_owned())
            .await?;
        manager
            .drop_table(Table::drop().table(Invocations::Table).to_owned())
            .await?;
        manager
            .drop_table(Table::drop().table(Sources::Table).to_owned())
            .await?;
        manager
            .drop_table(Table::drop().table(ApiKeys::Table).to_owned())
            .await
    }
}

fn api_keys() -> TableCreateStatement {
    Table::create()
        .table(ApiKeys::Table)
        .col(uuid(ApiKeys::Id).primary_key())
        .col(text(ApiKeys::Name))
        .col(text(ApiKeys::Tenant))
        .col(text(ApiKeys::Role))
        .col(blob(ApiKeys::TokenSha256))
        .col(json_binary_null(ApiKeys::Databases))
        .col(big_integer(ApiKeys::CreateTime))
        .col(big_integer_null(ApiKeys::ExpireTime))
        .col(big_integer_null(ApiKeys::RevokeTime))
        .to_owned()
}

fn api_key_indexes() -> Vec<IndexCreateStatement> {
    let table = ApiKeys::Table;
    vec![
        unique("api_keys_token", table, [ApiKeys::TokenSha256]),
        plain("api_keys_by_tenant", table, [ApiKeys::Tenant, ApiKeys::Id]),
    ]
}

fn sources() -> TableCreateStatement {
    Table::create()
        .table(Sources::Table)
        .col(uuid(Sources::Id).primary_key())
        .col(text(Sources::Tenant))
        .col(text(Sources::DatabaseName))
        .col(text(Sources::SourceType))
        .col(text_null(Sources::GithubRepository))
        .col(text_null(Sources::GithubAppId))
        .col(json_binary(Sources::Settings))
        .col(json_binary(Sources::Embedding))
        .col(json_binary(Sources::Chunking))
        .col(blob(Sources::Fingerprint))
        .col(big_integer(Sources::CreateTime))
        .col(uuid_null(Sources::RequestId))
        .to_owned()
}

fn source_indexes() -> Vec<IndexCreateStatement> {
    let table = Sources::Table;
    let listed_by = |name, column| plain(name, table, [Sources::Tenant, column, Sources::Id]);
    vec![
        unique(
            "sources_fingerprint",
            table,
            [Sources::Tenant, Sources::Fingerprint],
        ),
        unique("sources_request", table, [Sources::Tenant, Sources::RequestId]),
        plain("sources_by_tenant", table, [Sources::Tenant, Sources::Id]),
        listed_by("sources_by_database", Sources::DatabaseName),
        listed_by("sources_by_type", Sources::SourceType),
        listed_by("sources_by_github_repository", Sources::GithubRepository),
        listed_by("sources_by_github_app", Sources::GithubAppId),
    ]
}

fn invocations() -> TableCreateStatement {
    Table::create()
        .table(Invocations::Table)
        .col(uuid(Invocations::Id).primary_key())
        .col(text(Invocations::Tenant))
        .col(uuid_null(Invocations::SourceId))
        .col(text(Invocations::SourceType))
        .col(text(Invocations::DatabaseName))
        .col(text(Invocations::CollectionName))
        .col(boolean(Invocations::Exclusive))
        .col(json_binary(Invocations::Input))
        .col(text_null(Invocations::ObjectKey))
        .col(json_binary(Invocations::Plan))
        .col(uuid_null(Invocations::RequestId))
        .col(blob_null(Invocations::RequestSha256))
        .col(big_integer(Invocations::CreateTime))
        .col(text(Invocations::State))
        .col(big_integer_null(Invocations::StartTime))
        .col(big_integer_null(Invocations::FinishTime))
        .col(json_binary_null(Invocations::Failure))
        .col(big_integer(Invocations::Revision))
        .col(text(Invocations::Phase))
        .col(json_binary_null(Invocations::Wait))
        .col(json_binary(Invocations::Statistics))
        .col(big_integer(Invocations::ProgressVersion))
        .col(text_null(Invocations::ResolvedCommit))
        .col(integer(Invocations::Attempt))
        .col(integer(Invocations::Failures))
        .col(uuid_null(Invocations::LeaseOwner))
        .col(big_integer_null(Invocations::LeaseExpiresAt))
        .col(big_integer(Invocations::NextAttemptAt))
        .foreign_key(
            ForeignKey::create()
                .name("invocations_source")
                .from(Invocations::Table, Invocations::SourceId)
                .to(Sources::Table, Sources::Id)
                .on_delete(ForeignKeyAction::SetNull),
        )
        .to_owned()
}

fn invocation_indexes() -> Vec<IndexCreateStatement> {
    use Invocations as Column;
    let table = Invocations::Table;
    let listed_by = |name, column| plain(name, table, [Column::Tenant, column, Column::Id]);
    let collection = [Column::Tenant, Column::DatabaseName, Column::CollectionName];
    let by_due_time = [Column::Tenant, Column::NextAttemptAt, Column::Id];
    vec![
        unique("invocations_request", table, [Column::Tenant, Column::RequestId]),
        unique("invocations_exclusive", table, collection)
            .and_where(Expr::cust(WRITING_ALONE))
            .to_owned(),
        plain("invocations_claimable", table, by_due_time)
            .and_where(Expr::cust(CLAIMABLE))
            .to_owned(),
        plain("invocations_leased", table, [Column::Tenant])
            .and_where(Expr::cust(LEASED))
            .to_owned(),
        plain("invocations_by_tenant", table, [Column::Tenant, Column::Id]),
        plain("invocations_by_source", table, [Column::SourceId, Column::Id]),
        plain(
            "invocations_by_key",
            table,
            [Column::SourceId, Column::ObjectKey, Column::Id],
        ),
        listed_by("invocations_by_database", Column::DatabaseName),
        listed_by("invocations_by_type", Column::SourceType),
        listed_by("invocations_by_state", Column::State),
    ]
}

fn invocation_events() -> TableCreateStatement {
    Table::create()
        .table(InvocationEvents::Table)
        .col(uuid(InvocationEvents::InvocationId))
        .col(big_integer(InvocationEvents::Revision))
        .col(text(InvocationEvents::State))
        .col(big_integer(InvocationEvents::Time))
        .col(json_binary(InvocationEvents::Snapshot))
        .primary_key(
            Index::create()
                .col(InvocationEvents::InvocationId)
                .col(InvocationEvents::Revision),
        )
        .foreign_key(
            ForeignKey::create()
                .name("invocation_events_invocation")
                .from(InvocationEvents::Table, InvocationEvents::InvocationId)
                .to(Invocations::Table, Invocations::Id)
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned()
}

fn documents() -> TableCreateStatement {
    Table::create()
        .table(Documents::Table)
        .col(uuid(Documents::InvocationId))
        .col(big_integer(Documents::Ordinal))
        .col(text(Documents::DocumentKey))
        .col(blob(Documents::DocumentKeySha256))
        .col(text(Documents::VersionKey))
        .col(big_integer_null(Documents::SizeBytes))
        .col(text(Documents::Outcome))
        .col(text_null(Documents::Detail))
        .col(big_integer(Documents::Chunks))
        .primary_key(
            Index::create()
                .col(Documents::InvocationId)
                .col(Documents::Ordinal),
        )
        .foreign_key(
            ForeignKey::create()
                .name("documents_invocation")
                .from(Documents::Table, Documents::InvocationId)
                .to(Invocations::Table, Invocations::Id)
                .on_delete(ForeignKeyAction::Cascade),
        )
        .to_owned()
}

/// A key is indexed by its digest, since PostgreSQL indexes no text longer than 2,704 bytes.
fn document_indexes() -> Vec<IndexCreateStatement> {
    let columns = [Documents::InvocationId, Documents::DocumentKeySha256];
    vec![plain("documents_by_key", Documents::Table, columns)]
}

fn plain<T: Iden + Copy + 'static, const N: usize>(
    name: &'static str,
    table: T,
    columns: [T; N],
) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(name).table(table);
    for column in columns {
        index.col(column);
    }
    index
}

fn unique<T: Iden + Copy + 'static, const N: usize>(
    name: &'static str,
    table: T,
    columns: [T; N],
) -> IndexCreateStatement {
    plain(name, table, columns).unique().to_owned()
}

#[derive(DeriveIden, Clone, Copy)]
enum ApiKeys {
    Table,
    Id,
    Name,
    Tenant,
    Role,
    #[sea_orm(iden = "token_sha256")]
    TokenSha256,
    Databases,
    CreateTime,
    ExpireTime,
    RevokeTime,
}

#[derive(DeriveIden, Clone, Copy)]
enum Sources {
    Table,
    Id,
    Tenant,
    DatabaseName,
    SourceType,
    GithubRepository,
    GithubAppId,
    Settings,
    Embedding,
    Chunking,
    Fingerprint,
    CreateTime,
    RequestId,
}

#[derive(DeriveIden, Clone, Copy)]
enum Invocations {
    Table,
    Id,
    Tenant,
    SourceId,
    SourceType,
    DatabaseName,
    CollectionName,
    Exclusive,
    Input,
    ObjectKey,
    Plan,
    RequestId,
    #[sea_orm(iden = "request_sha256")]
    RequestSha256,
    CreateTime,
    State,
    StartTime,
    FinishTime,
    Failure,
    Revision,
    Phase,
    Wait,
    Statistics,
    ProgressVersion,
    ResolvedCommit,
    Attempt,
    Failures,
    LeaseOwner,
    LeaseExpiresAt,
    NextAttemptAt,
}

#[derive(DeriveIden, Clone, Copy)]
enum InvocationEvents {
    Table,
    InvocationId,
    Revision,
    State,
    Time,
    Snapshot,
}

#[derive(DeriveIden, Clone, Copy)]
enum Documents {
    Table,
    InvocationId,
    Ordinal,
    DocumentKey,
    #[sea_orm(iden = "document_key_sha256")]
    DocumentKeySha256,
    VersionKey,
    SizeBytes,
    Outcome,
    Detail,
    Chunks,
}
