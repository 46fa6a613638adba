//! Why a crawl failed as a whole, in words for the owner of the invocation.
//!
//! A page that fails is an entry of the listing; a crawl fails when its start page or robots.txt cannot be
//! had, when the site stops answering, or by a fault of this machine. `Display` speaks to the user and never
//! prints the cause, which the log gets through `source()`.

use std::time::Duration;

use crate::{
    domain::invocation::Failure,
    fetch::{egress::EgressError, error::Cause},
};

/// Why a crawl failed.
#[derive(Debug, thiserror::Error)]
pub enum CrawlError {
    /// The starting URL is not one of a page.
    #[error("{url} cannot be crawled: {problem}")]
    StartUnusable {
        /// The URL.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The site has no such page.
    #[error("the starting URL {url} does not exist: the site answered {status}")]
    StartNotFound {
        /// The URL.
        url: String,
        /// 404 or 410.
        status: u16,
    },
    /// The site refuses the start page.
    #[error(
        "the site answered {status} to the starting URL {url}; only pages that everybody may read can be crawled"
    )]
    StartRefused {
        /// The URL.
        url: String,
        /// The status code, 4xx.
        status: u16,
    },
    /// The start page leads to another site.
    #[error(
        "the starting URL {url} redirects to another site; to crawl that, take {target} as the starting URL"
    )]
    StartElsewhere {
        /// The URL.
        url: String,
        /// Where it leads.
        target: String,
    },
    /// robots.txt does not allow the start page.
    #[error(
        "robots.txt of {host} does not allow {url} to be crawled; ask the site's owner, or the operator of this \
         server, who can turn web.obey_robots off"
    )]
    RobotsDisallow {
        /// Host of the site.
        host: String,
        /// The URL.
        url: String,
    },
    /// The egress policy refuses an address that the crawl leads to.
    #[error("crawling {url} is refused: {refusal}")]
    EgressForbidden {
        /// The URL.
        url: String,
        /// What the policy refuses.
        refusal: EgressError,
    },
    /// The site did not answer, or answered that it cannot for now.
    #[error("cannot crawl {host}: {problem}")]
    Network {
        /// Host of the site.
        host: String,
        /// What went wrong.
        problem: String,
        /// How long the site asks to wait before the next try.
        retry_after: Option<Duration>,
        /// The cause, where there is one beside the answer itself.
        source: Option<Cause>,
    },
    /// The caller asked to stop.
    #[error("the crawl was cancelled")]
    Cancelled,
    /// The directory for fetched pages cannot be written or read.
    #[error("the server cannot {action} its directory for fetched pages")]
    Storage {
        /// What failed: `write to`, `read from`.
        action: &'static str,
        /// Why.
        source: Cause,
    },
    /// A fault of this service.
    #[error("the crawl ended unexpectedly")]
    Internal {
        /// Why.
        source: Cause,
    },
}

impl CrawlError {
    /// The stable identifier, UPPER_SNAKE_CASE.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::StartUnusable { .. } => "STARTING_URL_UNUSABLE",
            Self::StartNotFound { .. } => "PAGE_NOT_FOUND",
            Self::StartRefused { .. } => "PAGE_REFUSED",
            Self::StartElsewhere { .. } => "REDIRECTED_ELSEWHERE",
            Self::RobotsDisallow { .. } => "ROBOTS_DISALLOWED",
            Self::EgressForbidden { .. } => "EGRESS_FORBIDDEN",
            Self::Network { .. } => "NETWORK_ERROR",
            Self::Cancelled => "CANCELLED",
            Self::Storage { .. } => "FETCH_STORAGE_FAILED",
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

    /// Whether the same crawl may succeed later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Storage { .. } | Self::Internal { .. } => true,
            Self::StartUnusable { .. }
            | Self::StartNotFound { .. }
            | Self::StartRefused { .. }
            | Self::StartElsewhere { .. }
            | Self::RobotsDisallow { .. }
            | Self::EgressForbidden { .. }
            | Self::Cancelled => false,
        }
    }

    /// How long the site asks to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Network { retry_after, .. } => *retry_after,
            Self::StartUnusable { .. }
            | Self::StartNotFound { .. }
            | Self::StartRefused { .. }
            | Self::StartElsewhere { .. }
            | Self::RobotsDisallow { .. }
            | Self::EgressForbidden { .. }
            | Self::Cancelled
            | Self::Storage { .. }
            | Self::Internal { .. } => None,
        }
    }
}
