//! GitHub repositories, and those of any other git host.
//!
//! [`fetch_repository`] brings one commit, without history, into a temporary directory and lists its
//! files; a [`Reader`] gives their contents one by one, so that an unchanged file is never even read.
//! The work is gix's and blocks, so it runs on a blocking thread, but whatever can stall is
//! asynchronous and stops at once (`session`). A fetch leaves nothing behind, however it ends.
//!
//! Absent on purpose: the user's git configuration, credential helpers and prompts. A fetch depends on
//! [`GithubOptions`] alone.

mod answer;
mod documents;
mod http;
#[cfg(test)]
mod properties;
mod receive;
mod session;
mod snapshot;
mod upload_pack;

use std::{path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use gix::protocol::transport::{Protocol, client::blocking_io::http::Transport};
use reqwest::header::HeaderValue;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use self::{
    documents::RepositoryDocuments,
    snapshot::{Reader, Snapshot},
};
use self::{
    http::GitHttp,
    session::{Session, Stop},
};
use super::{egress::Egress, error::FetchError, scratch::ScratchDirectory};
use crate::{
    domain::{globs::Globs, invocation::GitReference, source::RepositoryName},
    secret::Secret,
};

/// How long a stopped fetch may take to end before its caller stops waiting for it.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What a fetch may use; from the configuration.
#[derive(Debug, Clone)]
pub struct GithubOptions {
    /// Where repositories lie, at `{git_url}/{owner}/{name}.git`: an `https://`, `http://` or
    /// `file:///` URL without credentials, query and fragment.
    pub git_url: Url,
    /// Token sent to the origin of `git_url` alone.
    pub token: Option<Secret>,
    /// Files larger than this many bytes are skipped.
    pub max_file_bytes: u64,
    /// The most bytes that one fetch may receive, and so store.
    pub max_repository_bytes: u64,
    /// How long the whole fetch may take.
    pub timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long the host may stay silent.
    pub idle_timeout: Duration,
    /// Where temporary directories are made.
    pub directory: PathBuf,
    /// Which addresses may be connected to, beside the origin of `git_url`.
    pub egress: Egress,
}

impl GithubOptions {
    /// Options with the defaults of the service: no token, files of 1 MiB, repositories of 4 GiB, 30
    /// minutes, 20 seconds to connect, 60 seconds of silence, public addresses.
    pub fn new(git_url: Url, directory: PathBuf) -> Self {
        Self {
            git_url,
            token: None,
            max_file_bytes: 1 << 20,
            max_repository_bytes: 4 << 30,
            timeout: Duration::from_secs(30 * 60),
            connect_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(60),
            directory,
            egress: Egress::public_only(),
        }
    }
}

/// Fetches the commit that `reference` leads to (none means the default branch) and lists the files
/// that `globs` pick (none picks all).
///
/// Ends soon after `cancel` is cancelled, the timeout passes or the future is dropped; in the last case
/// a thread may work on for a moment. Needs a Tokio runtime with I/O and time.
///
/// # Errors
/// [`FetchError`], which says for each kind whether another try makes sense.
pub async fn fetch_repository(
    options: &GithubOptions,
    repository: &RepositoryName,
    reference: Option<&GitReference>,
    globs: Option<&Globs>,
    cancel: CancellationToken,
) -> Result<Snapshot, FetchError> {
    let stop = StopOnDrop(Arc::new(Stop::default()));
    let fetch = Fetch {
        options: options.clone(),
        repository: repository.clone(),
        reference: reference.cloned(),
        globs: globs.cloned(),
        stop: Arc::clone(&stop.0),
    };
    let mut work = tokio::task::spawn_blocking(move || fetch.run());
    let outcome = tokio::select! {
        outcome = &mut work => return outcome.unwrap_or_else(|panic| Err(FetchError::Internal { source: panic.into() })),
        () = cancel.cancelled() => FetchError::Cancelled { repository: repository.clone() },
        () = tokio::time::sleep(options.timeout) => {
            FetchError::TimedOut { repository: repository.clone(), limit: options.timeout }
        }
    };
    stop.0.order();
    // Its outcome no longer matters, only that its directory is gone; a disk that hangs holds nobody up.
    let _ = tokio::time::timeout(STOP_GRACE, work).await;
    Err(outcome)
}

/// Stops a fetch whose caller went away.
struct StopOnDrop(Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.order();
    }
}

/// Everything that the blocking side needs.
struct Fetch {
    options: GithubOptions,
    repository: RepositoryName,
    reference: Option<GitReference>,
    globs: Option<Globs>,
    stop: Arc<Stop>,
}

impl Fetch {
    fn run(self) -> Result<Snapshot, FetchError> {
        let place = Place::of(&self.options.git_url, &self.repository)?;
        let storage = |source: std::io::Error| FetchError::Storage {
            action: "write to",
            source: source.into(),
        };
        let directory = ScratchDirectory::create(&self.options.directory).map_err(storage)?;
        std::fs::create_dir_all(directory.path().join("objects").join("pack")).map_err(storage)?;

        let session = Arc::new(Session::new(
            self.repository.clone(),
            place.host(),
            Arc::clone(&self.stop),
            tokio::runtime::Handle::current(),
            self.options.idle_timeout,
            self.options.max_repository_bytes,
        ));
        let reference = self.reference.as_ref();
        let max_file_bytes = self.options.max_file_bytes;
        let received = match place {
            Place::Directory(repository) => {
                let transport = upload_pack::start(&session, upload_pack::GIT, &repository)?;
                receive::receive(&session, transport, reference, directory.path(), max_file_bytes)?
            }
            Place::Remote(url) => {
                let transport = self.http_transport(&session, &url)?;
                receive::receive(&session, transport, reference, directory.path(), max_file_bytes)?
            }
        };
        Snapshot::open(
            &session,
            &received,
            reference,
            self.globs.as_ref(),
            max_file_bytes,
            directory,
        )
    }

    fn http_transport(&self, session: &Arc<Session>, url: &Url) -> Result<Transport<GitHttp>, FetchError> {
        let token = self.options.token.as_ref().and_then(Secret::non_empty);
        let authorization = token.map(authorization).transpose()?;
        let egress = self.options.egress.with_origin(url);
        let http = GitHttp::new(
            Arc::clone(session),
            url,
            authorization,
            egress,
            self.options.connect_timeout,
        );
        let url = gix::url::parse(url.as_str()).map_err(|source| FetchError::Misconfigured {
            problem: "it is not a URL that git reads".to_owned(),
            source: Some(source.into()),
        })?;
        Ok(Transport::new_http(http, url, Protocol::V2, false))
    }
}

/// Basic authentication as GitHub wants it for every kind of token.
fn authorization(token: &str) -> Result<HeaderValue, FetchError> {
    let text = format!("Basic {}", STANDARD.encode(format!("x-access-token:{token}")));
    let mut value = HeaderValue::from_str(&text).map_err(|source| FetchError::Internal {
        source: source.into(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where a repository lies.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// In a directory of this machine.
    Directory(PathBuf),
    /// Behind smart HTTP.
    Remote(Url),
}

impl Place {
    /// `{git_url}/{owner}/{name}.git`. The name is two plain segments, so it cannot lead elsewhere.
    fn of(git_url: &Url, repository: &RepositoryName) -> Result<Self, FetchError> {
        let unusable = |problem: &str| FetchError::Misconfigured {
            problem: problem.to_owned(),
            source: None,
        };
        let plain = git_url.username().is_empty()
            && git_url.password().is_none()
            && git_url.query().is_none()
            && git_url.fragment().is_none();
        if !plain {
            return Err(unusable(
                "it must have no credentials, query or fragment; a token belongs into github.token",
            ));
        }
        let mut url = git_url.clone();
        url.path_segments_mut()
            .map_err(|()| unusable("it has no path"))?
            .pop_if_empty()
            .extend(format!("{repository}.git").split('/'));
        match url.scheme() {
            "http" | "https" => Ok(Self::Remote(url)),
            "file" => url
                .to_file_path()
                .map(Self::Directory)
                .map_err(|()| unusable("it must name a directory of this machine, as file:///directory")),
            _ => Err(unusable("it must be an https://, http:// or file:/// URL")),
        }
    }

    /// The place in messages.
    fn host(&self) -> String {
        match self {
            Self::Directory(_) => "this server".to_owned(),
            Self::Remote(url) => url.host_str().unwrap_or_default().to_owned(),
        }
    }
}
