//! Private repositories through a GitHub App: registered, used, waited for and refused.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use chroma_sync::proto::{self, Invocation, invocation::Phase, invocation::State};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    git_server::{Change, Fault, Repository},
    github::{Github, Refusal},
    keys::{app_key, other_app_key},
    scenario::Scenario,
    service::{Deployment, Service, reason},
    stores::{Backend, on_both},
};

const APP: &str = "4711";
const PRIVATE: &str = "owner/private";

/// A scenario whose repositories are private, with an App at GitHub that is installed on one of them.
struct Private {
    scenario: Scenario,
    github: Github,
    deployment: Deployment,
}

impl Private {
    async fn new(backend: Backend) -> Self {
        let scenario = Scenario::new(backend).await;
        Repository::create(&scenario.repositories(), PRIVATE)
            .commit("main", &[Change::file("a.txt", "one line\n")]);
        let github = Github::start(&scenario.repositories()).await;
        github.add_app(APP, app_key());
        github.add_repository(PRIVATE, Some(APP));
        let deployment = scenario
            .deployment
            .clone()
            .with("github.git_url", &github.git.url())
            .with("github.api_url", github.api_url())
            .with("worker.backoff_seconds", "1");
        Self {
            scenario,
            github,
            deployment,
        }
    }

    async fn register(&self, service: &Service, token: &str, private_key: &str, replace: bool) {
        let request = proto::CreateGithubAppRequest {
            app_id: APP.to_owned(),
            private_key: private_key.to_owned(),
            replace_existing: replace,
            request_id: None,
        };
        let app = service.credentials(token).create_github_app(request).await;
        assert_eq!(app.unwrap().into_inner().app_id, APP);
    }

    async fn create_source(
        &self,
        service: &Service,
        token: &str,
        repository: &str,
    ) -> Result<String, Status> {
        let mut request = self.scenario.source_request(repository);
        let Some(proto::create_source_request::Settings::Github(github)) = &mut request.settings else {
            panic!("a request for a repository")
        };
        github.app_id = Some(APP.to_owned());
        let source = service.sources(token).create_source(request).await?;
        Ok(source.into_inner().id)
    }

    /// Registers the App, and creates a source of `repository` that names it.
    async fn source(&self, service: &Service, repository: &str) -> String {
        let admin = &self.scenario.admin;
        self.register(service, admin, app_key(), true).await;
        self.create_source(service, admin, repository).await.unwrap()
    }

    async fn sync(&self, service: &Service, source: &str, collection: &str) -> Invocation {
        self.scenario.run(service, source, collection, None).await
    }

    fn paths(&self) -> [String; 2] {
        let installation = 501_000;
        [
            format!("GET /repos/{PRIVATE}/installation"),
            format!("POST /app/installations/{installation}/access_tokens"),
        ]
    }
}

#[track_caller]
fn assert_complete(ended: &Invocation, attempts: i32) {
    assert_eq!(ended.state(), State::Complete, "{ended:?}");
    assert_eq!(ended.statistics.as_ref().unwrap().documents_indexed, 1);
    assert_eq!(ended.attempt, attempts);
}

#[track_caller]
fn assert_failed(ended: &Invocation, reason: &str, words: &str) {
    let failure = ended.failure.as_ref().unwrap_or_else(|| panic!("{ended:?}"));
    assert_eq!(failure.reason, reason, "{}", failure.message);
    assert!(failure.message.contains(words), "{}", failure.message);
    assert_eq!(ended.attempt, 1, "{}", failure.message);
}

on_both!(a_private_repository_is_synced_with_a_token_of_its_app, tokens_on);
async fn tokens_on(backend: Backend) {
    let private = Private::new(backend).await;
    let (github, scenario) = (&private.github, &private.scenario);
    let service = private.deployment.start();
    let public = scenario.create_source(&service, PRIVATE).await;
    let refused = private.sync(&service, &public, "without-app").await;
    assert_failed(&refused, "AUTHENTICATION_FAILED", "is private");
    assert_eq!(github.requests(), [""; 0]);

    let source = private.source(&service, PRIVATE).await;
    assert_complete(&private.sync(&service, &source, "first").await, 1);
    assert_eq!(github.requests(), private.paths());
    assert_complete(&private.sync(&service, &source, "second").await, 1);
    assert_eq!(github.requests(), private.paths(), "the token was kept");
    assert_eq!(github.made().len(), 1);

    github.revoke_tokens();
    assert_complete(&private.sync(&service, &source, "third").await, 1);
    assert_eq!(github.made().len(), 2, "a token that is refused is replaced");

    // Tokens that live no longer than the margin are never kept.
    github.revoke_tokens();
    github.set_lifetime(200);
    for collection in ["fourth", "fifth", "sixth"] {
        assert_complete(&private.sync(&service, &source, collection).await, 1);
    }
    assert_eq!(github.made().len(), 5);

    // The App's key is replaced, by one in the other form.
    github.add_app(APP, other_app_key());
    let ended = private.sync(&service, &source, "seventh").await;
    assert_failed(&ended, "GITHUB_APP_REFUSED", "private key is not one of this App");
    private
        .register(&service, &scenario.admin, other_app_key(), true)
        .await;
    assert_complete(&private.sync(&service, &source, "eighth").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_requests_is_waited_for_and_seen_and_is_no_failure() {
    let private = Private::new(Backend::Sqlite).await;
    let scenario = &private.scenario;
    let service = private
        .deployment
        .clone()
        .with("worker.max_failed_attempts", "1")
        .start();
    let source = private.source(&service, PRIVATE).await;
    private
        .github
        .refuse_next([Refusal::primary_limit(1), Refusal::secondary_limit(1)]);
    let too_many = Fault::Status(429, Some(("retry-after", "1".to_owned())));
    private.github.git.fail_next([too_many]);
    let created = scenario.create_invocation(&service, &source, "target").await;
    let messages = scenario.watch(&service, &created.unwrap().id).await;
    let last = messages.last().unwrap().invocation.as_ref().unwrap();
    assert_complete(last, 4);
    let waits: Vec<&Invocation> = messages
        .iter()
        .filter_map(|message| message.invocation.as_ref())
        .filter(|invocation| invocation.phase() == Phase::Waiting)
        .collect();
    assert!(!waits.is_empty());
    for waiting in waits {
        let wait = waiting.wait.as_ref().unwrap();
        assert!(wait.cause.contains("limits our requests"), "{wait:?}");
        assert!(wait.until.is_some());
        assert_eq!(waiting.state(), State::Processing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_was_renamed_says_its_new_name() {
    let private = Private::new(Backend::Sqlite).await;
    let service = private.deployment.start();
    let source = private.source(&service, PRIVATE).await;
    private.github.rename(PRIVATE, "owner/moved");
    let ended = private.sync(&service, &source, "target").await;
    let words = "was renamed to owner/moved: create a source for it";
    assert_failed(&ended, "REPOSITORY_RENAMED", words);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_app_may_not_do_is_said_with_what_to_do() {
    let private = Private::new(Backend::Sqlite).await;
    let github = &private.github;
    let service = private.deployment.start();
    github.add_repository("owner/elsewhere", None);
    for (repository, collection) in [("owner/elsewhere", "elsewhere"), ("owner/nowhere", "nowhere")] {
        let source = private.source(&service, repository).await;
        let ended = private.sync(&service, &source, collection).await;
        let words = format!("GitHub App {APP} has no access to repository {repository}");
        assert_failed(&ended, "GITHUB_APP_NOT_INSTALLED", &words);
    }
    let source = private.source(&service, PRIVATE).await;
    github.suspend(PRIVATE, true);
    let ended = private.sync(&service, &source, "suspended").await;
    assert_failed(&ended, "GITHUB_APP_REFUSED", "is suspended");
    github.suspend(PRIVATE, false);

    let unfit = Refusal {
        status: 401,
        headers: vec![],
        message: "'Issued at' claim ('iat') must be an Integer\nrepresenting the time",
    };
    github.refuse_next([unfit]);
    let ended = private.sync(&service, &source, "clock").await;
    assert_failed(
        &ended,
        "GITHUB_APP_REFUSED",
        "this server's clock is wrong: 'Issued at'",
    );
    assert!(!ended.failure.unwrap().message.contains('\n'));
    assert_complete(&private.sync(&service, &source, "at-last").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_belongs_to_its_tenant_and_stays_while_it_is_named() {
    let private = Private::new(Backend::Sqlite).await;
    let scenario = &private.scenario;
    let service = private.deployment.start_role("api");
    let other = ["--role", "owner", "--tenant", "another_tenant"];
    let other = scenario.deployment.create_key(&other);
    private.register(&service, &other, app_key(), false).await;
    let refused = private.create_source(&service, &scenario.admin, PRIVATE).await;
    let status = refused.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "GITHUB_APP_NOT_FOUND")
    );

    let source = private.source(&service, PRIVATE).await;
    let created = scenario.create_invocation(&service, &source, "target").await;
    let created = created.unwrap();
    let delete = async || {
        let request = proto::DeleteGithubAppRequest {
            app_id: APP.to_owned(),
        };
        let mut credentials = service.credentials(&scenario.admin);
        credentials.delete_github_app(request).await.map(drop)
    };
    let status = delete().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.metadata["sources"].as_str()),
        ("CREDENTIAL_IN_USE", "1")
    );
    let named = "1 source names github app 4711; delete them first";
    assert_eq!(status.message(), named);

    let request = proto::DeleteSourceRequest { source_id: source };
    service
        .sources(&scenario.admin)
        .delete_source(request)
        .await
        .unwrap();
    delete().await.unwrap();
    let status = delete().await.unwrap_err();
    assert_eq!(reason(&status), "GITHUB_APP_NOT_FOUND");
    let _worker = private.deployment.start_role("worker");
    let messages = scenario.watch(&service, &created.id).await;
    let last = messages.last().unwrap().invocation.as_ref().unwrap();
    assert_failed(last, "GITHUB_APP_NOT_FOUND", "is not registered any more");
}

on_both!(
    an_operator_replaces_the_encryption_key_while_servers_run,
    rotation_on
);
async fn rotation_on(backend: Backend) {
    let private = Private::new(backend).await;
    let (old, new) = ("a".repeat(64), "b".repeat(64));
    let first = private.deployment.clone().with("encryption.key", &old);
    let service = first.start();
    let source = private.source(&service, PRIVATE).await;
    drop(service);

    let both = private
        .deployment
        .clone()
        .with("encryption.key", &new)
        .with("encryption.previous_keys", &old);
    let service = both.start();
    assert_complete(&private.sync(&service, &source, "before").await, 1);
    let lost = private.deployment.clone().with("encryption.key", &new);
    let (_, errors) = lost.run_refused(&["keys", "rotate-encryption"]);
    assert!(
        errors.contains("private keys of GitHub Apps: 1 open with no key"),
        "{errors}"
    );
    let said = both.run(&["keys", "rotate-encryption"]);
    assert!(
        said.contains("private keys of GitHub Apps: 1 sealed again"),
        "{said}"
    );
    let said = both.run(&["keys", "rotate-encryption"]);
    assert!(
        said.contains("private keys of GitHub Apps: 0 sealed again"),
        "{said}"
    );
    assert_complete(&private.sync(&service, &source, "between").await, 1);
    drop(service);

    let service = lost.start();
    assert_complete(&private.sync(&service, &source, "after").await, 1);
    drop(service);
    let service = first.start();
    let ended = private.sync(&service, &source, "too-late").await;
    assert_failed(&ended, "CREDENTIAL_UNREADABLE", "encryption.previous_keys");
}

/// Runs a command with a secret on its standard input and others in its environment.
fn run(command: &mut Command, input: &str, variables: &[(&str, &str)]) -> Output {
    let mut child = command
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_takes_secrets_from_files_variables_and_standard_input() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let credentials = |arguments: &[&str], input: &str, variables: &[(&str, &str)]| {
        let all = [&["credentials"], arguments].concat();
        let mut command = scenario
            .deployment
            .client_command(&service.url, &scenario.admin, &all);
        let output = run(&mut command, input, variables);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let lines: Vec<String> = text(output.stdout).lines().map(str::to_owned).collect();
        (output.status.success(), lines, text(output.stderr))
    };
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (secret, pem) = (file("secret", "planted-one\n"), file("app.pem", app_key()));

    let add = ["aws", "add", "--access-key-id", "AKIDEXAMPLE", "--name", "bucket"];
    let from_file = [&add[..], &["--secret-access-key-file", &secret]].concat();
    let mut ids = Vec::new();
    for (arguments, input, variables) in [
        (&from_file[..], "", &[][..]),
        (&add, "", &[("AWS_SECRET_ACCESS_KEY", "planted-two")]),
        (&add, "planted-three\n", &[]),
    ] {
        let (succeeded, lines, errors) = credentials(arguments, input, variables);
        assert!(succeeded, "{errors}");
        let [id] = &lines[..] else { panic!("{lines:?}") };
        ids.insert(0, id.clone());
    }
    let (_, lines, _) = credentials(&["aws", "list"], "", &[]);
    assert_eq!(lines.len(), 3);
    for (line, id) in lines.iter().zip(&ids) {
        assert!(line.starts_with(&format!("{id}  AKIDEXAMPLE  ")), "{line}");
        assert!(line.ends_with("  bucket"), "{line}");
    }
    let (_, lines, _) = credentials(&["aws", "delete", &ids[0]], "", &[]);
    assert_eq!(lines, [format!("deleted {}", ids[0])]);
    let (succeeded, _, errors) = credentials(&["aws", "delete", &ids[0]], "", &[]);
    assert!(
        !succeeded && errors.contains("AWS_CREDENTIAL_NOT_FOUND"),
        "{errors}"
    );

    let add = ["github-app", "add", "--app-id", APP];
    let from_file = [&add[..], &["--private-key-file", &pem]].concat();
    let (succeeded, lines, errors) = credentials(&from_file, "", &[]);
    assert!(succeeded && lines == [APP], "{errors}");
    let (succeeded, _, errors) = credentials(&from_file, "", &[]);
    assert!(!succeeded && errors.contains("GITHUB_APP_EXISTS"), "{errors}");
    let replace = [&add[..], &["--replace", "--private-key-file", "-"]].concat();
    let (succeeded, lines, errors) = credentials(&replace, other_app_key(), &[]);
    assert!(succeeded && lines == [APP], "{errors}");
    let (succeeded, _, errors) = credentials(&add, "not a key", &[]);
    assert!(!succeeded && errors.contains("INVALID_FIELD"), "{errors}");
    let (_, lines, _) = credentials(&["github-app", "list"], "", &[]);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.starts_with(APP), "{line}");
    let (_, lines, _) = credentials(&["github-app", "delete", APP], "", &[]);
    assert_eq!(lines, [format!("deleted {APP}")]);
}
