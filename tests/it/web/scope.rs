//! Which pages of a site a crawl comes to.

use std::time::Duration;

use super::{Crawler, assert_listing, page, patterns};
use chroma_sync::fetch::web::CrawlProgress;

/// `/` leads to a and b, a to a1 and a2, a1 to `deep`.
fn tree() -> Vec<(&'static str, String)> {
    vec![
        (
            "index.html",
            page(
                "Home",
                &[
                    "/b.html",
                    "/a.html#top",
                    "https://elsewhere.invalid/",
                    "mailto:x@y.z",
                ],
            ),
        ),
        (
            "a.html",
            page("A", &["a1.html?utm_source=a", "a2.html", "/", "b.html"]),
        ),
        ("b.html", page("B", &["/missing.html"])),
        ("a1.html", page("A1", &["deep.html"])),
        ("a2.html", page("A2", &[])),
        ("deep.html", page("Deep", &[])),
    ]
}

fn crawler(files: &[(&'static str, String)]) -> Crawler {
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, content)| (*path, content.as_str()))
        .collect();
    Crawler::new(&files)
}

#[tokio::test]
async fn a_crawl_goes_through_the_site_breadth_first_and_never_leaves_it() {
    let crawler = crawler(&tree());
    let crawl = crawler.all().await;
    assert_listing(
        &crawl,
        &[
            ("/", "load"),
            ("/b.html", "load"),
            ("/a.html", "load"),
            ("/a1.html", "load"),
            ("/a2.html", "load"),
            ("/deep.html", "load"),
        ],
    );
    assert_eq!(crawl.ended_early, None);
    let titles: Vec<&str> = crawl
        .pages()
        .iter()
        .map(|page| page.title.as_deref().unwrap())
        .collect();
    assert_eq!(titles, ["Home", "B", "A", "A1", "A2", "Deep"]);
    // Each once, however often it is linked.
    let mut paths = crawler.site.paths().await;
    paths.sort();
    assert_eq!(
        paths,
        [
            "/",
            "/a.html",
            "/a1.html",
            "/a2.html",
            "/b.html",
            "/deep.html",
            "/missing.html"
        ]
    );
}

#[tokio::test]
async fn the_progress_counts_pages_up_to_the_last() {
    let crawler = crawler(&tree());
    crawler.all().await;
    let progress = crawler.progress.lock().unwrap().clone();
    assert_eq!(
        progress.first(),
        Some(&CrawlProgress::Pages {
            fetched: 1,
            discovered: 1 + 2
        })
    );
    assert_eq!(
        progress.last(),
        Some(&CrawlProgress::Pages {
            fetched: 7,
            discovered: 7
        })
    );
}

#[tokio::test]
async fn the_depth_counts_links_from_the_start_page() {
    let crawler = crawler(&tree());
    let mut plan = crawler.plan("/a.html");
    plan.max_depth = Some(0);
    assert_listing(&crawler.crawl(&plan).await.unwrap(), &[("/a.html", "load")]);
    assert_eq!(crawler.site.paths().await, ["/a.html"]);
    plan.max_depth = Some(1);
    assert_listing(
        &crawler.crawl(&plan).await.unwrap(),
        &[
            ("/a.html", "load"),
            ("/a1.html", "load"),
            ("/a2.html", "load"),
            ("/", "load"),
            ("/b.html", "load"),
        ],
    );
}

#[tokio::test]
async fn the_limit_counts_documents_and_no_page_is_asked_for_beyond_it() {
    let mut files = tree();
    files[0].1 = page(
        "Home",
        &["/missing.html", "/picture.png", "/a.html", "/b.html", "/a1.html"],
    );
    let crawler = crawler(&files);
    let mut plan = crawler.plan("/");
    plan.page_limit = 3;
    for _ in 0..3 {
        let crawl = crawler.crawl(&plan).await.unwrap();
        assert_listing(
            &crawl,
            &[
                ("/", "load"),
                ("/picture.png", "not_text"),
                ("/a.html", "load"),
                ("/b.html", "load"),
            ],
        );
        assert_eq!(crawl.ended_early, None);
    }
    assert_eq!(crawler.site.paths().await.len(), 3 * 4);
}

#[tokio::test]
async fn the_operator_bounds_the_limit_of_a_plan() {
    let mut crawler = crawler(&tree());
    crawler.options.max_pages = 2;
    let mut plan = crawler.plan("/");
    plan.page_limit = 1_000;
    assert_listing(
        &crawler.crawl(&plan).await.unwrap(),
        &[("/", "load"), ("/b.html", "load")],
    );
}

#[tokio::test]
async fn patterns_pick_paths_and_the_start_page_is_read_for_its_links_anyway() {
    let crawler = crawler(&tree());
    let mut plan = crawler.plan("/");
    plan.include = patterns(&["^/a", "deep"]);
    plan.exclude = patterns(&["2"]);
    assert_listing(
        &crawler.crawl(&plan).await.unwrap(),
        &[("/a.html", "load"), ("/a1.html", "load"), ("/deep.html", "load")],
    );
    assert_eq!(
        crawler.site.paths().await,
        ["/", "/a.html", "/a1.html", "/deep.html"]
    );
}

#[tokio::test]
async fn sitemaps_that_robots_names_are_read_with_those_they_list() {
    let crawler = crawler(&tree());
    let url = |path: &str| crawler.site.url(path);
    let robots = format!(
        "Sitemap: {}\nSitemap: https://elsewhere.invalid/map.xml\n",
        url("/maps/index.xml")
    );
    crawler.site.write("robots.txt", robots);
    crawler.site.write(
        "maps/index.xml",
        format!(
            "<sitemapindex><sitemap><loc>{}</loc></sitemap></sitemapindex>",
            url("/maps/1.xml.gz")
        ),
    );
    let pages = format!(
        "<urlset><url><loc>{}</loc></url><url><loc>{}</loc></url><url><loc>https://elsewhere.invalid/</loc></url></urlset>",
        url("/only-in-map.html"),
        url("/a.html")
    );
    crawler.site.write("maps/1.xml.gz", gzip(pages.as_bytes()));
    crawler
        .site
        .write("only-in-map.html", page("Only", &["/beyond.html"]));
    crawler.site.write("beyond.html", page("Beyond", &[]));
    let mut plan = crawler.plan("/");
    plan.max_depth = Some(1);
    assert_listing(
        &crawler.crawl(&plan).await.unwrap(),
        &[
            ("/", "load"),
            ("/b.html", "load"),
            ("/a.html", "load"),
            ("/only-in-map.html", "load"),
        ],
    );
}

#[tokio::test]
async fn the_sitemap_at_its_usual_place_is_read_and_none_for_the_start_page_alone() {
    let crawler = crawler(&tree());
    crawler.site.write(
        "sitemap.xml",
        format!(
            "<urlset><url><loc>{}</loc></url></urlset>",
            crawler.site.url("/x.html")
        ),
    );
    crawler.site.write("x.html", page("X", &[]));
    let mut plan = crawler.plan("/deep.html");
    assert_listing(
        &crawler.crawl(&plan).await.unwrap(),
        &[("/deep.html", "load"), ("/x.html", "load")],
    );
    plan.max_depth = Some(0);
    assert_listing(&crawler.crawl(&plan).await.unwrap(), &[("/deep.html", "load")]);
}

#[tokio::test]
async fn redirects_are_followed_within_the_site_and_end_at_its_border() {
    let files = [
        (
            "index.html",
            page(
                "Home",
                &["/old.html", "/new.html", "/away.html", "/loop.html", "/odd.html"],
            ),
        ),
        ("new.html", page("New", &[])),
    ];
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, content)| (*path, content.as_str()))
        .collect();
    let crawler = Crawler::with(
        &files,
        "",
        "location = /old.html { return 301 /older.html; }
         location = /older.html { return 302 new.html#part; }
         location = /away.html { return 307 https://elsewhere.invalid/; }
         location = /odd.html { return 301 mailto:x@y.z; }
         location /loop { rewrite ^(.*)$ $1x redirect; }",
    );
    let crawl = crawler.all().await;
    assert_listing(
        &crawl,
        &[
            ("/", "load"),
            ("/new.html", "load"),
            ("/away.html", "off_site"),
            ("/odd.html", "off_site"),
            (
                "/loop.html",
                "failed: it redirects more than 5 times (web.max_redirects)",
            ),
        ],
    );
    let news = crawler
        .site
        .paths()
        .await
        .iter()
        .filter(|path| *path == "/new.html")
        .count();
    assert_eq!(news, 1, "a page that is linked and redirected to is read once");
}

#[tokio::test]
async fn a_start_page_that_only_refreshes_leads_on() {
    let latest = page("Latest", &[]);
    let home = "<meta http-equiv=refresh content='0; url=latest/'>";
    let crawler = Crawler::new(&[("index.html", home), ("latest/index.html", &latest)]);
    assert_listing(&crawler.all().await, &[("/", "empty"), ("/latest/", "load")]);
}

#[tokio::test]
async fn a_start_page_may_move_within_its_site_and_not_to_another() {
    let home = page("Home", &[]);
    let crawler = Crawler::with(
        &[("en/index.html", &home)],
        "",
        "location = / { return 302 /en/; }
         location = /away { return 302 http://elsewhere.invalid/; }
         location /loop { rewrite ^(.*)$ $1x redirect; }",
    );
    assert_listing(&crawler.all().await, &[("/en/", "load")]);
    let error = crawler.crawl(&crawler.plan("/away")).await.unwrap_err();
    assert_eq!(error.reason(), "REDIRECTED_ELSEWHERE");
    assert!(!error.is_transient());
    let message = error.to_string();
    assert!(
        message.ends_with("take http://elsewhere.invalid/ as the starting URL"),
        "{message}"
    );
    let error = crawler.crawl(&crawler.plan("/loop")).await.unwrap_err();
    assert_eq!(error.reason(), "STARTING_URL_UNUSABLE");
}

#[tokio::test]
async fn a_crawl_that_takes_too_long_ends_with_what_it_has() {
    let home = page("Home", &["/slow.html", "/b.html"]);
    let mut crawler = Crawler::with(
        &[
            ("index.html", &home),
            ("slow.html", &"slow ".repeat(4_000)),
            ("b.html", &home),
        ],
        "",
        "location = /slow.html { limit_rate 100; }",
    );
    crawler.options.crawl_timeout = Duration::from_millis(1_500);
    let crawl = crawler.all().await;
    assert_listing(&crawl, &[("/", "load")]);
    let why = crawl.ended_early.unwrap();
    assert_eq!(why, "the crawl ended after 1 seconds (web.crawl_timeout_seconds)");
}

#[tokio::test]
async fn a_crawl_remembers_no_more_urls_than_allowed_and_says_so() {
    let links: Vec<String> = (0..100).map(|n| format!("/missing-{n}.html")).collect();
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    let home = page("Home", &links);
    let mut crawler = Crawler::new(&[("index.html", &home)]);
    crawler.options.max_urls = 20;
    let crawl = crawler.all().await;
    assert_listing(&crawl, &[("/", "load")]);
    assert_eq!(crawler.site.paths().await.len(), 20);
    let why = crawl.ended_early.unwrap();
    assert_eq!(
        why,
        "the site has more than 20 URLs; the others were left out (web.max_urls)"
    );
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
