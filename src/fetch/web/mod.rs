//! The crawler: a site's pages as Markdown, breadth first from a starting URL.
//!
//! [`crawl`] lists and loads in one go, since a page has to be read to know where it leads: what it found
//! is a list of [`Page`]s, and their documents lie on disk, where a [`CrawlReader`] gets them. What makes a
//! crawl come out the same each time: pages are taken in the order in which they were found, however
//! fast each was answered, and decisions (duplicates, the limit) follow that order.
//!
//! Modules: `requests` sends one request as policy and politeness allow, `visit` makes a document of one
//! URL, `crawler` decides on URLs and documents, `robots`, `sitemap`, `address` and `text` each read one
//! format. Absent on purpose: cookies, logins and scripts. What needs them is not public.

mod address;
mod crawler;
mod documents;
mod error;
mod known;
mod listing;
mod politeness;
mod requests;
mod robots;
mod sitemap;
mod spool;
mod start;
mod text;
mod visit;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use reqwest::dns::Resolve;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use self::{
    address::normalise,
    error::CrawlError,
    listing::{Crawl, CrawlReader, Page, PageDecision},
};
use self::{politeness::Hosts, robots::product_token};
use crate::{
    domain::path_patterns::PathPatterns,
    fetch::egress::{Egress, SystemResolver},
};

/// What all crawls of a process share: how many requests each host gets, and how many pages are parsed at once.
#[derive(Debug, Clone)]
pub struct CrawlShared {
    hosts: Hosts,
    parsing: Arc<Semaphore>,
}

impl CrawlShared {
    /// At most `parallel` requests to one host at once, at least 1. As many pages are parsed at once as
    /// there are processors, at most 4.
    pub fn new(parallel: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            hosts: Hosts::new(parallel.max(1)),
            parsing: Arc::new(Semaphore::new(processors.min(4))),
        }
    }
}

/// How this server crawls; the section `[web]`. Cheap to clone; clones share the limits on hosts.
#[derive(Clone)]
pub struct CrawlOptions {
    /// Value of `User-Agent`. It begins with the product token that robots.txt files address.
    pub user_agent: String,
    /// Whether robots.txt and the wishes of pages (`noindex`, `nofollow`) are heeded.
    pub obey_robots: bool,
    /// Pages larger than this many bytes, after decompression, are skipped.
    pub max_page_bytes: usize,
    /// The most pages of one crawl, whatever its plan says.
    pub max_pages: u32,
    /// The most URLs that one crawl keeps in mind, so also the most that it asks for.
    pub max_urls: usize,
    /// The most bytes of documents that one crawl puts on disk.
    pub max_crawl_bytes: u64,
    /// Requests to one host that one crawl has under way at once; all crawls together have those of
    /// [`CrawlShared`].
    pub parallel: usize,
    /// The least time between the beginnings of two requests to a host.
    pub delay: Duration,
    /// The longest `Crawl-delay` that is heeded; a longer one is taken as this.
    pub max_crawl_delay: Duration,
    /// How long one request may take, its body included.
    pub request_timeout: Duration,
    /// After this time a crawl ends with what it has.
    pub crawl_timeout: Duration,
    /// Redirects followed until a page has to come.
    pub max_redirects: usize,
    /// How often a request that fails for now is sent, at least 1.
    pub attempts: u32,
    /// Wait after the first of these failures; doubles with each.
    pub backoff: Duration,
    /// The longest wait that a site may ask for with `Retry-After`; a page whose site asks for more fails.
    pub max_wait: Duration,
    /// Which addresses may be connected to.
    pub egress: Egress,
    /// Where names are looked up; the answers pass the egress policy.
    pub names: Arc<dyn Resolve>,
    /// Where temporary directories are made.
    pub directory: PathBuf,
    /// What is shared with the other crawls of the process.
    pub shared: CrawlShared,
}

impl CrawlOptions {
    /// Options with the defaults of the service, as in `config/default.toml`.
    pub fn new(directory: PathBuf) -> Self {
        let parallel = 4;
        Self {
            user_agent: "chroma-sync".to_owned(),
            obey_robots: true,
            max_page_bytes: 10 << 20,
            max_pages: 500,
            max_urls: 10_000,
            max_crawl_bytes: 1 << 30,
            parallel,
            delay: Duration::from_millis(200),
            max_crawl_delay: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            crawl_timeout: Duration::from_secs(7_200),
            max_redirects: 5,
            attempts: 4,
            backoff: Duration::from_secs(1),
            max_wait: Duration::from_secs(300),
            egress: Egress::public_only(),
            names: Arc::new(SystemResolver),
            directory,
            shared: CrawlShared::new(parallel),
        }
    }

    /// The name by which robots.txt addresses this crawler.
    fn token(&self) -> &str {
        product_token(&self.user_agent)
    }
}

impl fmt::Debug for CrawlOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CrawlOptions")
            .field("user_agent", &self.user_agent)
            .field("obey_robots", &self.obey_robots)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// What one source wants to be crawled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrawlPlan {
    /// Where the crawl begins. Its site (scheme, host, port) is what is crawled.
    pub starting_url: Url,
    /// The most pages that become documents, at least 1; [`CrawlOptions::max_pages`] bounds it.
    pub page_limit: u32,
    /// How many links away from the start page pages may be; 0 is the start page alone, none is any.
    pub max_depth: Option<u32>,
    /// Pages whose path has none of these are neither fetched nor followed, if there are any.
    pub include: PathPatterns,
    /// Pages whose path has one of these are neither fetched nor followed.
    pub exclude: PathPatterns,
}

impl CrawlPlan {
    /// The plan of a source that only has a starting URL: 50 pages of any depth.
    pub fn new(starting_url: Url) -> Self {
        Self {
            starting_url,
            page_limit: Self::DEFAULT_PAGE_LIMIT,
            max_depth: None,
            include: PathPatterns::default(),
            exclude: PathPatterns::default(),
        }
    }

    /// Pages of a source that gives no limit: what the dashboard of Chroma Sync proposes.
    pub const DEFAULT_PAGE_LIMIT: u32 = 50;

    /// Whether the patterns let a page with this path be fetched.
    fn takes(&self, path: &str) -> bool {
        (self.include.is_empty() || self.include.matches(path)) && !self.exclude.matches(path)
    }
}

/// What a crawl leaves for the next one about a page that became a document, or would have but for a
/// duplicate. The next crawl asks for it only if it changed, and tells whether it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPage {
    /// Its document key.
    pub url: String,
    /// The URL that it was read from, which differs where the page names another one as its own.
    pub fetched_from: String,
    /// `ETag` of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// `Last-Modified` of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
    /// SHA-256 of its document, 64 lowercase hexadecimal digits.
    pub version_key: String,
    /// Where it leads within the site. Without them a page that may lead on is asked for as a whole, since
    /// an answer that it did not change would not say where to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Arc<[Arc<str>]>>,
    /// [`CONVERTER_VERSION`](crate::parse::html::CONVERTER_VERSION) that its document was made with. A page
    /// of another one is asked for as a whole.
    #[serde(default)]
    pub converter: u32,
}

/// What happens while a crawl runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrawlProgress {
    /// Numbers so far.
    Pages {
        /// URLs that were answered or given up.
        fetched: u32,
        /// URLs that were found, those included.
        discovered: u32,
    },
    /// The site asked to wait, or failed and will be asked again. The next `Pages` tells that it goes on.
    Waiting {
        /// When the next request is sent.
        until: jiff::Timestamp,
    },
}

/// Is told of the progress. It must not block.
pub type Report = Arc<dyn Fn(CrawlProgress) + Send + Sync>;

/// Crawls a site. `previous` is what [`Crawl::known_pages`] gave after the last crawl by the same plan; none
/// makes every page count as new.
///
/// # Errors
/// See [`CrawlError`]. A page that cannot be had is an entry of the listing, unless it is the start page; a
/// site that fails ten pages in a row fails the crawl.
pub async fn crawl(
    options: &CrawlOptions,
    plan: &CrawlPlan,
    previous: Vec<KnownPage>,
    report: Report,
    cancel: &CancellationToken,
) -> Result<Crawl, CrawlError> {
    let crawling = crawler::run(options.clone(), plan, previous, report);
    cancel
        .run_until_cancelled(crawling)
        .await
        .unwrap_or(Err(CrawlError::Cancelled))
}
