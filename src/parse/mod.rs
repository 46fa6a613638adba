//! Documents to Markdown, each in a limited child process.
//!
//! A parser of other people's files will meet one that it was not written for: a zip bomb, a page tree
//! without end, nesting that overflows its stack. A thread that does not come back cannot be stopped and
//! an allocation that fails ends the process, so a conversion runs in a process of its own, our own
//! binary with the hidden subcommand `parse-document`, which limits itself before it reads anything
//! ([`child`]). What becomes of it is one document's failure ([`ParseError`]).
//!
//! Pictures have no text; a provider can be asked to describe them (`describe`). That is a call over
//! the network, so it is made here and not in the child.
//!
//! Absent on purpose: plain text and source code, which are indexed as they are.

mod answer;
pub mod child;
mod convert;
mod describe;
mod error;
mod format;
pub mod html;
mod process;

use std::{path::Path, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

pub use self::{
    answer::Converted as Parsed,
    describe::{DescribeError, ImageDescriber, ImageDescriberOptions},
    error::{ConverterEnd, ParseError},
    format::Format,
};
use crate::domain::document::SkipRule;

/// How much a conversion may take, and who makes it.
#[derive(Debug, Clone)]
pub struct ParserOptions {
    /// The binary with the subcommand; `None` is the one that runs.
    pub program: Option<PathBuf>,
    /// Address space of one conversion, in bytes, the document included.
    pub max_memory_bytes: u64,
    /// Processor time of one conversion, in whole seconds.
    pub max_cpu: Duration,
    /// The most time from its start to its end.
    pub timeout: Duration,
    /// The longest Markdown, in bytes.
    pub max_output_bytes: u64,
    /// The most pages of a PDF.
    pub max_pages: u32,
    /// Conversions at once; more wait.
    pub concurrency: usize,
}

impl Default for ParserOptions {
    fn default() -> Self {
        Self {
            program: None,
            max_memory_bytes: 1536 * 1024 * 1024,
            max_cpu: Duration::from_secs(300),
            timeout: Duration::from_secs(900),
            max_output_bytes: 64 * 1024 * 1024,
            max_pages: 7_000,
            concurrency: 2,
        }
    }
}

/// Where a document is.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// In a file, which is read in pieces.
    File(&'a Path),
}

/// Converts documents; clones share what is allowed at once.
#[derive(Debug, Clone)]
pub struct Parser {
    options: Arc<ParserOptions>,
    describer: Option<ImageDescriber>,
    running: Arc<Semaphore>,
}

impl Parser {
    /// A parser that leaves pictures out unless there is somebody to describe them.
    pub fn new(options: ParserOptions, describer: Option<ImageDescriber>) -> Self {
        let running = Arc::new(Semaphore::new(options.concurrency.max(1)));
        Self {
            options: Arc::new(options),
            describer,
            running,
        }
    }

    /// The rule by which documents of this format are left out, whatever is in them: they need not be
    /// loaded.
    pub fn skips(&self, format: Format) -> Option<SkipRule> {
        (format == Format::Image && self.describer.is_none()).then_some(SkipRule::ImageNotDescribed)
    }

    /// The Markdown of a document, which may be empty or white space alone. Waits until there is room.
    /// Dropping the future ends the conversion.
    ///
    /// # Errors
    /// See [`ParseError`]; one that is transient is about the worker, any other about the document.
    pub async fn parse(&self, format: Format, input: Input<'_>) -> Result<Parsed, ParseError> {
        if format == Format::Image {
            let describer = self.describer.as_ref().ok_or(ParseError::ImageNotDescribed)?;
            let markdown = describer.describe(input).await?;
            return Ok(Parsed {
                markdown,
                ..Parsed::default()
            });
        }
        // The semaphore is never closed.
        let _running = self.running.acquire().await;
        process::convert(&self.options, format, input).await
    }
}
