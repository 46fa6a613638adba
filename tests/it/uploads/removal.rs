//! When the bytes of an upload go: at once when it is broken off, later when its invocation has ended, and in
//! the end whatever becomes of the process.

use std::path::PathBuf;

use chroma_sync::proto::{self, add_file_request::Content};
use sea_orm::{ConnectionTrait, Database, Statement};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{add_file, completed, created, ended, message, metadata, refusal};
use crate::harness::{
    form::Form,
    scenario::Scenario,
    service::Service,
    stores::{Backend, on_both},
    wait_for,
};

/// More than a piece, so that something is stored.
const SEVERAL_PIECES: usize = 9 << 20;

/// The files that lie in the directory for uploads.
fn stored_files(scenario: &Scenario) -> Vec<PathBuf> {
    let Ok(uploads) = std::fs::read_dir(scenario.uploads()) else {
        return Vec::new();
    };
    uploads.map(|upload| upload.unwrap().path()).collect()
}

/// The rows of the table of uploads.
async fn rows(scenario: &Scenario) -> i64 {
    let raw = Database::connect(&scenario.store_url).await.unwrap();
    let count = "SELECT COUNT(*) AS count FROM uploads";
    let count = Statement::from_string(raw.get_database_backend(), count);
    let row = raw.query_one_raw(count).await.unwrap().unwrap();
    let rows = row.try_get("", "count").unwrap();
    raw.close().await.unwrap();
    rows
}

/// Waits until no byte and no row of any upload is left.
pub async fn assert_nothing_is_left(scenario: &Scenario) {
    wait_for("the removal of all uploads", async || {
        match (stored_files(scenario), rows(scenario).await) {
            (files, 0) if files.is_empty() => Ok(()),
            left => Err(left),
        }
    })
    .await;
}

/// An upload that goes on for as long as the test wants.
struct Open {
    messages: mpsc::Sender<proto::AddFileRequest>,
    answer: JoinHandle<Result<proto::Invocation, Status>>,
}

impl Open {
    /// Begins to upload a file of [`SEVERAL_PIECES`] bytes; a piece of it is stored when this returns.
    async fn begin(scenario: &Scenario, service: &Service) -> Self {
        let open = Self::start(scenario, service).await;
        wait_for("a stored piece", async || {
            match stored_files(scenario).as_slice() {
                [] => Err("none"),
                [..] => Ok(()),
            }
        })
        .await;
        open
    }

    /// Begins to upload a file of [`SEVERAL_PIECES`] bytes and sends the first of them.
    async fn start(scenario: &Scenario, service: &Service) -> Self {
        let (messages, received) = mpsc::channel(1);
        let mut client = service.files(&scenario.admin);
        let answer = tokio::spawn(async move {
            let answer = client.add_file(ReceiverStream::new(received)).await?;
            Ok(answer.into_inner())
        });
        let mut first = metadata(scenario, "files", "large.txt", b"");
        first.size_bytes = i64::try_from(SEVERAL_PIECES).unwrap();
        let open = Self { messages, answer };
        open.send(Content::Metadata(first)).await;
        let chunk = vec![b'a'; 1 << 20];
        for _ in 0..5 {
            open.send(Content::Chunk(chunk.clone())).await;
        }
        open
    }

    /// What is sent after the answer is lost.
    async fn send(&self, content: Content) {
        self.messages.send(message(content)).await.ok();
    }

    /// Sends the rest of the file.
    async fn finish(self) -> Result<proto::Invocation, Status> {
        for _ in 0..4 {
            self.send(Content::Chunk(vec![b'a'; 1 << 20])).await;
        }
        drop(self.messages);
        self.answer.await.unwrap()
    }

    /// Goes away without a word.
    fn abort(self) {
        self.answer.abort();
    }
}

on_both!(an_upload_that_is_broken_off_leaves_nothing, broken_off_on);
async fn broken_off_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let service = scenario.deployment.start_role("api");
    let open = Open::begin(&scenario, &service).await;
    assert_eq!(rows(&scenario).await, 1);
    open.abort();
    assert_nothing_is_left(&scenario).await;

    // The same over HTTP/1.1: the connection ends in the middle of the file.
    let form = Form::to(&scenario.database(), "files").file("large.txt", &vec![b'a'; 5 << 20]);
    let body = form.unfinished();
    let address = service.url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/v1/add-file HTTP/1.1\r\nhost: {address}\r\nx-chroma-token: {}\r\n\
         x-upload-content-length: {SEVERAL_PIECES}\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
        scenario.admin,
        Form::content_type(),
        body.len() * 2,
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&body).await.unwrap();
    wait_for("a stored piece", async || match stored_files(&scenario).len() {
        0 => Err(()),
        _ => Ok(()),
    })
    .await;
    drop(connection);
    assert_nothing_is_left(&scenario).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_ends_at_its_deadline_and_when_nothing_comes() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.with("uploads.idle_seconds", "1");
    let service = scenario.deployment.start_role("api");
    let idle = Open::start(&scenario, &service).await;
    let status = idle.answer.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(refusal(&status).0, "DEADLINE_EXCEEDED");
    assert_nothing_is_left(&scenario).await;
    drop(service);

    scenario.deployment = scenario
        .deployment
        .with("uploads.idle_seconds", "60")
        .with("uploads.timeout_seconds", "1");
    let service = scenario.deployment.start_role("api");
    let slow = Open::start(&scenario, &service).await;
    let status = slow.answer.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_nothing_is_left(&scenario).await;
}

on_both!(a_tenant_uploads_no_more_files_at_once_than_allowed, limit_on);
async fn limit_on(backend: Backend) {
    let mut scenario = Scenario::new(backend).await;
    scenario.deployment = scenario.deployment.with("uploads.max_uploads_per_tenant", "1");
    let service = scenario.deployment.start_role("api");
    // The limit holds for all processes together.
    let second = scenario.deployment.start_role("api");
    let open = Open::begin(&scenario, &service).await;

    let small = || metadata(&scenario, "files", "small.txt", b"text");
    let status = add_file(&second, &scenario.admin, small(), b"text", 4)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(refusal(&status).0, "TOO_MANY_REQUESTS");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    let form = Form::to(&scenario.database(), "files").file("small.txt", b"text");
    let answer = form.clone().send(&second, &scenario.admin).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "5"));
    assert_eq!(answer.json()["reason"], json!("TOO_MANY_REQUESTS"));

    open.finish().await.unwrap();
    created(&form.send(&second, &scenario.admin).await);
}

on_both!(a_file_goes_when_its_invocation_has_ended_long_enough_ago, kept_on);
async fn kept_on(backend: Backend) {
    let mut scenario = Scenario::new(backend).await;
    scenario.deployment = scenario.deployment.with("uploads.sweep_seconds", "1");
    let service = scenario.deployment.start();
    let form = Form::to(&scenario.database(), "files").file("a.txt", b"some text");
    let id = created(&form.clone().send(&service, &scenario.admin).await);
    completed(&scenario, &service, &id).await;
    assert_eq!((stored_files(&scenario).len(), rows(&scenario).await), (1, 1));
    drop(service);

    // The same file is due at once where nothing is kept; its row was put off for a day, so only a new one goes.
    scenario.deployment = scenario.deployment.with("uploads.keep_hours", "0");
    let service = scenario.deployment.start();
    let id = created(&form.send(&service, &scenario.admin).await);
    completed(&scenario, &service, &id).await;
    wait_for("the removal of the second", async || {
        match stored_files(&scenario).len() {
            1 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

on_both!(a_worker_removes_what_a_killed_process_left, killed_on);
async fn killed_on(backend: Backend) {
    let mut scenario = Scenario::new(backend).await;
    scenario.deployment = scenario
        .deployment
        .with("uploads.sweep_seconds", "1")
        .with("uploads.idle_seconds", "2");
    let service = scenario.deployment.start_role("api");
    let open = Open::begin(&scenario, &service).await;
    service.kill();
    open.abort();
    assert_eq!((stored_files(&scenario).len(), rows(&scenario).await), (1, 1));
    let _worker = scenario.deployment.start_role("worker");
    assert_nothing_is_left(&scenario).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_bytes_are_gone_fails_with_the_reason() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let api = scenario.deployment.start_role("api");
    let form = Form::to(&scenario.database(), "files").file("a.txt", b"text");
    let id = created(&form.send(&api, &scenario.admin).await);
    for upload in stored_files(&scenario) {
        std::fs::remove_dir_all(upload).unwrap();
    }
    let _worker = scenario.deployment.start_role("worker");
    let failure = ended(&scenario, &api, &id).await.failure.unwrap();
    assert_eq!(failure.reason, "UPLOAD_NOT_FOUND");
    assert!(failure.message.contains("upload it again"), "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_written_is_said_at_the_start() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    scenario.deployment = scenario
        .deployment
        .with("uploads.directory", file.join("below").to_str().unwrap());
    let (_, errors) = scenario.deployment.run_refused(&["serve"]);
    assert!(errors.contains("uploads.directory"), "{errors}");
}
