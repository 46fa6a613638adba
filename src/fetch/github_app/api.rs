//! The three requests that make a token, and what their answers mean for the owner of the invocation.
//!
//! Source: GitHub's REST reference, *Apps*: "Get a repository installation for the authenticated app" and
//! "Create an installation access token for an app".

use std::time::Duration;

use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION},
};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{AppAccess, GithubAppOptions, jwt};
use crate::{
    domain::source::RepositoryName,
    fetch::{
        egress::{Egress, refusal},
        error::FetchError,
        rate_limit,
    },
    secret::Secret,
};

/// What GitHub wants every client to call itself.
const USER_AGENT: &str = concat!("chroma-sync/", env!("CARGO_PKG_VERSION"));
/// The most bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// The most characters of GitHub's own words that are repeated.
const MAX_WORDS: usize = 200;

/// A token that was just made.
pub(super) struct MadeToken {
    pub(super) text: Secret,
    /// Until it expires.
    pub(super) lifetime: Duration,
}

/// GitHub's REST API.
pub(super) struct Api {
    client: reqwest::Client,
    api_url: Url,
    egress: Egress,
}

/// An answer that was read.
struct Answer {
    status: StatusCode,
    rate_limit: Option<Duration>,
    location: Option<String>,
    body: Vec<u8>,
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
    #[serde(default)]
    suspended_at: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Secret,
    expires_at: String,
}

/// GitHub's words about an error.
#[derive(Deserialize)]
struct Message {
    message: String,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

impl Answer {
    fn parse<T: for<'a> Deserialize<'a>>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// GitHub's words, without anything that could break a line.
    fn words(&self) -> String {
        let words = self
            .parse::<Message>()
            .map_or_else(String::new, |answer| answer.message);
        words
            .chars()
            .filter(|character| !character.is_control())
            .take(MAX_WORDS)
            .collect()
    }
}

impl Api {
    pub(super) fn new(options: GithubAppOptions) -> Result<Self, FetchError> {
        let egress = options.egress.with_origin(&options.api_url);
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(USER_AGENT)
            .connect_timeout(options.connect_timeout)
            .timeout(options.timeout)
            .dns_resolver(egress.resolver(options.api_url.port_or_known_default()))
            .build()
            .map_err(|source| FetchError::Internal {
                source: source.into(),
            })?;
        Ok(Self {
            client,
            api_url: options.api_url,
            egress,
        })
    }

    /// Has a token made that reads the repository.
    pub(super) async fn make_token(&self, access: AppAccess<'_>) -> Result<MadeToken, FetchError> {
        let (owner, name) = access
            .repository
            .as_str()
            .split_once('/')
            .unwrap_or((access.repository.as_str(), ""));
        let proof = self.proof(access)?;
        let path = ["repos", owner, name, "installation"];
        let answer = self.get(access, &self.url(&path), &proof).await?;
        let installation = match answer.status {
            StatusCode::OK => self.installation(access, &answer)?,
            status if status.is_redirection() => return Err(self.renamed(access, &proof, &answer).await),
            StatusCode::NOT_FOUND if answer.words() == "Integration not found" => {
                return Err(self.app_refused(access, "there is no such App; check its id"));
            }
            StatusCode::NOT_FOUND => return Err(self.not_installed(access)),
            _ => return Err(self.refused(access, &answer)),
        };
        let repositories = json!({"repositories": [name]});
        self.installation_token(access, &proof, installation.id, repositories)
            .await
    }

    fn proof(&self, access: AppAccess<'_>) -> Result<Secret, FetchError> {
        let now = jiff::Timestamp::now().as_second();
        jwt::sign(access.app_id, access.private_key, now)
            .ok_or_else(|| self.app_refused(access, "its private key cannot sign; register the App anew"))
    }

    fn installation(&self, access: AppAccess<'_>, answer: &Answer) -> Result<Installation, FetchError> {
        let installation: Installation = answer
            .parse()
            .ok_or_else(|| self.unexpected(access.repository, "an installation without an id"))?;
        match installation.suspended_at {
            Some(_) => Err(self.suspended(access)),
            None => Ok(installation),
        }
    }

    /// A token of an installation for the repositories that `which` names, with the least it needs.
    async fn installation_token(
        &self,
        access: AppAccess<'_>,
        proof: &Secret,
        installation: u64,
        which: Value,
    ) -> Result<MadeToken, FetchError> {
        let id = installation.to_string();
        let url = self.url(&["app", "installations", &id, "access_tokens"]);
        let mut body = which;
        body["permissions"] = json!({"contents": "read", "metadata": "read"});
        let request = self.request(Method::POST, &url, proof, access)?.json(&body);
        let answer = self.send(access, request).await?;
        match answer.status {
            StatusCode::CREATED => self.read_token(access, &answer),
            StatusCode::NOT_FOUND => Err(self.not_installed(access)),
            StatusCode::UNPROCESSABLE_ENTITY => {
                let problem = format!(
                    "it may not read repository {}: {}; give it read-only access to Contents and Metadata and to \
                     this repository, and accept that where it is installed",
                    access.repository,
                    answer.words()
                );
                Err(self.app_refused(access, &problem))
            }
            _ => Err(self.refused(access, &answer)),
        }
    }

    fn read_token(&self, access: AppAccess<'_>, answer: &Answer) -> Result<MadeToken, FetchError> {
        let unexpected = || self.unexpected(access.repository, "a token that cannot be read");
        let TokenAnswer { token, expires_at } = answer.parse().ok_or_else(unexpected)?;
        let expires_at: jiff::Timestamp = expires_at.parse().map_err(|_| unexpected())?;
        let seconds = expires_at.as_second() - jiff::Timestamp::now().as_second();
        Ok(MadeToken {
            text: token,
            lifetime: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        })
    }

    /// The repository has another name now. GitHub leads to its number, from which the name is found, if
    /// the App may see it; whatever goes wrong on the way, the name is left out.
    async fn renamed(&self, access: AppAccess<'_>, proof: &Secret, answer: &Answer) -> FetchError {
        let new_name = match answer.location.as_deref() {
            Some(location) => self.new_name(access, proof, location).await,
            None => None,
        };
        FetchError::RepositoryRenamed {
            repository: access.repository.clone(),
            new_name,
        }
    }

    async fn new_name(&self, access: AppAccess<'_>, proof: &Secret, location: &str) -> Option<String> {
        let target = self.api_url.join(location).ok()?;
        if target.origin() != self.api_url.origin() {
            return None;
        }
        let mut segments = target.path_segments()?.skip_while(|part| *part != "repositories");
        let number: u64 = segments.nth(1)?.parse().ok()?;
        let answer = self.get(access, &target, proof).await.ok()?;
        let installation = self.installation(access, &answer).ok()?;
        let which = json!({"repository_ids": [number]});
        let token = self
            .installation_token(access, proof, installation.id, which)
            .await;
        let token = token.ok()?.text;
        let url = self.url(&["repositories", &number.to_string()]);
        let repository: Repository = self.get(access, &url, &token).await.ok()?.parse()?;
        RepositoryName::parse("repository", &repository.full_name).ok()?;
        Some(repository.full_name)
    }

    /// An answer that says no for one of the reasons that every request may meet.
    fn refused(&self, access: AppAccess<'_>, answer: &Answer) -> FetchError {
        let (host, status) = (self.host(), answer.status);
        let limited = |retry_after| FetchError::RateLimited {
            repository: access.repository.clone(),
            host: host.clone(),
            retry_after,
        };
        if let Some(wait) = answer.rate_limit {
            return limited(wait);
        }
        let words = answer.words();
        match status {
            // A secondary limit may come without any header.
            StatusCode::FORBIDDEN if words.contains("rate limit") => limited(rate_limit::DEFAULT_WAIT),
            StatusCode::FORBIDDEN if words.contains("suspended") => self.suspended(access),
            StatusCode::UNAUTHORIZED => {
                let problem = format!(
                    "the private key is not one of this App, or this server's clock is wrong: {words}; make a new \
                     private key on the App's page and replace the registered one"
                );
                self.app_refused(access, &problem)
            }
            StatusCode::FORBIDDEN => self.app_refused(access, &words),
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                FetchError::Network {
                    repository: access.repository.clone(),
                    problem: format!("{host} answered {}", status.as_u16()),
                    retry_after: None,
                    source: None,
                }
            }
            status => self.unexpected(access.repository, &format!("status {}", status.as_u16())),
        }
    }

    async fn get(&self, access: AppAccess<'_>, url: &Url, proof: &Secret) -> Result<Answer, FetchError> {
        let request = self.request(Method::GET, url, proof, access)?;
        self.send(access, request).await
    }

    fn request(
        &self,
        method: Method,
        url: &Url,
        token: &Secret,
        access: AppAccess<'_>,
    ) -> Result<RequestBuilder, FetchError> {
        self.egress
            .check(url)
            .map_err(|refusal| FetchError::EgressForbidden {
                repository: access.repository.clone(),
                refusal,
            })?;
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(|source| {
                FetchError::Internal {
                    source: source.into(),
                }
            })?;
        authorization.set_sensitive(true);
        Ok(self
            .client
            .request(method, url.clone())
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28"))
    }

    /// Sends a request and reads the answer, whatever its status.
    async fn send(&self, access: AppAccess<'_>, request: RequestBuilder) -> Result<Answer, FetchError> {
        let broken = |error: reqwest::Error| match refusal(&error) {
            Some(refusal) => FetchError::EgressForbidden {
                repository: access.repository.clone(),
                refusal: refusal.clone(),
            },
            None => FetchError::Network {
                repository: access.repository.clone(),
                problem: format!("{} does not answer (github.api_url)", self.host()),
                retry_after: None,
                source: Some(error.without_url().into()),
            },
        };
        let response = request.send().await.map_err(broken)?;
        let (status, headers) = (response.status(), response.headers());
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let answer = Answer {
            status,
            rate_limit: rate_limit::wait(status, headers),
            location: location.map(str::to_owned),
            body: Vec::new(),
        };
        let body = read_bounded(response).await.map_err(broken)?;
        let body = body.ok_or_else(|| self.unexpected(access.repository, "more than a megabyte"))?;
        Ok(Answer { body, ..answer })
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.api_url.clone();
        // The configuration takes http and https alone, which have segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    fn host(&self) -> String {
        self.api_url.host_str().unwrap_or_default().to_owned()
    }

    fn not_installed(&self, access: AppAccess<'_>) -> FetchError {
        FetchError::AppNotInstalled {
            repository: access.repository.clone(),
            app_id: access.app_id.clone(),
        }
    }

    fn suspended(&self, access: AppAccess<'_>) -> FetchError {
        let problem = format!(
            "its installation on repository {} is suspended; whoever installed it can unsuspend it in the settings \
             of the repository's owner",
            access.repository
        );
        self.app_refused(access, &problem)
    }

    fn app_refused(&self, access: AppAccess<'_>, problem: &str) -> FetchError {
        FetchError::AppRefused {
            app_id: access.app_id.clone(),
            host: self.host(),
            problem: problem.to_owned(),
        }
    }

    fn unexpected(&self, repository: &RepositoryName, what: &str) -> FetchError {
        FetchError::UnexpectedAnswer {
            repository: repository.clone(),
            problem: format!("{} answered {what}; check github.api_url", self.host()),
            source: None,
        }
    }
}

/// The body; none when it is too long.
async fn read_bounded(mut response: Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}
