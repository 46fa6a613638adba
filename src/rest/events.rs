//! Watches over plain HTTP: server-sent events, and the long poll of one invocation.
//!
//! Source of the format: the HTML standard, chapter *Server-sent events*. An event's `id` is what resumes
//! after it: the revision of one invocation, a token for many. Heartbeats are comments. An `EventSource`
//! connects again by itself when a stream ends; one that has seen the end of its invocation is answered
//! 204, which tells it to stop. A fault ends the stream; the answer to the next connection says what it was.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};
use serde_json::{Value, json};

use super::{
    RestState,
    error::{RestError, RestResult},
    extract::{PathId, Query},
    types,
};
use crate::{
    app::{
        App, Auth,
        watch::{
            FeedUpdate, FeedUpdateKind, ResumeToken, SharedInvocation, Update, UpdateKind, WatchFilter,
            WatchStart,
        },
    },
    domain::{
        ids::InvocationId,
        invocation::{Invocation, StateName},
        names::DatabaseName,
    },
    error::{Error, FieldViolation},
    json::{event_data as data, progress},
    token,
};

/// What an `EventSource` is told to wait before it connects again, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";
/// Keeps nginx from holding events back until its buffer is full.
const NO_BUFFERING: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);
const LAST_EVENT_ID: &str = "last-event-id";
/// Where a token may be that cannot be in a header, since an `EventSource` sends none of its caller's.
const ACCESS_TOKEN: &str = "access_token";
/// The longest a poll may wait: shorter than proxies wait for an answer by default.
const MAX_WAIT: Duration = Duration::from_secs(55);

const ONE_PARAMETERS: [&str; 2] = ["after_revision", ACCESS_TOKEN];
const MANY_PARAMETERS: [&str; 6] = [
    "source_id",
    "database_name",
    "status",
    "resume_token",
    "include_live",
    ACCESS_TOKEN,
];
const POLL_PARAMETERS: [&str; 2] = ["wait", "after_revision"];

/// A caller whose token may also be the parameter `access_token` (RFC 6750, section 2.3).
pub(super) struct StreamCaller(Auth);

impl FromRequestParts<RestState> for StreamCaller {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, RestError> {
        let in_query = Query::parse(parts.uri.query())?.take(ACCESS_TOKEN);
        let token = token::from_headers(&parts.headers).or(in_query.as_deref());
        Ok(Self(state.app.authenticate(token).await?))
    }
}

/// `GET /api/v1/invocations/{invocation_id}/events`.
pub(super) async fn of_one(
    State(state): State<RestState>,
    StreamCaller(auth): StreamCaller,
    PathId(id): PathId<InvocationId>,
    uri: Uri,
    headers: HeaderMap,
) -> RestResult<Response> {
    let after = read_after_revision(uri.query(), &headers)?;
    if let Some(after) = after {
        let invocation = state.app.get_invocation(&auth, id).await?;
        if invocation.state.name().is_terminal() && invocation.revision == after {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    let updates = state.app.watch_invocation(&auth, id, after).await?;
    Ok(events(updates, event_of_one))
}

/// `GET /api/v1/events`.
pub(super) async fn of_many(
    State(state): State<RestState>,
    StreamCaller(auth): StreamCaller,
    uri: Uri,
    headers: HeaderMap,
) -> RestResult<Response> {
    let (filter, start) = read_feed_watch(uri.query(), &headers)?;
    let updates = state.app.watch_invocations(&auth, filter, start).await?;
    Ok(events(updates, event_of_many))
}

/// Where the events of one invocation go on: after `Last-Event-ID`, else after `after_revision`.
///
/// # Errors
/// Names the header or the parameter that is not a revision.
pub fn read_after_revision(query: Option<&str>, headers: &HeaderMap) -> Result<Option<u64>, FieldViolation> {
    let mut query = Query::parse(query)?;
    query.take(ACCESS_TOKEN);
    let after = query.take_number("after_revision", 0, i64::MAX.unsigned_abs())?;
    query.finish(&ONE_PARAMETERS)?;
    let Some(last) = last_event_id(headers)? else {
        return Ok(after);
    };
    let problem = || FieldViolation::new("Last-Event-ID", "must be a revision, as the events' ids are");
    last.parse().map(Some).map_err(|_| problem())
}

/// Which invocations' events are wanted, and where they go on: after `Last-Event-ID`, else `resume_token`.
///
/// # Errors
/// Names the header or the parameter that is wrong.
pub fn read_feed_watch(query: Option<&str>, headers: &HeaderMap) -> Result<(WatchFilter, WatchStart), Error> {
    let mut query = Query::parse(query)?;
    query.take(ACCESS_TOKEN);
    let filter = WatchFilter {
        source_id: query.take("source_id").map(|id| id.parse()).transpose()?,
        database: query
            .take("database_name")
            .map(|name| DatabaseName::parse("database_name", &name))
            .transpose()?,
        states: query
            .take("status")
            .map(|names| read_states(&names))
            .transpose()?
            .unwrap_or_default(),
    };
    let include_live = match query.take("include_live").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let problem = format!("must be true or false, is {other:?}");
            return Err(Error::invalid_field("include_live", problem));
        }
    };
    let token = last_event_id(headers)?
        .map(str::to_owned)
        .or(query.take("resume_token"));
    query.finish(&MANY_PARAMETERS)?;
    let start = match (token, include_live) {
        // An `EventSource` that connects again repeats its parameters.
        (Some(token), _) => WatchStart::After(ResumeToken::decode(&token)?),
        (None, true) => WatchStart::Snapshots,
        (None, false) => WatchStart::Now,
    };
    Ok((filter, start))
}

fn read_states(names: &str) -> Result<Vec<StateName>, FieldViolation> {
    let mut states = Vec::new();
    for name in names.split(',') {
        let state = StateName::parse("status", name)?;
        if !states.contains(&state) {
            states.push(state);
        }
    }
    Ok(states)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, FieldViolation> {
    let text = headers.get(LAST_EVENT_ID).map(HeaderValue::to_str).transpose();
    let text = text.map_err(|_| FieldViolation::new("Last-Event-ID", "must be the id of an event"))?;
    Ok(text.filter(|id| !id.is_empty()))
}

/// A stream of server-sent events, which begins at once and ends with the updates.
fn events<U>(
    updates: impl Stream<Item = crate::error::Result<U>> + Send + 'static,
    event: fn(U) -> String,
) -> Response
where
    U: Send + 'static,
{
    let ended = |update: &crate::error::Result<U>| {
        if let Err(error) = update {
            error.log_fault();
        }
        std::future::ready(update.is_ok())
    };
    let updates = updates
        .take_while(move |update| ended(update))
        .filter_map(move |update| std::future::ready(update.ok().map(event)));
    let body = stream::iter([RETRY.to_owned()])
        .chain(updates)
        .map(|event| Ok::<_, Infallible>(Bytes::from(event)));
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Any page may listen: the token is something that a page has to know, never a cookie.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    let (name, value) = NO_BUFFERING;
    headers.insert(name, value);
    response
}

fn event_of_one(update: Update) -> String {
    let Update {
        kind,
        invocation,
        time,
    } = update;
    let kind = match kind {
        UpdateKind::Snapshot => "snapshot",
        UpdateKind::StateChanged => "state_changed",
        UpdateKind::Progress => "progress",
        UpdateKind::Heartbeat => return ": heartbeat\n\n".to_owned(),
    };
    let data = data(&invocation, time);
    format!("id: {}\nevent: {kind}\ndata: {data}\n\n", invocation.revision)
}

fn event_of_many(update: FeedUpdate) -> String {
    let FeedUpdate {
        kind,
        invocation,
        resume_token,
        time,
    } = update;
    let kind = match kind {
        FeedUpdateKind::Snapshot => "snapshot",
        FeedUpdateKind::StateChanged => "state_changed",
        FeedUpdateKind::Heartbeat => "heartbeat",
    };
    let id = resume_token.encode();
    match invocation {
        Some(invocation) => {
            let data = data(&invocation, time);
            format!("id: {id}\nevent: {kind}\ndata: {data}\n\n")
        }
        // An id without data is remembered and dispatches nothing.
        None => format!(": {kind}\nid: {id}\n\n"),
    }
}

/// `wait` and `after_revision` of `GET /api/v1/invocations/{invocation_id}`; none without `wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    wait: Duration,
    after_revision: Option<u64>,
}

impl Poll {
    /// Reads the query.
    ///
    /// # Errors
    /// Names the parameter that is unknown, repeated or has a value that is not allowed.
    pub fn read(query: Option<&str>) -> Result<Option<Self>, FieldViolation> {
        let mut query = Query::parse(query)?;
        let wait = query.take("wait").map(|wait| read_wait(&wait)).transpose()?;
        let after_revision = query.take_number("after_revision", 0, i64::MAX.unsigned_abs())?;
        query.finish(&POLL_PARAMETERS)?;
        match (wait, after_revision) {
            (Some(wait), after_revision) => Ok(Some(Self { wait, after_revision })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(FieldViolation::new(
                "after_revision",
                "needs wait, for instance wait=30s",
            )),
        }
    }
}

/// A whole number of seconds or milliseconds: `30s`, `500ms`.
fn read_wait(text: &str) -> Result<Duration, FieldViolation> {
    let number = |digits: &str| digits.parse::<u32>().ok();
    let wait = match text.strip_suffix("ms") {
        Some(digits) => number(digits).map(|milliseconds| Duration::from_millis(milliseconds.into())),
        None => text
            .strip_suffix('s')
            .and_then(number)
            .map(|seconds| Duration::from_secs(seconds.into())),
    };
    wait.filter(|wait| *wait <= MAX_WAIT).ok_or_else(|| {
        let most = MAX_WAIT.as_secs();
        let problem = format!("must be a whole number of seconds or milliseconds up to {most}s, is {text:?}");
        FieldViolation::new("wait", problem)
    })
}

/// Answers as soon as the invocation has a later revision than the caller knows, at the latest after the
/// wait. The head of the answer goes out at once, so that a poll does not count as a request under way; it
/// counts as a watch.
pub(super) async fn poll(app: &App, auth: &Auth, id: InvocationId, poll: Poll) -> RestResult<Response> {
    let Poll { wait, after_revision } = poll;
    let current = app.get_invocation(auth, id).await?;
    let after = after_revision.unwrap_or(current.revision);
    if current.revision > after || current.state.name().is_terminal() && current.revision == after {
        return Ok(polled(Body::from(polled_body(&current))));
    }
    // Refuses a revision that lies ahead.
    let updates = app.watch_invocation(auth, id, Some(after)).await?;
    let deadline = tokio::time::Instant::now() + wait;
    let answer = stream::once(async move {
        let latest = last_known(updates, deadline).await;
        let body = polled_body(latest.as_deref().map_or(&current, |latest| latest));
        Ok::<_, Infallible>(Bytes::from(body))
    });
    Ok(polled(Body::from_stream(answer)))
}

/// The invocation after its next state change, or as it was last seen when the time is over.
async fn last_known(
    updates: impl Stream<Item = crate::error::Result<Update>>,
    deadline: tokio::time::Instant,
) -> Option<Arc<SharedInvocation>> {
    let mut updates = std::pin::pin!(updates);
    let mut latest = None;
    while let Ok(Some(Ok(update))) = tokio::time::timeout_at(deadline, updates.next()).await {
        latest = Some(update.invocation);
        match update.kind {
            UpdateKind::StateChanged => break,
            UpdateKind::Snapshot | UpdateKind::Progress | UpdateKind::Heartbeat => {}
        }
    }
    latest
}

fn polled_body(invocation: &Invocation) -> String {
    let mut body = types::invocation(invocation);
    if let Value::Object(fields) = &mut body {
        fields.insert("revision".to_owned(), json!(invocation.revision));
        fields.insert("progress".to_owned(), progress(invocation));
    }
    body.to_string()
}

fn polled(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_whole_number_of_seconds_or_milliseconds() {
        assert_eq!(read_wait("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(read_wait("0s"), Ok(Duration::ZERO));
        assert_eq!(read_wait("1500ms"), Ok(Duration::from_millis(1_500)));
        for text in [
            "",
            "s",
            "30",
            "-1s",
            "1.5s",
            "56s",
            "55001ms",
            "4294967296s",
            "1m",
            " 1s",
        ] {
            assert_eq!(read_wait(text).unwrap_err().field, "wait", "{text:?}");
        }
    }

    #[test]
    fn states_are_read_once_each_however_often_they_are_named() {
        let headers = HeaderMap::new();
        let (filter, start) = read_feed_watch(Some("status=failed,complete,failed"), &headers).unwrap();
        assert_eq!(filter.states, [StateName::Failed, StateName::Complete]);
        assert_eq!(start, WatchStart::Now);
    }

    #[test]
    fn the_last_event_id_goes_before_the_parameter() {
        let mut headers = HeaderMap::new();
        assert_eq!(
            read_after_revision(Some("after_revision=2"), &headers),
            Ok(Some(2))
        );
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static("3"));
        assert_eq!(
            read_after_revision(Some("after_revision=2"), &headers),
            Ok(Some(3))
        );
        for id in ["x", "-1", "3.0", "18446744073709551616"] {
            headers.insert(LAST_EVENT_ID, HeaderValue::from_static(id));
            let refused = read_after_revision(None, &headers).unwrap_err();
            assert_eq!(refused.field, "Last-Event-ID", "{id}");
        }
    }
}
