//! What can go wrong between this service and a Chroma server.
//!
//! Each variant is one thing that somebody has to do next: wait, correct the configuration, create a
//! database, take another collection. [`IndexError::is_transient`] is the one place that says which
//! of them pass by themselves.

use std::time::Duration;

use super::types::Collection;
use crate::{
    domain::{
        invocation::Failure,
        names::{CollectionName, DatabaseName},
    },
    error::{Error, Reason},
};

/// Why a call to the Chroma server failed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// No connection, a connection that broke, no answer in time, or a 5xx answer.
    #[error("the chroma server does not answer ({problem}); check that it runs and that chroma.url is right")]
    Unavailable {
        /// `connecting failed`, `timed out`, `answered 503`.
        problem: String,
        /// How long the server asked us to wait.
        retry_after: Option<Duration>,
        /// What the network said.
        source: Option<reqwest::Error>,
    },
    /// The server answered 429.
    #[error("the chroma server takes no more requests for now; the call is repeated later")]
    RateLimited {
        /// How long the server asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The process is shutting down.
    #[error("writing to the chroma server was interrupted by a shutdown; it is done again after the restart")]
    Interrupted,
    /// The server answered 401 or 403.
    #[error(
        "the chroma server refuses the token it was sent ({status}: {message}); check chroma.token, or the \
         caller's own token where auth.mode is \"chroma\""
    )]
    Unauthorized {
        /// The HTTP status.
        status: u16,
        /// Chroma's own words.
        message: String,
    },
    /// The database does not exist.
    #[error("database {database} does not exist on the chroma server; create it first")]
    DatabaseNotFound {
        /// Its name.
        database: DatabaseName,
    },
    /// The collection does not exist, or was deleted and created anew during the call.
    #[error("collection {collection} no longer exists; it was deleted while records were written to it")]
    CollectionNotFound {
        /// Its name.
        collection: CollectionName,
    },
    /// The collection holds vectors of another length.
    #[error(
        "collection {collection} holds vectors of {expected} dimensions, but the source's model makes \
         {actual}; take another collection or a source with the model of this one"
    )]
    DimensionMismatch {
        /// Its name.
        collection: CollectionName,
        /// Length of the vectors in the collection.
        expected: u32,
        /// Length of the vectors to be written.
        actual: u32,
    },
    /// The collection says that its vectors come from another model.
    #[error(
        "collection {collection} was made for the embedding function {found}, but the source's model has \
         {wanted}; take another collection"
    )]
    EmbeddingFunctionMismatch {
        /// Its name.
        collection: CollectionName,
        /// What the collection names, in words.
        found: String,
        /// What the source's model has, in words.
        wanted: String,
    },
    /// The collection has no index for the source's sparse vectors.
    #[error(
        "collection {collection} {problem} under the key {key:?} of the source's sparse vectors; take another \
         collection, or a source without embedding.sparse"
    )]
    SparseIndexMismatch {
        /// Its name.
        collection: CollectionName,
        /// Metadata key of the vectors.
        key: String,
        /// `has no sparse index`, or for what it has one.
        problem: String,
    },
    /// The server takes no sparse vectors.
    #[error(
        "the chroma server takes no sparse vectors ({message}); take a source without embedding.sparse, or a \
         Chroma server that takes them"
    )]
    SparseUnsupported {
        /// Chroma's own words.
        message: String,
    },
    /// A record or a metadata value that Chroma cannot store.
    #[error("{what} cannot be stored: {problem}")]
    InvalidRecord {
        /// `record 0ab1-2` or `collection metadata key x`.
        what: String,
        /// Which rule it breaks.
        problem: String,
    },
    /// The server does not have this operation (501).
    #[error("the chroma server does not support this: {message}")]
    Unsupported {
        /// Chroma's own words.
        message: String,
    },
    /// Any other 4xx answer.
    #[error("the chroma server refused the request ({status} {kind}: {message})")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// Chroma's name for the error, such as `InvalidArgumentError`.
        kind: String,
        /// Chroma's own words.
        message: String,
    },
    /// What answered is not a Chroma server with the v2 API, or sent what it never should.
    #[error("chroma.url does not lead to a chroma server with the v2 API: {problem}")]
    InvalidResponse {
        /// What was wrong with the answer.
        problem: String,
        /// Where it stopped being readable.
        source: Option<serde_json::Error>,
    },
    /// The client cannot be made from its options.
    #[error("the connection to the chroma server cannot be set up: {problem}")]
    InvalidOptions {
        /// Which option, and what is wrong with it.
        problem: String,
        /// What the HTTP client said.
        source: Option<reqwest::Error>,
    },
}

impl IndexError {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::RateLimited { .. } | Self::Interrupted => true,
            Self::Unauthorized { .. }
            | Self::DatabaseNotFound { .. }
            | Self::CollectionNotFound { .. }
            | Self::DimensionMismatch { .. }
            | Self::EmbeddingFunctionMismatch { .. }
            | Self::SparseIndexMismatch { .. }
            | Self::SparseUnsupported { .. }
            | Self::InvalidRecord { .. }
            | Self::Unsupported { .. }
            | Self::Rejected { .. }
            | Self::InvalidResponse { .. }
            | Self::InvalidOptions { .. } => false,
        }
    }

    /// How long the server asked us to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } | Self::RateLimited { retry_after } => *retry_after,
            Self::Interrupted
            | Self::Unauthorized { .. }
            | Self::DatabaseNotFound { .. }
            | Self::CollectionNotFound { .. }
            | Self::DimensionMismatch { .. }
            | Self::EmbeddingFunctionMismatch { .. }
            | Self::SparseIndexMismatch { .. }
            | Self::SparseUnsupported { .. }
            | Self::InvalidRecord { .. }
            | Self::Unsupported { .. }
            | Self::Rejected { .. }
            | Self::InvalidResponse { .. }
            | Self::InvalidOptions { .. } => None,
        }
    }

    /// The stable identifier of this failure, UPPER_SNAKE_CASE, as `docs/errors.md` lists it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } | Self::Interrupted => "CHROMA_UNAVAILABLE",
            Self::RateLimited { .. } => "CHROMA_RATE_LIMITED",
            Self::Unauthorized { .. } => "CHROMA_UNAUTHORIZED",
            Self::DatabaseNotFound { .. } => "DATABASE_NOT_FOUND",
            Self::CollectionNotFound { .. } => "COLLECTION_NOT_FOUND",
            Self::DimensionMismatch { .. } => "DIMENSION_MISMATCH",
            Self::EmbeddingFunctionMismatch { .. } => "EMBEDDING_FUNCTION_MISMATCH",
            Self::SparseIndexMismatch { .. } => "SPARSE_INDEX_MISMATCH",
            Self::SparseUnsupported { .. } => "SPARSE_VECTORS_UNSUPPORTED",
            Self::InvalidRecord { .. } => "INVALID_RECORD",
            Self::Unsupported { .. } => "CHROMA_UNSUPPORTED",
            Self::Rejected { .. } => "CHROMA_REJECTED",
            Self::InvalidResponse { .. } | Self::InvalidOptions { .. } => "CHROMA_MISCONFIGURED",
        }
    }

    /// This answer to a call about `collection`, in our words.
    pub(super) fn about(self, collection: &Collection) -> Self {
        let name = || collection.name.clone();
        match self {
            Self::Rejected { status: 404, .. } => Self::CollectionNotFound { collection: name() },
            Self::Rejected {
                status: 400,
                kind,
                message,
            } => match dimensions(&message) {
                Some((expected, actual)) => Self::DimensionMismatch {
                    collection: name(),
                    expected,
                    actual,
                },
                None => Self::Rejected {
                    status: 400,
                    kind,
                    message,
                },
            },
            other => other,
        }
    }

    /// The failure of an invocation that this error ends.
    pub fn failure(&self) -> Failure {
        Failure {
            reason: self.reason().to_owned(),
            message: self.to_string(),
        }
    }
}

/// Reads `Collection expecting embedding with dimension of 384, got 3`, Chroma's own words.
fn dimensions(message: &str) -> Option<(u32, u32)> {
    let (_, numbers) = message.split_once("embedding with dimension of ")?;
    let (expected, actual) = numbers.split_once(", got ")?;
    Some((expected.trim().parse().ok()?, actual.trim().parse().ok()?))
}

impl From<IndexError> for Error {
    /// What a caller of the API reads when the Chroma server was asked on their behalf.
    fn from(error: IndexError) -> Self {
        match &error {
            IndexError::DatabaseNotFound { database } => {
                Error::not_found(Reason::DatabaseNotFound, "database", database)
                    .with_metadata("database_name", database)
            }
            IndexError::Unavailable { .. } | IndexError::RateLimited { .. } | IndexError::Interrupted => {
                let delay = error.retry_after().unwrap_or(Duration::from_secs(1));
                Error::new(
                    Reason::ChromaUnavailable,
                    "the chroma server does not answer; try again later",
                )
                .with_retry_after(delay)
                .with_cause(error)
            }
            // The operator has to act, not the caller; what exactly is wrong is for the log alone.
            IndexError::Unauthorized { .. }
            | IndexError::InvalidResponse { .. }
            | IndexError::InvalidOptions { .. } => Error::new(
                Reason::ChromaUnavailable,
                "the chroma server cannot be used by this service",
            )
            .with_cause(error),
            IndexError::CollectionNotFound { .. }
            | IndexError::DimensionMismatch { .. }
            | IndexError::EmbeddingFunctionMismatch { .. }
            | IndexError::SparseIndexMismatch { .. }
            | IndexError::SparseUnsupported { .. }
            | IndexError::InvalidRecord { .. }
            | IndexError::Unsupported { .. }
            | IndexError::Rejected { .. } => Error::internal(error),
        }
    }
}
