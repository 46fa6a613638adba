//! Applies and reverts the schema migrations.
//!
//! All of them run in one transaction that only one process holds, so two servers that start at once
//! do not race, and a migration that fails leaves the schema as it was.

use chroma_sync_migrations::{MigrationStatus, Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement};

use super::{Store, error::StoreError};

/// Key of the PostgreSQL advisory lock that one migrating process holds.
const MIGRATION_LOCK: i64 = 0x6368_726f_6d61_0001;

/// One migration, and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationState {
    /// Its name.
    pub name: String,
    /// Whether it was applied.
    pub applied: bool,
}

impl Store {
    /// Applies every migration that is missing.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when the database holds migrations of a newer release.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.write_unbounded((), |transaction, ()| Box::pin(up(transaction)))
            .await
    }

    /// Reverts the newest `steps` migrations, and with them their data.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when the database refuses to.
    pub async fn revert_migrations(&self, steps: u32) -> Result<(), StoreError> {
        self.write_unbounded(steps, |transaction, steps| Box::pin(down(transaction, *steps)))
            .await
    }

    /// The migrations of this release, oldest first. Changes nothing in the database.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when the database holds migrations of a newer release.
    pub async fn migration_states(&self) -> Result<Vec<MigrationState>, StoreError> {
        let migrations = self
            .read(async |database| Ok(Migrator::get_migration_with_status_read_only(database).await?))
            .await?;
        Ok(migrations
            .iter()
            .map(|migration| MigrationState {
                name: migration.name().to_owned(),
                applied: migration.status() == MigrationStatus::Applied,
            })
            .collect())
    }
}

async fn up(transaction: &DatabaseTransaction) -> Result<(), StoreError> {
    hold_lock(transaction).await?;
    Ok(Migrator::up(transaction, None).await?)
}

async fn down(transaction: &DatabaseTransaction, steps: u32) -> Result<(), StoreError> {
    hold_lock(transaction).await?;
    Ok(Migrator::down(transaction, Some(steps)).await?)
}

/// Waits until no other process migrates. On SQLite the write lock is that wait.
async fn hold_lock(transaction: &DatabaseTransaction) -> Result<(), StoreError> {
    if transaction.get_database_backend() == DbBackend::Postgres {
        // A migration may rewrite a large table, which takes as long as it takes.
        transaction
            .execute_unprepared("SET LOCAL statement_timeout = 0")
            .await?;
        let lock = "SELECT pg_advisory_xact_lock($1)";
        let lock = Statement::from_sql_and_values(DbBackend::Postgres, lock, [MIGRATION_LOCK.into()]);
        transaction.execute_raw(lock).await?;
    }
    Ok(())
}
