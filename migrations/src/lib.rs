//! Schema migrations of chroma-sync, one source for SQLite and PostgreSQL.
//!
//! A migration that was released is never edited: a change is a new file, and it must leave the
//! schema usable by the release before it, since a rolling update runs both for a while. Times are
//! milliseconds since the Unix epoch in `bigint` columns, because the two databases have no date type
//! that compares alike.

pub use sea_orm_migration::{MigrationStatus, MigratorTrait};
use sea_orm_migration::{MigrationTrait, async_trait::async_trait};

mod m20261122_000001_create_tables;
mod m20261122_000002_add_invocation_columns;
mod m20261122_000003_order_events;
mod m20261122_000004_add_webhooks;
mod m20261122_000005_add_credentials;
mod m20261122_000006_add_auto_sync;
mod m20261122_000007_add_source_types;
mod m20261122_000008_add_uploads;
mod m20261122_000010_add_embedding_cache;

/// Applies and reverts the migrations, in the order of their names.
pub struct Migrator;

#[async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261122_000001_create_tables::Migration),
            Box::new(m20261122_000002_add_invocation_columns::Migration),
            Box::new(m20261122_000003_order_events::Migration),
            Box::new(m20261122_000004_add_webhooks::Migration),
            Box::new(m20261122_000005_add_credentials::Migration),
            Box::new(m20261122_000006_add_auto_sync::Migration),
            Box::new(m20261122_000007_add_source_types::Migration),
            Box::new(m20261122_000008_add_uploads::Migration),
            Box::new(m20261122_000010_add_embedding_cache::Migration),
        ]
    }
}
