//! Watches over plain HTTP: server-sent events and the long poll.

use std::time::Duration;

use chroma_sync::proto::WatchInvocationsRequest;
use futures::StreamExt;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{
    browser::{Page, serve_files},
    event_stream::Curl,
    git_server::{Change, Repository},
    rest::RestClient,
    scenario::Scenario,
    service::{Service, project_file},
    stores::{Backend, on_both},
};

fn token(scenario: &Scenario) -> String {
    format!("x-chroma-token: {}", scenario.admin)
}

fn events_url(service: &Service, id: &str) -> String {
    format!("{}/api/v1/invocations/{id}/events", service.url)
}

on_both!(the_events_of_an_invocation_go_to_its_end, events_on);
async fn events_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit(
        "main",
        &[Change::file("a.txt", "a\n"), Change::file("b.txt", "b\n")],
    );
    let api = scenario.deployment.start_role("api");
    let (source, created) = scenario.pending_invocation(&api).await;
    let mut curl = Curl::open(&events_url(&api, &created.id), &[token(&scenario)]);
    let head = curl.head().await;
    assert_eq!(head[0], "http/1.1 200 ok");
    for line in [
        "content-type: text/event-stream",
        "cache-control: no-store",
        "x-accel-buffering: no",
        "access-control-allow-origin: *",
    ] {
        assert!(head.contains(&line.to_owned()), "{line}: {head:?}");
    }
    assert_eq!(curl.next().await.unwrap().retry, "1000");
    let snapshot = curl.next_change().await.unwrap();
    assert_eq!((snapshot.id.as_str(), snapshot.event.as_str()), ("1", "snapshot"));
    let rest = RestClient::new(&api, &scenario.admin);
    let path = format!("/api/v1/invocations/{}", created.id);
    assert_eq!(snapshot.data["invocation"], rest.get(&path).await.1);
    assert_eq!(snapshot.data["progress"]["phase"], json!("queued"));

    let _worker = scenario.deployment.start_role("worker");
    let mut events = Vec::new();
    while let Some(event) = curl.next_change().await {
        assert_eq!(event.data["revision"].to_string(), event.id);
        events.push(event);
    }
    let changes: Vec<(&str, &str)> = events
        .iter()
        .filter(|event| event.event == "state_changed")
        .map(|event| {
            (
                event.id.as_str(),
                event.data["invocation"]["source_id"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(changes, [("2", source.as_str()), ("3", source.as_str())]);
    let last = events.last().unwrap();
    assert_eq!(last.data["invocation"], rest.get(&path).await.1);
    let progress = &last.data["progress"];
    assert_eq!(
        (
            &progress["documents_indexed"],
            &progress["phase"],
            &progress["documents_left"]
        ),
        (&json!(2), &json!("done"), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_event_id_resumes_and_after_the_end_there_is_no_content() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&service).await;
    scenario.cancel(&service, &created.id).await;
    let url = events_url(&service, &created.id);
    let events = async |query: &str, last: &str| {
        let headers = [token(&scenario), format!("last-event-id: {last}")];
        let mut curl = Curl::open(&format!("{url}{query}"), &headers);
        let head = curl.head().await;
        let mut events = Vec::new();
        while let Some(event) = curl.next_change().await {
            events.push((event.event, event.id));
        }
        (head[0].clone(), events)
    };
    let changed = |revision: &str| ("state_changed".to_owned(), revision.to_owned());
    let ok = "http/1.1 200 ok".to_owned();
    let both = vec![changed("1"), changed("2")];
    assert_eq!(events("?after_revision=0", "").await, (ok.clone(), both));
    assert_eq!(
        events("?after_revision=0", "1").await,
        (ok.clone(), vec![changed("2")])
    );
    assert_eq!(events("", "1").await, (ok.clone(), vec![changed("2")]));
    let snapshot = vec![("snapshot".to_owned(), "2".to_owned())];
    assert_eq!(events("", "").await, (ok, snapshot));
    assert_eq!(
        events("", "2").await,
        ("http/1.1 204 no content".to_owned(), vec![])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_gets_a_status_and_the_documented_body() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let (source, created) = scenario.pending_invocation(&service).await;
    let one = format!("/api/v1/invocations/{}/events", created.id);
    let poll = format!("/api/v1/invocations/{}", created.id);
    let unknown = "/api/v1/invocations/0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00";
    let cases = [
        (format!("{one}?after_revision=2"), "", 400, "REVISION_AHEAD"),
        (format!("{one}?after_revision=x"), "", 400, "INVALID_FIELD"),
        (format!("{one}?unknown=1"), "", 400, "INVALID_FIELD"),
        (one.clone(), "7", 400, "REVISION_AHEAD"),
        (one.clone(), "x", 400, "INVALID_FIELD"),
        (format!("{unknown}/events"), "", 404, "INVOCATION_NOT_FOUND"),
        (
            "/api/v1/invocations/x/events".to_owned(),
            "",
            400,
            "INVALID_FIELD",
        ),
        ("/api/v1/events?status=ended".to_owned(), "", 400, "INVALID_FIELD"),
        (
            "/api/v1/events?include_live=yes".to_owned(),
            "",
            400,
            "INVALID_FIELD",
        ),
        (
            "/api/v1/events?resume_token=x".to_owned(),
            "",
            400,
            "INVALID_RESUME_TOKEN",
        ),
        ("/api/v1/events".to_owned(), "x", 400, "INVALID_RESUME_TOKEN"),
        (
            format!("/api/v1/events?source_id={source}&database_name=db"),
            "",
            400,
            "INVALID_FIELD",
        ),
        (format!("{poll}?wait=56s"), "", 400, "INVALID_FIELD"),
        (format!("{poll}?wait=1"), "", 400, "INVALID_FIELD"),
        (format!("{poll}?after_revision=1"), "", 400, "INVALID_FIELD"),
        (
            format!("{poll}?wait=1s&after_revision=2"),
            "",
            400,
            "REVISION_AHEAD",
        ),
        (format!("{unknown}?wait=1s"), "", 404, "INVOCATION_NOT_FOUND"),
    ];
    for (path, last_event_id, status, reason) in cases {
        let mut headers = HeaderMap::new();
        headers.insert("x-chroma-token", scenario.admin.parse().unwrap());
        headers.insert("last-event-id", last_event_id.parse().unwrap());
        let request = reqwest::Client::new().get(format!("{}{path}", service.url));
        let answer = request.headers(headers).send().await.unwrap();
        let told = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        assert_eq!((told, &body["reason"]), (status, &json!(reason)), "{path}");
    }
    for path in [one.as_str(), "/api/v1/events", &format!("{poll}?wait=1s")] {
        let answer = RestClient::new(&service, "").get(path).await;
        assert_eq!(
            (answer.0, &answer.1["reason"]),
            (401, &json!("TOKEN_MISSING")),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_answers_at_the_change_or_when_its_time_is_over() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&service).await;
    let rest = RestClient::new(&service, &scenario.admin);
    let path = format!("/api/v1/invocations/{}", created.id);
    let state = |answer: &(u16, Value)| (answer.0, answer.1["status"].clone(), answer.1["revision"].clone());
    let pending = (200, json!("pending"), json!(1));
    let cancelled = (200, json!("cancelled"), json!(2));

    // Later than what the caller knows: at once.
    let began = Instant::now();
    let answer = rest.get(&format!("{path}?wait=50s&after_revision=0")).await;
    assert_eq!(state(&answer), pending);
    let (documented, mut extended) = (rest.get(&path).await.1, answer.1);
    let fields = extended.as_object_mut().unwrap();
    assert!(fields.remove("revision").is_some() && fields.remove("progress").is_some());
    assert_eq!(extended, documented);

    // Nothing happens: the unchanged state, when the time is over.
    let answer = rest.get(&format!("{path}?wait=300ms&after_revision=1")).await;
    assert_eq!(state(&answer), pending);
    assert!(began.elapsed() >= Duration::from_millis(300));

    // It happens meanwhile.
    let waiting = async { rest.get(&format!("{path}?wait=50s")).await };
    let cancelling = async {
        // The poll takes a place among the watches once it waits.
        let mut feed = scenario
            .watch_many(&service, WatchInvocationsRequest::default())
            .await
            .unwrap();
        feed.message().await.unwrap().unwrap();
        scenario.cancel(&service, &created.id).await;
    };
    let (answer, ()) = tokio::join!(waiting, cancelling);
    // Whichever came first: the poll saw the change or began after it, and then there was nothing to wait for.
    assert_eq!(state(&answer), cancelled);
    assert_eq!(state(&rest.get(&format!("{path}?wait=50s")).await), cancelled);
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_source_in_a_browser_follows_to_the_end_over_a_restart() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.on_one_port();
    let service = scenario.deployment.start_role("api");
    let (_, one) = scenario.pending_invocation(&service).await;
    // The page is of another origin, as an application's is.
    let page = serve_files(Box::leak(project_file("tests/it/pages").into_boxed_path())).await;
    let address = |path: String| format!("{}{path}?access_token={}", service.url, scenario.admin);
    let of_one = address(format!("/api/v1/invocations/{}/events", one.id));
    let of_all = address("/api/v1/events".to_owned());
    let mut page = Page::open(&format!("{page}/events.html")).await;
    page.evaluate(&format!(
        "follow('one', {}); follow('all', {})",
        json!(of_one),
        json!(of_all)
    ))
    .await;
    page.wait_until("seen.one.join()", &json!("snapshot 1")).await;
    page.wait_until("opened.all", &json!(1)).await;

    service.terminate();
    let (_, log) = service.wait();
    assert!(!log.contains(&scenario.admin), "no token in the log");
    let service = scenario.deployment.start_role("api");
    scenario.cancel(&service, &one.id).await;
    page.wait_until("seen.one.join()", &json!("snapshot 1,state_changed 2"))
        .await;
    // 204 tells the browser to stop.
    page.wait_until("sources.one.readyState", &json!(2)).await;
    page.wait_until("seen.all.join()", &json!("state_changed 2"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_as_events_begins_with_a_place_and_resumes() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let url = format!("{}/api/v1/events", service.url);
    let mut curl = Curl::open(&url, &[token(&scenario)]);
    assert_eq!(curl.head().await[0], "http/1.1 200 ok");
    assert_eq!(curl.next().await.unwrap().retry, "1000");
    let place = curl.next().await.unwrap();
    assert_eq!(
        (place.comments, place.event.as_str()),
        (vec!["heartbeat".to_owned()], "")
    );
    let (source, created) = scenario.pending_invocation(&service).await;
    scenario.cancel(&service, &created.id).await;
    let first = curl.next_change().await.unwrap();
    let second = curl.next_change().await.unwrap();
    assert_eq!(
        (&first.data["revision"], &second.data["revision"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(second.data["invocation"]["status"], json!("cancelled"));
    for (id, expected) in [(&place.id, vec![&first, &second]), (&first.id, vec![&second])] {
        let headers = [token(&scenario), format!("last-event-id: {id}")];
        let mut curl = Curl::open(&url, &headers);
        curl.head().await;
        for expected in expected {
            let event = curl.next_change().await.unwrap();
            assert_eq!(
                (&event.id, &event.data["revision"]),
                (&expected.id, &expected.data["revision"])
            );
        }
    }
    let mut live = Curl::open(
        &format!("{url}?include_live=true&status=pending,processing"),
        &[token(&scenario)],
    );
    live.head().await;
    let again = scenario
        .create_invocation(&service, &source, "again")
        .await
        .unwrap();
    let event = live.next_change().await.unwrap();
    assert_eq!(event.data["invocation"]["id"], json!(again.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_is_a_comment_and_a_draining_server_ends_the_stream() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.with("watch.heartbeat_seconds", "1");
    let service = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&service).await;
    let request = reqwest::Client::new().get(events_url(&service, &created.id));
    let answer = request
        .header("x-chroma-token", &scenario.admin)
        .send()
        .await
        .unwrap();
    let mut body = answer.bytes_stream();
    let mut text = String::new();
    while !text.contains(": heartbeat\n\n") {
        text.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
    }
    service.terminate();
    // The end is a proper one: the client connects again and learns more then.
    while let Some(bytes) = body.next().await {
        bytes.unwrap();
    }
    assert!(service.wait().0.success());
}
