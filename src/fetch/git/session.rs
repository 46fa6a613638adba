//! What all parts of one fetch share: its limits, the order to stop, and the first thing that failed.
//!
//! gix is blocking and takes its input from readers, while everything that can stall (the network, a
//! child process) is asynchronous here. [`Session::wait`] joins the two: it blocks the thread of the
//! fetch on one future, and ends at once when the fetch is stopped or the peer stays silent too long.
//! gix wraps errors of its readers into errors of its own, so a failure that was understood where it
//! happened is kept in [`Session::fail`] and taken out again in the end.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    domain::source::RepositoryName,
    fetch::error::{Cause, FetchError},
};

/// The most bytes a host may send before the pack: its capabilities and the references asked for. The
/// oldest protocol sends all references unasked, about 60 bytes each.
const MAX_ADVERTISEMENT_BYTES: u64 = 64 << 20;

/// The order to stop, for blocking code and for futures.
#[derive(Debug, Default)]
pub(super) struct Stop {
    /// What gix looks at in its loops.
    pub(super) flag: AtomicBool,
    token: CancellationToken,
}

impl Stop {
    /// Gives the order. It is never taken back.
    pub(super) fn order(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.token.cancel();
    }

    /// Fails once the order was given.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.flag.load(Ordering::Relaxed) {
            Err(stopped())
        } else {
            Ok(())
        }
    }
}

/// One fetch of one repository.
#[derive(Debug)]
pub(super) struct Session {
    /// Which repository, for messages.
    pub(super) repository: RepositoryName,
    /// Whom the fetch speaks to, for messages.
    pub(super) host: String,
    /// Shared with whoever may stop the fetch.
    pub(super) stop: Arc<Stop>,
    runtime: tokio::runtime::Handle,
    idle_timeout: Duration,
    max_bytes: u64,
    allowance: AtomicU64,
    fault: Mutex<Option<FetchError>>,
}

impl Session {
    /// A session whose futures run on `runtime`. It must not be used on a thread of that runtime that
    /// drives tasks.
    pub(super) fn new(
        repository: RepositoryName,
        host: String,
        stop: Arc<Stop>,
        runtime: tokio::runtime::Handle,
        idle_timeout: Duration,
        max_bytes: u64,
    ) -> Self {
        let allowance = AtomicU64::new(MAX_ADVERTISEMENT_BYTES);
        Self {
            repository,
            host,
            stop,
            runtime,
            idle_timeout,
            max_bytes,
            allowance,
            fault: Mutex::default(),
        }
    }

    /// Blocks on `future` for at most the idle timeout.
    ///
    /// # Errors
    /// That of the future, or the fault that the peer stays silent or that the fetch was stopped.
    pub(super) fn wait<T>(&self, future: impl Future<Output = Result<T, FetchError>>) -> io::Result<T> {
        let outcome = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.token.cancelled() => None,
                outcome = tokio::time::timeout(self.idle_timeout, future) => Some(outcome),
            }
        });
        match outcome {
            None => Err(stopped()),
            Some(Ok(result)) => result.map_err(|fault| self.fail(fault)),
            Some(Err(_elapsed)) => {
                let seconds = self.idle_timeout.as_secs();
                Err(self
                    .fail(self.network(format!("{} sent nothing for {seconds} seconds", self.host), None)))
            }
        }
    }

    /// Counts bytes received, for the limit on what a fetch may store.
    ///
    /// # Errors
    /// The fault that the repository is too large.
    pub(super) fn receive(&self, bytes: usize) -> io::Result<()> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let spent = self
            .allowance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |rest| {
                rest.checked_sub(bytes)
            });
        match spent {
            Ok(_) => Ok(()),
            Err(_) => Err(self.fail(self.too_large(format!(
                "it takes more than {} bytes to fetch (github.max_repository_bytes)",
                self.max_bytes
            )))),
        }
    }

    /// Exchanges the allowance for what precedes the pack for that of the pack itself.
    pub(super) fn begin_pack(&self) {
        self.allowance.store(self.max_bytes, Ordering::Relaxed);
    }

    /// Keeps `fault` unless one was kept before, and returns what blocking code passes on in its place.
    pub(super) fn fail(&self, fault: FetchError) -> io::Error {
        let message = fault.to_string();
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(fault);
        io::Error::other(message)
    }

    /// The fault that was kept.
    pub(super) fn take_fault(&self) -> Option<FetchError> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A failure of the connection.
    pub(super) fn network(&self, problem: String, source: Option<Cause>) -> FetchError {
        FetchError::Network {
            repository: self.repository.clone(),
            problem,
            retry_after: None,
            source,
        }
    }

    /// An answer that is no git answer.
    pub(super) fn unexpected(&self, problem: String) -> FetchError {
        FetchError::UnexpectedAnswer {
            repository: self.repository.clone(),
            problem,
            source: None,
        }
    }

    /// A limit that was passed.
    pub(super) fn too_large(&self, limit: String) -> FetchError {
        FetchError::RepositoryTooLarge {
            repository: self.repository.clone(),
            limit,
        }
    }
}

/// What a stopped fetch ends with. Whoever gave the order knows why, and says so in its place.
fn stopped() -> io::Error {
    // Not `Interrupted`: the standard library takes that for a request to read again.
    io::Error::other("the fetch was stopped")
}
