//! Why a model could not be fetched, with what to do about it.

use std::{io, path::PathBuf, time::Duration};

/// Why [`Hub::pull`](super::Hub::pull) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` is set.
    #[error(
        "HF_HUB_OFFLINE is set, so nothing is fetched; unset it, or put the files of {0} into the cache by hand"
    )]
    Offline(String),
    /// `HF_ENDPOINT` is no address of a hub.
    #[error("HF_ENDPOINT is {0:?}, which is no http:// or https:// URL")]
    Endpoint(String),
    /// There is no directory for the cache.
    #[error("there is no directory for model files; set HF_HUB_CACHE, HF_HOME or HOME")]
    NoCache,
    /// The token fits no header.
    #[error("the token of the hub (HF_TOKEN) has characters that no header can carry")]
    Token,
    /// The name is not `owner/name`.
    #[error("model name {0:?} is not of the form owner/name with letters, digits, '.', '_' and '-'")]
    Name(String),
    /// The revision cannot be a branch, tag or commit.
    #[error("revision {0:?} is not the name of a commit, branch or tag")]
    Revision(String),
    /// The HTTP client cannot start.
    #[error("the HTTP client cannot start")]
    Client(#[source] reqwest::Error),
    /// The hub does not answer.
    #[error(
        "the hub at {endpoint} (HF_ENDPOINT) is away: {problem}; run the command again, it goes on where it ended"
    )]
    Unavailable {
        /// The hub.
        endpoint: String,
        /// How it failed.
        problem: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
        /// What the connection died of.
        source: Option<reqwest::Error>,
    },
    /// The hub does not show the model to us.
    #[error(
        "the hub at {endpoint} answers {status} for {model}: there is no such model, or it needs a token (HF_TOKEN) of \
         somebody who has accepted its terms"
    )]
    Unauthorized {
        /// The hub.
        endpoint: String,
        /// The model.
        model: String,
        /// 401 or 403.
        status: u16,
    },
    /// The hub has no such model or revision.
    #[error("the hub at {endpoint} has no model {model} with revision {revision}")]
    NotFound {
        /// The hub.
        endpoint: String,
        /// The model.
        model: String,
        /// The revision.
        revision: String,
    },
    /// The hub answered with something else.
    #[error("the answer of the hub at {endpoint} (HF_ENDPOINT) is not understood: {problem}")]
    InvalidResponse {
        /// The hub.
        endpoint: String,
        /// What is wrong.
        problem: String,
    },
    /// The model has no files that this service reads.
    #[error("model {model} has no {missing} on the hub, so it cannot be used here")]
    Unsupported {
        /// The model.
        model: String,
        /// The file.
        missing: String,
    },
    /// A file is larger than it may be.
    #[error("{file} of {model} has {size} bytes, and at most {limit} are fetched")]
    TooLarge {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// As the hub says.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// What came is not what the hub names.
    #[error("{file} came damaged: its {kind} is not {expected}; it was removed, run the command again")]
    Checksum {
        /// The file.
        file: String,
        /// The kind of checksum.
        kind: &'static str,
        /// In hexadecimal.
        expected: String,
    },
    /// The cache cannot be read or written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl HubError {
    /// Whether another try may go better.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
