//! What becomes of pages by what they are.

use chroma_sync::fetch::web::{CrawlError, PageDecision};

use super::{Crawler, assert_listing, document, page};

#[tokio::test]
async fn text_markdown_and_pdf_are_kept_and_everything_else_is_left_out() {
    let home = page(
        "Home",
        &[
            "/a.txt",
            "/b.md",
            "/c.pdf",
            "/d.png",
            "/e.css",
            "/f",
            "/g",
            "/h",
            "/archive.tar.gz",
            "/i",
        ],
    );
    let crawler = Crawler::with(
        &[
            ("index.html", &home),
            ("a.txt", "plain *text*\n"),
            ("b.md", "# Mark\n\ndown\n"),
            ("c.pdf", "%PDF-1.7\n%\u{e9}\n"),
            ("e.css", "a {}"),
            ("f", "application"),
            ("g", "%PDF-1.4 without a type"),
            ("h", "<!doctype html><h1>Untyped</h1>"),
            ("i", "{}"),
        ],
        "",
        "location = /g { types {} default_type ''; }
         location = /h { types {} default_type ''; }
         location = /i { types {} default_type application/json; }",
    );
    let crawl = crawler.all().await;
    assert_listing(
        &crawl,
        &[
            ("/", "load"),
            ("/d.png", "not_text"),
            ("/e.css", "not_text"),
            ("/archive.tar.gz", "not_text"),
            ("/a.txt", "load"),
            ("/b.md", "load"),
            ("/c.pdf", "load"),
            ("/f", "not_text"),
            ("/g", "load"),
            ("/h", "load"),
            ("/i", "not_text"),
        ],
    );
    let types: Vec<&str> = crawl.pages().iter().filter_map(|page| page.media_type).collect();
    assert_eq!(
        types,
        [
            "text/markdown",
            "text/plain",
            "text/markdown",
            "application/pdf",
            "application/pdf",
            "text/markdown"
        ]
    );
    assert_eq!(document(&crawl, "/a.txt").await, "plain *text*\n");
    assert_eq!(document(&crawl, "/b.md").await, "# Mark\n\ndown\n");
    assert_eq!(document(&crawl, "/c.pdf").await, "%PDF-1.7\n%\u{e9}\n");
    assert_eq!(document(&crawl, "/h").await, "# Untyped\n");
    let asked = crawler.site.paths().await;
    assert!(
        !asked.contains(&"/d.png".to_owned()),
        "what its name says is no page is not asked for: {asked:?}"
    );
}

#[tokio::test]
async fn a_document_has_its_content_its_hash_and_what_its_answer_said() {
    let home = "<title>T</title><main><h1>H</h1><p>See <a href='b.html'>b</a></p></main>";
    let crawler = Crawler::new(&[("docs/index.html", home)]);
    let crawl = crawler.crawl(&crawler.plan("/docs/")).await.unwrap();
    let content = document(&crawl, "/docs/").await;
    let b = crawler.site.url("/docs/b.html");
    assert_eq!(content, format!("# H\n\nSee [b]({b})\n"));
    let page = &crawl.pages()[0];
    assert_eq!(page.url, crawler.site.url("/docs/").as_str());
    assert_eq!(
        page.version_key,
        chroma_sync::domain::document::sha256_hex(&content)
    );
    assert_eq!(page.title.as_deref(), Some("T"));
    assert!(page.etag.as_deref().unwrap().starts_with('"'));
    assert!(page.last_modified.as_deref().unwrap().ends_with(" GMT"));
}

#[tokio::test]
async fn documents_outlive_their_crawl_and_go_with_its_last_reader() {
    let home = page("Home", &[]);
    let crawler = Crawler::new(&[("index.html", &home)]);
    let crawl = crawler.all().await;
    let (pages, reader) = (crawl.pages().clone(), crawl.reader());
    drop(crawl);
    assert!(reader.load(&pages[0]).await.unwrap().is_some());
    assert_eq!(crawler.leftovers(), 2, "a directory and its lock");
    drop(reader);
    assert_eq!(crawler.leftovers(), 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_a_failure_that_may_pass() {
    let home = page("Home", &[]);
    let mut crawler = Crawler::new(&[("index.html", &home)]);
    crawler.options.directory = "/proc/nowhere".into();
    let error = crawler.crawl(&crawler.plan("/")).await.unwrap_err();
    assert!(matches!(error, CrawlError::Storage { .. }));
    assert_eq!(error.reason(), "FETCH_STORAGE_FAILED");
    assert!(error.is_transient());
    assert!(!error.to_string().contains("/proc"), "{error}");
}

#[tokio::test]
async fn pages_are_read_in_the_encoding_they_are_in() {
    let home = page(
        "Home",
        &["/header.html", "/meta.html", "/guess.html", "/utf16.txt"],
    );
    let crawler = Crawler::with(
        &[("index.html", &home)],
        "",
        "location = /header.html { types {} default_type 'text/html; charset=koi8-r'; }",
    );
    crawler.site.write("header.html", b"<p>\xe4\xc1</p>");
    crawler
        .site
        .write("meta.html", b"<meta charset=shift_jis><p>\x93\xfa\x96{</p>");
    crawler.site.write("guess.html", b"<p>gr\xfcn \x80</p>");
    crawler.site.write("utf16.txt", b"\xff\xfeg\0r\0\xfc\0n\0");
    let crawl = crawler.all().await;
    for (path, wanted) in [
        ("/header.html", "\u{414}\u{430}\n"),
        ("/meta.html", "\u{65e5}\u{672c}\n"),
        ("/guess.html", "gr\u{fc}n \u{20ac}\n"),
        ("/utf16.txt", "gr\u{fc}n"),
    ] {
        assert_eq!(document(&crawl, path).await, wanted, "{path}");
    }
}

#[tokio::test]
async fn compressed_pages_are_read_and_their_size_counts_unpacked() {
    let home = page("Home", &["/fits.html", "/bomb.html", "/long.txt"]);
    let fits = format!("<h1>Fits</h1><p>{}", "a ".repeat(10_000));
    let bomb = format!("<h1>Bomb</h1><p>{}", "a ".repeat(4_000_000));
    let long = "long ".repeat(20_000);
    let mut crawler = Crawler::with(
        &[
            ("index.html", &home),
            ("fits.html", &fits),
            ("bomb.html", &bomb),
            ("long.txt", &long),
        ],
        "",
        "gzip on; gzip_comp_level 9; gzip_min_length 20;",
    );
    crawler.options.max_page_bytes = 50_000;
    let crawl = crawler.all().await;
    assert_listing(
        &crawl,
        &[
            ("/", "load"),
            ("/fits.html", "load"),
            ("/bomb.html", "too_large"),
            ("/long.txt", "too_large"),
        ],
    );
    assert!(document(&crawl, "/fits.html").await.starts_with("# Fits\n\na a"));
}

#[tokio::test]
async fn a_crawl_ends_where_its_documents_would_take_too_much_disk() {
    let long = |title: &str, links: &[&str]| page(title, links).replace("About", &"about ".repeat(1_000));
    let home = long("Home", &["/b.html", "/c.html", "/d.html"]);
    let (b, c) = (long("B", &[]), long("C", &[]));
    let mut crawler = Crawler::new(&[
        ("index.html", &home),
        ("b.html", &b),
        ("c.html", &c),
        ("d.html", &c),
    ]);
    crawler.options.max_crawl_bytes = 13_000;
    let crawl = crawler.all().await;
    let why = "the crawl ended because its documents take more than 13000 bytes (web.max_crawl_bytes)";
    assert_eq!(crawl.ended_early.as_deref(), Some(why));
    assert_listing(
        &crawl,
        &[
            ("/", "load"),
            ("/b.html", "load"),
            ("/c.html", &format!("failed: {why}")),
        ],
    );
}

#[tokio::test]
async fn a_page_that_cannot_be_read_fails_alone() {
    let home = page("Home", &["/deep.html", "/secret.html", "/b.html", "/empty.html"]);
    let deep = "<div>".repeat(50_000);
    let b = page("B", &[]);
    let crawler = Crawler::with(
        &[
            ("index.html", &home),
            ("deep.html", &deep),
            ("b.html", &b),
            ("empty.html", "<nav>Menu</nav>"),
        ],
        "",
        "location = /secret.html { return 403; }",
    );
    assert_listing(
        &crawler.all().await,
        &[
            ("/", "load"),
            ("/deep.html", "failed: its elements nest deeper than 1024"),
            ("/secret.html", "failed: the site answered 403"),
            ("/b.html", "load"),
            ("/empty.html", "empty"),
        ],
    );
}

#[tokio::test]
async fn one_content_is_one_document_and_the_first_page_has_it() {
    let home = page("Home", &["/a.html", "/copy.html", "/a.html?session=1"]);
    let a = page("A", &[]);
    let crawler = Crawler::new(&[("index.html", &home), ("a.html", &a), ("copy.html", &a)]);
    assert_listing(
        &crawler.all().await,
        &[
            ("/", "load"),
            ("/a.html", "load"),
            ("/copy.html", "duplicate"),
            ("/a.html?session=1", "duplicate"),
        ],
    );
}

#[tokio::test]
async fn the_canonical_url_is_the_key_of_a_page_if_it_is_one_of_the_site_and_free() {
    let with =
        |title: &str, canonical: &str| format!("<link rel=canonical href='{canonical}'>{}", page(title, &[]));
    let home = page(
        "Home",
        &[
            "/a.html?view=1",
            "/a.html?view=2",
            "/b.html",
            "/away.html",
            "/wrong.html",
        ],
    );
    let a = with("A", "/a.html");
    let (away, wrong) = (with("Away", "https://elsewhere.invalid/x"), with("Wrong", "/"));
    let b = page("B", &["/a.html"]);
    let crawler = Crawler::new(&[
        ("index.html", &home),
        ("a.html", &a),
        ("b.html", &b),
        ("away.html", &away),
        ("wrong.html", &wrong),
    ]);
    let crawl = crawler.all().await;
    assert_listing(
        &crawl,
        &[
            ("/", "load"),
            ("/a.html", "load"),
            ("/b.html", "load"),
            ("/away.html", "load"),
            ("/wrong.html", "load"),
        ],
    );
    assert_eq!(
        crawl.pages()[1].fetched_from,
        crawler.site.url("/a.html?view=1").as_str()
    );
}

#[tokio::test]
async fn a_page_whose_url_another_one_claimed_gets_it_back() {
    let claims = format!("<link rel=canonical href='/real.html'>{}", page("Claims", &[]));
    let (home, real) = (page("Home", &["/claims.html", "/real.html"]), page("Real", &[]));
    let crawler = Crawler::new(&[
        ("index.html", &home),
        ("claims.html", &claims),
        ("real.html", &real),
    ]);
    let crawl = crawler.all().await;
    assert_listing(
        &crawl,
        &[("/", "load"), ("/claims.html", "load"), ("/real.html", "load")],
    );
    assert!(document(&crawl, "/real.html").await.contains("About Real"));
    assert!(document(&crawl, "/claims.html").await.contains("About Claims"));
    assert!(
        crawl
            .pages()
            .iter()
            .all(|page| page.decision == PageDecision::Load)
    );
}
