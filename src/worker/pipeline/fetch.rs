//! Asks the fetcher of the source's type for the documents of an invocation.

use std::sync::Arc;

use tokio::time::Instant;

use super::{ledger, load_stage::Labels, prepare::Source};
use crate::{
    domain::{
        invocation::{GitReference, InvocationInput},
        source::{GithubSource, SourceSettings},
    },
    fetch::RepositoryDocuments,
    store::Claim,
    worker::{
        Environment,
        failure::AttemptError,
        lease_guard::Lease,
        progress::{ProgressHandle, Stage, record_commit},
        repository,
    },
};

/// What a listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    /// The source as a whole: what is not in it is gone, and the collection shows the source afterwards.
    Source,
    /// Everything under a prefix, in a collection that others write to as well.
    Prefix,
    /// A single document.
    Document,
}

/// What a fetcher found.
pub(super) struct Fetched {
    pub(super) source: Source,
    pub(super) coverage: Coverage,
    pub(super) labels: Labels,
}

/// Fetches what the invocation asks for.
pub(super) async fn fetch(
    environment: &Environment,
    claim: &Claim,
    lease: &Lease,
    progress: &ProgressHandle,
) -> Result<Fetched, AttemptError> {
    match (&claim.plan.settings, &claim.invocation.input) {
        (SourceSettings::Github(github), InvocationInput::Github { reference }) => {
            repository(environment, claim, lease, progress, github, reference.as_ref()).await
        }
        (SourceSettings::Github(_), _)
        | (SourceSettings::S3(_) | SourceSettings::WebScrape(_) | SourceSettings::FileUpload, _) => {
            Err(AttemptError::StageEnded("fetch"))
        }
    }
}

/// A later attempt fetches the very commit that the first one resolved, so that all attempts write the same
/// records.
async fn repository(
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
    let snapshot = repository::fetch(environment, tenant, github, reference, cancel).await;
    progress.time(Stage::Fetch, start);
    let snapshot = snapshot?;
    ledger::held(record_commit(environment, lease, progress, snapshot.commit()).await?)?;
    Ok(Fetched {
        source: Source {
            entries: Arc::clone(snapshot.entries()),
            reader: Arc::new(RepositoryDocuments::of(&snapshot)),
        },
        coverage: Coverage::Source,
        labels: Labels::default(),
    })
}
