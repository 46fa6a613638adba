//! `CredentialService`.

use tonic::{Request, Response, Status};

use super::{authenticate, convert::timestamp, requests::uuid_or_none, status::from_error};
use crate::{
    app::App,
    domain::{
        credential::{AwsCredential, AwsCredentialId, AwsKeys, GithubApp, parse_name, parse_private_key},
        page::{Order, PageRequest, decode_token, encode_token, page_size},
        source::GithubAppId,
    },
    error::{Error, FieldViolation, Result},
    proto::{self, credential_service_server::CredentialService},
};

/// What page tokens of the listings are made for.
const AWS_CREDENTIALS: &str = "aws_credentials";
const GITHUB_APPS: &str = "github_apps";

/// Serves `CredentialService`.
#[derive(Debug)]
pub(super) struct Credentials {
    app: App,
}

impl Credentials {
    pub(super) fn new(app: App) -> Self {
        Self { app }
    }
}

fn listing(size: i32, token: &str, listing: &str) -> Result<PageRequest> {
    let after = (!token.is_empty()).then(|| decode_token(listing, token));
    Ok(PageRequest {
        size: page_size(size)?,
        skip: 0,
        after: after.transpose()?,
        order: Order::Descending,
    })
}

fn refused(violation: FieldViolation) -> Status {
    from_error(Error::from(violation))
}

impl From<AwsCredential> for proto::AwsCredential {
    fn from(credential: AwsCredential) -> Self {
        let AwsCredential {
            id,
            name,
            access_key_id,
            create_time,
        } = credential;
        Self {
            id: id.number().into(),
            name: name.unwrap_or_default(),
            access_key_id,
            create_time: Some(timestamp(create_time)),
        }
    }
}

impl From<GithubApp> for proto::GithubApp {
    fn from(app: GithubApp) -> Self {
        let GithubApp {
            app_id,
            create_time,
            update_time,
        } = app;
        Self {
            app_id: app_id.to_string(),
            create_time: Some(timestamp(create_time)),
            update_time: Some(timestamp(update_time)),
        }
    }
}

#[tonic::async_trait]
impl CredentialService for Credentials {
    async fn create_aws_credential(
        &self,
        request: Request<proto::CreateAwsCredentialRequest>,
    ) -> std::result::Result<Response<proto::AwsCredential>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let proto::CreateAwsCredentialRequest {
            access_key_id,
            secret_access_key,
            name,
            request_id,
        } = request.into_inner();
        let keys = AwsKeys::parse("", &access_key_id, &secret_access_key).map_err(refused)?;
        let name = parse_name("name", &name).map_err(refused)?;
        let request_id = uuid_or_none(request_id).map_err(from_error)?;
        let credential = self
            .app
            .create_aws_credential(&auth, name, keys, request_id)
            .await
            .map_err(from_error)?;
        Ok(Response::new(credential.into()))
    }

    async fn list_aws_credentials(
        &self,
        request: Request<proto::ListAwsCredentialsRequest>,
    ) -> std::result::Result<Response<proto::ListAwsCredentialsResponse>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let proto::ListAwsCredentialsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let page = listing(page_size, &page_token, AWS_CREDENTIALS).map_err(from_error)?;
        let page = self
            .app
            .list_aws_credentials(&auth, &page)
            .await
            .map_err(from_error)?;
        let next = page.next.map(|id| encode_token(AWS_CREDENTIALS, id));
        Ok(Response::new(proto::ListAwsCredentialsResponse {
            aws_credentials: page.items.into_iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn delete_aws_credential(
        &self,
        request: Request<proto::DeleteAwsCredentialRequest>,
    ) -> std::result::Result<Response<()>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let proto::DeleteAwsCredentialRequest { aws_credential_id } = request.into_inner();
        let id = AwsCredentialId::parse("aws_credential_id", aws_credential_id).map_err(refused)?;
        self.app
            .delete_aws_credential(&auth, id)
            .await
            .map_err(from_error)?;
        Ok(Response::new(()))
    }

    async fn create_github_app(
        &self,
        request: Request<proto::CreateGithubAppRequest>,
    ) -> std::result::Result<Response<proto::GithubApp>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let proto::CreateGithubAppRequest {
            app_id,
            private_key,
            replace_existing,
            request_id,
        } = request.into_inner();
        let app_id = GithubAppId::parse("app_id", &app_id).map_err(refused)?;
        let private_key = parse_private_key("private_key", &private_key).map_err(refused)?;
        let request_id = uuid_or_none(request_id).map_err(from_error)?;
        let app = self
            .app
            .create_github_app(&auth, app_id, private_key, replace_existing, request_id)
            .await
            .map_err(from_error)?;
        Ok(Response::new(app.into()))
    }

    async fn list_github_apps(
        &self,
        request: Request<proto::ListGithubAppsRequest>,
    ) -> std::result::Result<Response<proto::ListGithubAppsResponse>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let proto::ListGithubAppsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let page = listing(page_size, &page_token, GITHUB_APPS).map_err(from_error)?;
        let page = self
            .app
            .list_github_apps(&auth, &page)
            .await
            .map_err(from_error)?;
        let next = page.next.map(|id| encode_token(GITHUB_APPS, id));
        Ok(Response::new(proto::ListGithubAppsResponse {
            github_apps: page.items.into_iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn delete_github_app(
        &self,
        request: Request<proto::DeleteGithubAppRequest>,
    ) -> std::result::Result<Response<()>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let proto::DeleteGithubAppRequest { app_id } = request.into_inner();
        let app_id = GithubAppId::parse("app_id", &app_id).map_err(refused)?;
        self.app
            .delete_github_app(&auth, &app_id)
            .await
            .map_err(from_error)?;
        Ok(Response::new(()))
    }
}
