//! The use cases. Both transports call these and nothing below them.
//!
//! Every use case takes an [`Auth`] value first, but for the one that finds it out on its way. Requests
//! arrive as domain values that were checked at the edge; what is left to check here needs the database
//! or the Chroma server. Absent on purpose: wire types and status codes.

pub mod auth;
mod collections;
pub mod credentials;
pub mod documents;
pub mod embedding;
pub mod files;
mod identity;
pub mod invocations;
mod known_sources;
pub mod rotation;
pub mod search;
pub mod sources;
pub mod watch;
mod webhooks;

use std::{borrow::Cow, sync::Arc};

pub use auth::{Auth, Authenticator};
use collections::CollectionChecks;
use embedding::EmbeddingAdmission;
pub use embedding::EmbeddingLimits;
pub use files::UploadLimits;
use known_sources::KnownSources;

use crate::{
    domain::{embedding::ModelCatalog, names::DatabaseName},
    embed::Embedders,
    error::{Error, Reason, Result},
    index::{ChromaClient, IndexError},
    seal::{Sealed, SealingKey},
    store::Store,
    uploads::UploadStore,
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
    /// Seals the tokens of callers that invocations write with, and the secrets of webhooks.
    pub sealing_key: SealingKey,
    /// Whether a webhook may have a plain http:// URL.
    pub allow_http_webhooks: bool,
    /// Where uploaded files lie.
    pub uploads: UploadStore,
    /// How much may be uploaded.
    pub upload_limits: UploadLimits,
    /// The models served.
    pub catalog: ModelCatalog,
    /// The same models, ready to embed.
    pub embedders: Embedders,
    /// How much callers may have embedded.
    pub embedding_limits: EmbeddingLimits,
    /// The hub of all watches.
    pub watches: watch::WatchHub,
    /// Wakes workers of this process.
    pub work: WorkSignal,
    /// Wakes the watches of this process.
    pub changes: ChangeSignal,
}

/// The application: a cheap handle to [`AppParts`].
#[derive(Debug, Clone)]
pub struct App(
    Arc<AppParts>,
    CollectionChecks,
    Arc<KnownSources>,
    EmbeddingAdmission,
);

impl App {
    /// Puts the parts together.
    pub fn new(parts: AppParts) -> Self {
        let embedding = EmbeddingAdmission::new(parts.embedding_limits);
        Self(
            Arc::new(parts),
            CollectionChecks::default(),
            Arc::default(),
            embedding,
        )
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

    fn embedding_admission(&self) -> &EmbeddingAdmission {
        &self.3
    }

    /// The Chroma server as this caller reaches it.
    fn chroma_of(&self, auth: &Auth) -> Result<Cow<'_, ChromaClient>> {
        Ok(match auth.chroma_token() {
            Some(token) => Cow::Owned(self.0.chroma.with_token(token)?),
            None => Cow::Borrowed(&self.0.chroma),
        })
    }

    /// The caller's token, for the worker that will write in its name.
    fn sealed_chroma_token(&self, auth: &Auth) -> Result<Option<Sealed>> {
        let Some(token) = auth.chroma_token() else {
            return Ok(None);
        };
        let sealed = self.0.sealing_key.seal(auth.tenant().as_str(), token);
        Ok(Some(sealed.map_err(Error::internal)?))
    }

    /// # Errors
    /// DATABASE_NOT_FOUND, CHROMA_FORBIDDEN, CHROMA_UNAVAILABLE.
    async fn require_database_exists(&self, auth: &Auth, database: &DatabaseName) -> Result<()> {
        let chroma = self.chroma_of(auth)?;
        let found = chroma.database_exists(auth.tenant(), database).await;
        if found.map_err(|error| refused_for(auth, error))? {
            return Ok(());
        }
        Err(Error::not_found(Reason::DatabaseNotFound, "database", database)
            .with_metadata("database_name", database))
    }
}

/// An error of the Chroma server, asked for this caller. Where the caller's own token was refused, the
/// caller has to act and not the operator.
fn refused_for(auth: &Auth, error: IndexError) -> Error {
    match error {
        IndexError::Unauthorized { .. } if auth.chroma_token().is_some() => Error::new(
            Reason::ChromaForbidden,
            "the chroma server does not allow this with your token; ask its administrator",
        )
        .with_cause(error),
        error => error.into(),
    }
}
