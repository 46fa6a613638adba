//! Who gets in: sheds what is too much, and ends what takes too long.
//!
//! Both count until the head of the answer, so a watch is neither shed nor cut off once it runs.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::Uri;
use tokio::sync::Semaphore;

use super::{grpc_answer, is_grpc};
use crate::{
    error::{Error, Reason},
    grpc::{self, deadline},
    rest,
};

/// What a caller that was shed is told to wait.
const SHED_DELAY: Duration = Duration::from_secs(1);
/// The transport below ends a call at its deadline too, but says CANCELLED and nothing else, so the answer
/// is given this much earlier; of very short deadlines half.
const AHEAD_OF_DEADLINE: Duration = Duration::from_millis(5);

/// Limits that hold for every request of the process.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    permits: Arc<Semaphore>,
    timeout: Duration,
    upload_timeout: Duration,
}

impl Admission {
    /// At most `requests` at once, each for at most `timeout`, and those that upload a file for at most
    /// `upload_timeout`.
    pub(super) fn new(requests: usize, timeout: Duration, upload_timeout: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(requests.min(Semaphore::MAX_PERMITS))),
            timeout,
            upload_timeout,
        }
    }
}

impl Admission {
    /// Answers a request within the limits. One that is not answered in time is dropped with all its work.
    pub(super) async fn answer(&self, caller: Caller, answer: impl Future<Output = Response>) -> Response {
        let Ok(_permit) = self.permits.try_acquire() else {
            if !caller.speaks_grpc {
                return rest::overloaded();
            }
            let error = Error::new(
                Reason::TooManyRequests,
                "the server is at its limit of requests; try again",
            );
            return grpc_answer(&error.with_retry_after(SHED_DELAY));
        };
        let most = if caller.uploads {
            self.upload_timeout
        } else {
            self.timeout
        };
        let allowed = caller.timeout.map_or(most, |asked| {
            let early = asked - AHEAD_OF_DEADLINE.min(asked / 2);
            early.min(most)
        });
        match tokio::time::timeout(allowed, answer).await {
            Ok(response) if caller.speaks_grpc => explained(&caller.uri, response),
            Ok(response) => response,
            Err(_) if caller.speaks_grpc && allowed < most => grpc_answer(&deadline::exceeded()),
            Err(_) if caller.speaks_grpc => grpc_answer(&Error::new(
                Reason::DeadlineExceeded,
                "the call took longer than the server allows",
            )),
            Err(_) => rest::timed_out(),
        }
    }
}

/// What of a request decides how it is answered.
pub(super) struct Caller {
    speaks_grpc: bool,
    /// How long it waits, if it said so.
    timeout: Option<Duration>,
    /// Whether it sends a file, which takes as long as its line needs.
    uploads: bool,
    uri: Uri,
}

impl Caller {
    pub(super) fn of<B>(request: &http::Request<B>) -> Self {
        let speaks_grpc = is_grpc(request);
        Self {
            speaks_grpc,
            timeout: deadline::timeout(request.headers()).filter(|_| speaks_grpc),
            uploads: matches!(request.uri().path(), grpc::ADD_FILE | rest::ADD_FILE),
            uri: request.uri().clone(),
        }
    }
}

/// [`Admission::answer`] as a layer.
pub(super) async fn admit(State(admission): State<Admission>, request: Request, next: Next) -> Response {
    let caller = Caller::of(&request);
    admission.answer(caller, next.run(request)).await
}

/// Errors that tonic makes before a method runs get the details that all others have.
fn explained(uri: &Uri, response: Response) -> Response {
    match grpc::status::explain(uri.path(), response.headers()) {
        Some(error) => grpc_answer(&error),
        None => response,
    }
}
