//! The use cases. Both transports call these and nothing below them.
//!
//! Every use case takes an [`Auth`] value first. Requests arrive as domain values that were checked at
//! the edge; what is left to check here needs the database or the Chroma server. Absent on purpose:
//! wire types and status codes.

pub mod auth;
pub mod documents;
pub mod invocations;
pub mod sources;
pub mod watch;

use std::sync::Arc;

pub use auth::{Auth, Authenticator};

use crate::{
    domain::{
        embedding::ModelCatalog,
        names::{DatabaseName, TenantName},
    },
    error::{Error, Reason, Result},
    index::ChromaClient,
    store::Store,
    wake::{ChangeSignal, WorkSignal},
};

/// Everything the use cases need.
#[derive(Debug)]
pub struct AppParts {
    /// The service's own database.
    pub store: Store,
    /// Checks tokens.
    pub authenticator: Authenticator,
    /// The Chroma server.
    pub chroma: ChromaClient,
    /// The models served.
    pub catalog: ModelCatalog,
    /// The hub of all watches.
    pub watches: watch::WatchHub,
    /// Wakes workers of this process.
    pub work: WorkSignal,
    /// Wakes the watches of this process.
    pub changes: ChangeSignal,
}

/// The application: a cheap handle to [`AppParts`].
#[derive(Debug, Clone)]
pub struct App(Arc<AppParts>);

impl App {
    /// Puts the parts together.
    pub fn new(parts: AppParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Finds out who calls; see [`Authenticator::authenticate`].
    ///
    /// # Errors
    /// TOKEN_MISSING, TOKEN_INVALID, STORE_UNAVAILABLE.
    pub async fn authenticate(&self, token: Option<&str>) -> Result<Auth> {
        self.0.authenticator.authenticate(token).await
    }

    /// The models served.
    pub fn catalog(&self) -> &ModelCatalog {
        &self.0.catalog
    }

    /// Whether the service can do its work: its database answers.
    ///
    /// # Errors
    /// STORE_UNAVAILABLE.
    pub async fn check_health(&self) -> Result<()> {
        Ok(self.0.store.ping().await?)
    }

    /// # Errors
    /// DATABASE_NOT_FOUND, CHROMA_UNAVAILABLE.
    async fn require_database_exists(&self, tenant: &TenantName, database: &DatabaseName) -> Result<()> {
        if self.0.chroma.database_exists(tenant, database).await? {
            return Ok(());
        }
        Err(Error::not_found(Reason::DatabaseNotFound, "database", database)
            .with_metadata("database_name", database))
    }
}
