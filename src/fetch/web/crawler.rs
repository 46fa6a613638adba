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
    listing::{Crawl, Page, PageDecision, storage},
    requests::{Requests, Validators},
    robots::Robots,
    spool::Spool,
    start::{self, Begun},
    visit::{Outcome, Visited, visit},
};
use crate::domain::document::SkipRule;

/// A site that does not answer so many pages in a row does not answer.
const MAX_FAILURES_IN_A_ROW: u32 = 10;
/// The most links of a page that are kept for the next crawl. A page with more is asked for as a whole.
const MAX_KEPT_LINKS: usize = 2_000;

/// A URL that is to be asked for.
#[derive(Debug, Clone)]
struct Task {
    url: Url,
    /// Links away from the start page.
    depth: u32,
    /// Redirects that led here.
    hops: usize,
    /// The URL that the first of them came from.
    origin: Option<Url>,
    /// Whether its links are followed, as far as the depth allows.
    follow: bool,
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
        pages: Vec::new(),
        by_key: HashMap::new(),
        by_version: HashMap::new(),
        documents: 0,
        spooled: 0,
        fetched: 0,
        failures_in_a_row: 0,
        incomplete: false,
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

/// What the last crawl left.
struct Known {
    by_address: HashMap<String, Arc<KnownPage>>,
    by_key: HashMap<String, Arc<KnownPage>>,
}

impl Known {
    fn new(pages: Vec<KnownPage>) -> Self {
        let pages: Vec<Arc<KnownPage>> = pages.into_iter().map(Arc::new).collect();
        let by = |key: fn(&KnownPage) -> &String| {
            let pages = pages.iter().map(|page| (key(page).clone(), Arc::clone(page)));
            pages.collect()
        };
        Self {
            by_address: by(|page| &page.fetched_from),
            by_key: by(|page| &page.url),
        }
    }

    /// What to send with a question for `url`. Nothing where links are `needed` and not known, since a page
    /// that did not change is not sent again.
    fn validators(&self, url: &Url, needs_links: bool) -> Validators {
        let page = self.by_address.get(url.as_str());
        page.filter(|page| !needs_links || page.links.is_some())
            .map(|page| Validators {
                etag: page.etag.clone(),
                last_modified: page.last_modified.clone(),
            })
            .unwrap_or_default()
    }
}

/// A crawl that is under way.
struct Crawler<'a> {
    plan: &'a CrawlPlan,
    /// Documents that it ends with.
    limit: usize,
    requests: Arc<Requests>,
    site: Site,
    robots: Robots,
    known: Known,
    spool: Arc<Spool>,
    deadline: Instant,
    queue: VecDeque<Task>,
    /// All URLs found, whatever became of them.
    seen: HashSet<String>,
    pages: Vec<Page>,
    /// Places in `pages`.
    by_key: HashMap<String, usize>,
    by_version: HashMap<String, usize>,
    documents: usize,
    spooled: u64,
    fetched: u32,
    failures_in_a_row: u32,
    /// Whether links may have been missed.
    incomplete: bool,
    ended_early: Option<String>,
}

impl Crawler<'_> {
    fn is_full(&self) -> bool {
        self.documents >= self.limit
    }

    /// Asks and takes until nothing is left, the limit is reached, or a bound.
    async fn work(&mut self) -> Result<(), CrawlError> {
        let mut under_way = FuturesOrdered::new();
        loop {
            let missing = self.limit.saturating_sub(self.documents);
            let most = self.requests.options.parallel.max(1).min(missing);
            while under_way.len() < most && self.ended_early.is_none() {
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
                Ok(Some((task, outcome))) if !self.is_full() => self.take(task, outcome).await?,
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(_elapsed) => {
                    let seconds = self.requests.options.crawl_timeout.as_secs();
                    self.end_early(format!(
                        "the crawl ended after {seconds} seconds (web.crawl_timeout_seconds)"
                    ));
                    return Ok(());
                }
            }
        }
    }

    fn goes_deeper(&self, task: &Task) -> bool {
        self.plan.max_depth.is_none_or(|most| task.depth < most)
    }

    fn end_early(&mut self, why: String) {
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
        match target {
            None => self.list(skip(SkipRule::OffSite)),
            Some(target) if !self.site.contains(&target) => self.list(skip(SkipRule::OffSite)),
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

    async fn take_document(&mut self, task: &Task, visited: Visited) -> Result<(), CrawlError> {
        let obeys = self.requests.options.obey_robots;
        let links = if obeys && visited.robots.nofollow {
            &[][..]
        } else {
            &visited.links
        };
        let links = self.own_links(links);
        self.follow(task, &links);
        // The start page is read for its links even where the patterns leave it out.
        if !self.plan.takes(task.url.path()) {
            return Ok(());
        }
        if obeys && visited.robots.noindex {
            self.list(Page::bare(
                task.url.as_str(),
                PageDecision::Skip(SkipRule::NoIndex),
            ));
            return Ok(());
        }
        if visited.content.trim_ascii().is_empty() {
            self.list(Page::bare(task.url.as_str(), PageDecision::Skip(SkipRule::Empty)));
            return Ok(());
        }
        let key = self.key_of(&task.url, visited.canonical.as_ref(), &visited.version_key);
        let mut page = Page {
            version_key: visited.version_key,
            media_type: Some(visited.kind.media_type()),
            title: visited.title,
            fetched_from: task.url.to_string(),
            etag: visited.validators.etag,
            last_modified: visited.validators.last_modified,
            links: (links.len() <= MAX_KEPT_LINKS).then(|| links.into()),
            ..Page::bare(&key, PageDecision::Load)
        };
        if self.is_duplicate(&page) {
            return Ok(());
        }
        let known = self.known.by_key.get(&key);
        if known.is_some_and(|known| known.version_key == page.version_key) {
            page.decision = PageDecision::Unchanged;
        } else {
            let length = visited.content.len() as u64;
            if self.spooled + length > self.requests.options.max_crawl_bytes {
                let most = self.requests.options.max_crawl_bytes;
                let why = format!(
                    "the crawl ended because its documents take more than {most} bytes (web.max_crawl_bytes)"
                );
                self.list(Page::bare(&key, PageDecision::Failed(why.clone())));
                self.end_early(why);
                return Ok(());
            }
            let place = self.spool.write(self.spooled, visited.content).await;
            let place = place.map_err(|error| storage("write to", error))?;
            self.spooled += length;
            page.size_bytes = Some(place.length());
            page.place = Some(place);
        }
        self.list_document(page);
        Ok(())
    }

    /// Takes the word of the site that a page is as the last crawl left it.
    fn take_unchanged(&mut self, task: &Task) {
        let Some(known) = self.known.by_address.get(task.url.as_str()).map(Arc::clone) else {
            return self.fail(
                task,
                "the site answered 304 to a question that allows no such answer".to_owned(),
            );
        };
        if let Some(links) = &known.links {
            self.follow(task, links);
        }
        if !self.plan.takes(task.url.path()) {
            return;
        }
        let url: Option<Url> = known.url.parse().ok();
        let key = self.key_of(&task.url, url.as_ref(), &known.version_key);
        let page = Page {
            version_key: known.version_key.clone(),
            fetched_from: known.fetched_from.clone(),
            etag: known.etag.clone(),
            last_modified: known.last_modified.clone(),
            links: known.links.clone(),
            ..Page::bare(&key, PageDecision::Unchanged)
        };
        if key != known.url {
            // Another page has its name by now, and its document was not sent.
            return self.fail(
                task,
                "another page took its place; the next sync reads it anew".to_owned(),
            );
        }
        if !self.is_duplicate(&page) {
            self.list_document(page);
        }
    }

    /// Links into the site, each once.
    fn own_links(&self, links: &[Url]) -> Vec<Arc<str>> {
        let mut seen = HashSet::new();
        let own = links
            .iter()
            .filter_map(address::normalise)
            .filter(|url| self.site.contains(url));
        own.filter(|url| seen.insert(url.clone()))
            .map(|url| Arc::from(url.as_str()))
            .collect()
    }

    fn follow(&mut self, task: &Task, links: &[Arc<str>]) {
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

    /// The document key: the URL that the page names as canonical, if that is one of the site which has no
    /// other document, else its own.
    fn key_of(&mut self, url: &Url, canonical: Option<&Url>, version: &str) -> String {
        let canonical = canonical.and_then(address::normalise).filter(|canonical| {
            canonical != url
                && self.site.contains(canonical)
                && self.plan.takes(canonical.path())
                && self.robots.allows(canonical)
        });
        if let Some(canonical) = canonical {
            let taken = self
                .by_key
                .get(canonical.as_str())
                .and_then(|index| self.pages.get(*index));
            if taken.is_none_or(|page| page.version_key == version) {
                return canonical.into();
            }
        }
        self.reclaim(url, version);
        url.to_string()
    }

    /// Gives a URL back to its own page, where another one with other content had named it as canonical.
    fn reclaim(&mut self, url: &Url, version: &str) {
        let Some(index) = self.by_key.get(url.as_str()).copied() else {
            return;
        };
        let Some(page) = self.pages.get_mut(index) else {
            return;
        };
        if page.version_key == version || page.fetched_from == page.url {
            return;
        }
        if page.decision == PageDecision::Unchanged {
            page.decision =
                PageDecision::Failed("another page took its place; the next sync reads it anew".to_owned());
            page.version_key.clear();
            self.documents = self.documents.saturating_sub(1);
        }
        page.url.clone_from(&page.fetched_from);
        let key = page.url.clone();
        self.by_key.remove(url.as_str());
        self.by_key.insert(key, index);
    }

    /// Whether another page has this content already; then the page is listed as its duplicate.
    fn is_duplicate(&mut self, page: &Page) -> bool {
        let Some(first) = self
            .by_version
            .get(&page.version_key)
            .and_then(|index| self.pages.get(*index))
        else {
            return false;
        };
        // Two URLs that name the same one as canonical are one page.
        if first.url != page.url {
            self.list(Page::bare(
                &page.fetched_from,
                PageDecision::Skip(SkipRule::Duplicate),
            ));
        }
        true
    }

    fn list_document(&mut self, page: Page) {
        self.by_version.insert(page.version_key.clone(), self.pages.len());
        self.documents += 1;
        self.list(page);
    }

    /// Adds an entry, unless there is one of this key.
    fn list(&mut self, page: Page) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.by_key.entry(page.url.clone()) {
            entry.insert(self.pages.len());
            self.pages.push(page);
        }
    }

    /// Lists a page that could not be had. Its links are those that it had.
    fn fail(&mut self, task: &Task, problem: String) {
        let known = self.known.by_address.get(task.url.as_str()).map(Arc::clone);
        match known.as_ref().and_then(|known| known.links.as_ref()) {
            Some(links) => self.follow(task, links),
            None => self.incomplete = true,
        }
        let key = known.map_or_else(|| task.url.to_string(), |known| known.url.clone());
        self.list(Page {
            fetched_from: task.url.to_string(),
            ..Page::bare(&key, PageDecision::Failed(problem))
        });
    }

    /// Pages of the last crawl that this one did not come by, in the order of their keys.
    fn rest(&self) -> Vec<Arc<KnownPage>> {
        let missed = self.known.by_address.values().filter(|known| {
            !self.by_key.contains_key(&known.url) && !self.seen.contains(&known.fetched_from)
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
            }
        } else if self.incomplete && !self.is_full() && self.seen.len() >= self.requests.options.max_urls {
            let most = self.requests.options.max_urls;
            self.ended_early = Some(format!(
                "the site has more than {most} URLs; the others were left out (web.max_urls)"
            ));
        }
        Crawl {
            pages: self.pages.into(),
            spool: self.spool,
            ended_early: self.ended_early,
        }
    }
}
