//! Tokens of GitHub Apps, asked of an API that answers anything, slowly, or from elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use chroma_sync::{
    domain::source::{GithubAppId, RepositoryName},
    fetch::{AppAccess, Egress, FetchError, GithubAppOptions, GithubApps},
    secret::Secret,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::harness::keys::{app_key, other_app_key};

/// An API that answers every request for an installation, and every one for a token, in one way.
struct Api {
    url: String,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

type Answer = Arc<dyn Fn() -> Response + Send + Sync>;

#[derive(Clone)]
struct Answers {
    installation: Answer,
    token: Answer,
    requests: Arc<AtomicUsize>,
}

impl Api {
    async fn start(
        installation: impl Fn() -> Response + Send + Sync + 'static,
        token: impl Fn() -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let answers = Answers {
            installation: Arc::new(installation),
            token: Arc::new(token),
            requests: Arc::clone(&requests),
        };
        let router = Router::new().fallback(answer).with_state(answers);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, requests, task }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(answers): State<Answers>, request: Request) -> Response {
    answers.requests.fetch_add(1, Ordering::Relaxed);
    if request.uri().path().ends_with("/access_tokens") {
        (answers.token)()
    } else {
        (answers.installation)()
    }
}

fn answered(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

fn installed() -> Response {
    answered(200, json!({"id": 1, "suspended_at": null}))
}

fn token(expires_at: &str) -> Response {
    answered(201, json!({"token": "ghs_token", "expires_at": expires_at}))
}

fn long_lived() -> Response {
    token("2100-01-01T00:00:00Z")
}

fn apps(url: &str, egress: Egress) -> GithubApps {
    let mut options = GithubAppOptions::new(url.parse().unwrap());
    options.egress = egress;
    options.timeout = Duration::from_secs(10);
    GithubApps::new(options).unwrap()
}

/// Asks for a token of a repository with the App's key.
async fn ask(apps: &GithubApps, repository: &str, private_key: &str) -> Result<Secret, FetchError> {
    let app_id = GithubAppId::parse("app_id", "Iv1.8a61f9b3a7aba766").unwrap();
    let repository = RepositoryName::parse("repository", repository).unwrap();
    let access = AppAccess {
        app_id: &app_id,
        private_key: &Secret::new(private_key),
        repository: &repository,
    };
    apps.token(access).await
}

#[tokio::test]
async fn many_that_ask_for_one_token_at_once_share_it() {
    let api = Api::start(installed, long_lived).await;
    let apps = apps(&api.url, Egress::public_only());
    let asking = (0..20).map(|_| ask(&apps, "owner/name", app_key()));
    for token in futures::future::join_all(asking).await {
        assert_eq!(token.unwrap().expose(), "ghs_token");
    }
    assert_eq!(api.requests(), 2);
    ask(&apps, "Owner/NAME", app_key()).await.unwrap();
    assert_eq!(api.requests(), 2, "GitHub compares names without regard to case");
    ask(&apps, "owner/other", app_key()).await.unwrap();
    assert_eq!(api.requests(), 4, "another repository has another token");
    ask(&apps, "owner/name", other_app_key()).await.unwrap();
    assert_eq!(api.requests(), 6, "a replaced key uses no token of the old one");
}

#[tokio::test]
async fn an_answer_that_is_none_of_githubs_is_said_to_be_that() {
    let page = || "<html>Welcome</html>".into_response();
    let endless = || {
        let chunk = || Ok::<_, std::io::Error>("x".repeat(1 << 16));
        Body::from_stream(futures::stream::repeat_with(chunk)).into_response()
    };
    let no_id = || answered(200, json!({"id": "one"}));
    let no_time = || token("tomorrow");
    let no_token = || answered(201, json!({"expires_at": "2100-01-01T00:00:00Z"}));
    let teapot = || answered(418, json!({"message": "short and stout"}));
    for api in [
        Api::start(page, long_lived).await,
        Api::start(endless, long_lived).await,
        Api::start(no_id, long_lived).await,
        Api::start(teapot, long_lived).await,
        Api::start(installed, page).await,
        Api::start(installed, no_time).await,
        Api::start(installed, no_token).await,
    ] {
        let error = ask(&apps(&api.url, Egress::public_only()), "owner/name", app_key()).await;
        let error = error.unwrap_err();
        assert_eq!(error.reason(), "UNEXPECTED_ANSWER", "{error}");
        assert!(error.to_string().ends_with("check github.api_url"), "{error}");
        assert!(!error.is_transient());
        assert!(!format!("{error:?}").contains("ghs_token"), "{error:?}");
    }
}

#[tokio::test]
async fn a_redirect_leads_to_no_other_host() {
    let elsewhere = Api::start(installed, long_lived).await;
    let location = format!("{}/repositories/1/installation", elsewhere.url);
    let redirect = move || {
        (
            StatusCode::MOVED_PERMANENTLY,
            [(header::LOCATION, location.clone())],
        )
            .into_response()
    };
    let api = Api::start(redirect, long_lived).await;
    let error = ask(&apps(&api.url, Egress::public_only()), "owner/name", app_key()).await;
    let error = error.unwrap_err();
    assert_eq!(error.reason(), "REPOSITORY_RENAMED");
    let words = "repository owner/name was renamed: create a source with its new name";
    assert_eq!(error.to_string(), words);
    assert_eq!((api.requests(), elsewhere.requests()), (1, 0));
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_not() {
    let failing = |status: u16| {
        move || {
            answered(
                status,
                json!({"message": "You have exceeded a secondary rate limit"}),
            )
        }
    };
    for (status, reason, transient, counts) in [
        (500, "NETWORK_ERROR", true, true),
        (503, "NETWORK_ERROR", true, true),
        // A limit that says nothing in its headers.
        (403, "RATE_LIMITED", true, false),
        (429, "RATE_LIMITED", true, false),
        (401, "GITHUB_APP_REFUSED", false, true),
    ] {
        for api in [
            Api::start(failing(status), long_lived).await,
            Api::start(installed, failing(status)).await,
        ] {
            let error = ask(&apps(&api.url, Egress::public_only()), "owner/name", app_key()).await;
            let error = error.unwrap_err();
            assert_eq!(error.reason(), reason, "{status}: {error}");
            assert_eq!(error.is_transient(), transient, "{status}");
            assert_eq!(error.counts_as_failure(), counts, "{status}");
            let waits = (!counts).then(|| Duration::from_secs(60));
            assert_eq!(error.retry_after(), waits, "{status}");
        }
    }
    let lacking = || {
        answered(
            422,
            json!({"message": "The permissions requested are not granted."}),
        )
    };
    let api = Api::start(installed, lacking).await;
    let error = ask(&apps(&api.url, Egress::public_only()), "owner/name", app_key()).await;
    let error = error.unwrap_err();
    assert_eq!(error.reason(), "GITHUB_APP_REFUSED");
    assert!(
        error.to_string().contains("read-only access to Contents"),
        "{error}"
    );

    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let away = apps(&format!("http://{nobody}"), Egress::public_only());
    let error = ask(&away, "owner/name", app_key()).await.unwrap_err();
    assert_eq!(error.reason(), "NETWORK_ERROR");
    assert!(error.is_transient());
}
