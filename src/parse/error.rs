//! Why a document has no Markdown.

use std::time::Duration;

use super::{Format, describe::DescribeError};
use crate::domain::document::SkipRule;

/// Why a document has no Markdown. `Display` is for whoever owns the document: it says what to do and
/// names the option of a limit. Nothing of it is about the worker, which goes on.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It cannot be read without a password.
    #[error("the {format} document is encrypted; store it without a password")]
    Encrypted {
        /// What it was read as.
        format: Format,
    },
    /// It is not what its name or media type says, or it is broken.
    #[error(
        "the document cannot be read as {format} ({problem}); check that it opens elsewhere and store it again"
    )]
    Damaged {
        /// What it was read as.
        format: Format,
        /// What the reader stumbled over.
        problem: String,
    },
    /// Its pages are pictures.
    #[error(
        "the pdf document has no text, only pictures of pages ({pages}); run it through text recognition (OCR) \
         and store the result"
    )]
    NoText {
        /// Which pages, such as `1-3, 7`.
        pages: String,
    },
    /// More pages than are read.
    #[error("the document has {pages} pages and at most {limit} are read (parse.max_pages); split it")]
    TooManyPages {
        /// How many it has.
        pages: u32,
        /// How many are allowed.
        limit: u32,
    },
    /// Its conversion took more memory than allowed.
    #[error(
        "converting the {format} document takes more than {limit} bytes of memory (parse.max_memory_bytes); \
         split it or make it smaller"
    )]
    MemoryLimit {
        /// What it was read as.
        format: Format,
        /// How many bytes are allowed.
        limit: u64,
    },
    /// Its conversion took more processor time than allowed.
    #[error(
        "converting the {format} document takes more than {} s of processor time (parse.max_cpu_seconds); split it",
        limit.as_secs()
    )]
    CpuLimit {
        /// What it was read as.
        format: Format,
        /// How much is allowed.
        limit: Duration,
    },
    /// Its conversion took longer than allowed.
    #[error("converting the {format} document takes longer than {} s (parse.timeout_seconds); split it", limit.as_secs())]
    TimedOut {
        /// What it was read as.
        format: Format,
        /// How long is allowed.
        limit: Duration,
    },
    /// Its text is longer than allowed.
    #[error(
        "the text of the {format} document is longer than {limit} bytes (parse.max_output_bytes); split it"
    )]
    OutputLimit {
        /// What it was read as.
        format: Format,
        /// How many bytes are allowed.
        limit: u64,
    },
    /// The converter died of it.
    #[error("the {format} document makes its converter fail; store it in another format")]
    Crashed {
        /// What it was read as.
        format: Format,
        /// How the converter ended, for the log.
        source: ConverterEnd,
    },
    /// Nobody describes pictures.
    #[error(
        "pictures are left out, since no provider of descriptions is configured (parse.image_descriptions.url)"
    )]
    ImageNotDescribed,
    /// The provider of descriptions.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The document cannot be read from where it was put, or no process can be started.
    #[error("the worker cannot convert documents for now")]
    Unavailable(#[source] std::io::Error),
}

/// How the process of a converter ended, with the last it said.
#[derive(Debug, thiserror::Error)]
#[error("the converter ended with {status}: {said}")]
pub struct ConverterEnd {
    /// Its exit status.
    pub status: String,
    /// The end of its standard error.
    pub said: String,
}

impl ParseError {
    /// Whether another try may go better.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Describe(error) => error.is_transient(),
            Self::Encrypted { .. }
            | Self::Damaged { .. }
            | Self::NoText { .. }
            | Self::TooManyPages { .. }
            | Self::MemoryLimit { .. }
            | Self::CpuLimit { .. }
            | Self::TimedOut { .. }
            | Self::OutputLimit { .. }
            | Self::Crashed { .. }
            | Self::ImageNotDescribed => false,
        }
    }

    /// How long whoever is asked wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Describe(error) => error.retry_after(),
            Self::Unavailable(_)
            | Self::Encrypted { .. }
            | Self::Damaged { .. }
            | Self::NoText { .. }
            | Self::TooManyPages { .. }
            | Self::MemoryLimit { .. }
            | Self::CpuLimit { .. }
            | Self::TimedOut { .. }
            | Self::OutputLimit { .. }
            | Self::Crashed { .. }
            | Self::ImageNotDescribed => None,
        }
    }

    /// The rule by which such a document is left out; without one it failed.
    pub fn skip_rule(&self) -> Option<SkipRule> {
        matches!(self, Self::ImageNotDescribed).then_some(SkipRule::ImageNotDescribed)
    }
}
