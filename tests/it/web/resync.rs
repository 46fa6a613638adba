//! Crawling a site again: what did not change is not sent, what is gone is not listed, and what failed stays.

use super::{Crawler, assert_listing, document, page};
use chroma_sync::fetch::web::KnownPage;

/// `/` leads to hub and b, hub to c and d.
fn site() -> Crawler {
    let home = page("Home", &["/hub.html", "/b.html"]);
    let hub = page("Hub", &["/c.html", "/d.html"]);
    let (b, c, d) = (page("B", &[]), page("C", &[]), page("D", &[]));
    Crawler::with(
        &[
            ("index.html", &home),
            ("hub.html", &hub),
            ("b.html", &b),
            ("c.html", &c),
            ("d.html", &d),
        ],
        "",
        "if (-f $document_root/down$uri) { return 500; }",
    )
}

async fn first(crawler: &Crawler) -> Vec<KnownPage> {
    let crawl = crawler.all().await;
    assert_eq!(crawl.pages().len(), 5);
    crawl.known_pages()
}

#[tokio::test]
async fn pages_that_did_not_change_are_asked_for_once_and_not_sent() {
    let crawler = site();
    let known = first(&crawler).await;
    let before = crawler.site.requests().await.len();
    let crawl = crawler
        .crawl_again(&crawler.plan("/"), known.clone())
        .await
        .unwrap();
    assert_listing(
        &crawl,
        &[
            ("/", "unchanged"),
            ("/hub.html", "unchanged"),
            ("/b.html", "unchanged"),
            ("/c.html", "unchanged"),
            ("/d.html", "unchanged"),
        ],
    );
    assert_eq!(crawl.known_pages(), known, "the third crawl is told the same");
    let requests = crawler.site.requests().await.split_off(before);
    let pages: Vec<_> = requests
        .iter()
        .filter(|request| request.path == "/" || request.path.ends_with("html"))
        .collect();
    assert_eq!(pages.len(), 5);
    for request in pages {
        assert_eq!(request.status, 304, "{request:?}");
        assert!(request.if_none_match.len() > 10, "{request:?}");
    }
}

#[tokio::test]
async fn what_changed_is_read_and_what_is_gone_is_not_listed() {
    let crawler = site();
    let known = first(&crawler).await;
    crawler
        .site
        .write("hub.html", page("Hub, now larger", &["/c.html", "/new.html"]));
    crawler.site.write("new.html", page("New", &[]));
    crawler.site.remove("b.html");
    let crawl = crawler.crawl_again(&crawler.plan("/"), known).await.unwrap();
    assert_listing(
        &crawl,
        &[
            ("/", "unchanged"),
            ("/hub.html", "load"),
            ("/c.html", "unchanged"),
            ("/new.html", "load"),
        ],
    );
    assert!(
        document(&crawl, "/hub.html")
            .await
            .starts_with("# Hub, now larger")
    );
    let page = &crawl.pages()[0];
    assert_eq!(
        crawl.reader().load(page).await.unwrap(),
        None,
        "what did not change has no document"
    );
}

#[tokio::test]
async fn a_page_that_is_sent_again_with_the_same_content_did_not_change() {
    let crawler = site();
    let known = first(&crawler).await;
    // The menu is new, what the page is about is not.
    crawler.site.write("b.html", page("B", &["/c.html", "/hub.html"]));
    let crawl = crawler.crawl_again(&crawler.plan("/"), known).await.unwrap();
    assert!(
        super::listing(&crawl)
            .iter()
            .all(|(_, decision)| decision == "unchanged")
    );
}

#[tokio::test]
async fn without_its_links_a_page_that_leads_on_is_asked_for_as_a_whole() {
    let crawler = site();
    let mut known = first(&crawler).await;
    for page in &mut known {
        page.links = None;
    }
    let before = crawler.site.requests().await.len();
    let crawl = crawler.crawl_again(&crawler.plan("/"), known).await.unwrap();
    assert!(
        super::listing(&crawl)
            .iter()
            .all(|(_, decision)| decision == "unchanged")
    );
    assert_eq!(crawl.pages().len(), 5);
    let requests = crawler.site.requests().await.split_off(before);
    assert!(
        requests.iter().all(|request| request.status != 304),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_page_that_another_release_converted_is_asked_for_as_a_whole() {
    let crawler = site();
    let mut known = first(&crawler).await;
    for page in &mut known {
        page.converter -= 1;
        page.version_key = "0".repeat(64);
    }
    let crawl = crawler.crawl_again(&crawler.plan("/"), known).await.unwrap();
    assert!(
        super::listing(&crawl)
            .iter()
            .all(|(_, decision)| decision == "load")
    );
}

#[tokio::test]
async fn what_is_known_of_pages_survives_being_written_down() {
    let crawler = site();
    let known = first(&crawler).await;
    let text = serde_json::to_string(&known).unwrap();
    let read: Vec<KnownPage> = serde_json::from_str(&text).unwrap();
    assert_eq!(read, known);
    let bare = format!(
        r#"[{{"url":"{0}","fetched_from":"{0}","version_key":"x"}}]"#,
        crawler.site.url("/")
    );
    let read: Vec<KnownPage> = serde_json::from_str(&bare).unwrap();
    assert_eq!(read[0].links, None);
}

#[tokio::test]
async fn a_page_that_fails_for_now_stays_listed_with_all_that_it_led_to() {
    let crawler = site();
    let known = first(&crawler).await;
    crawler.site.write("down/hub.html", "");
    let crawl = crawler.crawl_again(&crawler.plan("/"), known).await.unwrap();
    assert_listing(
        &crawl,
        &[
            ("/", "unchanged"),
            ("/hub.html", "failed: it answered 500"),
            ("/b.html", "unchanged"),
            ("/c.html", "unchanged"),
            ("/d.html", "unchanged"),
        ],
    );
}

#[tokio::test]
async fn a_page_that_fails_twice_is_known_the_third_time() {
    let crawler = site();
    let known = first(&crawler).await;
    crawler.site.write("down/hub.html", "");
    let again = crawler
        .crawl_again(&crawler.plan("/"), known.clone())
        .await
        .unwrap();
    let by_url = |mut pages: Vec<KnownPage>| {
        pages.sort_by(|one, other| one.url.cmp(&other.url));
        pages
    };
    assert_eq!(by_url(again.known_pages()), by_url(known));
}

#[tokio::test]
async fn where_links_may_have_been_missed_known_pages_are_asked_for_themselves() {
    let crawler = site();
    let mut known = first(&crawler).await;
    for page in &mut known {
        page.links = None;
    }
    crawler.site.write("down/hub.html", "");
    crawler.site.remove("d.html");
    let crawl = crawler.crawl_again(&crawler.plan("/"), known).await.unwrap();
    assert_listing(
        &crawl,
        &[
            ("/", "unchanged"),
            ("/hub.html", "failed: it answered 500"),
            ("/b.html", "unchanged"),
            ("/c.html", "unchanged"),
        ],
    );
}

#[tokio::test]
async fn a_crawl_that_ends_early_keeps_the_known_pages_it_did_not_come_to() {
    let mut crawler = site();
    let known = first(&crawler).await;
    for path in ["hub.html", "b.html", "c.html", "d.html"] {
        crawler.site.write(
            path,
            page(&format!("{path} is new"), &["/hub.html", "/c.html", "/d.html"]),
        );
    }
    crawler.options.max_crawl_bytes = 79;
    crawler.options.parallel = 1;
    let crawl = crawler.crawl_again(&crawler.plan("/"), known).await.unwrap();
    let why = "failed: the crawl ended because its documents take more than 79 bytes (web.max_crawl_bytes)";
    assert_listing(
        &crawl,
        &[
            ("/", "unchanged"),
            ("/hub.html", "load"),
            ("/b.html", why),
            ("/c.html", why),
            ("/d.html", why),
        ],
    );
}

#[tokio::test]
async fn a_site_whose_start_page_fails_is_not_a_site_without_pages() {
    let crawler = site();
    let known = first(&crawler).await;
    crawler.site.write("down/index.html", "");
    crawler.site.write("down/hub.html", "");
    let error = crawler
        .crawl_again(&crawler.plan("/hub.html"), known)
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_duplicate_becomes_the_document_when_its_original_is_gone() {
    let home = page("Home", &["/a.html", "/copy.html"]);
    let a = page("A", &[]);
    let crawler = Crawler::new(&[("index.html", &home), ("a.html", &a), ("copy.html", &a)]);
    let known = crawler.all().await.known_pages();
    crawler.site.remove("a.html");
    let crawl = crawler.crawl_again(&crawler.plan("/"), known).await.unwrap();
    assert_listing(&crawl, &[("/", "unchanged"), ("/copy.html", "load")]);
}

#[tokio::test]
async fn a_page_keeps_its_canonical_key_when_it_did_not_change() {
    let home = page("Home", &["/a.html?view=1"]);
    let a = format!("<link rel=canonical href='/a.html'>{}", page("A", &[]));
    let crawler = Crawler::new(&[("index.html", &home), ("a.html", &a)]);
    let known = crawler.all().await.known_pages();
    let crawl = crawler.crawl_again(&crawler.plan("/"), known).await.unwrap();
    assert_listing(&crawl, &[("/", "unchanged"), ("/a.html", "unchanged")]);
}
