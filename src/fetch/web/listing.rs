//! What a crawl found.

use std::{io, sync::Arc};

use super::{
    KnownPage,
    error::CrawlError,
    spool::{Place, Spool},
};
use crate::{domain::document::SkipRule, parse::html::CONVERTER_VERSION};

/// What becomes of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageDecision {
    /// Its document is to be indexed; [`CrawlReader::load`] has it.
    Load,
    /// It is as the last crawl left it. It has no document here.
    Unchanged,
    /// A rule leaves it out.
    Skip(SkipRule),
    /// It could not be had; the text says why, without naming the URL. What is indexed of it stays.
    Failed(String),
}

/// One entry of the listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The document key, unique in the listing: its URL without fragment, or the one that it names as canonical.
    pub url: String,
    /// What becomes of it.
    pub decision: PageDecision,
    /// SHA-256 of its document, 64 lowercase hexadecimal digits; empty where there is none.
    pub version_key: String,
    /// `text/markdown`, `text/plain` or `application/pdf`; none where there is no document.
    pub media_type: Option<&'static str>,
    /// Bytes of its document; none where it has none here.
    pub size_bytes: Option<u64>,
    /// Its title, where it was read and has one.
    pub title: Option<String>,
    /// The URL that it was read from.
    pub fetched_from: String,
    /// `ETag` of the answer.
    pub etag: Option<String>,
    /// `Last-Modified` of the answer.
    pub last_modified: Option<String>,
    /// Where it leads within the site; none where that is not known.
    pub(super) links: Option<Arc<[Arc<str>]>>,
    pub(super) place: Option<Place>,
}

impl Page {
    /// An entry without a document.
    pub(super) fn bare(url: &str, decision: PageDecision) -> Self {
        Self {
            url: url.to_owned(),
            decision,
            version_key: String::new(),
            media_type: None,
            size_bytes: None,
            title: None,
            fetched_from: url.to_owned(),
            etag: None,
            last_modified: None,
            links: None,
            place: None,
        }
    }
}

/// A finished crawl. Its documents go from the disk when it and its readers are gone.
#[derive(Debug)]
pub struct Crawl {
    pub(super) pages: Arc<[Page]>,
    /// What is known of pages that failed this time.
    pub(super) kept: Vec<KnownPage>,
    pub(super) spool: Arc<Spool>,
    /// Why the crawl ended before it had seen all, in words for the owner of the invocation; none when it
    /// saw all or reached the plan's number of pages.
    pub ended_early: Option<String>,
}

impl Crawl {
    /// All pages that were decided on, in the order in which they were found.
    pub fn pages(&self) -> &Arc<[Page]> {
        &self.pages
    }

    /// A reader of their documents, for any number of tasks.
    pub fn reader(&self) -> CrawlReader {
        CrawlReader {
            spool: Arc::clone(&self.spool),
        }
    }

    /// What the next crawl by the same plan may be told, to be kept once this one's documents are indexed.
    /// A page whose document was not must be left out: the next crawl would take it for unchanged.
    pub fn known_pages(&self) -> Vec<KnownPage> {
        let pages = self.pages.iter().filter(|page| !page.version_key.is_empty());
        let known = pages.map(|page| KnownPage {
            url: page.url.clone(),
            fetched_from: page.fetched_from.clone(),
            etag: page.etag.clone(),
            last_modified: page.last_modified.clone(),
            version_key: page.version_key.clone(),
            links: page.links.clone(),
            converter: CONVERTER_VERSION,
        });
        known.chain(self.kept.iter().cloned()).collect()
    }
}

/// Reads documents of a [`Crawl`], which may be gone by then. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CrawlReader {
    spool: Arc<Spool>,
}

impl CrawlReader {
    /// The document of a page: UTF-8 text, or the bytes of a PDF. None for a page without one.
    ///
    /// # Errors
    /// [`CrawlError::Storage`] when the disk fails.
    pub async fn load(&self, page: &Page) -> Result<Option<Vec<u8>>, CrawlError> {
        match page.place {
            None => Ok(None),
            Some(place) => self
                .spool
                .read(place)
                .await
                .map(Some)
                .map_err(|error| storage("read from", error)),
        }
    }
}

/// The fault that the disk failed.
pub(super) fn storage(action: &'static str, error: io::Error) -> CrawlError {
    CrawlError::Storage {
        action,
        source: error.into(),
    }
}
