//! Fetches the repository of a source with what gives access to it.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Coverage, Fetched};
use crate::{
    domain::{
        invocation::GitReference,
        names::TenantName,
        source::{GithubAppId, GithubSource},
    },
    fetch::{FetchError, GithubOptions, RepositoryDocuments, Snapshot, fetch_repository},
    store::Claim,
    worker::{
        Environment,
        failure::AttemptError,
        lease_guard::Lease,
        pipeline::{ledger, load_stage::Labels, prepare::Source},
        progress::{ProgressHandle, Stage, record_commit},
    },
};

/// Lists the files of the commit. A later attempt fetches the very commit that the first one resolved, so that
/// all attempts write the same records.
pub(super) async fn list(
    environment: &Environment,
    claim: &Claim,
    lease: &Lease,
    progress: &ProgressHandle,
    github: &GithubSource,
    reference: Option<&GitReference>,
) -> Result<Fetched, AttemptError> {
    let pinned = claim.invocation.resolved_commit.clone().map(GitReference::Sha);
    let reference = pinned.as_ref().or(reference);
    let cancel = lease.lost().child_token();
    // Dropping this future stops the blocking transfer as well.
    let _stop = cancel.clone().drop_guard();
    let start = Instant::now();
    let tenant = &claim.invocation.tenant;
    let snapshot = fetch(environment, tenant, github, reference, cancel).await;
    progress.time(Stage::Fetch, start);
    let snapshot = snapshot?;
    ledger::held(record_commit(environment, lease, progress, snapshot.commit()).await?)?;
    Ok(Fetched {
        source: Source {
            entries: Arc::clone(snapshot.entries()),
            reader: Arc::new(RepositoryDocuments::of(&snapshot)),
        },
        coverage: Coverage::Source { whole: true },
        labels: Labels::default(),
    })
}

/// Fetches the commit that `reference` leads to: with a token of the source's GitHub App where it names one,
/// else with the token of the configuration, if there is one. A token that the host refuses is replaced once,
/// since it may have been revoked since it was made.
async fn fetch(
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
