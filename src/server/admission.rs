//! Who gets in: sheds what is too much, and ends what takes too long.
//!
//! Both count until the head of the answer, so a watch is neither shed nor cut off once it runs.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use tokio::sync::Semaphore;

use super::{grpc_answer, is_grpc};
use crate::{
    error::{Error, Reason},
    grpc::deadline,
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
}

impl Admission {
    /// At most `requests` at once, each for at most `timeout`.
    pub(super) fn new(requests: usize, timeout: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(requests.min(Semaphore::MAX_PERMITS))),
            timeout,
        }
    }
}

/// Runs a request within the limits. One that is not answered in time is dropped with all its work.
pub(super) async fn admit(State(admission): State<Admission>, request: Request, next: Next) -> Response {
    let speaks_grpc = is_grpc(&request);
    let Ok(_permit) = admission.permits.try_acquire() else {
        if !speaks_grpc {
            return rest::overloaded();
        }
        let error = Error::new(
            Reason::TooManyRequests,
            "the server is at its limit of requests; try again",
        );
        return grpc_answer(&error.with_retry_after(SHED_DELAY));
    };
    let asked = deadline::timeout(request.headers()).filter(|_| speaks_grpc);
    let allowed = asked.map_or(admission.timeout, |asked| {
        let early = asked - AHEAD_OF_DEADLINE.min(asked / 2);
        early.min(admission.timeout)
    });
    match tokio::time::timeout(allowed, next.run(request)).await {
        Ok(response) => response,
        Err(_) if speaks_grpc && allowed < admission.timeout => grpc_answer(&deadline::exceeded()),
        Err(_) if speaks_grpc => grpc_answer(&Error::new(
            Reason::DeadlineExceeded,
            "the call took longer than the server allows",
        )),
        Err(_) => rest::timed_out(),
    }
}
