//! Crawling sites that a real nginx serves.

mod addresses;
mod documents;
mod manners;
mod pages;
mod resync;
mod scope;

use std::sync::{Arc, Mutex};

use chroma_sync::{
    domain::path_patterns::PathPatterns,
    fetch::{
        Egress,
        web::{Crawl, CrawlError, CrawlOptions, CrawlPlan, CrawlProgress, KnownPage, PageDecision, crawl},
    },
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::harness::site::Site;

/// A site, a directory for crawls, and the options that join them: loopback is allowed and nothing waits.
struct Crawler {
    site: Site,
    scratch: tempfile::TempDir,
    options: CrawlOptions,
    progress: Arc<Mutex<Vec<CrawlProgress>>>,
}

impl Crawler {
    fn new(files: &[(&str, &str)]) -> Self {
        Self::of(Site::start(files))
    }

    /// With lines in the sections `http` and `server` of nginx's configuration.
    fn with(files: &[(&str, &str)], http: &str, server: &str) -> Self {
        Self::of(Site::with(files, http, server))
    }

    fn of(site: Site) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut options = CrawlOptions::new(scratch.path().to_owned());
        options.egress = Egress::parse(&[format!("127.0.0.1:{}", site.port)]).unwrap();
        options.delay = Duration::ZERO;
        options.backoff = Duration::from_millis(5);
        options.max_wait = Duration::from_secs(10);
        Self {
            site,
            scratch,
            options,
            progress: Arc::default(),
        }
    }

    fn plan(&self, path: &str) -> CrawlPlan {
        CrawlPlan::new(self.site.url(path))
    }

    async fn crawl(&self, plan: &CrawlPlan) -> Result<Crawl, CrawlError> {
        self.crawl_again(plan, Vec::new()).await
    }

    async fn crawl_again(&self, plan: &CrawlPlan, previous: Vec<KnownPage>) -> Result<Crawl, CrawlError> {
        let progress = Arc::clone(&self.progress);
        let report = Arc::new(move |seen| progress.lock().unwrap().push(seen));
        crawl(&self.options, plan, previous, report, &CancellationToken::new()).await
    }

    /// Crawls from `/` by the plan that only says so.
    async fn all(&self) -> Crawl {
        self.crawl(&self.plan("/")).await.unwrap()
    }

    fn leftovers(&self) -> usize {
        std::fs::read_dir(self.scratch.path()).unwrap().count()
    }
}

/// Paths with what became of each, in the order of the listing: `load`, `unchanged`, `failed: WHY` or a rule.
fn listing(crawl: &Crawl) -> Vec<(String, String)> {
    let pages = crawl.pages().iter().map(|page| {
        let url: url::Url = page.url.parse().unwrap();
        let path = url.query().map_or_else(
            || url.path().to_owned(),
            |query| format!("{}?{query}", url.path()),
        );
        let decision = match &page.decision {
            PageDecision::Load => "load".to_owned(),
            PageDecision::Unchanged => "unchanged".to_owned(),
            PageDecision::Skip(rule) => rule.as_str().to_owned(),
            PageDecision::Failed(problem) => format!("failed: {problem}"),
        };
        (path, decision)
    });
    pages.collect()
}

fn assert_listing(crawl: &Crawl, wanted: &[(&str, &str)]) {
    let listing = listing(crawl);
    let listing: Vec<(&str, &str)> = listing
        .iter()
        .map(|(path, decision)| (path.as_str(), decision.as_str()))
        .collect();
    assert_eq!(listing, wanted);
}

/// The document of the page at `path`.
async fn document(crawl: &Crawl, path: &str) -> String {
    let page = crawl
        .pages()
        .iter()
        .find(|page| page.url.ends_with(path))
        .unwrap();
    let content = crawl.reader().load(page).await.unwrap().unwrap();
    assert_eq!(page.size_bytes, Some(content.len() as u64));
    String::from_utf8(content).unwrap()
}

/// A page with a heading and links.
fn page(title: &str, links: &[&str]) -> String {
    let links: String = links
        .iter()
        .map(|link| format!("<li><a href='{link}'>{link}</a></li>"))
        .collect();
    format!(
        "<!doctype html><title>{title}</title><main><h1>{title}</h1><p>About {title}.</p></main><nav>{links}</nav>"
    )
}

fn patterns(patterns: &[&str]) -> PathPatterns {
    let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    PathPatterns::parse("patterns", &patterns).unwrap()
}
