//! What opens sources that are not public: the tenant's credentials, as an attempt needs them.
//!
//! Whether a credential exists was checked when its source was created; it may be gone since.

use std::fmt;

use super::Environment;
use crate::{
    domain::{
        credential::{AwsCredentialId, AwsKeys, aws_sealing_context, github_sealing_context},
        names::TenantName,
        source::{GithubAppId, RepositoryName},
    },
    fetch::{AppAccess, FetchError},
    seal::SealError,
    secret::Secret,
    store::StoreError,
};

/// Why a credential cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The tenant has no such GitHub App any more.
    #[error("GitHub App {0} is not registered any more")]
    GithubAppMissing(GithubAppId),
    /// The tenant has no such access key any more.
    #[error("access key {0} was deleted")]
    AwsCredentialMissing(AwsCredentialId),
    /// Its secret was sealed with a key that this worker does not have.
    #[error("the secret of {0} cannot be opened")]
    Unreadable(String, #[source] SealError),
    /// The service's own database is away.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// GitHub gives no token for the repository.
    #[error("no token was given")]
    Refused(#[from] FetchError),
}

impl Environment {
    /// A token with which the App reads this repository and no other; made by GitHub, or kept from before.
    ///
    /// # Errors
    /// [`CredentialError`], those of GitHub's API among them.
    pub(super) async fn repository_token(
        &self,
        tenant: &TenantName,
        app_id: &GithubAppId,
        repository: &RepositoryName,
    ) -> Result<RepositoryToken, CredentialError> {
        let found = self.store.find_github_app(tenant, app_id).await?;
        let (_, sealed) = found.ok_or_else(|| CredentialError::GithubAppMissing(app_id.clone()))?;
        let context = github_sealing_context(tenant, app_id.as_str());
        let private_key = self
            .sealing_key
            .open(&context, &sealed)
            .map_err(|error| CredentialError::Unreadable(format!("GitHub App {app_id}"), error))?;
        let access = AppAccess {
            app_id,
            private_key: &private_key,
            repository,
        };
        let token = self.github_apps.token(access).await?;
        Ok(RepositoryToken { token, private_key })
    }

    /// Keeps a token no longer that the host refused.
    pub(super) async fn forget_repository_token(
        &self,
        refused: &RepositoryToken,
        app_id: &GithubAppId,
        repository: &RepositoryName,
    ) {
        let access = AppAccess {
            app_id,
            private_key: &refused.private_key,
            repository,
        };
        self.github_apps.forget(access, &refused.token).await;
    }

    /// An access key of the tenant, with its secret.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub async fn aws_keys(
        &self,
        tenant: &TenantName,
        id: AwsCredentialId,
    ) -> Result<AwsKeys, CredentialError> {
        let found = self.store.find_aws_credential(tenant, id).await?;
        let (credential, sealed) = found.ok_or(CredentialError::AwsCredentialMissing(id))?;
        let context = aws_sealing_context(tenant, &credential.access_key_id);
        let secret_access_key = self
            .sealing_key
            .open(&context, &sealed)
            .map_err(|error| CredentialError::Unreadable(format!("access key {id}"), error))?;
        Ok(AwsKeys {
            access_key_id: credential.access_key_id,
            secret_access_key,
        })
    }
}

/// A token of a GitHub App, and the key that it was made with.
pub(super) struct RepositoryToken {
    /// The token.
    pub(super) token: Secret,
    private_key: Secret,
}

impl fmt::Debug for RepositoryToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RepositoryToken")
    }
}
