//! How many pages a second a crawl fetches, converts and puts on disk, up to where they would be cut.
//!
//! Run with `cargo bench --bench crawl`. nginx serves 1,000 pages of about 18 kB each, most of it code,
//! tables and text, and every page leads to ten others; nothing waits out of politeness. With `CRAWL_BENCH_DIR` nginx
//! serves that directory instead, from `CRAWL_BENCH_START`, a path in it. The target is 200 pages a second.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "../tests/it/harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
#[path = "shared/processor_time.rs"]
mod processor_time;

use std::{fmt::Write, path::Path, sync::Arc, time::Duration};

use chroma_sync::fetch::{
    Egress,
    web::{Crawl, CrawlOptions, CrawlPlan, PageDecision, crawl},
};
use harness::site::Site;
use tokio::{runtime::Runtime, time::Instant};
use tokio_util::sync::CancellationToken;

const PAGES: usize = 1_000;
const ROUNDS: usize = 3;

fn main() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let site = Site::start(&[]);
        let start = match std::env::var("CRAWL_BENCH_DIR") {
            Ok(directory) => {
                copy(&site, Path::new(&directory), Path::new(&directory));
                std::env::var("CRAWL_BENCH_START").unwrap_or_else(|_| "/".to_owned())
            }
            Err(_) => {
                for n in 0..PAGES {
                    site.write(&format!("{n}.html"), page(n));
                }
                "/0.html".to_owned()
            }
        };
        for _ in 0..ROUNDS {
            measure(&site, &start).await;
        }
    });
}

async fn measure(site: &Site, start: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let mut options = CrawlOptions::new(scratch.path().to_owned());
    options.egress = Egress::parse(&["127.0.0.1".to_owned()]).unwrap();
    options.delay = Duration::ZERO;
    options.max_pages = 1_000;
    let mut plan = CrawlPlan::new(site.url(start));
    plan.page_limit = 1_000;

    let (began, processor) = (Instant::now(), processor_time::own_seconds());
    let found = crawl(
        &options,
        &plan,
        Vec::new(),
        Arc::new(|_| {}),
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    report(
        "first crawl",
        &found,
        began.elapsed(),
        processor_time::own_seconds() - processor,
    );

    let known = found.known_pages();
    let (began, processor) = (Instant::now(), processor_time::own_seconds());
    let found = crawl(
        &options,
        &plan,
        known,
        Arc::new(|_| {}),
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    report(
        "unchanged",
        &found,
        began.elapsed(),
        processor_time::own_seconds() - processor,
    );
}

fn report(what: &str, crawl: &Crawl, elapsed: Duration, processor: f64) {
    let is_document =
        |decision: &PageDecision| matches!(decision, PageDecision::Load | PageDecision::Unchanged);
    let pages = crawl
        .pages()
        .iter()
        .filter(|page| is_document(&page.decision))
        .count();
    let bytes: u64 = crawl.pages().iter().filter_map(|page| page.size_bytes).sum();
    println!(
        "{what:12} {pages} pages, {:.1} MB of Markdown in {:.2} s: {:.0} pages/s, {:.2} ms of processor time a page",
        bytes as f64 / 1e6,
        elapsed.as_secs_f64(),
        pages as f64 / elapsed.as_secs_f64(),
        processor * 1e3 / pages as f64,
    );
}

/// A page as a generator of documentation would make it.
fn page(n: usize) -> String {
    let mut page = format!(
        "<!doctype html><html><head><title>Page {n}</title><meta charset=utf-8></head><body><header><nav><ul>"
    );
    for offset in 1..=10 {
        let next = (n * 10 + offset) % PAGES;
        write!(
            page,
            "<li class='toctree-l1'><a class='reference internal' href='/{next}.html'>Page {next}</a></li>"
        )
        .unwrap();
    }
    write!(
        page,
        "</ul></nav></header><main><article><h1>Page {n}<a class=headerlink href='#p'>¶</a></h1>"
    )
    .unwrap();
    for section in 0..12 {
        write!(
            page,
            "<section><h2>Section {section}</h2><p>Text of <em>page</em> {n} with <code>code_{section}</code> and \
             <a href='/{section}.html#x'>a link</a>, {}</p>\
             <div class='highlight-python'><div class=highlight><pre><span class=n>value_{n}</span> <span class=o>=</span> \
             <span class=nb>call</span><span class=p>(</span><span class=mi>{section}</span><span class=p>)</span>\n</pre></div></div>\
             <table><thead><tr><th>Name</th><th>Value</th></tr></thead><tbody><tr><td>a</td><td>{n}</td></tr><tr><td>b</td>\
             <td>{section}</td></tr></tbody></table><ul><li>one</li><li>two <b>bold</b></li></ul></section>",
            "so that the paragraph has some length to it. ".repeat(10),
        )
        .unwrap();
    }
    page.push_str("</article></main><footer>Imprint</footer></body></html>");
    page
}

fn copy(site: &Site, root: &Path, directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            copy(site, root, &path);
        } else if path.extension().is_some_and(|extension| extension == "html") {
            site.write(
                path.strip_prefix(root).unwrap().to_str().unwrap(),
                std::fs::read(&path).unwrap(),
            );
        }
    }
}
