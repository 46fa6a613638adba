//! How a crawl treats a site: robots.txt, wishes of pages, delays, and answers that mean "not now".

use std::{sync::Arc, time::Duration};

use super::{Crawler, assert_listing, page};
use chroma_sync::fetch::web::{CrawlError, CrawlProgress, crawl};
use tokio_util::sync::CancellationToken;

fn home_of(links: &[&str]) -> String {
    page("Home", links)
}

#[tokio::test]
async fn pages_that_robots_forbids_are_listed_and_not_asked_for() {
    let home = home_of(&["/private/a.html", "/open.html"]);
    let open = page("Open", &[]);
    let crawler = Crawler::new(&[
        ("index.html", &home),
        ("open.html", &open),
        ("private/a.html", &open),
        (
            "robots.txt",
            "User-agent: *\nDisallow: /\n\nUser-agent: chroma-sync\nDisallow: /private/\n",
        ),
    ]);
    let crawl = crawler.all().await;
    assert_listing(
        &crawl,
        &[
            ("/", "load"),
            ("/private/a.html", "robots"),
            ("/open.html", "load"),
        ],
    );
    assert_eq!(crawler.site.paths().await, ["/", "/open.html"]);
    let agents: Vec<String> = crawler
        .site
        .requests()
        .await
        .into_iter()
        .map(|request| request.user_agent)
        .collect();
    assert!(agents.iter().all(|agent| agent == "chroma-sync"), "{agents:?}");
}

#[tokio::test]
async fn a_start_page_that_robots_forbids_fails_the_crawl_unless_the_operator_says_otherwise() {
    let home = home_of(&[]);
    let mut crawler = Crawler::new(&[
        ("index.html", &home),
        ("robots.txt", "User-agent: *\nDisallow: /\n"),
    ]);
    let error = crawler.crawl(&crawler.plan("/")).await.unwrap_err();
    assert_eq!(error.reason(), "ROBOTS_DISALLOWED");
    assert!(!error.is_transient());
    assert!(
        error
            .to_string()
            .starts_with("robots.txt of 127.0.0.1 does not allow"),
        "{error}"
    );
    assert_eq!(crawler.site.paths().await, Vec::<String>::new());
    crawler.options.obey_robots = false;
    assert_listing(&crawler.all().await, &[("/", "load")]);
}

#[tokio::test]
async fn without_robots_everything_is_allowed_and_while_it_cannot_be_had_nothing_is() {
    let home = home_of(&[]);
    for status in [401, 403, 404] {
        let server = format!("location = /robots.txt {{ return {status}; }}");
        let crawler = Crawler::with(&[("index.html", &home)], "", &server);
        assert_listing(&crawler.all().await, &[("/", "load")]);
    }
    let crawler = Crawler::with(
        &[("index.html", &home)],
        "",
        "location = /robots.txt { return 500; }",
    );
    let error = crawler.crawl(&crawler.plan("/")).await.unwrap_err();
    assert_eq!(error.reason(), "NETWORK_ERROR");
    assert!(error.is_transient());
    assert!(
        error
            .to_string()
            .ends_with("its robots.txt cannot be read: it answered 500"),
        "{error}"
    );
    assert_eq!(
        crawler.site.requests().await.len(),
        4,
        "as often as web.attempts says, and no page"
    );
}

#[tokio::test]
async fn robots_may_lie_behind_a_redirect() {
    let home = home_of(&["/a.html"]);
    let crawler = Crawler::with(
        &[
            ("index.html", &home),
            ("a.html", &home),
            ("real.txt", "User-agent: *\nDisallow: /a\n"),
        ],
        "",
        "location = /robots.txt { return 301 /real.txt; }",
    );
    assert_listing(&crawler.all().await, &[("/", "load"), ("/a.html", "robots")]);
}

#[tokio::test]
async fn requests_are_as_far_apart_as_robots_asks_up_to_the_limit() {
    let links: Vec<String> = (0..6).map(|n| format!("/{n}.html")).collect();
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    let home = home_of(&links);
    let mut crawler = Crawler::new(&[
        ("index.html", &home),
        ("robots.txt", "User-agent: *\nCrawl-delay: 60\n"),
    ]);
    crawler.options.max_crawl_delay = Duration::from_millis(150);
    crawler.all().await;
    let times: Vec<f64> = crawler
        .site
        .requests()
        .await
        .iter()
        .map(|request| request.at)
        .collect();
    assert_eq!(
        times.len(),
        9,
        "robots.txt, the start page, the sitemap and six that are missing"
    );
    // The delay is known after robots.txt and the start page. nginx notes when it answered, in milliseconds, so
    // single gaps may be a little shorter than those between the questions.
    let whole = times[8] - times[2];
    assert!(whole >= 6.0 * 0.150 - 0.02, "{times:?}");
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_allowed() {
    let links: Vec<String> = (0..8).map(|n| format!("/big/{n}.html")).collect();
    let home = home_of(&links.iter().map(String::as_str).collect::<Vec<&str>>());
    let big: Vec<(String, String)> = (0..8)
        .map(|n| {
            (
                format!("big/{n}.html"),
                page(&format!("Big {n}"), &[]) + &"text ".repeat(2_000),
            )
        })
        .collect();
    let mut files: Vec<(&str, &str)> = big
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_str()))
        .collect();
    files.push(("index.html", &home));
    let mut crawler = Crawler::with(
        &files,
        "limit_conn_zone $binary_remote_addr zone=all:1m;",
        "location /big/ { limit_rate 40k; limit_conn all 2; }",
    );
    crawler.options.parallel = 2;
    let crawl = crawler.all().await;
    assert_eq!(crawl.pages().len(), 9);
    let requests = crawler.site.requests().await;
    assert!(
        requests.iter().all(|request| request.status != 503),
        "{requests:?}"
    );
}

#[tokio::test]
async fn pages_may_ask_to_be_left_out_and_links_not_to_be_followed() {
    let meta = |content: &str, link: &str| {
        format!(
            "<title>{content}</title><meta name=robots content='{content}'><p>{content}</p><a href='{link}'>x</a>"
        )
    };
    let home = home_of(&["/noindex.html", "/nofollow.html", "/header.html", "/other.html"])
        + "<a rel=nofollow href=/ad.html>ad</a>";
    let (noindex, nofollow) = (
        meta("noindex", "/behind1.html"),
        meta("nofollow", "/behind2.html"),
    );
    let plain = page("Plain", &["/behind3.html"]);
    let behind = page("Behind", &[]);
    let files: &[(&str, &str)] = &[
        ("index.html", &home),
        ("noindex.html", &noindex),
        ("nofollow.html", &nofollow),
        ("header.html", &plain),
        ("other.html", &plain),
        ("behind1.html", &behind),
        ("behind2.html", &nofollow),
        ("behind3.html", &noindex),
        ("ad.html", &behind),
    ];
    let mut crawler = Crawler::with(
        files,
        "",
        "location = /header.html { add_header X-Robots-Tag 'chroma-sync: none'; }
         location = /other.html { add_header X-Robots-Tag 'googlebot: none'; }",
    );
    assert_listing(
        &crawler.all().await,
        &[
            ("/", "load"),
            ("/noindex.html", "noindex"),
            ("/nofollow.html", "load"),
            ("/header.html", "noindex"),
            ("/other.html", "load"),
            ("/behind1.html", "load"),
            ("/behind3.html", "noindex"),
        ],
    );
    crawler.options.obey_robots = false;
    let crawl = crawler.all().await;
    assert!(
        super::listing(&crawl)
            .iter()
            .all(|(_, decision)| decision != "noindex")
    );
}

#[tokio::test]
async fn a_site_that_wants_fewer_requests_gets_the_time_it_asks_for() {
    let home = home_of(&["/limited/a.html", "/limited/b.html"]);
    let (a, b) = (page("A", &[]), page("B", &[]));
    let crawler = Crawler::with(
        &[
            ("index.html", &home),
            ("limited/a.html", &a),
            ("limited/b.html", &b),
        ],
        "limit_req_zone $binary_remote_addr zone=slow:1m rate=1r/s; limit_req_status 429;",
        "location /limited/ { limit_req zone=slow; error_page 429 = @wait; }
         location @wait { internal; add_header Retry-After 1 always; return 429; }",
    );
    let crawl = crawler.all().await;
    assert_listing(
        &crawl,
        &[
            ("/", "load"),
            ("/limited/a.html", "load"),
            ("/limited/b.html", "load"),
        ],
    );
    let requests = crawler.site.requests().await;
    let refused: Vec<f64> = requests
        .iter()
        .filter(|request| request.status == 429)
        .map(|request| request.at)
        .collect();
    assert!(!refused.is_empty(), "{requests:?}");
    let last = requests.last().unwrap();
    assert_eq!(last.status, 200);
    assert!(last.at - refused[refused.len() - 1] >= 0.99, "{requests:?}");
    let progress = crawler.progress.lock().unwrap().clone();
    let waits = progress
        .iter()
        .filter(|seen| matches!(seen, CrawlProgress::Waiting { .. }))
        .count();
    assert_eq!(waits, refused.len());
}

#[tokio::test]
async fn a_page_whose_site_asks_for_too_much_time_fails_and_the_others_do_not() {
    let home = home_of(&["/later.html", "/b.html"]);
    let b = page("B", &[]);
    let crawler = Crawler::with(
        &[("index.html", &home), ("b.html", &b)],
        "",
        "location = /later.html { add_header Retry-After 3600 always; return 503; }",
    );
    assert_listing(
        &crawler.all().await,
        &[
            ("/", "load"),
            ("/later.html", "failed: it answered 503"),
            ("/b.html", "load"),
        ],
    );
    assert_eq!(
        crawler
            .site
            .paths()
            .await
            .iter()
            .filter(|path| *path == "/later.html")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_start_page_that_cannot_be_had_fails_the_crawl_with_its_cause() {
    let crawler = Crawler::with(
        &[],
        "",
        "location = /gone { return 410; }
         location = /secret { return 403; }
         location = /broken { return 502; }
         location = /later { add_header Retry-After 3600 always; return 503; }",
    );
    for (path, reason, transient, words) in [
        (
            "/missing",
            "PAGE_NOT_FOUND",
            false,
            "does not exist: the site answered 404",
        ),
        (
            "/gone",
            "PAGE_NOT_FOUND",
            false,
            "does not exist: the site answered 410",
        ),
        (
            "/secret",
            "PAGE_REFUSED",
            false,
            "the site answered 403 to the starting URL",
        ),
        (
            "/broken",
            "NETWORK_ERROR",
            true,
            "cannot crawl 127.0.0.1: it answered 502",
        ),
        (
            "/later",
            "NETWORK_ERROR",
            true,
            "cannot crawl 127.0.0.1: it answered 503",
        ),
    ] {
        let error = crawler.crawl(&crawler.plan(path)).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.is_transient()),
            (reason, transient),
            "{path}"
        );
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.failure().reason, reason);
        let hour = (path == "/later").then_some(Duration::from_secs(3_600));
        assert_eq!(error.retry_after(), hour, "{path}");
    }
    assert_eq!(crawler.leftovers(), 0);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_a_failure_that_may_pass() {
    let crawler = Crawler::new(&[]);
    let mut options = crawler.options.clone();
    let free = crate::harness::nginx::listener();
    let port = free.local_addr().unwrap().port();
    drop(free);
    options.egress = chroma_sync::fetch::Egress::parse(&["127.0.0.1".to_owned()]).unwrap();
    let plan = chroma_sync::fetch::web::CrawlPlan::new(format!("http://127.0.0.1:{port}/").parse().unwrap());
    let error = crawl(
        &options,
        &plan,
        Vec::new(),
        Arc::new(|_| {}),
        &CancellationToken::new(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason(), "NETWORK_ERROR");
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_site_that_stops_answering_fails_the_crawl_and_not_page_after_page() {
    let links: Vec<String> = (0..30).map(|n| format!("/down/{n}")).collect();
    let home = home_of(&links.iter().map(String::as_str).collect::<Vec<&str>>());
    let mut crawler = Crawler::with(&[("index.html", &home)], "", "location /down/ { return 500; }");
    crawler.options.attempts = 1;
    let error = crawler.crawl(&crawler.plan("/")).await.unwrap_err();
    assert!(error.is_transient());
    assert!(error.to_string().contains("10 pages in a row failed"), "{error}");
    assert!(crawler.site.paths().await.len() < 16);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let home = home_of(&["/slow.html"]);
    let slow = "slow ".repeat(4_000);
    let mut crawler = Crawler::with(
        &[("index.html", &home), ("slow.html", &slow)],
        "",
        "location = /slow.html { limit_rate 100; }",
    );
    crawler.options.request_timeout = Duration::from_secs(1);
    crawler.options.attempts = 2;
    let crawl = crawler.all().await;
    let problem = "failed: it did not answer within 1 seconds (web.request_timeout_seconds)";
    assert_listing(&crawl, &[("/", "load"), ("/slow.html", problem)]);
}

#[tokio::test]
async fn a_crawl_that_is_cancelled_stops_at_once_and_leaves_nothing() {
    let home = home_of(&["/slow.html"]);
    let slow = "slow ".repeat(4_000);
    let crawler = Crawler::with(
        &[("index.html", &home), ("slow.html", &slow)],
        "",
        "location = /slow.html { limit_rate 100; }",
    );
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    // The first page is there, the second is under way.
    let report = Arc::new(move |_| stop.cancel());
    let error = crawl(&crawler.options, &crawler.plan("/"), Vec::new(), report, &cancel)
        .await
        .unwrap_err();
    assert!(matches!(error, CrawlError::Cancelled));
    assert_eq!(crawler.leftovers(), 0);
}
