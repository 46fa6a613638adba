//! Whole pages as generators of documentation write them, with the Markdown that they become.

use std::fs;

use super::{Crawler, document};
use crate::harness::service::project_file;

/// Crawls `tests/golden/web/{name}.html` and compares with the `.md` beside it, where `{site}` is the site.
async fn assert_golden(name: &str) {
    let golden = |extension: &str| project_file(&format!("tests/golden/web/{name}.{extension}"));
    let html = fs::read_to_string(golden("html")).unwrap();
    let crawler = Crawler::new(&[("guide/index.html", &html)]);
    let mut plan = crawler.plan("/guide/");
    plan.max_depth = Some(0);
    let crawl = crawler.crawl(&plan).await.unwrap();
    let site = crawler.site.url("/");
    let markdown = document(&crawl, "/guide/")
        .await
        .replace(site.as_str(), "{site}/");
    let wanted = fs::read_to_string(golden("md")).unwrap_or_default();
    assert_eq!(markdown, wanted, "{markdown}");
}

/// Sphinx 9.0.4 with alabaster: a note, code with and without prompts, a table with a caption, a signature.
#[tokio::test]
async fn a_page_of_sphinx_becomes_its_content() {
    assert_golden("sphinx").await;
}

/// MkDocs 1.6.1 with its own theme: a note, a table, code, nested lists.
#[tokio::test]
async fn a_page_of_mkdocs_becomes_its_content() {
    assert_golden("mkdocs").await;
}
