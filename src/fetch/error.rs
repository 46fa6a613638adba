//! Why a fetch failed, in words for the owner of the invocation.
//!
//! Each kind says who has to act: a permanent one fails the invocation at once, a transient one is
//! tried again. `Display` speaks to the user and never prints the cause, which the log gets through
//! `source()`. Absent on purpose: a count of attempts. The worker owns the retry budget.

use std::{error::Error as StdError, time::Duration};

use super::egress::EgressError;
use crate::domain::{
    invocation::Failure,
    source::{GithubAppId, RepositoryName},
};

/// The cause of a failure, kept for the log.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The host has no such repository.
    #[error("repository {repository} does not exist on {host}")]
    RepositoryNotFound {
        /// Which repository.
        repository: RepositoryName,
        /// Host asked; for a `file://` URL this server.
        host: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{reference} does not exist in repository {repository}")]
    ReferenceNotFound {
        /// Which repository.
        repository: RepositoryName,
        /// The reference in words, such as `branch or tag 'main'` or `commit 0123...`.
        reference: String,
    },
    /// The repository has no commit at all.
    #[error("repository {repository} is empty: it has no commit to sync")]
    RepositoryEmpty {
        /// Which repository.
        repository: RepositoryName,
    },
    /// The host wants credentials and the server has none. Hosts such as GitHub answer this way for a
    /// repository that does not exist, too.
    #[error(
        "repository {repository} does not exist or is private; check its name, or give the server a token \
         that may read it (github.token)"
    )]
    CredentialsMissing {
        /// Which repository.
        repository: RepositoryName,
    },
    /// The host refused the server's credentials, or refuses this client altogether.
    #[error(
        "{host} refused access to repository {repository}; check that the repository exists and that the \
         server's token (github.token) is valid and may read it"
    )]
    AccessRefused {
        /// Which repository.
        repository: RepositoryName,
        /// Host that refused.
        host: String,
    },
    /// The GitHub App may not read the repository, or there is none with this name.
    #[error(
        "GitHub App {app_id} has no access to repository {repository}; check the repository's name, and install \
         the App on it (on the App's page: Install App)"
    )]
    AppNotInstalled {
        /// Which repository.
        repository: RepositoryName,
        /// Which App.
        app_id: GithubAppId,
    },
    /// The host refuses the GitHub App itself.
    #[error("{host} refuses GitHub App {app_id}: {problem}")]
    AppRefused {
        /// Which App.
        app_id: GithubAppId,
        /// Host that refused.
        host: String,
        /// Why, and what to do.
        problem: String,
    },
    /// The repository has another name now.
    #[error("repository {repository} was renamed{}", renamed_to(.new_name.as_deref()))]
    RepositoryRenamed {
        /// The name it had.
        repository: RepositoryName,
        /// The name it has, as `owner/name`, where that could be found out.
        new_name: Option<String>,
    },
    /// The host takes no more requests for now. Waiting helps, and is nobody's failure.
    #[error("{host} limits our requests; fetching repository {repository} goes on when it takes them again")]
    RateLimited {
        /// Which repository.
        repository: RepositoryName,
        /// Host that limits.
        host: String,
        /// How long to wait.
        retry_after: Duration,
    },
    /// The egress policy refuses an address that the fetch leads to.
    #[error("fetching repository {repository} is refused: {refusal}")]
    EgressForbidden {
        /// Which repository.
        repository: RepositoryName,
        /// What the policy refuses.
        refusal: EgressError,
    },
    /// The repository exceeds a limit of this server.
    #[error("repository {repository} is too large: {limit}")]
    RepositoryTooLarge {
        /// Which repository.
        repository: RepositoryName,
        /// Which limit, with its value and the option that sets it, if one does.
        limit: String,
    },
    /// The whole fetch took longer than allowed.
    #[error(
        "fetching repository {repository} did not end within {} seconds (github.fetch_timeout_seconds)",
        .limit.as_secs()
    )]
    TimedOut {
        /// Which repository.
        repository: RepositoryName,
        /// The time allowed.
        limit: Duration,
    },
    /// The caller asked to stop.
    #[error("fetching repository {repository} was cancelled")]
    Cancelled {
        /// Which repository.
        repository: RepositoryName,
    },
    /// The host did not answer, or the connection broke.
    #[error("cannot fetch repository {repository}: {problem}")]
    Network {
        /// Which repository.
        repository: RepositoryName,
        /// What went wrong and with which host.
        problem: String,
        /// How long the host asks to wait before the next try.
        retry_after: Option<Duration>,
        /// The cause, where there is one beside the answer itself.
        source: Option<Cause>,
    },
    /// The host answered something that is not git's protocol, or that this client does not support.
    #[error("cannot fetch repository {repository}: {problem}")]
    UnexpectedAnswer {
        /// Which repository.
        repository: RepositoryName,
        /// What was unexpected and what to check.
        problem: String,
        /// The cause, where there is one beside the answer itself.
        source: Option<Cause>,
    },
    /// The configured URL cannot be fetched from.
    #[error("github.git_url cannot be used: {problem}")]
    Misconfigured {
        /// What is wrong and what to do.
        problem: String,
        /// The cause, where there is one.
        source: Option<Cause>,
    },
    /// The directory for fetched repositories cannot be written or read.
    #[error("the server cannot {action} its directory for fetched repositories")]
    Storage {
        /// What failed: `write to`, `read from`.
        action: &'static str,
        /// Why.
        source: Cause,
    },
    /// An object of the repository is damaged or missing.
    #[error("{object} of the repository cannot be read; the repository may be damaged (git fsck)")]
    Damaged {
        /// Which object, as `file 'path'` or `commit 0123...`.
        object: String,
        /// Why.
        source: Option<Cause>,
    },
    /// A fault of this service.
    #[error("the fetch ended unexpectedly")]
    Internal {
        /// Why.
        source: Cause,
    },
}

impl FetchError {
    /// The stable identifier, UPPER_SNAKE_CASE.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::RepositoryNotFound { .. } => "REPOSITORY_NOT_FOUND",
            Self::ReferenceNotFound { .. } => "REFERENCE_NOT_FOUND",
            Self::RepositoryEmpty { .. } => "REPOSITORY_EMPTY",
            Self::CredentialsMissing { .. } | Self::AccessRefused { .. } => "AUTHENTICATION_FAILED",
            Self::AppNotInstalled { .. } => "GITHUB_APP_NOT_INSTALLED",
            Self::AppRefused { .. } => "GITHUB_APP_REFUSED",
            Self::RepositoryRenamed { .. } => "REPOSITORY_RENAMED",
            Self::RateLimited { .. } => "RATE_LIMITED",
            Self::EgressForbidden { .. } => "EGRESS_FORBIDDEN",
            Self::RepositoryTooLarge { .. } => "REPOSITORY_TOO_LARGE",
            Self::TimedOut { .. } => "FETCH_TIMED_OUT",
            Self::Cancelled { .. } => "CANCELLED",
            Self::Network { .. } => "NETWORK_ERROR",
            Self::UnexpectedAnswer { .. } => "UNEXPECTED_ANSWER",
            Self::Misconfigured { .. } => "GIT_URL_UNUSABLE",
            Self::Storage { .. } => "FETCH_STORAGE_FAILED",
            Self::Damaged { .. } => "REPOSITORY_DAMAGED",
            Self::Internal { .. } => "INTERNAL",
        }
    }

    /// What the invocation shows when this ends it.
    pub fn failure(&self) -> Failure {
        Failure {
            reason: self.reason().to_owned(),
            message: self.to_string(),
        }
    }

    /// Whether the same fetch may succeed later without anybody's doing.
    ///
    /// A timeout is not: the next try would take as long and be cut off at the same point.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. }
            | Self::RateLimited { .. }
            | Self::Storage { .. }
            | Self::Internal { .. } => true,
            Self::RepositoryNotFound { .. }
            | Self::ReferenceNotFound { .. }
            | Self::RepositoryEmpty { .. }
            | Self::CredentialsMissing { .. }
            | Self::AccessRefused { .. }
            | Self::AppNotInstalled { .. }
            | Self::AppRefused { .. }
            | Self::RepositoryRenamed { .. }
            | Self::EgressForbidden { .. }
            | Self::RepositoryTooLarge { .. }
            | Self::TimedOut { .. }
            | Self::Cancelled { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::Misconfigured { .. }
            | Self::Damaged { .. } => false,
        }
    }

    /// Whether this uses up the attempts of an invocation. Waiting until a host takes requests again does not.
    pub fn counts_as_failure(&self) -> bool {
        !matches!(self, Self::RateLimited { .. })
    }

    /// How long the host asks to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Network { retry_after, .. } => *retry_after,
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::RepositoryNotFound { .. }
            | Self::ReferenceNotFound { .. }
            | Self::RepositoryEmpty { .. }
            | Self::CredentialsMissing { .. }
            | Self::AccessRefused { .. }
            | Self::AppNotInstalled { .. }
            | Self::AppRefused { .. }
            | Self::RepositoryRenamed { .. }
            | Self::EgressForbidden { .. }
            | Self::RepositoryTooLarge { .. }
            | Self::TimedOut { .. }
            | Self::Cancelled { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::Misconfigured { .. }
            | Self::Storage { .. }
            | Self::Damaged { .. }
            | Self::Internal { .. } => None,
        }
    }
}

fn renamed_to(new_name: Option<&str>) -> String {
    match new_name {
        Some(name) => format!(" to {name}: create a source for it"),
        None => ": create a source with its new name".to_owned(),
    }
}
