//! Embeddings that were computed before, and what an invocation's records were made with.
//!
//! On PostgreSQL the cache is a table that is not logged: what it holds can be computed again, so it costs the
//! write-ahead log and the replicas nothing, and is empty after a crash. On SQLite the cache is a file of its own
//! beside the store's (`store/embeddings.rs` of the service), so that its writes never hold up those that matter.

use sea_orm_migration::{prelude::*, schema::text_null, sea_orm::DbBackend};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// Vectors hardly compress, so they are kept as they are where they are kept apart from their row.
const CREATE_CACHE: &str = "\
    CREATE UNLOGGED TABLE embedding_cache (\
        digest bytea PRIMARY KEY, payload bytea NOT NULL, tokens bigint NOT NULL, truncated boolean NOT NULL, \
        used_at bigint NOT NULL); \
    ALTER TABLE embedding_cache ALTER COLUMN payload SET STORAGE EXTERNAL; \
    CREATE INDEX embedding_cache_by_use ON embedding_cache (used_at); \
    CREATE UNLOGGED TABLE embedding_cache_size (id bigint PRIMARY KEY, bytes bigint NOT NULL)";

const DROP_CACHE: &str = "DROP TABLE embedding_cache_size; DROP TABLE embedding_cache";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut alter = Table::alter();
        alter
            .table(Invocations::Table)
            .add_column(text_null(Invocations::Fingerprint));
        manager.alter_table(alter).await?;
        if manager.get_database_backend() == DbBackend::Postgres {
            manager.get_connection().execute_unprepared(CREATE_CACHE).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Postgres {
            manager.get_connection().execute_unprepared(DROP_CACHE).await?;
        }
        let mut alter = Table::alter();
        alter
            .table(Invocations::Table)
            .drop_column(Invocations::Fingerprint);
        manager.alter_table(alter).await
    }
}

#[derive(DeriveIden, Clone, Copy)]
enum Invocations {
    Table,
    Fingerprint,
}
