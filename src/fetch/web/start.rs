//! What a crawl asks for before it follows links: robots.txt, the start page, sitemaps.

use std::collections::{HashSet, VecDeque};

use reqwest::{StatusCode, header::HeaderMap};
use url::Url;

use super::{
    address::{self, Site, is_same_owner},
    error::CrawlError,
    requests::{Body, Fault, Requests, Validators},
    robots::{self, Robots},
    sitemap::Sitemap,
    visit::{Outcome, visit},
};

/// Redirects followed for robots.txt and sitemaps (RFC 9309 asks for at least five).
const MAX_REDIRECTS: usize = 5;
/// The most sitemaps that are read.
const MAX_SITEMAPS: usize = 50;
/// How much of a sitemap is read, in bytes, compressed and not.
const MAX_SITEMAP_BYTES: usize = 16 << 20;

/// The site, and what its start page answered.
pub(super) struct Begun {
    pub(super) site: Site,
    pub(super) robots: Robots,
    /// The start page after redirects.
    pub(super) url: Url,
    pub(super) outcome: Outcome,
}

/// Fetches robots.txt and the start page, and follows its redirects as long as they stay with its owner:
/// they decide which site is crawled.
pub(super) async fn begin(
    requests: &Requests,
    starting_url: &Url,
    validators: impl Fn(&Url) -> Validators,
) -> Result<Begun, CrawlError> {
    let unusable = |problem: String| CrawlError::StartUnusable {
        url: starting_url.to_string(),
        problem,
    };
    let mut url = address::normalise(starting_url)
        .ok_or_else(|| unusable("it must be an http or https URL of at most 2048 bytes".to_owned()))?;
    let mut site = Site::of(&url);
    let mut robots = read_robots(requests, &url).await?;
    for _ in 0..=requests.options.max_redirects {
        if !site.contains(&url) {
            site = Site::of(&url);
            robots = read_robots(requests, &url).await?;
        }
        if !robots.allows(&url) {
            let host = url.host_str().unwrap_or_default().to_owned();
            return Err(CrawlError::RobotsDisallow {
                host,
                url: url.into(),
            });
        }
        let outcome = visit(requests, &url, &validators(&url)).await;
        match outcome {
            Outcome::Redirect(None) => {
                return Err(unusable("it redirects to something that is no page".to_owned()));
            }
            Outcome::Redirect(Some(target)) if is_same_owner(&url, &target) => url = target,
            Outcome::Redirect(Some(target)) => {
                return Err(CrawlError::StartElsewhere {
                    url: starting_url.to_string(),
                    target: target.into(),
                });
            }
            Outcome::Gone(status) => {
                return Err(CrawlError::StartNotFound {
                    url: url.into(),
                    status: status.as_u16(),
                });
            }
            Outcome::Refused(status) => {
                return Err(CrawlError::StartRefused {
                    url: url.into(),
                    status: status.as_u16(),
                });
            }
            Outcome::Egress(refusal) => return Err(failed(&url, "", Fault::Egress(refusal))),
            Outcome::Fault(cause) => return Err(failed(&url, "", Fault::Internal(cause))),
            Outcome::Unanswered {
                problem,
                retry_after,
                source,
            } => {
                return Err(failed(
                    &url,
                    "",
                    Fault::Transient {
                        problem,
                        retry_after,
                        source,
                    },
                ));
            }
            outcome @ (Outcome::Document(_)
            | Outcome::NotModified
            | Outcome::Skip(_)
            | Outcome::Failed(_)) => {
                return Ok(Begun {
                    site,
                    robots,
                    url,
                    outcome,
                });
            }
        }
    }
    let most = requests.options.max_redirects;
    Err(unusable(format!(
        "it redirects more than {most} times (web.max_redirects)"
    )))
}

/// The fault of a request that nothing can go on without. `what` begins the problem.
fn failed(url: &Url, what: &str, fault: Fault) -> CrawlError {
    match fault {
        Fault::Egress(refusal) => CrawlError::EgressForbidden {
            url: url.to_string(),
            refusal,
        },
        Fault::Internal(source) => CrawlError::Internal { source },
        Fault::Transient {
            problem,
            retry_after,
            source,
        } => CrawlError::Network {
            host: url.host_str().unwrap_or_default().to_owned(),
            problem: format!("{what}{problem}"),
            retry_after,
            source,
        },
    }
}

/// robots.txt of the site of `url`. Without one everything is allowed; while it cannot be had, nothing.
async fn read_robots(requests: &Requests, url: &Url) -> Result<Robots, CrawlError> {
    if !requests.options.obey_robots {
        return Ok(Robots::default());
    }
    let Ok(place) = url.join("/robots.txt") else {
        return Ok(Robots::default());
    };
    let file = get_following(requests, &place, robots::MAX_BYTES).await;
    let bytes = file.map_err(|fault| failed(url, "its robots.txt cannot be read: ", fault))?;
    let robots = bytes.map(|bytes| Robots::parse(&bytes, requests.options.token()));
    Ok(robots.unwrap_or_default())
}

/// The first `max_bytes` of a file, after redirects to wherever the policy allows; none where there is none.
async fn get_following(requests: &Requests, url: &Url, max_bytes: usize) -> Result<Option<Vec<u8>>, Fault> {
    let mut url = url.clone();
    let wants = |status: StatusCode, _: &HeaderMap| status.is_success();
    for _ in 0..=MAX_REDIRECTS {
        let answer = requests
            .get(&url, &Validators::default(), max_bytes, wants)
            .await?;
        match answer.redirect(&url) {
            Some(next) => url = next,
            None => {
                return Ok(answer.body.map(|body| match body {
                    Body::Whole(bytes) | Body::TooLarge(bytes) => bytes,
                }));
            }
        }
    }
    Ok(None)
}

/// Pages of the site that its sitemaps list, at most `max_urls`, and whether all sitemaps could be read.
///
/// They are those that robots.txt names, else `/sitemap.xml`.
pub(super) async fn sitemap_pages(
    requests: &Requests,
    site: &Site,
    start: &Url,
    robots: &Robots,
    max_urls: usize,
) -> (Vec<Url>, bool) {
    let own = |text: &str| site.own(&start.join(text).ok()?);
    let mut queue: VecDeque<Url> = robots.sitemaps.iter().filter_map(|text| own(text)).collect();
    if robots.sitemaps.is_empty() {
        queue.extend(own("/sitemap.xml"));
    }
    let mut seen: HashSet<Url> = queue.iter().cloned().collect();
    let (mut pages, mut complete, mut read) = (Vec::new(), true, 0);
    while let Some(url) = queue.pop_front() {
        if read == MAX_SITEMAPS || pages.len() >= max_urls {
            break;
        }
        read += 1;
        let bytes = match get_following(requests, &url, MAX_SITEMAP_BYTES).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(fault) => {
                tracing::info!(%url, ?fault, "a sitemap cannot be read");
                complete = false;
                continue;
            }
        };
        let left = max_urls - pages.len();
        let parsing = tokio::task::spawn_blocking(move || Sitemap::parse(&bytes, MAX_SITEMAP_BYTES, left));
        let Ok(sitemap) = parsing.await else {
            complete = false;
            continue;
        };
        pages.extend(sitemap.pages.iter().filter_map(|text| own(text)));
        for url in sitemap.sitemaps.iter().filter_map(|text| own(text)) {
            if seen.insert(url.clone()) {
                queue.push_back(url);
            }
        }
    }
    (pages, complete)
}
