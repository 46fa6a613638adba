//! The pages of a web site.

use std::{collections::HashMap, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{Coverage, Fetched, Memory};
use crate::{
    domain::{
        invocation::{Failure, Phase, Wait},
        source::WebScrapeSource,
        time::Timestamp,
    },
    fetch::{
        Content, DocumentReader, Entry, Listed, LoadError, LoadedDocument, Reading,
        web::{CrawlError, CrawlPlan, CrawlProgress, CrawlReader, KnownPage, Page, PageDecision, crawl},
    },
    store::Claim,
    worker::{
        Environment,
        failure::AttemptError,
        lease_guard::Lease,
        pipeline::{ledger, load_stage::Labels, prepare::Source},
        progress::{ProgressHandle, Stage},
    },
};

/// Pages that wait to be cut. They lie on the disk.
const PAGES_AHEAD: usize = 4;
/// What the metadata of a page's records calls its URL and its title.
const URL: &str = "url";
const TITLE: &str = "title";

/// Crawls the site. What the ledger remembers of its pages makes the requests conditional.
pub(super) async fn list(
    environment: &Environment,
    claim: &Claim,
    lease: &Lease,
    progress: &ProgressHandle,
    site: &WebScrapeSource,
    memory: Memory,
) -> Result<Fetched, AttemptError> {
    let previous = match memory {
        Memory::Kept => known_pages(environment, claim).await?,
        Memory::Dropped => Vec::new(),
    };
    let plan = CrawlPlan {
        starting_url: site.starting_url.as_url().clone(),
        page_limit: site.page_limit.unwrap_or(CrawlPlan::DEFAULT_PAGE_LIMIT),
        max_depth: site.max_depth,
        include: site.include_paths.clone().unwrap_or_default(),
        exclude: site.exclude_paths.clone().unwrap_or_default(),
    };
    let told = progress.clone();
    let report = Arc::new(move |latest: CrawlProgress| match latest {
        CrawlProgress::Pages { discovered, .. } => {
            told.enter(Phase::Fetching);
            told.count(|statistics| statistics.documents_discovered = u64::from(discovered));
        }
        CrawlProgress::Waiting { until } => told.wait(Wait {
            until: Timestamp(until.as_millisecond()),
            cause: "the site asked to wait, or did not answer".to_owned(),
        }),
    });
    let start = Instant::now();
    let crawled = crawl(&environment.web, &plan, previous, report, lease.lost()).await;
    progress.time(Stage::Fetch, start);
    progress.enter(Phase::Fetching);
    let crawled = crawled?;
    if let Some(cause) = &crawled.ended_early {
        tracing::warn!(invocation.id = %claim.invocation.id, cause, "a crawl ended before it had seen all");
    }
    let memos: HashMap<String, KnownPage> = crawled
        .known_pages()
        .into_iter()
        .map(|page| (page.url.clone(), page))
        .collect();
    let pages = Arc::clone(crawled.pages());
    let entries: Vec<Entry> = pages.iter().map(|page| entry(page, &memos)).collect();
    Ok(Fetched {
        source: Source {
            entries: entries.into(),
            reader: Arc::new(SiteDocuments {
                reader: crawled.reader(),
                by_url: (0..)
                    .zip(pages.iter())
                    .map(|(at, page)| (page.url.clone(), at))
                    .collect(),
                pages,
            }),
        },
        coverage: Coverage::Source {
            whole: crawled.ended_early.is_none(),
        },
        labels: Labels::default(),
    })
}

/// The pages that this source left in the collection.
async fn known_pages(environment: &Environment, claim: &Claim) -> Result<Vec<KnownPage>, AttemptError> {
    let Some(mut owned) = ledger::owned(&environment.store, claim) else {
        return Ok(Vec::new());
    };
    let mut known = Vec::new();
    while let Some(page) = owned.next_page().await? {
        // A memo of another release is as good as none.
        let memos = page.into_iter().filter_map(|document| document.memo);
        known.extend(memos.filter_map(|memo| serde_json::from_str::<KnownPage>(&memo).ok()));
    }
    Ok(known)
}

fn entry(page: &Page, memos: &HashMap<String, KnownPage>) -> Entry {
    Entry {
        document_key: page.url.clone(),
        version_key: page.version_key.clone(),
        size_bytes: page.size_bytes,
        decision: match &page.decision {
            PageDecision::Load => Listed::Load,
            PageDecision::Unchanged => Listed::Unchanged,
            PageDecision::Skip(rule) => Listed::Skip(*rule),
            PageDecision::Failed(reason) => Listed::Failed(reason.clone()),
        },
        memo: memos
            .get(&page.url)
            .and_then(|page| serde_json::to_string(page).ok()),
    }
}

#[derive(Debug)]
struct SiteDocuments {
    reader: CrawlReader,
    pages: Arc<[Page]>,
    by_url: HashMap<String, usize>,
}

impl DocumentReader for SiteDocuments {
    fn reading(&self) -> Reading {
        Reading {
            concurrency: PAGES_AHEAD,
            parses: true,
            fails_without_text: false,
        }
    }

    fn load<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Result<LoadedDocument, LoadError>> {
        async move {
            let page = self
                .by_url
                .get(&entry.document_key)
                .and_then(|at| self.pages.get(*at));
            let (Some(page), Some(bytes)) = (
                page,
                match page {
                    Some(page) => self.reader.load(page).await.map_err(load_error)?,
                    None => None,
                },
            ) else {
                return Err(LoadError {
                    failure: Failure {
                        reason: "INTERNAL".to_owned(),
                        message: "the crawl kept no document of this page".to_owned(),
                    },
                    transient: false,
                    retry_after: None,
                    source: None,
                });
            };
            let mut metadata = Map::new();
            metadata.insert(URL.to_owned(), Value::String(page.url.clone()));
            if let Some(title) = &page.title {
                metadata.insert(TITLE.to_owned(), Value::String(title.clone()));
            }
            Ok(LoadedDocument {
                content: Content::Memory(bytes),
                media_type: page.media_type.map(str::to_owned),
                metadata,
            })
        }
        .boxed()
    }
}

fn load_error(error: CrawlError) -> LoadError {
    LoadError {
        failure: error.failure(),
        transient: error.is_transient(),
        retry_after: error.retry_after(),
        source: Some(error.into()),
    }
}
