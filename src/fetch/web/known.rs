//! What the last crawl left, by what it is looked up with.

use std::{collections::HashMap, sync::Arc};

use url::Url;

use super::{KnownPage, requests::Validators};
use crate::parse::html::CONVERTER_VERSION;

/// What the last crawl left.
pub(super) struct Known {
    /// By the URL that a page was read from.
    pub(super) by_address: HashMap<String, Arc<KnownPage>>,
    /// By document key.
    pub(super) by_key: HashMap<String, Arc<KnownPage>>,
}

impl Known {
    pub(super) fn new(pages: Vec<KnownPage>) -> Self {
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

    /// What to send with a question for `url`. Nothing where its links are needed and not known, or where it would
    /// become another document today: a page that did not change is not sent again.
    pub(super) fn validators(&self, url: &Url, needs_links: bool) -> Validators {
        let page = self.by_address.get(url.as_str());
        page.filter(|page| page.converter == CONVERTER_VERSION && (!needs_links || page.links.is_some()))
            .map(|page| Validators {
                etag: page.etag.clone(),
                last_modified: page.last_modified.clone(),
            })
            .unwrap_or_default()
    }
}
