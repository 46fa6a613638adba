//! Git's smart HTTP protocol on the service's own HTTP client.
//!
//! gix brings a client, but one that follows redirects by itself and hides answers in texts. This one
//! asks the egress policy before each connection, sends the token to the configured origin alone, tells
//! status codes apart, counts what it receives and can be stopped at any byte.
//!
//! Invariant: a request goes to a URL that [`Egress::check`] passed, by a client whose resolver
//! applies the same policy for that URL's port; [`GitHttp::client`] is the only way to get one.

use std::{
    cell::RefCell,
    io::{self, BufRead, Cursor, Read, Write},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use gix::protocol::transport::client::blocking_io::http::{
    GetResponse, Http, PostBodyDataKind, PostResponse,
};
use reqwest::{
    Method, RequestBuilder, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION},
};
use url::Url;

use super::{answer, session::Session};
use crate::fetch::{
    egress::{Egress, EgressError, refusal},
    error::FetchError,
};

/// Redirects followed until an answer has to come.
const MAX_REDIRECTS: usize = 5;
/// The most bytes of a request. Ours name one object, so this only guards against a fault.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Where requests go, and with what.
struct Peer {
    client: reqwest::Client,
    origin: url::Origin,
}

/// The HTTP side of gix's transport, for one fetch.
pub(super) struct GitHttp {
    session: Arc<Session>,
    egress: Egress,
    connect_timeout: Duration,
    /// The origin that the operator configured, and what to send to it alone.
    authorization: Option<(url::Origin, HeaderValue)>,
    peer: Option<Peer>,
    /// The URL of the repository once a redirect was followed.
    redirected: Option<String>,
}

impl GitHttp {
    /// A client that sends `authorization` to the origin of `url` alone.
    pub(super) fn new(
        session: Arc<Session>,
        url: &Url,
        authorization: Option<HeaderValue>,
        egress: Egress,
        connect_timeout: Duration,
    ) -> Self {
        let authorization = authorization.map(|value| (url.origin(), value));
        Self {
            session,
            egress,
            connect_timeout,
            authorization,
            peer: None,
            redirected: None,
        }
    }

    /// The client for `url`, made anew when the origin differs from that of the last request.
    fn client(&mut self, url: &Url) -> Result<reqwest::Client, FetchError> {
        if let Some(peer) = self.peer.as_ref().filter(|peer| peer.origin == url.origin()) {
            return Ok(peer.client.clone());
        }
        self.egress
            .check(url)
            .map_err(|refusal| refused(&self.session, refusal))?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.connect_timeout)
            .dns_resolver(self.egress.resolver(url.port_or_known_default()))
            .build()
            .map_err(|source| FetchError::Internal {
                source: source.into(),
            })?;
        let origin = url.origin();
        Ok(self.peer.insert(Peer { client, origin }).client.clone())
    }

    /// A request to `url`, allowed by the policy and with the token where that is due.
    fn request(&mut self, method: Method, url: &Url, mut headers: HeaderMap) -> io::Result<RequestBuilder> {
        let client = self.client(url).map_err(|fault| self.session.fail(fault))?;
        if let Some((_, value)) = self
            .authorization
            .as_ref()
            .filter(|(origin, _)| *origin == url.origin())
        {
            headers.insert(AUTHORIZATION, value.clone());
        }
        Ok(client.request(method, url.clone()).headers(headers))
    }

    /// Follows redirects of the first request, as git does, as long as they lead to the same request
    /// below another URL.
    fn get_following(&mut self, url: &str, base: &str, headers: &HeaderMap) -> io::Result<Response> {
        let tail = url.strip_prefix(base).unwrap_or_default().to_owned();
        let mut target = self.parse(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let request = self.request(Method::GET, &target, headers.clone())?;
            let response = send(&self.session, request)?;
            let Some(location) = redirect_of(&response) else {
                return Ok(response);
            };
            let next = target.join(&location).map_err(|_| self.misled(&target))?;
            let downgrade = target.scheme() == "https" && next.scheme() != "https";
            match next.as_str().strip_suffix(&tail) {
                Some(base) if !downgrade => self.redirected = Some(base.to_owned()),
                Some(_) | None => return Err(self.misled(&target)),
            }
            target = next;
        }
        let problem = format!("{} redirects more than {MAX_REDIRECTS} times", self.session.host);
        Err(self.session.fail(self.session.unexpected(problem)))
    }

    fn misled(&self, target: &Url) -> io::Error {
        let host = target.host_str().unwrap_or_default();
        let problem =
            format!("{host} redirects to something that is not the repository; check github.git_url");
        self.session.fail(self.session.unexpected(problem))
    }

    fn parse(&self, url: &str) -> io::Result<Url> {
        Url::parse(url).map_err(|error| self.session.fail(FetchError::Internal { source: error.into() }))
    }
}

/// Sends a request and returns the answer, whatever its status.
fn send(session: &Session, request: RequestBuilder) -> io::Result<Response> {
    session.wait(async {
        request.send().await.map_err(|error| match refusal(&error) {
            Some(refusal) => refused(session, refusal.clone()),
            None => answer::broken_connection(session, error),
        })
    })
}

fn refused(session: &Session, refusal: EgressError) -> FetchError {
    FetchError::EgressForbidden {
        repository: session.repository.clone(),
        refusal,
    }
}

fn redirect_of(response: &Response) -> Option<String> {
    let location = || response.headers().get(LOCATION)?.to_str().ok().map(str::to_owned);
    response.status().is_redirection().then(location).flatten()
}

/// The lines of `headers` that gix wants sent.
fn header_map(lines: impl IntoIterator<Item = impl AsRef<str>>) -> HeaderMap {
    let parsed = lines.into_iter().filter_map(|line| {
        let (name, value) = line.as_ref().split_once(':')?;
        let name = name.trim().parse::<HeaderName>().ok()?;
        Some((name, HeaderValue::from_str(value.trim()).ok()?))
    });
    parsed.collect()
}

impl Http for GitHttp {
    type Headers = AnswerHeaders;
    type ResponseBody = AnswerBody;
    type PostBody = RequestBody;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Self::Headers, Self::ResponseBody>> {
        let response = self
            .get_following(url, base_url, &header_map(headers))
            .map_err(gix::Error::from_error)?;
        let exchange = Exchange::new(
            &self.session,
            self.authorization.is_some(),
            Stage::Answered(response),
        );
        Ok(GetResponse {
            headers: AnswerHeaders::of(&exchange),
            body: AnswerBody::of(&exchange),
        })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Self::Headers, Self::ResponseBody, Self::PostBody>> {
        let request = self
            .parse(url)
            .and_then(|url| self.request(Method::POST, &url, header_map(headers)))
            .map_err(gix::Error::from_error)?;
        let stage = Stage::Asking {
            request,
            body: Vec::new(),
        };
        let exchange = Exchange::new(&self.session, self.authorization.is_some(), stage);
        Ok(PostResponse {
            post_body: RequestBody {
                exchange: Rc::clone(&exchange),
            },
            headers: AnswerHeaders::of(&exchange),
            body: AnswerBody::of(&exchange),
        })
    }

    fn configure(&mut self, _config: &dyn std::any::Any) -> gix::Result {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.redirected.clone()
    }
}

/// One request and its answer. gix writes the request through one handle and reads the answer through
/// two others, in that order and on one thread; the first read sends the request.
struct Exchange {
    session: Arc<Session>,
    authenticated: bool,
    stage: RefCell<Stage>,
}

enum Stage {
    /// The body is being written.
    Asking { request: RequestBuilder, body: Vec<u8> },
    /// The answer has come, and nobody looked at it.
    Answered(Response),
    /// The answer is one of git's, and its body is being read.
    Receiving(Response),
    /// Something failed; the session knows what.
    Failed,
}

impl Exchange {
    fn new(session: &Arc<Session>, authenticated: bool, stage: Stage) -> Rc<Self> {
        Rc::new(Self {
            session: Arc::clone(session),
            authenticated,
            stage: RefCell::new(stage),
        })
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.stage.borrow_mut() {
            Stage::Asking { body, .. } if body.len() + bytes.len() <= MAX_REQUEST_BYTES => {
                body.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Stage::Asking { .. } | Stage::Answered(_) | Stage::Receiving(_) | Stage::Failed => {
                Err(io::Error::other("the request is too long or was sent before"))
            }
        }
    }

    /// Goes on until the answer is being received, and applies `read` to it.
    fn receive<T>(&self, read: impl FnOnce(&mut Response) -> io::Result<T>) -> io::Result<T> {
        let mut stage = self.stage.borrow_mut();
        let mut response = match std::mem::replace(&mut *stage, Stage::Failed) {
            Stage::Asking { request, body } => self.accept(send(&self.session, request.body(body))?)?,
            Stage::Answered(response) => self.accept(response)?,
            Stage::Receiving(response) => response,
            Stage::Failed => return Err(io::Error::other("the exchange failed before")),
        };
        let result = read(&mut response)?;
        *stage = Stage::Receiving(response);
        Ok(result)
    }

    fn accept(&self, response: Response) -> io::Result<Response> {
        match answer::check(&self.session, self.authenticated, &response) {
            Ok(()) => Ok(response),
            Err(fault) => Err(self.session.fail(fault)),
        }
    }

    /// The next bytes of the answer's body; empty at its end.
    fn chunk(&self) -> io::Result<Bytes> {
        self.receive(|response| {
            let chunk = self.session.wait(async {
                response
                    .chunk()
                    .await
                    .map_err(|error| answer::broken_connection(&self.session, error))
            })?;
            let chunk = chunk.unwrap_or_default();
            self.session.receive(chunk.len())?;
            Ok(chunk)
        })
    }

    /// The one header that gix looks at, as it is sent.
    fn content_type(&self) -> io::Result<Vec<u8>> {
        self.receive(|response| {
            let value = response
                .headers()
                .get(CONTENT_TYPE)
                .map(HeaderValue::as_bytes)
                .unwrap_or_default();
            Ok([b"content-type: ", value, b"\n"].concat())
        })
    }
}

/// Takes the request.
pub(super) struct RequestBody {
    exchange: Rc<Exchange>,
}

impl Write for RequestBody {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.exchange.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the answer's headers, line by line.
pub(super) struct AnswerHeaders {
    exchange: Rc<Exchange>,
    lines: Option<Cursor<Vec<u8>>>,
}

impl AnswerHeaders {
    fn of(exchange: &Rc<Exchange>) -> Self {
        Self {
            exchange: Rc::clone(exchange),
            lines: None,
        }
    }

    fn lines(&mut self) -> io::Result<&mut Cursor<Vec<u8>>> {
        let lines = match self.lines.take() {
            Some(lines) => lines,
            None => Cursor::new(self.exchange.content_type()?),
        };
        Ok(self.lines.insert(lines))
    }
}

impl Read for AnswerHeaders {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lines()?.read(buffer)
    }
}

impl BufRead for AnswerHeaders {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.lines()?.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Some(lines) = &mut self.lines {
            lines.consume(amount);
        }
    }
}

/// Gives the answer's body as it comes.
pub(super) struct AnswerBody {
    exchange: Rc<Exchange>,
    chunk: Bytes,
}

impl AnswerBody {
    fn of(exchange: &Rc<Exchange>) -> Self {
        Self {
            exchange: Rc::clone(exchange),
            chunk: Bytes::new(),
        }
    }
}

impl Read for AnswerBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..amount), available.get(..amount)) {
            to.copy_from_slice(from);
        }
        self.consume(amount);
        Ok(amount)
    }
}

impl BufRead for AnswerBody {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty() {
            self.chunk = self.exchange.chunk()?;
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount.min(self.chunk.len()));
    }
}
