//! What can go wrong in an attempt, and what happens then.

use std::time::Duration;

use super::credentials::CredentialError;
use crate::{
    domain::invocation::Failure,
    embed::EmbedError,
    fetch::{FetchError, LoadError, s3::S3Error, web::CrawlError},
    index::IndexError,
    seal::SealError,
    store::StoreError,
    uploads::UploadError,
};

/// Why an attempt ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    /// The repository could not be fetched or read.
    #[error("fetching failed")]
    Fetch(#[from] FetchError),
    /// The bucket could not be listed or read.
    #[error("reading the bucket failed")]
    S3(#[from] S3Error),
    /// The site could not be crawled.
    #[error("crawling failed")]
    Crawl(#[from] CrawlError),
    /// The uploaded file could not be read.
    #[error("reading the upload failed")]
    Upload(#[from] UploadError),
    /// The source broke off while a document was loaded.
    #[error("loading a document failed")]
    Load(#[from] LoadError),
    /// The one document of the invocation could not be processed.
    #[error("document {document_key} failed: {problem}")]
    DocumentFailed {
        /// Which document.
        document_key: String,
        /// Why.
        problem: String,
    },
    /// The model could not embed.
    #[error("embedding failed")]
    Embed(#[from] EmbedError),
    /// The Chroma server refused or is away.
    #[error("indexing failed")]
    Index(#[from] IndexError),
    /// The service's own database is away.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The token of the invocation's creator cannot be opened.
    #[error("the chroma token of the invocation cannot be opened")]
    Seal(#[from] SealError),
    /// The source's credential cannot be used.
    #[error("the credential of the source cannot be used")]
    Credential(#[source] CredentialError),
    /// Another worker may have the invocation by now.
    #[error("the lease was lost")]
    LeaseLost,
    /// The model of the source is not served by this worker.
    #[error("model {0} is not served")]
    ModelNotServed(String),
    /// A stage ended without saying why; a fault of ours.
    #[error("stage {0} ended unexpectedly")]
    StageEnded(&'static str),
}

/// What follows from an error.
#[derive(Debug)]
pub(super) enum Disposition {
    /// Worth another attempt, after at least this wait where one is known. It uses up the retry budget unless it
    /// only waits for a host that limits requests.
    Retry {
        failure: Failure,
        wait: Option<Duration>,
        counts: bool,
    },
    /// Trying again would change nothing.
    Fail(Failure),
    /// The invocation is someone else's now: write nothing.
    Abandon,
}

impl AttemptError {
    pub(super) fn disposition(&self) -> Disposition {
        let (transient, failure, wait) = match self {
            // A fetch is cancelled only because the lease is lost.
            Self::LeaseLost
            | Self::Fetch(FetchError::Cancelled { .. })
            | Self::Crawl(CrawlError::Cancelled) => return Disposition::Abandon,
            Self::Fetch(error) => (error.is_transient(), error.failure(), error.retry_after()),
            Self::S3(error) => (error.is_transient(), error.failure(), error.retry_after()),
            Self::Crawl(error) => (error.is_transient(), error.failure(), error.retry_after()),
            Self::Upload(error) => (error.is_transient(), error.failure(), None),
            Self::Load(error) => (error.transient, error.failure.clone(), error.retry_after),
            Self::DocumentFailed {
                document_key,
                problem,
            } => (
                false,
                Failure {
                    reason: "DOCUMENT_FAILED".to_owned(),
                    message: format!("'{document_key}' could not be processed: {problem}"),
                },
                None,
            ),
            Self::Index(error) => (error.is_transient(), error.failure(), error.retry_after()),
            Self::Embed(error) => {
                let message = format!("embedding failed: {error}");
                (
                    error.is_transient(),
                    Failure {
                        reason: "EMBEDDING_FAILED".to_owned(),
                        message,
                    },
                    error.retry_after(),
                )
            }
            Self::Store(_) => (true, internal("the service's database did not answer"), None),
            Self::ModelNotServed(model) => {
                let message = format!("this worker does not serve model {model}; add it to embedding.models");
                (
                    false,
                    Failure {
                        reason: "MODEL_NOT_SERVED".to_owned(),
                        message,
                    },
                    None,
                )
            }
            Self::Seal(_) => {
                let message = "the chroma token that was kept for this invocation does not open with this worker's \
                               key; give every process the same encryption.key, then create the invocation anew";
                (
                    false,
                    Failure {
                        reason: "CHROMA_TOKEN_UNREADABLE".to_owned(),
                        message: message.to_owned(),
                    },
                    None,
                )
            }
            Self::Credential(error) => (false, unusable(error), None),
            Self::StageEnded(stage) => (true, internal(&format!("stage {stage} ended unexpectedly")), None),
        };
        if transient {
            Disposition::Retry {
                failure,
                wait,
                counts: !matches!(self, Self::Fetch(error) if !error.counts_as_failure()),
            }
        } else {
            Disposition::Fail(failure)
        }
    }
}

/// What the store and the fetch say about a credential is said as theirs.
impl From<CredentialError> for AttemptError {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Store(error) => Self::Store(error),
            CredentialError::Refused(error) => Self::Fetch(error),
            error @ (CredentialError::GithubAppMissing(_)
            | CredentialError::AwsCredentialMissing(_)
            | CredentialError::Unreadable(..)) => Self::Credential(error),
        }
    }
}

fn unusable(error: &CredentialError) -> Failure {
    let (reason, remedy) = match error {
        CredentialError::GithubAppMissing(_) => (
            "GITHUB_APP_NOT_FOUND",
            "register it, then create the invocation anew",
        ),
        CredentialError::AwsCredentialMissing(_) => (
            "AWS_CREDENTIAL_NOT_FOUND",
            "create a source with another one, then the invocation anew",
        ),
        CredentialError::Unreadable(..) => (
            "CREDENTIAL_UNREADABLE",
            "the operator has to give every process the same encryption.key, or the key of before in \
             encryption.previous_keys; then create the invocation anew",
        ),
        CredentialError::Store(_) | CredentialError::Refused(_) => ("INTERNAL", "the log has the causes"),
    };
    Failure {
        reason: reason.to_owned(),
        message: format!("{error}; {remedy}"),
    }
}

fn internal(message: &str) -> Failure {
    Failure {
        reason: "INTERNAL".to_owned(),
        message: message.to_owned(),
    }
}
