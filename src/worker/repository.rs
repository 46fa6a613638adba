//! Fetches the repository of a source with what gives access to it.

use tokio_util::sync::CancellationToken;

use super::{Environment, failure::AttemptError};
use crate::{
    domain::{
        invocation::GitReference,
        names::TenantName,
        source::{GithubAppId, GithubSource},
    },
    fetch::{FetchError, GithubOptions, Snapshot, fetch_repository},
};

/// Fetches the commit that `reference` leads to: with a token of the source's GitHub App where it names one,
/// else with the token of the configuration, if there is one. A token that the host refuses is replaced once,
/// since it may have been revoked since it was made.
pub(super) async fn fetch(
    environment: &Environment,
    tenant: &TenantName,
    source: &GithubSource,
    reference: Option<&GitReference>,
    cancel: CancellationToken,
) -> Result<Snapshot, AttemptError> {
    let (repository, globs) = (&source.repository, source.include_globs.as_ref());
    let Some(app_id) = &source.app_id else {
        let options = &environment.github;
        return Ok(fetch_repository(options, repository, reference, globs, cancel).await?);
    };
    for is_last in [false, true] {
        let given = environment.repository_token(tenant, app_id, repository).await?;
        let options = GithubOptions {
            token: Some(given.token.clone()),
            ..environment.github.clone()
        };
        match fetch_repository(&options, repository, reference, globs, cancel.clone()).await {
            Err(FetchError::AccessRefused { host, .. }) => {
                environment
                    .forget_repository_token(&given, app_id, repository)
                    .await;
                if is_last {
                    return Err(refused(app_id, host).into());
                }
                tracing::info!(app_id = %app_id, "the host refused a token; a new one is asked for");
            }
            fetched => return Ok(fetched?),
        }
    }
    Err(AttemptError::StageEnded("fetch"))
}

fn refused(app_id: &GithubAppId, host: String) -> FetchError {
    FetchError::AppRefused {
        app_id: app_id.clone(),
        host,
        problem:
            "its token was refused as soon as it was made; check that github.git_url and github.api_url are \
                  of the same host"
                .to_owned(),
    }
}
