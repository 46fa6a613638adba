//! Use cases of credentials: access keys of AWS and GitHub Apps.
//!
//! They belong to the whole tenant, so a key that is bound to databases may see and use them but not create
//! or delete them.

use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::{App, Auth, sources::request_id_reused};
use crate::{
    domain::{
        credential::{
            AwsCredential, AwsCredentialId, AwsKeys, GithubApp, NewAwsCredential, NewGithubApp,
            aws_sealing_context, github_sealing_context,
        },
        names::TenantName,
        page::{Page, PageRequest},
        source::GithubAppId,
    },
    error::{Error, Reason, Result},
    seal::Sealed,
    secret::Secret,
    store::{CreateCredential, DeleteCredential},
};

impl App {
    /// Stores an access key. With a `request_id` that was used before for the same content, returns the one
    /// that was stored then.
    ///
    /// # Errors
    /// ROLE_INSUFFICIENT, DATABASE_FORBIDDEN, REQUEST_ID_REUSED.
    pub async fn create_aws_credential(
        &self,
        auth: &Auth,
        name: Option<String>,
        keys: AwsKeys,
        request_id: Option<Uuid>,
    ) -> Result<AwsCredential> {
        auth.require_administrator("create credentials")?;
        auth.require_all_databases("create credentials")?;
        self.store_aws_keys(auth.tenant(), name, keys, request_id).await
    }

    /// Seals and stores an access key for a tenant, whoever asks for it.
    ///
    /// # Errors
    /// REQUEST_ID_REUSED.
    pub(super) async fn store_aws_keys(
        &self,
        tenant: &TenantName,
        name: Option<String>,
        keys: AwsKeys,
        request_id: Option<Uuid>,
    ) -> Result<AwsCredential> {
        let AwsKeys {
            access_key_id,
            secret_access_key,
        } = keys;
        let context = aws_sealing_context(tenant, &access_key_id);
        let new = NewAwsCredential {
            name,
            access_key_id,
            sealed_secret: self.sealed(&context, &secret_access_key)?,
        };
        let stored = self
            .0
            .store
            .create_aws_credential(tenant, new, request_id)
            .await?;
        match stored {
            CreateCredential::Created(credential) => Ok(credential),
            CreateCredential::Repeated(credential, sealed) => {
                self.require_same(&context, &sealed, &secret_access_key)?;
                Ok(credential)
            }
            // Access keys have no names that could be taken.
            CreateCredential::Exists | CreateCredential::RequestIdReused => Err(request_id_reused()),
        }
    }

    /// Lists the access keys of the tenant.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list_aws_credentials(&self, auth: &Auth, page: &PageRequest) -> Result<Page<AwsCredential>> {
        Ok(self.0.store.list_aws_credentials(auth.tenant(), page).await?)
    }

    /// Deletes an access key.
    ///
    /// # Errors
    /// ROLE_INSUFFICIENT, DATABASE_FORBIDDEN, AWS_CREDENTIAL_NOT_FOUND, CREDENTIAL_IN_USE.
    pub async fn delete_aws_credential(&self, auth: &Auth, id: AwsCredentialId) -> Result<()> {
        auth.require_administrator("delete credentials")?;
        auth.require_all_databases("delete credentials")?;
        match self.0.store.delete_aws_credential(auth.tenant(), id).await? {
            DeleteCredential::Deleted => Ok(()),
            DeleteCredential::NotFound => Err(aws_credential_not_found(id)),
            DeleteCredential::InUse(sources) => Err(in_use("aws_credential", &id.to_string(), sources)),
        }
    }

    /// Registers a GitHub App, or replaces the private key of one. With a `request_id` that was used before for
    /// the same content, changes nothing.
    ///
    /// # Errors
    /// ROLE_INSUFFICIENT, DATABASE_FORBIDDEN, GITHUB_APP_EXISTS, REQUEST_ID_REUSED.
    pub async fn create_github_app(
        &self,
        auth: &Auth,
        app_id: GithubAppId,
        private_key: Secret,
        replace_existing: bool,
        request_id: Option<Uuid>,
    ) -> Result<GithubApp> {
        auth.require_administrator("create credentials")?;
        auth.require_all_databases("create credentials")?;
        let context = github_sealing_context(auth.tenant(), app_id.as_str());
        let new = NewGithubApp {
            app_id: app_id.clone(),
            sealed_private_key: self.sealed(&context, &private_key)?,
        };
        let stored = self
            .0
            .store
            .create_github_app(auth.tenant(), new, replace_existing, request_id)
            .await?;
        match stored {
            CreateCredential::Created(app) => Ok(app),
            CreateCredential::Repeated(app, sealed) => {
                self.require_same(&context, &sealed, &private_key)?;
                Ok(app)
            }
            CreateCredential::Exists => Err(Error::new(
                Reason::GithubAppExists,
                format!("GitHub App {app_id} is registered; set replace_existing to replace its private key"),
            )
            .with_resource("github_app", &app_id)
            .with_metadata("app_id", &app_id)),
            CreateCredential::RequestIdReused => Err(request_id_reused()),
        }
    }

    /// Lists the GitHub Apps of the tenant.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list_github_apps(&self, auth: &Auth, page: &PageRequest) -> Result<Page<GithubApp>> {
        Ok(self.0.store.list_github_apps(auth.tenant(), page).await?)
    }

    /// Forgets a GitHub App.
    ///
    /// # Errors
    /// ROLE_INSUFFICIENT, DATABASE_FORBIDDEN, GITHUB_APP_NOT_FOUND, CREDENTIAL_IN_USE.
    pub async fn delete_github_app(&self, auth: &Auth, app_id: &GithubAppId) -> Result<()> {
        auth.require_administrator("delete credentials")?;
        auth.require_all_databases("delete credentials")?;
        match self.0.store.delete_github_app(auth.tenant(), app_id).await? {
            DeleteCredential::Deleted => Ok(()),
            DeleteCredential::NotFound => Err(github_app_not_found(app_id)),
            DeleteCredential::InUse(sources) => Err(in_use("github_app", app_id.as_str(), sources)),
        }
    }

    /// # Errors
    /// GITHUB_APP_NOT_FOUND unless the tenant has registered the App.
    pub(super) async fn require_github_app(&self, auth: &Auth, app_id: &GithubAppId) -> Result<()> {
        match self.0.store.find_github_app(auth.tenant(), app_id).await? {
            Some(_) => Ok(()),
            None => Err(github_app_not_found(app_id)),
        }
    }

    /// # Errors
    /// AWS_CREDENTIAL_NOT_FOUND.
    pub(super) async fn require_aws_credential(&self, auth: &Auth, id: AwsCredentialId) -> Result<()> {
        match self.0.store.find_aws_credential(auth.tenant(), id).await? {
            Some(_) => Ok(()),
            None => Err(aws_credential_not_found(id)),
        }
    }

    /// The credential of the tenant with these keys, which is made where there is none: sources that are
    /// created alike name the same one.
    pub(super) async fn keep_aws_keys(&self, auth: &Auth, keys: AwsKeys) -> Result<AwsCredentialId> {
        let tenant = auth.tenant();
        let context = aws_sealing_context(tenant, &keys.access_key_id);
        let stored = self
            .0
            .store
            .find_aws_credentials_of_key(tenant, &keys.access_key_id);
        for (credential, sealed) in stored.await? {
            // One that does not open any more is of no use to the new source.
            if self
                .is_same(&context, &sealed, &keys.secret_access_key)
                .is_ok_and(|same| same)
            {
                return Ok(credential.id);
            }
        }
        Ok(self.store_aws_keys(tenant, None, keys, None).await?.id)
    }

    fn sealed(&self, context: &str, secret: &Secret) -> Result<Sealed> {
        let sealed = self.0.sealing_key.seal(context, secret);
        sealed.map_err(Error::internal)
    }

    /// That what was stored for a request id is what this request has.
    fn require_same(&self, context: &str, sealed: &Sealed, secret: &Secret) -> Result<()> {
        match self.is_same(context, sealed, secret)? {
            true => Ok(()),
            false => Err(request_id_reused()),
        }
    }

    fn is_same(&self, context: &str, sealed: &Sealed, secret: &Secret) -> Result<bool> {
        let stored = self
            .0
            .sealing_key
            .open(context, sealed)
            .map_err(Error::internal)?;
        let (stored, given) = (stored.expose().as_bytes(), secret.expose().as_bytes());
        Ok(bool::from(stored.ct_eq(given)))
    }
}

fn aws_credential_not_found(id: AwsCredentialId) -> Error {
    Error::not_found(Reason::AwsCredentialNotFound, "aws_credential", id)
        .with_metadata("aws_credential_id", id)
}

fn github_app_not_found(app_id: &GithubAppId) -> Error {
    Error::not_found(Reason::GithubAppNotFound, "github_app", app_id).with_metadata("app_id", app_id)
}

fn in_use(kind: &'static str, name: &str, sources: u64) -> Error {
    let (noun, verb) = if sources == 1 {
        ("source", "names")
    } else {
        ("sources", "name")
    };
    let words = kind.replace('_', " ");
    Error::new(
        Reason::CredentialInUse,
        format!("{sources} {noun} {verb} {words} {name}; delete them first"),
    )
    .with_resource(kind, name)
    .with_metadata("sources", sources)
}
