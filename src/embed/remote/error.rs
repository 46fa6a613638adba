//! What can go wrong with a server that embeds.
//!
//! `Display` is shown to callers, so it names the option to look at and never an address, a key or an answer; the
//! log has the endpoint beside it.

use std::time::Duration;

/// Why a server did not embed, whatever the texts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// No server answers, or not in time, or with a fault of its own.
    #[error("the embedding server is away: {problem}")]
    Unavailable {
        /// How it failed.
        problem: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
        /// What the connection died of.
        source: Option<reqwest::Error>,
    },
    /// The server wants fewer requests.
    #[error("the embedding server limits our requests")]
    RateLimited {
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The server does not know the key.
    #[error("the embedding server refuses the key with status {status} (embedding.providers.api_key)")]
    Unauthorized {
        /// 401 or 403.
        status: u16,
    },
    /// The server refuses requests of this kind.
    #[error(
        "the embedding server answers {status}; see whether embedding.providers.endpoints is the base of its \
         API and embedding.providers.remote_model is a model it serves"
    )]
    Rejected {
        /// Its status.
        status: u16,
    },
    /// The answer is not of the wire's form.
    #[error("the answer of the embedding server is not understood: {problem}")]
    InvalidResponse {
        /// What is wrong with it.
        problem: String,
    },
    /// The vectors have another length than configured.
    #[error(
        "the embedding server gives vectors of {found} dimensions, and {expected} are configured; correct \
         embedding.providers.dimensions or embedding.providers.remote_model"
    )]
    Dimensions {
        /// As configured.
        expected: usize,
        /// As given.
        found: usize,
    },
    /// Two servers of one model embed the same text differently.
    #[error(
        "two servers of the model give different vectors for the same text (cosine {cosine:.4}); see that all of \
         embedding.providers.endpoints run the same model with the same settings"
    )]
    Differs {
        /// Between their vectors.
        cosine: f64,
    },
}

impl RemoteError {
    /// Whether another try may go better.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::RateLimited { .. } => true,
            Self::Unauthorized { .. }
            | Self::Rejected { .. }
            | Self::InvalidResponse { .. }
            | Self::Dimensions { .. }
            | Self::Differs { .. } => false,
        }
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } | Self::RateLimited { retry_after } => *retry_after,
            Self::Unauthorized { .. }
            | Self::Rejected { .. }
            | Self::InvalidResponse { .. }
            | Self::Dimensions { .. }
            | Self::Differs { .. } => None,
        }
    }
}
