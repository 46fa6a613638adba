//! The crawl itself: which URLs are asked for, and what becomes of what they answer.
//!
//! Answers come in any order and are taken in that of the questions, so a crawl of the same site decides
//! the same. No more questions are under way than documents are missing, so none is asked for nothing.
//!
//! Invariant: a page that may still be there is never missing from the listing. Where pages failed, or
//! the crawl gave up at one of its bounds, the pages of the last crawl that it did not come by are asked
//! for themselves, or listed as failed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use futures::{StreamExt, stream::FuturesOrdered};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{
    CrawlOptions, CrawlPlan, CrawlProgress, KnownPage, Report,
    address::{self, Site},
    error::CrawlError,
    known::Known,
    listing::{Crawl, Page, PageDecision, storage},
    requests::Requests,
    robots::Robots,
    spool::Spool,
    start::{self, Begun},
    visit::{Outcome, visit},
};
use crate::domain::document::SkipRule;

/// A site that does not answer so many pages in a row does not answer.
const MAX_FAILURES_IN_A_ROW: u32 = 10;

/// A URL that is to be asked for.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) url: Url,
    /// Links away from the start page.
    pub(super) depth: u32,
    /// Redirects that led here.
    pub(super) hops: usize,
    /// The URL that the first of them came from.
    pub(super) origin: Option<Url>,
    /// Whether its links are followed, as far as the depth allows.
    pub(super) follow: bool,
}

/// Runs a crawl from front to back.
pub(super) async fn run(
    options: CrawlOptions,
    plan: &CrawlPlan,
    previous: Vec<KnownPage>,
    report: Report,
) -> Result<Crawl, CrawlError> {
    let deadline = Instant::now() + options.crawl_timeout;
    let directory = options.directory.clone();
    let spool = tokio::task::spawn_blocking(move || Spool::create(&directory))
        .await
        .map_err(|error| CrawlError::Internal { source: error.into() })?
        .map_err(|error| storage("write to", error))?;
    let known = Known::new(previous);
    let only_start = plan.max_depth == Some(0);
    let requests = Arc::new(Requests::new(options, report));
    let begun = start::begin(&requests, &plan.starting_url, |url| {
        known.validators(url, !only_start)
    })
    .await?;
    let Begun {
        site,
        robots,
        url,
        outcome,
    } = begun;
    requests.slow_down(robots.crawl_delay.unwrap_or_default());

    let limit = plan.page_limit.min(requests.options.max_pages).max(1);
    let mut crawler = Crawler {
        plan,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        requests,
        site,
        robots,
        known,
        spool,
        deadline,
        queue: VecDeque::new(),
        seen: HashSet::new(),
        taken: HashSet::new(),
        pages: Vec::new(),
        by_key: HashMap::new(),
        by_version: HashMap::new(),
        documents: 0,
        spooled: 0,
        fetched: 0,
        failures_in_a_row: 0,
        incomplete: false,
        kept: Vec::new(),
        ended_early: None,
    };
    crawler.seen.insert(url.to_string());
    let task = Task {
        url: url.clone(),
        depth: 0,
        hops: 0,
        origin: None,
        follow: true,
    };
    crawler.take(task, outcome).await?;
    if !only_start && !crawler.is_full() {
        crawler.add_sitemaps(&url).await;
    }
    crawler.work().await?;
    crawler.look_for_the_rest().await?;
    Ok(crawler.finish())
}

/// A crawl that is under way.
pub(super) struct Crawler<'a> {
    pub(super) plan: &'a CrawlPlan,
    /// Documents that it ends with.
    pub(super) limit: usize,
    pub(super) requests: Arc<Requests>,
    pub(super) site: Site,
    pub(super) robots: Robots,
    pub(super) known: Known,
    pub(super) spool: Arc<Spool>,
    pub(super) deadline: Instant,
    pub(super) queue: VecDeque<Task>,
    /// All URLs found, whatever became of them.
    pub(super) seen: HashSet<String>,
    /// Those of them whose answers were decided on.
    pub(super) taken: HashSet<String>,
    pub(super) pages: Vec<Page>,
    /// Places in `pages`.
    pub(super) by_key: HashMap<String, usize>,
    pub(super) by_version: HashMap<String, usize>,
    pub(super) documents: usize,
    pub(super) spooled: u64,
    pub(super) fetched: u32,
    pub(super) failures_in_a_row: u32,
    /// Whether links may have been missed.
    pub(super) incomplete: bool,
    /// What is known of pages that failed, for the next crawl.
    pub(super) kept: Vec<KnownPage>,
    pub(super) ended_early: Option<String>,
}

impl Crawler<'_> {
    pub(super) fn is_full(&self) -> bool {
        self.documents >= self.limit
    }

    /// Asks and takes until nothing is left, the limit is reached, or a bound.
    async fn work(&mut self) -> Result<(), CrawlError> {
        let mut under_way = FuturesOrdered::new();
        loop {
            let missing = self.limit.saturating_sub(self.documents);
            let most = self.requests.options.parallel.max(1).min(missing);
            while under_way.len() < most {
                let Some(task) = self.queue.pop_front() else {
                    break;
                };
                let requests = Arc::clone(&self.requests);
                let validators = self
                    .known
                    .validators(&task.url, task.follow && self.goes_deeper(&task));
                under_way.push_back(async move {
                    let outcome = visit(&requests, &task.url, &validators).await;
                    (task, outcome)
                });
            }
            match timeout_at(self.deadline, under_way.next()).await {
                Ok(Some((task, outcome))) => self.take(task, outcome).await?,
                Ok(None) => return Ok(()),
                Err(_elapsed) => {
                    let seconds = self.requests.options.crawl_timeout.as_secs();
                    self.end_early(format!(
                        "the crawl ended after {seconds} seconds (web.crawl_timeout_seconds)"
                    ));
                }
            }
            if self.ended_early.is_some() {
                // What is under way is given up.
                return Ok(());
            }
        }
    }

    pub(super) fn goes_deeper(&self, task: &Task) -> bool {
        self.plan.max_depth.is_none_or(|most| task.depth < most)
    }

    pub(super) fn end_early(&mut self, why: String) {
        self.ended_early.get_or_insert(why);
        self.queue.clear();
    }

    async fn add_sitemaps(&mut self, start: &Url) {
        let most = self.requests.options.max_urls;
        let reading = start::sitemap_pages(&self.requests, &self.site, start, &self.robots, most);
        let (pages, complete) = timeout_at(self.deadline, reading)
            .await
            .unwrap_or((Vec::new(), false));
        self.incomplete |= !complete;
        for url in pages {
            self.offer(url, 1);
        }
    }

    /// Considers a URL that a page or a sitemap leads to.
    fn offer(&mut self, url: Url, depth: u32) {
        if let Some(task) = self.admit(url, depth) {
            self.queue.push_back(task);
        }
    }

    /// A task for a URL of the site that is new and that nothing forbids.
    fn admit(&mut self, url: Url, depth: u32) -> Option<Task> {
        if !self.site.contains(&url) || self.seen.contains(url.as_str()) || !self.plan.takes(url.path()) {
            return None;
        }
        if self.seen.len() >= self.requests.options.max_urls {
            self.incomplete = true;
            return None;
        }
        self.seen.insert(url.to_string());
        if !self.robots.allows(&url) {
            self.list(Page::bare(url.as_str(), PageDecision::Skip(SkipRule::Robots)));
            return None;
        }
        if address::names_no_page(&url) {
            self.list(Page::bare(url.as_str(), PageDecision::Skip(SkipRule::NotText)));
            return None;
        }
        Some(Task {
            url,
            depth,
            hops: 0,
            origin: None,
            follow: true,
        })
    }

    /// Decides on an answer.
    async fn take(&mut self, task: Task, outcome: Outcome) -> Result<(), CrawlError> {
        self.fetched = self.fetched.saturating_add(1);
        self.taken.insert(task.url.to_string());
        let answered = !matches!(outcome, Outcome::Unanswered { .. });
        self.failures_in_a_row = if answered { 0 } else { self.failures_in_a_row + 1 };
        match outcome {
            Outcome::Document(visited) => self.take_document(&task, *visited).await?,
            Outcome::NotModified => self.take_unchanged(&task),
            Outcome::Redirect(target) => self.take_redirect(task, target),
            Outcome::Gone(_) => {}
            Outcome::Refused(status) => self.fail(&task, format!("the site answered {}", status.as_u16())),
            Outcome::Skip(rule) => self.list(Page::bare(task.url.as_str(), PageDecision::Skip(rule))),
            Outcome::Failed(problem) => self.fail(&task, problem),
            Outcome::Egress(refusal) => self.fail(&task, refusal.to_string()),
            Outcome::Unanswered {
                problem,
                retry_after,
                source,
            } => {
                if self.failures_in_a_row >= MAX_FAILURES_IN_A_ROW {
                    return Err(CrawlError::Network {
                        host: task.url.host_str().unwrap_or_default().to_owned(),
                        problem: format!(
                            "{MAX_FAILURES_IN_A_ROW} pages in a row failed, the last because {problem}"
                        ),
                        retry_after,
                        source,
                    });
                }
                self.fail(&task, problem);
            }
            Outcome::Fault(source) => return Err(CrawlError::Internal { source }),
        }
        (self.requests.report)(CrawlProgress::Pages {
            fetched: self.fetched,
            discovered: u32::try_from(self.seen.len()).unwrap_or(u32::MAX),
        });
        Ok(())
    }

    fn take_redirect(&mut self, task: Task, target: Option<Url>) {
        let most = self.requests.options.max_redirects;
        let origin = task.origin.unwrap_or_else(|| task.url.clone());
        let skip = |rule| Page::bare(origin.as_str(), PageDecision::Skip(rule));
        match target.and_then(|target| self.site.own(&target)) {
            None => self.list(skip(SkipRule::OffSite)),
            Some(_) if task.hops >= most => {
                let problem = format!("it redirects more than {most} times (web.max_redirects)");
                self.list(Page::bare(origin.as_str(), PageDecision::Failed(problem)));
            }
            Some(target) => {
                if let Some(next) = self.admit(target, task.depth) {
                    self.queue.push_front(Task {
                        hops: task.hops + 1,
                        origin: Some(origin),
                        follow: task.follow,
                        ..next
                    });
                }
            }
        }
    }

    /// Links into the site, each once.
    pub(super) fn own_links(&self, links: &[Url]) -> Vec<Arc<str>> {
        let mut seen = HashSet::new();
        links
            .iter()
            .filter_map(|link| self.site.own(link))
            .filter(|url| seen.insert(url.clone()))
            .map(|url| Arc::from(url.as_str()))
            .collect()
    }

    pub(super) fn follow(&mut self, task: &Task, links: &[Arc<str>]) {
        if !task.follow || !self.goes_deeper(task) {
            return;
        }
        for link in links {
            if !self.seen.contains(&**link)
                && let Ok(url) = link.parse()
            {
                self.offer(url, task.depth + 1);
            }
        }
    }

    /// Lists a page that could not be had. Its links are those that it had.
    pub(super) fn fail(&mut self, task: &Task, problem: String) {
        let known = self.known.by_address.get(task.url.as_str()).map(Arc::clone);
        let key = known.as_ref().map_or(task.url.as_str(), |known| &known.url);
        self.list(Page {
            fetched_from: task.url.to_string(),
            ..Page::bare(key, PageDecision::Failed(problem))
        });
        match known.as_ref().and_then(|known| known.links.as_ref()) {
            Some(links) => self.follow(task, links),
            None => self.incomplete = true,
        }
        self.kept.extend(known.as_deref().cloned());
    }

    /// Pages of the last crawl that this one did not come by, in the order of their keys.
    fn rest(&self) -> Vec<Arc<KnownPage>> {
        let missed = self.known.by_address.values().filter(|known| {
            !self.by_key.contains_key(&known.url) && !self.taken.contains(&known.fetched_from)
        });
        let mut missed: Vec<Arc<KnownPage>> = missed.map(Arc::clone).collect();
        missed.sort_by(|one, other| one.url.cmp(&other.url));
        missed
    }

    /// Where links may have been missed, asks for the known pages that no link led to.
    async fn look_for_the_rest(&mut self) -> Result<(), CrawlError> {
        if !self.incomplete || self.is_full() || self.ended_early.is_some() {
            return Ok(());
        }
        for known in self.rest() {
            let Some(url) = known
                .fetched_from
                .parse()
                .ok()
                .and_then(|url| address::normalise(&url))
            else {
                continue;
            };
            if let Some(task) = self.admit(url, 0) {
                self.queue.push_back(Task {
                    follow: false,
                    ..task
                });
            }
        }
        self.work().await
    }

    fn finish(mut self) -> Crawl {
        if let Some(why) = self.ended_early.clone() {
            for known in self.rest() {
                self.list(Page::bare(&known.url, PageDecision::Failed(why.clone())));
                self.kept.push(KnownPage::clone(&known));
            }
        } else if self.incomplete && !self.is_full() && self.seen.len() >= self.requests.options.max_urls {
            let most = self.requests.options.max_urls;
            self.ended_early = Some(format!(
                "the site has more than {most} URLs; the others were left out (web.max_urls)"
            ));
        }
        Crawl {
            pages: self.pages.into(),
            kept: self.kept,
            spool: self.spool,
            ended_early: self.ended_early,
        }
    }
}
