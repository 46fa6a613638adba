//! Use cases of sources.

use uuid::Uuid;

use super::{App, Auth, refused_for, webhooks::show_secret};
use crate::{
    domain::{
        embedding::SparseSettings,
        ids::SourceId,
        page::{Page, PageRequest},
        source::{NewSource, S3Credential, S3Source, Source, SourceFilter, SourceSettings},
    },
    error::{Error, Reason, Result},
    store::CreateSource,
};

impl App {
    /// Creates a source. With a `request_id` that was used before for the same content, returns the
    /// source it made then. The signing secret that is made for a webhook is in the first answer alone.
    ///
    /// # Errors
    /// ROLE_INSUFFICIENT, DATABASE_FORBIDDEN, DATABASE_NOT_FOUND, GITHUB_APP_NOT_FOUND,
    /// AWS_CREDENTIAL_NOT_FOUND, SOURCE_EXISTS, REQUEST_ID_REUSED, CHROMA_FORBIDDEN, CHROMA_UNAVAILABLE,
    /// INVALID_FIELD when the webhook's URL is not allowed or the Chroma server takes no sparse vectors.
    pub async fn create_source(
        &self,
        auth: &Auth,
        mut source: NewSource,
        request_id: Option<Uuid>,
    ) -> Result<Source> {
        auth.require_administrator("create sources")?;
        auth.require_database(&source.database)?;
        self.require_credential(auth, &source.settings).await?;
        let made_secret = self.prepare_webhook(auth, source.webhook.as_mut())?;
        self.require_database_exists(auth, &source.database).await?;
        self.require_sparse_taken(auth, source.embedding.sparse.as_ref())
            .await?;
        self.keep_given_keys(auth, &mut source.settings).await?;
        match self
            .0
            .store
            .create_source(auth.tenant(), source, request_id)
            .await?
        {
            CreateSource::Created(mut source) => {
                show_secret(&mut source.webhook, made_secret);
                Ok(source)
            }
            CreateSource::Repeated(source) => Ok(source),
            CreateSource::Exists(id) => Err(Error::new(
                Reason::SourceExists,
                format!("source {id} has exactly these settings; use it, or change a setting"),
            )
            .with_resource("source", id)
            .with_metadata("source_id", id)),
            CreateSource::RequestIdReused => Err(request_id_reused()),
        }
    }

    /// Returns a source.
    ///
    /// # Errors
    /// SOURCE_NOT_FOUND; DATABASE_FORBIDDEN when it is in a database that the key is not bound to.
    pub async fn get_source(&self, auth: &Auth, id: SourceId) -> Result<Source> {
        let source = self
            .0
            .store
            .get_source(&auth.tenant_scope(), id)
            .await?
            .ok_or_else(|| source_not_found(id))?;
        auth.require_database(&source.database)?;
        Ok(source)
    }

    /// Lists sources.
    ///
    /// # Errors
    /// DATABASE_FORBIDDEN when the filter names a database the key is not bound to.
    pub async fn list_sources(
        &self,
        auth: &Auth,
        filter: &SourceFilter,
        page: &PageRequest,
    ) -> Result<Page<Source>> {
        if let Some(database) = &filter.database {
            auth.require_database(database)?;
        }
        Ok(self.0.store.list_sources(&auth.scope(), filter, page).await?)
    }

    /// Deletes a source; its invocations go on.
    ///
    /// # Errors
    /// ROLE_INSUFFICIENT, SOURCE_NOT_FOUND, DATABASE_FORBIDDEN.
    pub async fn delete_source(&self, auth: &Auth, id: SourceId) -> Result<()> {
        auth.require_administrator("delete sources")?;
        self.get_source(auth, id).await?;
        if self.0.store.delete_source(&auth.scope(), id).await? {
            Ok(())
        } else {
            Err(source_not_found(id))
        }
    }

    /// Sparse vectors are for a Chroma server that takes them.
    ///
    /// # Errors
    /// INVALID_FIELD, CHROMA_UNAVAILABLE.
    pub(super) async fn require_sparse_taken(
        &self,
        auth: &Auth,
        sparse: Option<&SparseSettings>,
    ) -> Result<()> {
        if sparse.is_none() {
            return Ok(());
        }
        let taken = self.chroma_of(auth)?.takes_sparse_vectors(auth.tenant()).await;
        if taken.map_err(|error| refused_for(auth, error))? {
            return Ok(());
        }
        let problem = "the chroma server of this service takes no sparse vectors, as a single-node one does not; \
                       leave it out, or ask the operator for a Chroma server that takes them";
        Err(Error::invalid_field("embedding.sparse", problem))
    }

    /// Stores an access key that came with the request, unless the tenant has stored it before.
    async fn keep_given_keys(&self, auth: &Auth, settings: &mut SourceSettings) -> Result<()> {
        if let SourceSettings::S3(S3Source { credential, .. }) = settings
            && let S3Credential::Given(keys) = credential
        {
            *credential = S3Credential::Stored(self.keep_aws_keys(auth, keys.clone()).await?);
        }
        Ok(())
    }

    /// What gives access to the source must be known to the server.
    ///
    /// # Errors
    /// GITHUB_APP_NOT_FOUND, AWS_CREDENTIAL_NOT_FOUND.
    async fn require_credential(&self, auth: &Auth, settings: &SourceSettings) -> Result<()> {
        match settings {
            SourceSettings::Github(github) => match &github.app_id {
                Some(app_id) => self.require_github_app(auth, app_id).await,
                None => Ok(()),
            },
            SourceSettings::S3(s3) => match &s3.credential {
                S3Credential::Stored(id) => self.require_aws_credential(auth, *id).await,
                S3Credential::Given(_) => Ok(()),
            },
            SourceSettings::WebScrape(_) | SourceSettings::FileUpload => Ok(()),
        }
    }
}

pub(super) fn source_not_found(id: SourceId) -> Error {
    Error::not_found(Reason::SourceNotFound, "source", id).with_metadata("source_id", id)
}

pub(super) fn request_id_reused() -> Error {
    Error::new(
        Reason::RequestIdReused,
        "the request id was used before with another request; use a new one for a new request",
    )
}
