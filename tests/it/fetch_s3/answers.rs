//! Answers that no server at hand gives on demand: each is written out here and sent as it is.

use std::time::Duration;

use chroma_sync::fetch::s3::{S3Bucket, S3Error};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use url::Url;

use super::{key, open, options};
use crate::harness::moto::any_credentials;

/// Answers each connection with the next of `answers`, then is away; tells the lines of the requests.
async fn server(answers: Vec<String>) -> (Url, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(connection.read_u8().await.unwrap());
            }
            let text = String::from_utf8(request).unwrap();
            tell.send(text.lines().next().unwrap().to_owned()).unwrap();
            connection.write_all(answer.as_bytes()).await.unwrap();
            if answer.is_empty() {
                // Silence, until the other side has had enough.
                connection.read_u8().await.ok();
            }
        }
    });
    (url, told)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}")
}

fn error(code: &str, rest: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>planted</Message>{rest}</Error>")
}

fn bucket(url: &Url, directory: &tempfile::TempDir) -> S3Bucket {
    let mut options = options(url, directory);
    options.idle_timeout = Duration::from_secs(1);
    open(&options, "docs", any_credentials())
}

async fn listing_error(answers: Vec<String>) -> S3Error {
    let directory = tempfile::tempdir().unwrap();
    let (url, _told) = server(answers).await;
    bucket(&url, &directory).list(None).await.unwrap_err()
}

#[tokio::test]
async fn a_bucket_of_another_region_is_named_with_its_region() {
    let redirect = answer(
        "301 Moved Permanently",
        "x-amz-bucket-region: eu-west-3\r\n",
        &error(
            "PermanentRedirect",
            "<Endpoint>docs.s3.eu-west-3.amazonaws.com</Endpoint>",
        ),
    );
    let malformed = answer(
        "400 Bad Request",
        "",
        &error("AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>"),
    );
    for refusal in [redirect, malformed] {
        let error = listing_error(vec![refusal]).await;
        assert_eq!(
            error.to_string(),
            "bucket docs is not in region us-east-1 but in eu-west-3; create a source with its region"
        );
        assert_eq!(error.reason(), "BUCKET_REGION_MISMATCH");
    }
    let silent = listing_error(vec![answer("307 Temporary Redirect", "", "")]).await;
    assert_eq!(
        silent.to_string(),
        "bucket docs is not in region us-east-1; create a source with its region"
    );
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_as_long_as_the_wait_is_short() {
    let directory = tempfile::tempdir().unwrap();
    let busy = answer("503 Slow Down", "", &error("SlowDown", ""));
    let page = answer(
        "200 OK",
        "",
        "<ListBucketResult><Name>docs</Name><IsTruncated>false</IsTruncated></ListBucketResult>",
    );
    let (url, mut told) = server(vec![busy.clone(), busy.clone(), page]).await;
    assert_eq!(bucket(&url, &directory).list(None).await.unwrap(), []);
    for _ in 0..3 {
        assert_eq!(
            told.recv().await.unwrap(),
            "GET /docs?list-type=2&encoding-type=url HTTP/1.1"
        );
    }

    let given_up = listing_error(vec![busy.clone(), busy.clone(), busy]).await;
    assert_eq!(
        given_up.to_string(),
        "127.0.0.1 cannot serve bucket docs for now (SlowDown)"
    );
    assert!(given_up.is_transient());
    let long = answer("503 Slow Down", "retry-after: 60\r\n", &error("SlowDown", ""));
    let waiting = listing_error(vec![long]).await;
    assert_eq!(waiting.retry_after(), Some(Duration::from_secs(60)));
}

#[tokio::test]
async fn a_server_that_falls_silent_or_breaks_off_is_worth_another_try() {
    let silent = listing_error(vec![String::new(); 3]).await;
    assert_eq!(
        silent.to_string(),
        "cannot read bucket docs: 127.0.0.1 sent nothing for 1 seconds (s3.idle_timeout_seconds)"
    );
    let directory = tempfile::tempdir().unwrap();
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: \"e\"\r\nconnection: close\r\n\r\nfive!";
    let (url, _told) = server(vec![half.to_owned()]).await;
    let broken = bucket(&url, &directory).load("a", "e").await.unwrap_err();
    assert_eq!(
        broken.to_string(),
        "cannot read bucket docs: the connection to 127.0.0.1 broke"
    );
    for error in [silent, broken] {
        assert!(
            error.is_transient() && error.reason() == "NETWORK_ERROR",
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_body_that_goes_on_beyond_the_limit_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let endless = "HTTP/1.1 200 OK\r\netag: \"e\"\r\nconnection: close\r\n\r\n0123456789a";
    let (url, _told) = server(vec![endless.to_owned()]).await;
    let mut options = options(&url, &directory);
    options.max_object_bytes = 10;
    let bucket = open(&options, "docs", any_credentials());
    let error = bucket.load("a", "e").await.unwrap_err();
    assert!(
        matches!(error, S3Error::ObjectTooLarge { limit: 10, .. }),
        "{error:?}"
    );
    drop(bucket);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_not_s3_is_told_apart() {
    let page = "<html><body>It works!</body></html>";
    let not_a_listing = listing_error(vec![answer("200 OK", "", page)]).await;
    assert_eq!(
        not_a_listing.to_string(),
        "cannot read bucket docs: 127.0.0.1 answers with something else than a listing; check s3.endpoint_url"
    );
    let unexplained = listing_error(vec![answer("404 Not Found", "", page)]).await;
    assert_eq!(
        unexplained.to_string(),
        "cannot read bucket docs: 127.0.0.1 answers HTTP 404 without saying why, as S3 would; check s3.endpoint_url"
    );
    let other = listing_error(vec![answer("400 Bad Request", "", &error("InvalidRequest", ""))]).await;
    assert_eq!(
        other.to_string(),
        "cannot read bucket docs: 127.0.0.1 answers InvalidRequest (HTTP 400)"
    );
    let clock = listing_error(vec![answer(
        "403 Forbidden",
        "",
        &error("RequestTimeTooSkewed", ""),
    )])
    .await;
    assert!(clock.to_string().contains("the clock of this server"), "{clock}");
    for error in [not_a_listing, unexplained, other, clock] {
        assert!(!error.is_transient());
        assert_eq!(error.reason(), "UNEXPECTED_ANSWER");
        assert!(!format!("{error}").contains("planted"));
    }
}

#[tokio::test]
async fn why_head_is_refused_is_asked_with_a_request_that_may_have_a_body() {
    let directory = tempfile::tempdir().unwrap();
    let head = "HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n".to_owned();
    let get = answer("403 Forbidden", "", &error("ExpiredToken", ""));
    let (url, mut told) = server(vec![head, get]).await;
    let refused = bucket(&url, &directory).head(&key("a b")).await.unwrap_err();
    assert!(
        matches!(refused, S3Error::CredentialsRefused { .. }),
        "{refused:?}"
    );
    assert_eq!(told.recv().await.unwrap(), "HEAD /docs/a%20b HTTP/1.1");
    assert_eq!(told.recv().await.unwrap(), "GET /docs/a%20b HTTP/1.1");
}
