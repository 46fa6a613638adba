//! Auto-sync as an operator runs it: the worker follows a queue, tells what it counts, and drains.

use std::net::TcpListener;

use serde_json::json;

use crate::harness::{
    moto::{Moto, REGION},
    rest::RestClient,
    scenario::Scenario,
    stores::Backend,
    wait_for,
};

/// A port that nobody listens on.
fn unused_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The value of one line of `/metrics`.
async fn counted(address: &str, name: &str) -> u64 {
    let response = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let prefix = format!("chroma_sync_auto_sync_{name}_total ");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("{name} is not in {text}"))
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_follows_the_queue_tells_what_it_counts_and_drains() {
    let moto = Moto::start().await;
    moto.create_bucket("docs").await;
    let queue = moto
        .create_queue("events", json!({"VisibilityTimeout": "5"}))
        .await;
    moto.notify("docs", &queue).await;
    let metrics = format!("127.0.0.1:{}", unused_port());
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario
        .deployment
        .with("s3.endpoint_url", moto.url.as_str())
        .with("sqs.queue_url", queue.as_str())
        .with("sqs.endpoint_url", moto.url.as_str())
        .with("sqs.region", REGION)
        .with("sqs.access_key_id", "AKIATEST")
        .with("sqs.secret_access_key", "any")
        .with("sqs.wait_seconds", "20");
    let api = scenario.deployment.start_role("api");
    let worker = scenario
        .deployment
        .clone()
        .with("metrics.listen", &metrics)
        .start_role("worker");
    let rest = RestClient::new(&api, &scenario.admin);
    let body = json!({"database_name": scenario.database(), "s3": {
        "bucket_name": "docs", "region": REGION, "collection_name": "objects", "auto_sync": "direct",
        "path_prefix": "in/", "aws_access_key_id": "AKIATEST", "aws_secret_access_key": "any",
    }});
    let (status, created) = rest.post("/api/v1/sources", &body).await;
    assert_eq!(status, 201, "{created}");

    moto.put("docs", "in/river.md", "The Danube flows into the Black Sea.")
        .await;
    moto.put("docs", "out/lake.md", "Nobody asked for lakes.").await;
    wait_for("the object's records", async || {
        let (_, invocations) = rest.get("/api/v1/invocations").await;
        match invocations.as_array().unwrap().as_slice() {
            [one] if one["status"]["complete"].is_object() => Ok(()),
            _ => Err(invocations),
        }
    })
    .await;
    let records = scenario.chroma.records("objects").await;
    let texts: Vec<String> = records
        .into_values()
        .map(|record| record.document.unwrap().to_string())
        .collect();
    assert_eq!(texts, ["The Danube flows into the Black Sea."]);

    // The test that S3 sends first, and both objects.
    wait_for("the counts", async || {
        match counted(&metrics, "messages_handled").await {
            3 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(counted(&metrics, "invocations_created").await, 1);
    assert_eq!(counted(&metrics, "events_passed_over").await, 1);
    assert_eq!(counted(&metrics, "removals_created").await, 0);
    let elsewhere = reqwest::get(format!("http://{metrics}/")).await.unwrap();
    assert_eq!(elsewhere.status(), 404);

    // It waits for messages now, and goes at once all the same.
    worker.terminate();
    let (ended, log) = worker.wait();
    assert!(ended.success(), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
    assert_eq!(moto.queue_length(&queue).await, (0, 0));
}
