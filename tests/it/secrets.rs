//! No secret leaves the service: planted through every door and used, none is found again in the database, in
//! the log at its most talkative, or in any answer.

use std::{collections::BTreeMap, path::Path, process::Command};

use base64::{Engine, prelude::BASE64_STANDARD};
use chroma_sync::proto::{self, invocation::State, source_service_client::SourceServiceClient};
use memchr::memmem;
use serde_json::{Value, json};
use tonic::{Response, Status};

use crate::harness::{
    git_server::{Change, Repository},
    github::Github,
    keys::app_key,
    postgres,
    receiver::Receiver,
    rest::RestClient,
    scenario::{Scenario, invocation_request},
    service::{Authenticated, Deployment, Service},
    stores::{Backend, on_both},
    token_gate::TokenGate,
};

const AWS_SECRET: &str = "planted/AwsSecretAccessKey+0123456789";
const S3_SECRET: &str = "planted/SecretOfABucketInline+0123456789";
const CHROMA_TOKEN: &str = "planted-chroma-token-of-the-caller";
const ENCRYPTION_KEY: &str = "badc0ffee0ddf00dbadc0ffee0ddf00dbadc0ffee0ddf00dbadc0ffee0ddf00d";
const PREVIOUS_KEY: &str = "feedfacecafebeeffeedfacecafebeeffeedfacecafebeeffeedfacecafebeef";
const GITHUB_TOKEN: &str = "ghp_plantedTokenOfTheServer0123456789";
const PRIVATE: &str = "owner/private";

/// `whsec_` and the base64 of a text that names its door.
fn signing_secret(door: &str) -> String {
    format!(
        "whsec_{}",
        BASE64_STANDARD.encode(format!("planted signing key of {door:>12}"))
    )
}

/// What was planted, each by the name of its door.
#[derive(Default)]
struct Planted(BTreeMap<String, String>);

impl Planted {
    fn add(&mut self, door: &str, secret: &str) {
        self.0.insert(door.to_owned(), secret.to_owned());
    }

    /// Doors whose secret is in `bytes`: as it is, or in the form that a dump or a header has.
    fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let contains = |text: &str| memmem::find(bytes, text.as_bytes()).is_some();
        let forms = |secret: &str| {
            let basic = format!("x-access-token:{secret}");
            [
                secret.to_owned(),
                hex::encode(secret),
                BASE64_STANDARD.encode(secret),
                BASE64_STANDARD.encode(basic),
                secret.replace('/', "\\/").replace('\n', "\\n"),
            ]
        };
        let doors = self.0.iter();
        doors
            .filter(|(_, secret)| forms(secret).iter().any(|form| contains(form)))
            .map(|(door, _)| door.as_str())
            .collect()
    }
}

/// Every answer that a caller got, in all its parts.
#[derive(Default)]
struct Answers(Vec<String>);

impl Answers {
    fn grpc<T: std::fmt::Debug>(&mut self, answer: Result<Response<T>, Status>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.0.push(format!("{answer:?}"));
                Some(answer.into_inner())
            }
            Err(status) => {
                let details = String::from_utf8_lossy(status.details());
                self.0.push(format!("{status:?} {details}"));
                None
            }
        }
    }

    fn rest(&mut self, (status, body): (u16, Value)) -> Value {
        self.0.push(format!("{status} {body}"));
        body
    }

    /// What a command says, with `input` in the variables that it reads secrets from.
    fn command(&mut self, mut command: Command, input: &str) {
        let output = command
            .env("AWS_SECRET_ACCESS_KEY", input)
            .env("CHROMA_SYNC_GITHUB_APP_PRIVATE_KEY", input)
            .output()
            .unwrap();
        for part in [output.stdout, output.stderr] {
            self.0.push(String::from_utf8_lossy(&part).into_owned());
        }
    }
}

/// All that the database holds, as a thief would take it: the files of SQLite, or a dump of PostgreSQL.
fn database(url: &str) -> Vec<u8> {
    if let Some(path) = url.strip_prefix("sqlite://") {
        let files = ["", "-wal"].map(|suffix| format!("{path}{suffix}"));
        let present = files.iter().filter(|file| Path::new(file).exists());
        return present.flat_map(|file| std::fs::read(file).unwrap()).collect();
    }
    let output = Command::new(postgres::programs().join("pg_dump"))
        .args(["--inserts", "--dbname", url])
        .output()
        .expect("the tests need pg_dump; run `make peers`");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    output.stdout
}

/// Everything that one run of the service showed.
struct Run<'a> {
    scenario: &'a Scenario,
    service: &'a Service,
    token: &'a str,
    answers: &'a mut Answers,
}

impl Run<'_> {
    /// Stores credentials and sources with webhooks, through every door and in good and in bad form.
    async fn plant(&mut self, receiver: &Receiver, planted: &mut Planted) -> (String, String) {
        let (service, token) = (self.service, self.token);
        let mut credentials = service.credentials(token);
        for (secret, name) in [
            (AWS_SECRET, "good"),
            (&*format!("{AWS_SECRET} with a space"), "bad"),
        ] {
            let request = proto::CreateAwsCredentialRequest {
                access_key_id: "AKIDEXAMPLE".to_owned(),
                secret_access_key: secret.to_owned(),
                name: name.to_owned(),
                request_id: None,
            };
            self.answers
                .grpc(credentials.create_aws_credential(request).await);
        }
        for private_key in [app_key().to_owned(), app_key().replace("-----END", "----END")] {
            let request = proto::CreateGithubAppRequest {
                app_id: "4711".to_owned(),
                private_key,
                replace_existing: true,
                request_id: None,
            };
            self.answers.grpc(credentials.create_github_app(request).await);
        }
        let list = proto::ListAwsCredentialsRequest::default();
        self.answers.grpc(credentials.list_aws_credentials(list).await);
        let list = proto::ListGithubAppsRequest::default();
        self.answers.grpc(credentials.list_github_apps(list).await);

        let source = |signing_secret: String| {
            let mut request = self.scenario.source_request(PRIVATE);
            if let Some(proto::create_source_request::Settings::Github(github)) = &mut request.settings {
                github.app_id = Some("4711".to_owned());
            }
            request.webhook = Some(proto::Webhook {
                url: receiver.url(),
                signing_secret,
            });
            request
        };
        let secret = signing_secret("source");
        let mut sources = service.sources(token);
        let damaged = source(format!("{secret}*"));
        self.answers.grpc(sources.create_source(damaged).await);
        let created = self.answers.grpc(sources.create_source(source(secret)).await);
        let source_id = created.unwrap().id;

        let rest = RestClient::new(service, token);
        let body = json!({
            "database_name": self.scenario.database(),
            "github": {"repository": PRIVATE, "app_id": "4711", "include_globs": ["*.txt"]},
            "webhook": {"url": receiver.url(), "signing_secret": signing_secret("rest")},
        });
        let by_rest = self.answers.rest(rest.post("/api/v1/sources", &body).await);
        let mut damaged = body.clone();
        damaged["webhook"]["signing_secret"] = json!(format!("{}*", signing_secret("rest")));
        self.answers.rest(rest.post("/api/v1/sources", &damaged).await);
        damaged["webhook"] = json!({"url": receiver.url(), "secret": signing_secret("rest")});
        self.answers.rest(rest.post("/api/v1/sources", &damaged).await);

        self.plant_bucket_keys(&mut sources, &rest).await;

        // The one that the server makes is in this answer, and nowhere else.
        let mut made = body;
        made["webhook"] = json!({"url": receiver.url()});
        made["github"]["include_globs"] = json!(["*.md"]);
        let (_, made) = rest.post("/api/v1/sources", &made).await;
        planted.add("made", made["webhook"]["signing_secret"].as_str().unwrap());
        (source_id, by_rest["source_id"].as_str().unwrap().to_owned())
    }

    /// Sends access keys in the sources that need them, in good and in bad form.
    async fn plant_bucket_keys(
        &mut self,
        sources: &mut SourceServiceClient<Authenticated>,
        rest: &RestClient,
    ) {
        for secret in [S3_SECRET.to_owned(), format!("{S3_SECRET} damaged")] {
            let bucket = proto::S3Source {
                bucket_name: "bucket".to_owned(),
                region: "us-east-1".to_owned(),
                collection_name: "objects".to_owned(),
                access_key: Some(proto::AwsAccessKey {
                    access_key_id: "AKIDBUCKET".to_owned(),
                    secret_access_key: secret.clone(),
                }),
                ..Default::default()
            };
            let request = proto::CreateSourceRequest {
                database_name: self.scenario.database(),
                settings: Some(proto::create_source_request::Settings::S3(bucket)),
                ..Default::default()
            };
            self.answers.grpc(sources.create_source(request).await);
            let body = json!({
                "database_name": self.scenario.database(),
                "s3": {
                    "bucket_name": "bucket",
                    "region": "eu-central-1",
                    "collection_name": "objects",
                    "aws_access_key_id": "AKIDBUCKET",
                    "aws_secret_access_key": secret,
                },
            });
            self.answers.rest(rest.post("/api/v1/sources", &body).await);
            let mut damaged = body;
            damaged["s3"]["aws_credential_id"] = json!(1);
            self.answers.rest(rest.post("/api/v1/sources", &damaged).await);
        }
    }

    /// Syncs a source with a webhook of the invocation's own, and looks at everything there is.
    async fn use_source(&mut self, source_id: &str, collection: &str, receiver: &Receiver) {
        let mut invocations = self.service.invocations(self.token);
        let mut request = invocation_request(source_id, collection, None);
        request.webhook = Some(proto::Webhook {
            url: receiver.url(),
            signing_secret: signing_secret("invocation"),
        });
        let created = self.answers.grpc(invocations.create_invocation(request).await);
        let id = created.unwrap().id;
        let request = proto::WatchInvocationRequest {
            invocation_id: id.clone(),
            after_revision: None,
        };
        let watch = invocations.watch_invocation(request).await.unwrap();
        let mut watch = watch.into_inner();
        let mut last = None;
        while let Some(message) = watch.message().await.unwrap() {
            self.answers.0.push(format!("{message:?}"));
            last = message.invocation;
        }
        let last = last.unwrap();
        assert_eq!(last.state(), State::Complete, "{last:?}");
        receiver
            .wait_until("the last delivery", |received| {
                let of_this = received.iter().filter(|one| one.invocation() == id);
                of_this
                    .filter(|one| one.revision() == last.revision.unsigned_abs())
                    .count()
                    > 0
            })
            .await;
        let rest = RestClient::new(self.service, self.token);
        for path in [
            "/api/v1/sources".to_owned(),
            format!("/api/v1/sources/{source_id}"),
            "/api/v1/invocations".to_owned(),
            format!("/api/v1/invocations/{id}"),
        ] {
            self.answers.rest(rest.get(&path).await);
        }
        let list = proto::ListSourcesRequest::default();
        let mut sources = self.service.sources(self.token);
        self.answers.grpc(sources.list_sources(list).await);
    }
}

/// Ends a service and returns its log.
fn log_of(service: Service) -> String {
    service.terminate();
    service.wait().1
}

fn commands(deployment: &Deployment, service: &Service, token: &str, answers: &mut Answers) {
    let command = |arguments: &[&str]| deployment.client_command(&service.url, token, arguments);
    let aws = ["credentials", "aws", "add", "--access-key-id", "AKIDCLI"];
    answers.command(command(&aws), AWS_SECRET);
    answers.command(command(&aws), &format!("{AWS_SECRET} damaged"));
    answers.command(command(&["credentials", "aws", "list"]), AWS_SECRET);
    let app = ["credentials", "github-app", "add", "--app-id", "4712"];
    answers.command(command(&app), app_key());
    answers.command(command(&app), &app_key()[..800]);
    answers.command(command(&["credentials", "github-app", "list"]), app_key());
    answers.command(command(&["keys", "list"]), "");
    answers.command(command(&["keys", "rotate-encryption"]), "");
}

on_both!(a_planted_secret_is_found_nowhere, nowhere_on);
async fn nowhere_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    Repository::create(&scenario.repositories(), PRIVATE)
        .commit("main", &[Change::file("a.txt", "one line\n")]);
    let github = Github::start(&scenario.repositories()).await;
    github.add_app("4711", app_key());
    github.add_repository(PRIVATE, Some("4711"));
    let receiver = Receiver::start(&[503]).await;
    let gate = TokenGate::start(scenario.chroma.url(), &[(CHROMA_TOKEN, "default_tenant", &["*"])]);
    let gate = gate.await;
    let deployment = scenario
        .deployment
        .clone()
        .with("github.git_url", &github.git.url())
        .with("github.api_url", github.api_url())
        .with("github.token", GITHUB_TOKEN)
        .with("encryption.key", PREVIOUS_KEY)
        .with("webhooks.allow_http", "true")
        .with("webhooks.backoff_milliseconds", "100")
        .with("egress.allow", "127.0.0.1")
        .with("log.filter", "trace");

    let mut planted = Planted::default();
    planted.add("AWS access key", AWS_SECRET);
    planted.add("access key of a bucket", S3_SECRET);
    planted.add("private key", app_key().lines().nth(5).unwrap());
    planted.add("Chroma token", CHROMA_TOKEN);
    planted.add("encryption key", ENCRYPTION_KEY);
    planted.add("previous encryption key", PREVIOUS_KEY);
    planted.add("GitHub token", GITHUB_TOKEN);
    planted.add("API key", &scenario.admin);
    for door in ["source", "rest", "invocation"] {
        planted.add(door, &signing_secret(door));
    }
    let (mut answers, mut logs) = (Answers::default(), Vec::new());

    let service = deployment.start();
    let mut run = Run {
        scenario: &scenario,
        service: &service,
        token: &scenario.admin,
        answers: &mut answers,
    };
    let (by_grpc, by_rest) = run.plant(&receiver, &mut planted).await;
    run.use_source(&by_grpc, "by-grpc", &receiver).await;
    run.use_source(&by_rest, "by-rest", &receiver).await;
    let held = database(&scenario.store_url);
    logs.push(log_of(service));

    // Callers with tokens of the Chroma server, and the other key.
    let deployment = deployment
        .with("encryption.key", ENCRYPTION_KEY)
        .with("encryption.previous_keys", PREVIOUS_KEY)
        .with("chroma.url", gate.url());
    let service = deployment.start();
    commands(&deployment, &service, &scenario.admin, &mut answers);
    logs.push(log_of(service));
    let by_token = deployment.clone().with("auth.mode", "chroma");
    let service = by_token.start();
    let mut run = Run {
        scenario: &scenario,
        service: &service,
        token: CHROMA_TOKEN,
        answers: &mut answers,
    };
    run.use_source(&by_grpc, "by-token", &receiver).await;
    // Its token stays until it ends, and no worker is there to end it.
    logs.push(log_of(service));
    let service = by_token.start_role("api");
    let request = invocation_request(&by_grpc, "kept", None);
    answers.grpc(service.invocations(CHROMA_TOKEN).create_invocation(request).await);
    let kept = database(&scenario.store_url);
    logs.push(log_of(service));

    for token in github.made() {
        planted.add(&format!("installation token {token}"), &token);
    }
    // What was looked through is what it is taken for.
    let lists = |bytes: &[u8], text: &str| memmem::find(bytes, text.as_bytes()).is_some();
    assert!(
        lists(&held, "AKIDEXAMPLE") && lists(&kept, "AKIDCLI"),
        "the database"
    );
    let [first, ..] = &logs[..] else {
        unreachable!("a service ran")
    };
    for word in ["TRACE", "attempt started", "invocation complete"] {
        assert!(
            first.contains(word),
            "no {word} in a log of {} bytes",
            first.len()
        );
    }
    assert!(answers.0.iter().any(|answer| answer.contains("AKIDEXAMPLE")));
    assert!(lists(&held, "AKIDBUCKET"), "the key of a bucket was stored");
    let dumped = format!("\\x01{}", hex::encode(format!("x{AWS_SECRET}")));
    assert_eq!(planted.found_in(dumped.as_bytes()), ["AWS access key"]);
    let mut found = Vec::new();
    let mut look = |place: String, bytes: &[u8]| {
        let doors = planted.found_in(bytes);
        found.extend(doors.iter().map(|door| format!("{door} in {place}")));
    };
    look("the database".to_owned(), &held);
    look("the database with a token".to_owned(), &kept);
    for (number, log) in logs.iter().enumerate() {
        // Line by line only when there is something to be found.
        let is_clean = planted.found_in(log.as_bytes()).is_empty();
        for line in log.lines().filter(|_| !is_clean) {
            look(format!("log {number}: {line}"), line.as_bytes());
        }
    }
    for answer in &answers.0 {
        look(format!("an answer: {answer}"), answer.as_bytes());
    }
    let shown: Vec<&str> = found
        .iter()
        .take(20)
        .map(|text| &text[..text.floor_char_boundary(600)])
        .collect();
    assert!(found.is_empty(), "{} places:\n{}", found.len(), shown.join("\n"));
}
