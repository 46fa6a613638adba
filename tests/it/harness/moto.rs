//! A server of S3 and SQS written by others (moto), of a test's own.
//!
//! Its memory is all it keeps, and it goes with the value that started it. Access keys mean nothing to it until
//! [`Moto::check_access`], after which it judges requests by signature and policy as AWS does.

use std::{
    fs::File,
    io::Read,
    net::{Ipv4Addr, TcpListener},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use chroma_sync::aws::{AwsCredentials, AwsService, Signer};
use chroma_sync::config::Secret;
use reqwest::{Method, Request, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::{process::die_with_parent, service::project_file};

/// How long the server may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// The region of everything in it.
pub const REGION: &str = "us-east-1";

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Moto {
    /// `http://127.0.0.1:PORT`.
    pub url: Url,
    http: reqwest::Client,
    _owner: mpsc::Sender<()>,
}

/// An access key that everybody takes who checks none.
pub fn any_credentials() -> AwsCredentials {
    credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
}

/// An access key.
pub fn credentials(access_key_id: &str, secret_access_key: &str) -> AwsCredentials {
    AwsCredentials {
        access_key_id: access_key_id.to_owned(),
        secret_access_key: Secret::new(secret_access_key),
        session_token: None,
    }
}

impl Moto {
    /// Starts a server that has nothing.
    pub async fn start() -> Self {
        let program = project_file(".peers/moto/bin/moto_server");
        assert!(
            program.exists(),
            "{} is missing; run `make peers`",
            program.display()
        );
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        // Another program may take the free port before the server does.
        for _ in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let (owner, owned) = mpsc::channel::<()>();
            let mut command = Command::new(&program);
            let log = tempfile::tempfile().unwrap();
            command
                .args(["-H", "127.0.0.1", "-p", &port.to_string()])
                .env("MOTO_SERVICE_HOST", "127.0.0.1")
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log.try_clone().unwrap());
            // The thread lives as long as the server is wanted, because the server dies with it.
            let (started, is_started) = mpsc::channel();
            thread::spawn(move || {
                die_with_parent(&mut command, libc::SIGKILL);
                let mut child = command.spawn().unwrap();
                started.send(()).ok();
                // Ends with an error when the owner is dropped.
                owned.recv().ok();
                child.kill().ok();
                child.wait().ok();
            });
            is_started.recv().unwrap();
            let moto = Self {
                url: Url::parse(&format!("http://127.0.0.1:{port}")).unwrap(),
                http: http.clone(),
                _owner: owner,
            };
            if moto.answers(log).await {
                return moto;
            }
        }
        panic!("moto_server did not start");
    }

    async fn answers(&self, mut log: File) -> bool {
        let deadline = Instant::now() + START_DEADLINE;
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        loop {
            pause.tick().await;
            let url = self.url.join("/moto-api/data.json").unwrap();
            if self
                .http
                .get(url)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                return true;
            }
            let mut text = String::new();
            std::io::Seek::rewind(&mut log).unwrap();
            log.read_to_string(&mut text).ok();
            if text.contains("Address already in use") {
                return false;
            }
            assert!(
                Instant::now() < deadline,
                "moto_server did not get ready:\n{text}"
            );
        }
    }

    /// Sends a request signed for a service, with any access key.
    async fn call(
        &self,
        service: AwsService,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> (StatusCode, String) {
        let mut request = Request::new(method, self.url.join(path).unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        *request.body_mut() = Some(body.into());
        Signer::new(any_credentials(), REGION, service)
            .sign(&mut request, SystemTime::now())
            .unwrap();
        let answer = self.http.execute(request).await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn s3(&self, method: Method, path: &str, headers: &[(&'static str, &str)], body: Vec<u8>) {
        let (status, answer) = self.call(AwsService::S3, method, path, headers, body).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
    }

    /// Creates a bucket.
    pub async fn create_bucket(&self, bucket: &str) {
        self.s3(Method::PUT, &format!("/{bucket}"), &[], Vec::new()).await;
    }

    /// Stores an object under a key that is written as in a URL.
    pub async fn put(&self, bucket: &str, encoded_key: &str, content: impl Into<Vec<u8>>) {
        self.put_with(bucket, encoded_key, &[], content).await;
    }

    /// Stores an object with headers.
    pub async fn put_with(
        &self,
        bucket: &str,
        encoded_key: &str,
        headers: &[(&'static str, &str)],
        content: impl Into<Vec<u8>>,
    ) {
        let path = format!("/{bucket}/{encoded_key}");
        self.s3(Method::PUT, &path, headers, content.into()).await;
    }

    /// Removes an object.
    pub async fn delete(&self, bucket: &str, encoded_key: &str) {
        self.s3(
            Method::DELETE,
            &format!("/{bucket}/{encoded_key}"),
            &[],
            Vec::new(),
        )
        .await;
    }

    /// Has requests checked from now on as AWS does.
    pub async fn check_access(&self) {
        let url = self.url.join("/moto-api/reset-auth").unwrap();
        // The number of further requests that need no access key.
        let answer = self.http.post(url).body("0").send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Creates a user with an inline policy, and an access key of it.
    pub async fn create_user(&self, name: &str, policy: &Value) -> AwsCredentials {
        let policy = policy.to_string();
        for form in [
            vec![("Action", "CreateUser"), ("UserName", name)],
            vec![
                ("Action", "PutUserPolicy"),
                ("UserName", name),
                ("PolicyName", "only"),
                ("PolicyDocument", &policy),
            ],
        ] {
            self.iam(&form).await;
        }
        let answer = self
            .iam(&[("Action", "CreateAccessKey"), ("UserName", name)])
            .await;
        let part = |tag: &str| {
            let (_, rest) = answer.split_once(&format!("<{tag}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        credentials(&part("AccessKeyId"), &part("SecretAccessKey"))
    }

    async fn iam(&self, form: &[(&str, &str)]) -> String {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let answer = self
            .http
            .post(self.url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0",
            )
            .body(format!("{body}&Version=2010-05-08"))
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{status} {text}");
        text
    }

    /// Calls an operation of SQS.
    pub async fn sqs(&self, operation: &str, question: &Value) -> Value {
        let target = format!("AmazonSQS.{operation}");
        let headers = [
            ("x-amz-target", target.as_str()),
            ("content-type", "application/x-amz-json-1.0"),
        ];
        let body = question.to_string().into_bytes();
        let (status, answer) = self
            .call(AwsService::Sqs, Method::POST, "/", &headers, body)
            .await;
        assert!(status.is_success(), "{operation}: {status} {answer}");
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }

    /// Creates a queue and returns its URL.
    pub async fn create_queue(&self, name: &str, attributes: Value) -> Url {
        let question = json!({"QueueName": name, "Attributes": attributes});
        let answer = self.sqs("CreateQueue", &question).await;
        let mut url = Url::parse(answer["QueueUrl"].as_str().unwrap()).unwrap();
        // It names a host of its own.
        url.set_host(self.url.host_str()).unwrap();
        url.set_port(self.url.port()).unwrap();
        url
    }

    /// Puts a message into a queue.
    pub async fn send_message(&self, queue: &Url, body: &str) {
        let question = json!({"QueueUrl": queue.as_str(), "MessageBody": body});
        self.sqs("SendMessage", &question).await;
    }

    /// Numbers of messages in a queue: those that can be received, and those that were.
    pub async fn queue_length(&self, queue: &Url) -> (u64, u64) {
        let question = json!({"QueueUrl": queue.as_str(), "AttributeNames": ["All"]});
        let attributes = self.sqs("GetQueueAttributes", &question).await;
        let number =
            |name: &str| -> u64 { attributes["Attributes"][name].as_str().unwrap().parse().unwrap() };
        (
            number("ApproximateNumberOfMessages"),
            number("ApproximateNumberOfMessagesNotVisible"),
        )
    }

    /// Has a bucket tell a queue of every object that is written or removed.
    pub async fn notify(&self, bucket: &str, queue: &Url) {
        let name = queue.path().rsplit('/').next().unwrap();
        let arn = format!("arn:aws:sqs:{REGION}:123456789012:{name}");
        let body = format!(
            "<NotificationConfiguration><QueueConfiguration><Id>sync</Id><Queue>{arn}</Queue>\
             <Event>s3:ObjectCreated:*</Event><Event>s3:ObjectRemoved:*</Event>\
             </QueueConfiguration></NotificationConfiguration>"
        );
        self.s3(
            Method::PUT,
            &format!("/{bucket}?notification"),
            &[],
            body.into_bytes(),
        )
        .await;
    }
}
