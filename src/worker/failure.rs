//! What can go wrong in an attempt, and what happens then.

use std::time::Duration;

use crate::{
    domain::invocation::Failure,
    embed::EmbedError,
    fetch::{FetchError, LoadError},
    index::IndexError,
    seal::SealError,
    store::StoreError,
};

/// Why an attempt ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    /// The repository could not be fetched or read.
    #[error("fetching failed")]
    Fetch(#[from] FetchError),
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
    /// Worth another attempt, after at least this wait where one is known.
    Retry {
        failure: Failure,
        wait: Option<Duration>,
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
            Self::LeaseLost | Self::Fetch(FetchError::Cancelled { .. }) => return Disposition::Abandon,
            Self::Fetch(error) => (error.is_transient(), error.failure(), error.retry_after()),
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
                    None,
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
            Self::StageEnded(stage) => (true, internal(&format!("stage {stage} ended unexpectedly")), None),
        };
        if transient {
            Disposition::Retry { failure, wait }
        } else {
            Disposition::Fail(failure)
        }
    }
}

fn internal(message: &str) -> Failure {
    Failure {
        reason: "INTERNAL".to_owned(),
        message: message.to_owned(),
    }
}
