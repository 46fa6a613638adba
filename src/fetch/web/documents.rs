//! Which documents a crawl ends with: by which key, and which are the same.

use std::{collections::hash_map::Entry, sync::Arc};

use url::Url;

use super::{
    KnownPage,
    crawler::{Crawler, Task},
    error::CrawlError,
    listing::{Page, PageDecision, storage},
    visit::Visited,
};
use crate::domain::document::SkipRule;

/// The most links of a page that are kept for the next crawl. A page with more is asked for as a whole.
const MAX_KEPT_LINKS: usize = 2_000;
/// Why a page fails that did not change, so that it has no document here, and can not keep its key.
const DISPLACED: &str = "another page took its place; the next sync reads it anew";

impl Crawler<'_> {
    /// Decides on a document that was read.
    pub(super) async fn take_document(&mut self, task: &Task, visited: Visited) -> Result<(), CrawlError> {
        let obeys = self.requests.options.obey_robots;
        let links = if obeys && visited.robots.nofollow {
            &[][..]
        } else {
            &visited.links
        };
        let links = self.own_links(links);
        self.decide(task, visited, &links).await?;
        self.follow(task, &links);
        Ok(())
    }

    async fn decide(&mut self, task: &Task, visited: Visited, links: &[Arc<str>]) -> Result<(), CrawlError> {
        // The start page is read for its links even where the patterns leave it out.
        if !self.plan.takes(task.url.path()) {
            return Ok(());
        }
        if self.requests.options.obey_robots && visited.robots.noindex {
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
    pub(super) fn take_unchanged(&mut self, task: &Task) {
        let Some(known) = self.known.by_address.get(task.url.as_str()).map(Arc::clone) else {
            return self.fail(
                task,
                "the site answered 304 to a question that allows no such answer".to_owned(),
            );
        };
        self.decide_unchanged(task, &known);
        match &known.links {
            Some(links) => self.follow(task, links),
            // Nobody asked whether it changed, and still the site says so.
            None => self.incomplete |= task.follow && self.goes_deeper(task),
        }
    }

    fn decide_unchanged(&mut self, task: &Task, known: &KnownPage) {
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
            self.list(Page::bare(
                task.url.as_str(),
                PageDecision::Failed(DISPLACED.to_owned()),
            ));
            return;
        }
        if !self.is_duplicate(&page) {
            self.list_document(page);
        }
    }

    /// The document key: the URL that the page names as canonical, if that is one of the site which has no
    /// other document, else its own.
    fn key_of(&mut self, url: &Url, canonical: Option<&Url>, version: &str) -> String {
        let canonical = canonical
            .and_then(|canonical| self.site.own(canonical))
            .filter(|canonical| {
                canonical != url && self.plan.takes(canonical.path()) && self.robots.allows(canonical)
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
            page.decision = PageDecision::Failed(DISPLACED.to_owned());
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
        if self.by_key.contains_key(&page.url) {
            return;
        }
        self.by_version.insert(page.version_key.clone(), self.pages.len());
        self.documents += 1;
        self.list(page);
    }

    /// Adds an entry, unless there is one of this key.
    pub(super) fn list(&mut self, page: Page) {
        if let Entry::Vacant(entry) = self.by_key.entry(page.url.clone()) {
            entry.insert(self.pages.len());
            self.pages.push(page);
        }
    }
}
