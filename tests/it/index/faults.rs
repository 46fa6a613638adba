//! The Chroma client against a server, or a network, that fails.

use std::time::{Duration, Instant};

use chroma_sync::{
    error::Reason,
    index::{ChromaClient, ChromaOptions, IndexError},
    secret::Secret,
};
use url::Url;

use super::{create, document};
use crate::harness::{
    chroma::{self, ChromaDatabase},
    proxy::{Fault, FaultProxy},
};

/// A client that reaches the server through a proxy, and does not wait long.
async fn behind(faults: &[Fault]) -> (FaultProxy, ChromaClient) {
    let server = chroma::server_url().strip_prefix("http://").unwrap();
    let proxy = FaultProxy::start(server, faults).await;
    let client = impatient(&proxy.url());
    (proxy, client)
}

fn impatient(url: &str) -> ChromaClient {
    ChromaClient::new(ChromaOptions {
        backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(10),
        ..ChromaOptions::new(Url::parse(url).unwrap())
    })
    .unwrap()
}

#[tokio::test]
async fn records_beyond_one_request_go_into_several() {
    let database = ChromaDatabase::create().await;
    let collection = create(&database, "batches", 2).await;
    let (proxy, client) = behind(&[]).await;
    assert_eq!(client.capabilities().await.unwrap().max_batch_size, 5_461);
    let before = proxy.handed_on();
    client.upsert(&collection, &document("a", 1_001)).await.unwrap();
    assert_eq!(proxy.handed_on() - before, 3);
    assert_eq!(client.count(&collection).await.unwrap(), 1_001);
}

#[tokio::test]
async fn a_request_that_is_too_large_for_somebody_on_the_way_is_cut_in_two() {
    let database = ChromaDatabase::create().await;
    let collection = create(&database, "halves", 2).await;
    let too_large = Fault::Answer("413 Payload Too Large");
    let (proxy, client) = behind(&[Fault::PassOnce, too_large, too_large]).await;
    client.upsert(&collection, &document("a", 8)).await.unwrap();
    // The capabilities, then two, two and four records.
    assert_eq!(proxy.handed_on(), 4);
    assert_eq!(client.count(&collection).await.unwrap(), 8);

    let (_proxy, client) = behind(&[Fault::PassOnce, too_large]).await;
    let error = client.upsert(&collection, &document("b", 1)).await.unwrap_err();
    assert!(
        matches!(error, IndexError::Rejected { status: 413, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_write_survives_busy_answers_resets_and_a_lost_answer() {
    let database = ChromaDatabase::create().await;
    let collection = create(&database, "faults", 2).await;
    let faults = [
        Fault::Answer("503 Service Unavailable"),
        Fault::Reset,
        Fault::LoseAnswer,
        Fault::Answer("429 Too Many Requests\r\nretry-after: 0"),
        Fault::LoseAnswer,
    ];
    let (proxy, client) = behind(&faults).await;
    client
        .delete_records(&collection, &["none".to_owned()])
        .await
        .unwrap();
    assert_eq!(proxy.connections(), faults.len() + 1);

    let (proxy, client) = behind(&[Fault::LoseAnswer, Fault::Reset]).await;
    client.upsert(&collection, &document("a", 20)).await.unwrap();
    assert!(proxy.connections() >= 3);
    assert_eq!(client.count(&collection).await.unwrap(), 20);
}

#[tokio::test]
async fn a_server_that_is_away_is_a_transient_error_within_the_deadline() {
    // A port that was free a moment ago, so that connecting is refused.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let begun = Instant::now();
    let error = impatient(&format!("http://127.0.0.1:{port}"))
        .heartbeat()
        .await
        .unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(error.is_transient());
    assert_eq!(error.failure().reason, "CHROMA_UNAVAILABLE");
    assert!(error.to_string().contains("connecting failed"), "{error}");
    assert_eq!(
        chroma_sync::error::Error::from(error).reason(),
        Reason::ChromaUnavailable
    );
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_at_the_deadline() {
    let (proxy, _) = behind(&[Fault::Hang; 50]).await;
    let options = ChromaOptions {
        timeout: Duration::from_millis(100),
        deadline: Duration::from_millis(450),
        backoff: Duration::from_millis(10),
        max_retries: 100,
        ..ChromaOptions::new(Url::parse(&proxy.url()).unwrap())
    };
    let begun = Instant::now();
    let error = ChromaClient::new(options).unwrap().heartbeat().await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(
        error.is_transient() && error.to_string().contains("took too long"),
        "{error}"
    );
    assert!(proxy.connections() > 1, "a try that timed out is repeated");
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_left_to_the_caller() {
    let (proxy, client) = behind(&[Fault::Answer("429 Too Many Requests\r\nretry-after: 3600")]).await;
    let error = client.heartbeat().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3_600)));
    assert_eq!(error.failure().reason, "CHROMA_RATE_LIMITED");
    assert!(error.is_transient());
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_repeating_cannot_change_is_not_repeated() {
    let redirect = "307 Temporary Redirect\r\nlocation: /api/v2/version";
    for (answer, reason) in [
        ("501 Not Implemented", "CHROMA_UNSUPPORTED"),
        ("401 Unauthorized", "CHROMA_UNAUTHORIZED"),
        ("403 Forbidden", "CHROMA_UNAUTHORIZED"),
        ("422 Unprocessable Entity", "CHROMA_REJECTED"),
        ("404 Not Found", "CHROMA_MISCONFIGURED"),
        (redirect, "CHROMA_MISCONFIGURED"),
        ("200 OK", "CHROMA_MISCONFIGURED"),
    ] {
        let (proxy, client) = behind(&[Fault::Answer(answer)]).await;
        let error = client.heartbeat().await.unwrap_err();
        assert_eq!(error.failure().reason, reason, "{answer}");
        assert!(!error.is_transient(), "{answer}");
        assert_eq!(proxy.connections(), 1, "{answer}");
    }
}

#[tokio::test]
async fn the_token_goes_along_and_never_into_an_error() {
    let secret = "ck-0123456789";
    let (proxy, _) = behind(&[Fault::Answer("401 Unauthorized")]).await;
    let url = Url::parse(&proxy.url()).unwrap();
    let options = ChromaOptions {
        token: Some(Secret::new(secret)),
        ..ChromaOptions::new(url)
    };
    let client = ChromaClient::new(options).unwrap();
    let error = client.heartbeat().await.unwrap_err();
    let printed = format!("{client:?} {error:?} {error}");
    assert!(!printed.contains(secret), "{printed}");
    let request = proxy.first_request();
    assert!(
        request.contains(&format!("x-chroma-token: {secret}\r\n")),
        "{request}"
    );
}

#[tokio::test]
async fn clones_ask_for_the_capabilities_once() {
    let (proxy, client) = behind(&[]).await;
    for _ in 0..3 {
        client
            .with_deadline(Duration::from_secs(9))
            .capabilities()
            .await
            .unwrap();
    }
    assert_eq!(proxy.handed_on(), 1);
}
