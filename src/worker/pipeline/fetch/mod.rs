//! Asks the fetcher of the source's type for the documents of an invocation.

mod objects;
mod repository;
mod site;
mod upload;

use super::{load_stage::Labels, prepare::Source};
use crate::{
    domain::{
        invocation::{InvocationInput, S3Objects},
        source::SourceSettings,
    },
    fetch::{Entry, Listed},
    parse::Format,
    store::Claim,
    worker::{Environment, failure::AttemptError, lease_guard::Lease, progress::ProgressHandle},
};

/// What a listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    /// The source, which the collection shows afterwards.
    Source {
        /// Whether it is all of the source, so that what is not in it is gone.
        whole: bool,
    },
    /// Everything under a prefix, in a collection that others write to as well.
    Prefix,
    /// A single document.
    Document,
    /// A single document that is gone.
    Removed,
}

impl Coverage {
    /// Whether the collection is to show the source and nothing else.
    pub(super) fn shows_source(self) -> bool {
        match self {
            Self::Source { .. } => true,
            Self::Prefix | Self::Document | Self::Removed => false,
        }
    }
}

/// What a fetcher found.
pub(super) struct Fetched {
    pub(super) source: Source,
    pub(super) coverage: Coverage,
    pub(super) labels: Labels,
}

impl Fetched {
    /// Whether everything that the source calls unchanged is among what the collection holds.
    pub(super) fn lacks_nothing(&self, held: impl Fn(u32) -> bool) -> bool {
        (0..)
            .zip(self.source.entries.iter())
            .all(|(ordinal, entry)| entry.decision != Listed::Unchanged || held(ordinal))
    }
}

/// Whether a fetcher is told what earlier invocations found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// It is, and may call documents unchanged without loading them.
    Kept,
    /// It is not.
    Dropped,
}

/// Fetches what the invocation asks for.
pub(super) async fn fetch(
    environment: &Environment,
    claim: &Claim,
    lease: &Lease,
    progress: &ProgressHandle,
    memory: Memory,
) -> Result<Fetched, AttemptError> {
    match (&claim.plan.settings, &claim.invocation.input) {
        (SourceSettings::Github(github), InvocationInput::Github { reference }) => {
            repository::list(environment, claim, lease, progress, github, reference.as_ref()).await
        }
        (SourceSettings::S3(s3), InvocationInput::S3 { objects, .. }) => {
            objects::list(environment, claim, progress, s3, objects).await
        }
        (SourceSettings::WebScrape(site), InvocationInput::WebScrape) => {
            site::list(environment, claim, lease, progress, site, memory).await
        }
        (SourceSettings::FileUpload, InvocationInput::FileUpload(file)) => {
            upload::list(environment, progress, file).await
        }
        // An invocation is made for its source, so no other pair is ever stored.
        (SourceSettings::Github(_), _)
        | (SourceSettings::S3(_), _)
        | (SourceSettings::WebScrape(_), _)
        | (SourceSettings::FileUpload, _) => Err(AttemptError::StageEnded("fetch")),
    }
}

/// Leaves out a document whose format, by its name or by what it is said to be, need not be loaded.
fn skip_by_format(environment: &Environment, entry: &mut Entry, media_type: Option<&str>) {
    let format = Format::of(&entry.document_key, media_type);
    if let Some(rule) = format.and_then(|format| environment.parser.skips(format)) {
        entry.decision = Listed::Skip(rule);
    }
}

/// What became of a document while it was indexed.
#[derive(Debug)]
pub(super) enum Confirmed {
    /// It is there as it was.
    There,
    /// It is gone, and the invocation fails with this.
    Gone(AttemptError),
}

/// Looks at the source again after everything was written: what changed meanwhile is synced once more, so that
/// of two invocations of one object the older version never has the last word.
pub(super) async fn confirm(
    environment: &Environment,
    claim: &Claim,
    source: &Source,
) -> Result<Confirmed, AttemptError> {
    match (&claim.plan.settings, &claim.invocation.input) {
        (
            SourceSettings::S3(s3),
            InvocationInput::S3 {
                objects: S3Objects::Object { key, .. },
                ..
            },
        ) => objects::confirm(environment, claim, s3, key, source).await,
        (
            SourceSettings::Github(_)
            | SourceSettings::S3(_)
            | SourceSettings::WebScrape(_)
            | SourceSettings::FileUpload,
            _,
        ) => Ok(Confirmed::There),
    }
}
