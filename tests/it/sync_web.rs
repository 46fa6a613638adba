//! A web site becomes a collection, and is brought up to date.

use std::{collections::BTreeMap, fs};

use chroma_sync::proto::{self, document::Outcome, invocation::State};
use serde_json::json;

use crate::harness::{
    scenario::Scenario,
    service::{Service, project_file},
    site::Site,
    stores::{Backend, on_both},
};

fn page(title: &str, body: &str) -> String {
    format!("<!doctype html><html><head><title>{title}</title></head><body><main>{body}</main></body></html>")
}

/// A deployment that may crawl this machine, as fast as it answers.
async fn crawling(backend: Backend) -> Scenario {
    let mut scenario = Scenario::new(backend).await;
    scenario.deployment = scenario
        .deployment
        .with("egress.allow", "127.0.0.1")
        .with("web.delay_milliseconds", "0");
    scenario
}

async fn create_source(scenario: &Scenario, service: &Service, web: proto::WebScrapeSource) -> String {
    let request = proto::CreateSourceRequest {
        settings: Some(proto::create_source_request::Settings::WebScrape(web)),
        ..scenario.source_request("owner/name")
    };
    let created = service
        .sources(&scenario.admin)
        .create_source(request)
        .await
        .unwrap();
    created.into_inner().id
}

/// Crawls into `site` and returns how that ended.
async fn run(scenario: &Scenario, service: &Service, source_id: &str) -> proto::Invocation {
    let request = proto::CreateInvocationRequest {
        source_id: source_id.to_owned(),
        target_collection_name: "site".to_owned(),
        update_collection: true,
        ..Default::default()
    };
    let created = service
        .invocations(&scenario.admin)
        .create_invocation(request)
        .await
        .unwrap()
        .into_inner();
    let messages = scenario.watch(service, &created.id).await;
    messages.last().unwrap().invocation.clone().unwrap()
}

on_both!(
    a_site_becomes_a_collection_and_is_brought_up_to_date,
    a_site_becomes_a_collection_on
);
async fn a_site_becomes_a_collection_on(backend: Backend) {
    let scenario = crawling(backend).await;
    let links = r#"<h1>Start</h1><p>Go to <a href="/guide">the guide</a>, <a href="/old">the old page</a>,
        <a href="/report.pdf">the report</a> and <a href="/logo.png">the logo</a>.</p>"#;
    let site = Site::with(
        &[
            ("/index.html", &page("The start", links)),
            ("/guide", &page("The guide", "<h1>Guide</h1><p>Turn left.</p>")),
            ("/old", &page("Old", "<p>Soon gone.</p>")),
        ],
        "",
        "location ~ ^/(guide|old)$ { default_type text/html; }",
    );
    site.write(
        "/report.pdf",
        fs::read(project_file("tests/corpus/report.pdf")).unwrap(),
    );
    site.write(
        "/logo.png",
        fs::read(project_file("tests/corpus/picture.png")).unwrap(),
    );
    let service = scenario.deployment.start();
    let start = site.url("/").to_string();
    let web = proto::WebScrapeSource {
        starting_url: start.clone(),
        ..Default::default()
    };
    let source = create_source(&scenario, &service, web).await;

    let first = run(&scenario, &service, &source).await;
    assert_eq!(first.state(), State::Complete, "{:?}", first.failure);
    let url = |path: &str| site.url(path).to_string();
    let expected = BTreeMap::from([
        (url("/"), (Outcome::Indexed, String::new())),
        (url("/guide"), (Outcome::Indexed, String::new())),
        (url("/old"), (Outcome::Indexed, String::new())),
        (url("/report.pdf"), (Outcome::Indexed, String::new())),
        (url("/logo.png"), (Outcome::Skipped, "not_text".to_owned())),
    ]);
    assert_eq!(scenario.documents(&service, &first.id).await, expected);
    let records = scenario.chroma.records("site").await;
    let guide: Vec<_> = records
        .values()
        .filter(|record| record.metadata["document_key"] == json!(url("/guide")))
        .collect();
    assert_eq!(guide.len(), 1);
    assert_eq!(guide[0].metadata["title"], json!("The guide"));
    assert_eq!(guide[0].metadata["url"], json!(url("/guide")));
    assert_eq!(guide[0].metadata["chunk_strategy"], json!("markdown"));
    assert_eq!(guide[0].document.as_deref(), Some("# Guide\n\nTurn left.\n"));
    assert_eq!(
        scenario.chroma.collection_metadata("site").await["finished_ingest"],
        json!(true)
    );

    site.write("/guide", page("The guide", "<h1>Guide</h1><p>Turn right.</p>"));
    site.remove("/old");
    let before = site.requests().await.len();
    let second = run(&scenario, &service, &source).await;
    assert_eq!(second.state(), State::Complete, "{:?}", second.failure);
    let outcome = |path: &str, of: &BTreeMap<String, (Outcome, String)>| of[&url(path)].0;
    let again = scenario.documents(&service, &second.id).await;
    assert_eq!(outcome("/", &again), Outcome::Unchanged);
    assert_eq!(outcome("/report.pdf", &again), Outcome::Unchanged);
    assert_eq!(outcome("/guide", &again), Outcome::Indexed);
    assert_eq!(outcome("/old", &again), Outcome::Removed);
    let requests = site.requests().await.split_off(before);
    let conditional = |path: &str| requests.iter().any(|r| r.path == path && r.status == 304);
    assert!(conditional("/") && conditional("/report.pdf"), "{requests:?}");
    let texts: Vec<String> = scenario
        .chroma
        .records("site")
        .await
        .into_values()
        .filter_map(|record| record.document.map(|text| text.to_string()))
        .collect();
    assert!(texts.iter().any(|text| text.contains("Turn right.")), "{texts:?}");
    assert!(!texts.iter().any(|text| text.contains("Turn left.")), "{texts:?}");
    assert!(!texts.iter().any(|text| text.contains("Soon gone.")), "{texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_deleted_from_the_collection_is_loaded_again() {
    let scenario = crawling(Backend::Sqlite).await;
    let site = Site::start(&[
        (
            "/index.html",
            &page("Start", r#"<p>One. <a href="/two.html">Two</a></p>"#),
        ),
        ("/two.html", &page("Two", "<p>Two is here.</p>")),
    ]);
    let service = scenario.deployment.start();
    let web = proto::WebScrapeSource {
        starting_url: site.url("/").to_string(),
        ..Default::default()
    };
    let source = create_source(&scenario, &service, web).await;
    assert_eq!(run(&scenario, &service, &source).await.state(), State::Complete);
    let records = scenario.chroma.records("site").await;
    let two = records
        .iter()
        .find(|(_, record)| record.metadata["title"] == json!("Two"))
        .map(|(id, _)| id.clone())
        .unwrap();
    scenario.chroma.delete_record("site", &two).await;

    let again = run(&scenario, &service, &source).await;

    assert_eq!(again.state(), State::Complete, "{:?}", again.failure);
    let counts = again.statistics.unwrap();
    assert_eq!((counts.documents_indexed, counts.documents_unchanged), (1, 1));
    assert!(scenario.chroma.records("site").await.contains_key(&two));
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_limit_and_patterns_decide_which_pages_are_synced() {
    let scenario = crawling(Backend::Sqlite).await;
    let site = Site::start(&[
        (
            "/index.html",
            &page(
                "Start",
                r#"<p>Start <a href="/docs/a.html">a</a> <a href="/blog/b.html">b</a></p>"#,
            ),
        ),
        (
            "/docs/a.html",
            &page("A", r#"<p>A <a href="/docs/deep.html">deep</a></p>"#),
        ),
        ("/docs/deep.html", &page("Deep", "<p>Deep</p>")),
        ("/blog/b.html", &page("B", "<p>B</p>")),
    ]);
    let service = scenario.deployment.start();
    let web = proto::WebScrapeSource {
        starting_url: site.url("/").to_string(),
        max_depth: Some(1),
        exclude_path_regexes: vec!["^/blog/".to_owned()],
        ..Default::default()
    };
    let source = create_source(&scenario, &service, web).await;

    let ended = run(&scenario, &service, &source).await;

    assert_eq!(ended.state(), State::Complete, "{:?}", ended.failure);
    let pages = scenario.documents(&service, &ended.id).await;
    let indexed: Vec<&String> = pages
        .iter()
        .filter(|(_, (outcome, _))| *outcome == Outcome::Indexed)
        .map(|(url, _)| url)
        .collect();
    let url = |path: &str| site.url(path).to_string();
    assert_eq!(indexed, [&url("/"), &url("/docs/a.html")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_at_an_address_that_is_not_public_is_refused_at_once() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let site = Site::start(&[("/index.html", &page("Start", "<p>Secret</p>"))]);
    let service = scenario.deployment.start();
    let web = proto::WebScrapeSource {
        starting_url: site.url("/").to_string(),
        ..Default::default()
    };
    let source = create_source(&scenario, &service, web).await;

    let ended = run(&scenario, &service, &source).await;

    assert_eq!(ended.state(), State::Failed);
    assert_eq!(ended.failure.unwrap().reason, "EGRESS_FORBIDDEN");
    assert_eq!(site.requests().await, []);
}
