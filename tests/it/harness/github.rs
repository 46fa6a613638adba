//! A GitHub of one's own: its REST answers about Apps, shaped as its reference shows them, and the real
//! `git http-backend` for what their tokens open. JWTs are verified by openssl.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use super::git_server::GitServer;

/// What an answer of the API may be in place of a good one.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub message: &'static str,
}

impl Refusal {
    /// The primary limit is used up; it is reset in so many seconds.
    pub fn primary_limit(seconds: u64) -> Self {
        Self {
            status: 403,
            headers: vec![
                ("x-ratelimit-limit", "5000".to_owned()),
                ("x-ratelimit-remaining", "0".to_owned()),
                ("x-ratelimit-reset", (now() + seconds).to_string()),
            ],
            message: "API rate limit exceeded for installation ID 1.",
        }
    }

    /// A secondary limit, which says how long to wait.
    pub fn secondary_limit(seconds: u64) -> Self {
        Self {
            status: 429,
            headers: vec![("retry-after", seconds.to_string())],
            message: "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
        }
    }
}

#[derive(Debug, Clone)]
struct Repository {
    number: u64,
    /// App it is readable for, and whether that is suspended.
    installed: Option<(String, bool)>,
}

#[derive(Debug, Clone)]
struct Token {
    app_id: String,
    repository: u64,
    expires_at: u64,
}

#[derive(Default)]
struct Host {
    /// Public keys by the id of their App, PEM.
    apps: BTreeMap<String, String>,
    repositories: BTreeMap<String, Repository>,
    renamed: BTreeMap<String, String>,
    tokens: BTreeMap<String, Token>,
    made: Vec<String>,
    refusals: VecDeque<Refusal>,
    requests: Vec<String>,
    lifetime: u64,
}

/// The running host. It ends when dropped.
pub struct Github {
    api_url: String,
    pub git: GitServer,
    host: Arc<Mutex<Host>>,
    task: JoinHandle<()>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl Github {
    /// Serves the repositories below `root` to those who have a token for them.
    pub async fn start(root: &Path) -> Self {
        let host = Arc::new(Mutex::new(Host {
            lifetime: 3_600,
            ..Host::default()
        }));
        let opener = Arc::clone(&host);
        let git = GitServer::start_with_access(root, move |authorization, path| {
            opener.lock().unwrap().opens(authorization, path)
        });
        let git = git.await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Where a GitHub Enterprise Server has it.
        let api_url = format!("http://{}/api/v3", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&host));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            api_url,
            git,
            host,
            task,
        }
    }

    /// `github.api_url`.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap()
    }

    /// Makes an App whose private key is this one.
    pub fn add_app(&self, app_id: &str, private_key: &str) {
        let public = openssl(&["pkey", "-pubout"], private_key.as_bytes());
        let public = String::from_utf8(public.expect("a private key")).unwrap();
        self.host().apps.insert(app_id.to_owned(), public);
    }

    /// Says that a repository exists and which App is installed on it.
    pub fn add_repository(&self, name: &str, app_id: Option<&str>) {
        let mut host = self.host();
        let number = 1_000 + u64::try_from(host.repositories.len()).unwrap();
        let installed = app_id.map(|app_id| (app_id.to_owned(), false));
        host.repositories
            .insert(name.to_owned(), Repository { number, installed });
    }

    /// Suspends the installation on a repository, or takes that back.
    pub fn suspend(&self, name: &str, suspended: bool) {
        let mut host = self.host();
        let repository = host.repositories.get_mut(name).unwrap();
        repository.installed.as_mut().unwrap().1 = suspended;
    }

    /// Gives a repository another name, under which it lies already.
    pub fn rename(&self, old: &str, new: &str) {
        let mut host = self.host();
        let repository = host.repositories.remove(old).unwrap();
        host.repositories.insert(new.to_owned(), repository);
        host.renamed.insert(old.to_owned(), new.to_owned());
    }

    /// How long tokens live that are made from now on, in seconds.
    pub fn set_lifetime(&self, seconds: u64) {
        self.host().lifetime = seconds;
    }

    /// Tokens that were made so far open nothing any more.
    pub fn revoke_tokens(&self) {
        self.host().tokens.clear();
    }

    /// The next requests to the API are answered so, one each.
    pub fn refuse_next(&self, refusals: impl IntoIterator<Item = Refusal>) {
        self.host().refusals.extend(refusals);
    }

    /// Every token that was made so far.
    pub fn made(&self) -> Vec<String> {
        self.host().made.clone()
    }

    /// The requests to the API so far: method and path below its URL.
    pub fn requests(&self) -> Vec<String> {
        self.host().requests.clone()
    }
}

impl Drop for Github {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs openssl; none when it fails.
fn openssl(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tests need openssl: apt-get install openssl");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    output.status.success().then_some(output.stdout)
}

impl Host {
    /// Whether a request for `/owner/name.git/...` has a token that opens it.
    fn opens(&self, authorization: Option<&str>, path: &str) -> bool {
        let Some(basic) = authorization.and_then(|text| text.strip_prefix("Basic ")) else {
            return false;
        };
        let basic = String::from_utf8(BASE64_STANDARD.decode(basic).unwrap()).unwrap();
        let Some(token) = basic.strip_prefix("x-access-token:") else {
            return false;
        };
        let Some(name) = path
            .trim_start_matches('/')
            .split_once(".git/")
            .map(|(name, _)| name)
        else {
            return false;
        };
        let token = self.tokens.get(token);
        let repository = self.repositories.get(name);
        token.zip(repository).is_some_and(|(token, repository)| {
            token.repository == repository.number && token.expires_at > now()
        })
    }

    /// The App that a JWT proves, as GitHub checks it.
    fn app_of(&self, headers: &HeaderMap) -> Result<String, Box<Response>> {
        let refused = |message: &str| Err(Box::new(refusal(401, message)));
        let authorization = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.to_str().unwrap());
        let Some(jwt) = authorization.and_then(|text| text.strip_prefix("Bearer ")) else {
            return refused("Requires authentication");
        };
        let parts: Vec<&str> = jwt.split('.').collect();
        let [head, claims, signature] = parts[..] else {
            return refused("A JSON web token could not be decoded");
        };
        let read = |part: &str| -> Value {
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(read(head), json!({"alg": "RS256", "typ": "JWT"}));
        let claims_value = read(claims);
        let issuer = &claims_value["iss"];
        let app_id = issuer.as_str().map_or_else(|| issuer.to_string(), str::to_owned);
        let Some(public) = self.apps.get(&app_id) else {
            return Err(Box::new(refusal(404, "Integration not found")));
        };
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let public = file("public.pem", public.as_bytes());
        let signature = file("signature", &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap());
        let signed = format!("{head}.{claims}");
        let verify = ["dgst", "-sha256", "-verify", &public, "-signature", &signature];
        if openssl(&verify, signed.as_bytes()).is_none() {
            return refused("A JSON web token could not be decoded");
        }
        let (issued, expires) = (
            claims_value["iat"].as_u64().unwrap(),
            claims_value["exp"].as_u64().unwrap(),
        );
        if issued > now() || expires <= now() || expires > now() + 600 {
            return refused("'Expiration time' claim ('exp') is too far in the future");
        }
        Ok(app_id)
    }

    fn installation(&self, app_id: &str, repository: &Repository) -> Response {
        let suspended = match &repository.installed {
            Some((installed, suspended)) if installed == app_id => *suspended,
            _ => return refusal(404, "Not Found"),
        };
        let body = json!({
            "id": installation_number(repository),
            "account": {"login": "owner", "id": 1, "type": "Organization"},
            "repository_selection": "selected",
            "access_tokens_url": format!("https://api.github.com/app/installations/{}/access_tokens", installation_number(repository)),
            "app_id": 1,
            "target_type": "Organization",
            "permissions": {"contents": "read", "metadata": "read"},
            "events": [],
            "suspended_at": suspended.then_some("2026-01-01T00:00:00Z"),
            "suspended_by": null,
        });
        axum::Json(body).into_response()
    }

    fn create_token(&mut self, app_id: &str, installation: &str, body: &Value) -> Response {
        assert_eq!(
            body["permissions"],
            json!({"contents": "read", "metadata": "read"}),
            "no more than is needed"
        );
        let named = |name: &str, repository: &Repository| {
            let (_, short) = name.split_once('/').unwrap();
            body["repositories"] == json!([short]) || body["repository_ids"] == json!([repository.number])
        };
        let found = self.repositories.iter().find(|(name, repository)| {
            installation_number(repository).to_string() == installation && named(name, repository)
        });
        let Some((name, repository)) = found else {
            let message = "There is at least one repository that does not exist or is not accessible to the parent \
                           installation.";
            return refusal(422, message);
        };
        let text = format!("ghs_{:032x}", rand::random::<u128>());
        let expires_at = now() + self.lifetime;
        let answer = json!({
            "token": text,
            "expires_at": timestamp(expires_at),
            "permissions": body["permissions"],
            "repository_selection": "selected",
            "repositories": [{"id": repository.number, "full_name": name}],
        });
        let token = Token {
            app_id: app_id.to_owned(),
            repository: repository.number,
            expires_at,
        };
        self.made.push(text.clone());
        self.tokens.insert(text, token);
        (StatusCode::CREATED, axum::Json(answer)).into_response()
    }

    fn repository(&self, headers: &HeaderMap, number: u64) -> Response {
        let authorization = headers[header::AUTHORIZATION].to_str().unwrap();
        let token = authorization.strip_prefix("Bearer ").unwrap();
        let found = self.repositories.iter().find(|(_, one)| one.number == number);
        match (self.tokens.get(token), found) {
            (Some(token), Some((name, _))) if token.repository == number => {
                assert!(self.apps.contains_key(&token.app_id));
                axum::Json(json!({"id": number, "full_name": name, "private": true})).into_response()
            }
            (Some(_), _) => refusal(404, "Not Found"),
            (None, _) => refusal(401, "Bad credentials"),
        }
    }

    fn answer(&mut self, method: &Method, path: &str, headers: &HeaderMap, body: &Value) -> Response {
        assert!(
            headers[header::USER_AGENT]
                .to_str()
                .unwrap()
                .starts_with("chroma-sync/"),
            "GitHub refuses clients without a name"
        );
        self.requests.push(format!("{method} {path}"));
        if let Some(Refusal {
            status,
            headers,
            message,
        }) = self.refusals.pop_front()
        {
            let mut answer = refusal(status, message);
            for (name, value) in headers {
                answer.headers_mut().insert(name, value.parse().unwrap());
            }
            return answer;
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        if let ["repositories", number] = parts[..] {
            return self.repository(headers, number.parse().unwrap());
        }
        let app_id = match self.app_of(headers) {
            Ok(app_id) => app_id,
            Err(refused) => return *refused,
        };
        match parts[..] {
            ["repos", owner, name, "installation"] => {
                let name = format!("{owner}/{name}");
                if let Some(new) = self.renamed.get(&name) {
                    let number = self.repositories[new].number;
                    let location = format!("{}repositories/{number}/installation", "/api/v3/");
                    let body = json!({"message": "Moved Permanently", "url": location});
                    let headers = [(header::LOCATION, location)];
                    return (StatusCode::MOVED_PERMANENTLY, headers, axum::Json(body)).into_response();
                }
                match self.repositories.get(&name) {
                    Some(repository) => self.installation(&app_id, repository),
                    None => refusal(404, "Not Found"),
                }
            }
            ["repositories", number, "installation"] => {
                let found = self
                    .repositories
                    .values()
                    .find(|one| one.number.to_string() == number);
                self.installation(&app_id, found.unwrap())
            }
            ["app", "installations", number, "access_tokens"] => self.create_token(&app_id, number, body),
            _ => refusal(404, "Not Found"),
        }
    }
}

fn installation_number(repository: &Repository) -> u64 {
    repository.number + 500_000
}

fn timestamp(second: u64) -> String {
    jiff::Timestamp::from_second(i64::try_from(second).unwrap())
        .unwrap()
        .to_string()
}

fn refusal(status: u16, message: &str) -> Response {
    let body = json!({
        "message": message,
        "documentation_url": "https://docs.github.com/rest",
        "status": status.to_string(),
    });
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

async fn answer(State(host): State<Arc<Mutex<Host>>>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let body = to_bytes(Body::new(body), 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = request
        .uri
        .path()
        .strip_prefix("/api/v3")
        .expect("the API's path");
    host.lock()
        .unwrap()
        .answer(&request.method, path, &request.headers, &body)
}
