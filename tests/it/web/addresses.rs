//! A crawl connects to public addresses and to what the operator allowed, whatever names and redirects say.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chroma_sync::fetch::{
    Egress,
    web::{CrawlError, CrawlPlan},
};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Crawler, assert_listing, page};
use crate::harness::site::Site;

/// A resolver that lies: the first questions get the first answers, and all further ones the last.
struct Liar {
    answers: Vec<IpAddr>,
    asked: AtomicUsize,
}

impl Liar {
    fn saying(answers: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            answers: answers.iter().map(|answer| answer.parse().unwrap()).collect(),
            asked: AtomicUsize::new(0),
        })
    }
}

impl Resolve for Liar {
    fn resolve(&self, _name: Name) -> Resolving {
        let at = self
            .asked
            .fetch_add(1, Ordering::Relaxed)
            .min(self.answers.len() - 1);
        let address = SocketAddr::new(self.answers[at], 0);
        Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) })
    }
}

fn named(crawler: &Crawler, path: &str) -> CrawlPlan {
    CrawlPlan::new(
        format!("http://site.test:{}{path}", crawler.site.port)
            .parse()
            .unwrap(),
    )
}

fn assert_untouched(listener: &TcpListener) {
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "nothing connected"
    );
}

#[tokio::test]
async fn loopback_and_metadata_addresses_are_refused_however_they_are_written() {
    let mut crawler = Crawler::new(&[]);
    crawler.options.egress = Egress::public_only();
    let port = crawler.site.port;
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://localhost:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://10.0.0.1/".to_owned(),
    ] {
        let error = crawler
            .crawl(&CrawlPlan::new(url.parse().unwrap()))
            .await
            .unwrap_err();
        assert!(
            matches!(error, CrawlError::EgressForbidden { .. }),
            "{url}: {error:?}"
        );
        assert_eq!(error.reason(), "EGRESS_FORBIDDEN");
        assert!(!error.is_transient());
    }
    assert!(crawler.site.requests().await.is_empty());
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_without_showing_the_address() {
    let mut crawler = Crawler::new(&[]);
    crawler.options.egress = Egress::public_only();
    for address in [
        "127.0.0.1",
        "169.254.169.254",
        "10.1.2.3",
        "::1",
        "fd00::1",
        "::ffff:127.0.0.1",
    ] {
        crawler.options.names = Liar::saying(&[address]);
        let error = crawler.crawl(&named(&crawler, "/")).await.unwrap_err();
        assert!(
            matches!(error, CrawlError::EgressForbidden { .. }),
            "{address}: {error:?}"
        );
        assert!(!error.to_string().contains(address), "{error}");
    }
    assert!(crawler.site.requests().await.is_empty());
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_the_second_time_is_refused_then() {
    let inside = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
    inside.set_nonblocking(true).unwrap();
    let port = inside.local_addr().unwrap().port();
    let public = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    public.set_nonblocking(true).unwrap();
    let home = page("Home", &["/a.html"]);
    // Every answer closes its connection, so that every request asks for the name anew.
    let site = Site::listening(
        &public,
        &[("index.html", &home), ("a.html", &home)],
        "keepalive_timeout 0;",
        "",
    );
    let mut crawler = Crawler::of(site);
    // This address stands for a public one.
    crawler.options.egress = Egress::parse(&["127.0.0.1".to_owned()]).unwrap();
    // robots.txt, the start page and the sitemap.
    crawler.options.names = Liar::saying(&["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2"]);
    let crawl = crawler.crawl(&named(&crawler, "/")).await.unwrap();
    assert_listing(
        &crawl,
        &[
            ("/", "load"),
            (
                "/a.html",
                "failed: site.test leads to an address that is not public; the operator can allow it with egress.allow",
            ),
        ],
    );
    assert_untouched(&inside);
}

#[tokio::test]
async fn a_redirect_of_robots_to_an_address_inside_is_refused() {
    let inside = crate::harness::nginx::listener();
    let port = inside.local_addr().unwrap().port();
    let home = page("Home", &[]);
    let redirect = format!("location = /robots.txt {{ return 302 http://127.0.0.1:{port}/; }}");
    let crawler = Crawler::with(&[("index.html", &home)], "", &redirect);
    let error = crawler.crawl(&crawler.plan("/")).await.unwrap_err();
    assert_eq!(error.reason(), "EGRESS_FORBIDDEN");
    assert_untouched(&inside);
}

#[tokio::test]
async fn links_redirects_sitemaps_and_canonical_urls_lead_to_no_other_host() {
    let inside = crate::harness::nginx::listener();
    let port = inside.local_addr().unwrap().port();
    let other = format!("http://127.0.0.1:{port}");
    let home = page("Home", &[&format!("{other}/a"), "/r.html"])
        .replace("<main>", &format!("<link rel=canonical href='{other}/'><main>"));
    let map = format!("<urlset><url><loc>{other}/b</loc></url></urlset>");
    let mut crawler = Crawler::with(
        &[("index.html", &home), ("sitemap.xml", &map)],
        "",
        &format!("location = /r.html {{ return 302 {other}/; }}"),
    );
    // Even where the policy would let it.
    crawler.options.egress = Egress::parse(&["127.0.0.1".to_owned()]).unwrap();
    assert_listing(&crawler.all().await, &[("/", "load"), ("/r.html", "off_site")]);
    assert_untouched(&inside);
}
