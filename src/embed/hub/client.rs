//! The requests to a hub: its listing of a model, and its files, over redirects and failures.

use std::time::Duration;

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE},
};
use tokio::time::timeout;
use url::Url;

use super::{HubError, HubOptions, PullProgress, Pulled, download, listing::Listing};
use crate::{
    embed::directories::{is_revision, parse_name},
    outbound,
    secret::Secret,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the hub may send nothing.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest listing, in bytes.
const MAX_LISTING_BYTES: usize = 16 << 20;
const MAX_REDIRECTS: usize = 5;
/// Tries that bring nothing further.
pub(super) const MAX_TRIES: u32 = 5;
/// The size and checksum of a file that lies elsewhere, beside the redirect to it.
pub(super) const LINKED_ETAG: &str = "x-linked-etag";
pub(super) const LINKED_SIZE: &str = "x-linked-size";
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A client of a hub.
#[derive(Debug, Clone)]
pub struct Hub {
    http: Client,
    options: HubOptions,
    token: Option<HeaderValue>,
}

impl Hub {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`HubError::Token`] or [`HubError::Client`].
    pub fn new(options: HubOptions) -> Result<Self, HubError> {
        let bearer =
            |token: &Secret| outbound::secret_header(&Secret::new(format!("Bearer {}", token.expose())));
        let token = match &options.token {
            None => None,
            Some(token) => Some(bearer(token).ok_or(HubError::Token)?),
        };
        let http = outbound::client(CONNECT_TIMEOUT).map_err(HubError::Client)?;
        Ok(Self { http, options, token })
    }

    /// Fetches what is missing in the cache of the files of `name` that this service reads. `revision` is a commit,
    /// branch or tag; a branch or tag is resolved to its commit first, and all files are of that one.
    ///
    /// Two pulls of one model at once do not disturb each other. Dropping the future keeps what has come.
    ///
    /// # Errors
    /// See [`HubError`].
    pub async fn pull(
        &self,
        name: &str,
        revision: &str,
        progress: &dyn PullProgress,
    ) -> Result<Pulled, HubError> {
        parse_name(name).ok_or_else(|| HubError::Name(name.to_owned()))?;
        if !is_revision(revision) {
            return Err(HubError::Revision(revision.to_owned()));
        }
        if self.options.offline {
            return Err(HubError::Offline(name.to_owned()));
        }
        let listing = self.listing(name, revision).await?;
        if !is_revision(&listing.sha) || listing.sha.contains('/') {
            return Err(self.invalid("it names no commit".to_owned()));
        }
        progress.note(&format!(
            "{name} at revision {revision} is commit {}",
            listing.sha
        ));
        download::pull(self, name, revision, &listing, progress).await
    }

    async fn listing(&self, name: &str, revision: &str) -> Result<Listing, HubError> {
        let mut url = self.url(&["api", "models"], name, &["revision"]);
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(revision);
        }
        url.set_query(Some("blobs=true"));
        let mut tries = 0;
        loop {
            match self.listing_once(name, revision, &url).await {
                Err(error) if error.is_transient() && tries + 1 < MAX_TRIES => {
                    self.pause(&error, tries).await;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn listing_once(&self, name: &str, revision: &str, url: &Url) -> Result<Listing, HubError> {
        let (response, _) = self.follow(Method::GET, url.clone(), None).await?;
        let response = self.accept(response, name, revision)?;
        let reading = outbound::read(response, MAX_LISTING_BYTES);
        let (body, whole) = timeout(IDLE_TIMEOUT, reading)
            .await
            .map_err(|_| self.silent())?
            .map_err(|error| self.unavailable(error))?;
        if !whole {
            return Err(self.invalid(format!("its listing has more than {MAX_LISTING_BYTES} bytes")));
        }
        serde_json::from_slice(&body).map_err(|error| self.invalid(format!("its listing of {name}: {error}")))
    }

    /// Sends a request and follows redirects. The second part is the headers of the hub's own answer.
    pub(super) async fn follow(
        &self,
        method: Method,
        url: Url,
        from: Option<u64>,
    ) -> Result<(Response, HeaderMap), HubError> {
        let mut url = url;
        let mut first = None;
        for _ in 0..=MAX_REDIRECTS {
            let request = self.request(method.clone(), &url, from);
            let response = timeout(IDLE_TIMEOUT, request.send())
                .await
                .map_err(|_| self.silent())?
                .map_err(|error| self.unavailable(error))?;
            let headers = first.get_or_insert_with(|| response.headers().clone());
            // What is only asked about is said beside the redirect; the address there may be signed for GET alone.
            let said = method == Method::HEAD && response.headers().contains_key(LINKED_ETAG);
            if said || !response.status().is_redirection() {
                let headers = headers.clone();
                return Ok((response, headers));
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let downgraded = |next: &Url| url.scheme() == "https" && next.scheme() != "https";
            url = next
                .filter(|next| matches!(next.scheme(), "http" | "https") && !downgraded(next))
                .ok_or_else(|| self.invalid("it redirects to no address that can be used".to_owned()))?;
        }
        Err(self.invalid(format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    fn request(&self, method: Method, url: &Url, from: Option<u64>) -> RequestBuilder {
        let mut request = self.http.request(method, url.clone());
        if let Some(token) = &self.token
            && url.origin() == self.options.endpoint.origin()
        {
            request = request.header(AUTHORIZATION, token.clone());
        }
        match from {
            Some(from) => request.header(RANGE, format!("bytes={from}-")),
            None => request,
        }
    }

    /// The answer, unless it is a refusal.
    pub(super) fn accept(
        &self,
        response: Response,
        model: &str,
        revision: &str,
    ) -> Result<Response, HubError> {
        let status = response.status();
        let (endpoint, model) = (self.endpoint(), model.to_owned());
        match status {
            _ if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(HubError::Unauthorized {
                endpoint,
                model,
                status: status.as_u16(),
            }),
            StatusCode::NOT_FOUND => Err(HubError::NotFound {
                endpoint,
                model,
                revision: revision.to_owned(),
            }),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Err(self.away(&response)),
            _ if status.is_server_error() => Err(self.away(&response)),
            _ => Err(self.invalid(format!("it answers {status}"))),
        }
    }

    pub(super) fn url(&self, before: &[&str], model: &str, after: &[&str]) -> Url {
        let mut url = self.options.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty()
                .extend(before)
                .extend(model.split('/'))
                .extend(after);
        }
        url
    }

    pub(super) async fn pause(&self, error: &HubError, tries: u32) {
        let pause = match error.retry_after() {
            Some(asked) => asked.min(LONGEST_PAUSE),
            None => outbound::backoff(FIRST_PAUSE, LONGEST_PAUSE, tries),
        };
        tracing::debug!(error = crate::error::chain(error), "asking the hub again");
        tokio::time::sleep(pause).await;
    }

    pub(super) fn endpoint(&self) -> String {
        self.options.endpoint.origin().ascii_serialization()
    }

    pub(super) fn invalid(&self, problem: String) -> HubError {
        HubError::InvalidResponse {
            endpoint: self.endpoint(),
            problem,
        }
    }

    /// Where files are kept.
    pub(super) fn cache(&self) -> &std::path::Path {
        &self.options.cache
    }

    fn away(&self, response: &Response) -> HubError {
        HubError::Unavailable {
            endpoint: self.endpoint(),
            problem: format!("it answers {}", response.status()),
            retry_after: outbound::retry_after(response.headers()),
            source: None,
        }
    }

    pub(super) fn silent(&self) -> HubError {
        HubError::Unavailable {
            endpoint: self.endpoint(),
            problem: format!("it sent nothing for {} s", IDLE_TIMEOUT.as_secs()),
            retry_after: None,
            source: None,
        }
    }

    pub(super) fn unavailable(&self, source: reqwest::Error) -> HubError {
        HubError::Unavailable {
            endpoint: self.endpoint(),
            problem: outbound::broken(&source).to_owned(),
            retry_after: None,
            // Addresses of files may carry signatures.
            source: Some(source.without_url()),
        }
    }
}
