//! Who watches: how many streams are open, in all and for each token, and whether the tokens are still good.
//!
//! A token is looked at once a period however many streams it has open, so watching costs the database
//! nothing a stream.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    app::{Auth, Authenticator},
    error::{Error, Reason, Result},
};

/// What a caller that has too many streams is told to wait.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The most streams open at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) all: usize,
    pub(super) each: usize,
}

/// The open streams by the credential they were opened with.
#[derive(Debug)]
pub(super) struct Callers {
    limits: Limits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    streams: usize,
    callers: HashMap<[u8; 32], Entry>,
}

#[derive(Debug)]
struct Entry {
    streams: usize,
    caller: Arc<Caller>,
}

/// One credential with open streams.
#[derive(Debug)]
struct Caller {
    auth: Auth,
    /// When the first stream was opened.
    since: Instant,
    /// When the credential was last found good, in milliseconds after `since`.
    good_at: AtomicU64,
    /// Held by the one stream that looks for all.
    checking: tokio::sync::Mutex<()>,
}

/// A place among the open streams; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    callers: Arc<Callers>,
    caller: Arc<Caller>,
}

impl Callers {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: Mutex::default(),
        })
    }

    /// A place for a stream of a caller whose credential has just been found good.
    ///
    /// # Errors
    /// TOO_MANY_REQUESTS when all places are taken, or all of this credential.
    pub(super) fn enter(self: &Arc<Self>, auth: &Auth) -> Result<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.streams >= self.limits.all {
            return Err(too_many("the server"));
        }
        let entry = open.callers.entry(auth.fingerprint()).or_insert_with(|| Entry {
            streams: 0,
            caller: Arc::new(Caller {
                auth: auth.clone(),
                since: Instant::now(),
                good_at: AtomicU64::new(0),
                checking: tokio::sync::Mutex::default(),
            }),
        });
        if entry.streams >= self.limits.each {
            return Err(too_many("this token"));
        }
        entry.streams += 1;
        let caller = Arc::clone(&entry.caller);
        open.streams += 1;
        Ok(Place {
            callers: Arc::clone(self),
            caller,
        })
    }
}

impl Place {
    /// Looks whether the credential is still good, unless that was found within `period`.
    ///
    /// # Errors
    /// TOKEN_INVALID, STORE_UNAVAILABLE, CHROMA_UNAVAILABLE.
    pub(super) async fn check(&self, authenticator: &Authenticator, period: Duration) -> Result<()> {
        if self.caller.was_good_within(period) {
            return Ok(());
        }
        // In a box, so that its size is not part of every open stream.
        Box::pin(self.look(authenticator, period)).await
    }

    async fn look(&self, authenticator: &Authenticator, period: Duration) -> Result<()> {
        let _checking = self.caller.checking.lock().await;
        if self.caller.was_good_within(period) {
            return Ok(());
        }
        authenticator.check_again(&self.caller.auth).await?;
        self.caller.good_at.store(self.caller.age(), Ordering::Relaxed);
        Ok(())
    }
}

impl Caller {
    fn was_good_within(&self, period: Duration) -> bool {
        let good_for = self.age().saturating_sub(self.good_at.load(Ordering::Relaxed));
        Duration::from_millis(good_for) < period
    }

    /// Milliseconds since the first stream was opened.
    fn age(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.callers.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.streams -= 1;
        let fingerprint = self.caller.auth.fingerprint();
        if let Some(entry) = open.callers.get_mut(&fingerprint) {
            entry.streams -= 1;
            if entry.streams == 0 {
                open.callers.remove(&fingerprint);
            }
        }
    }
}

fn too_many(whose: &str) -> Error {
    Error::new(
        Reason::TooManyRequests,
        format!("{whose} has as many watches open as are allowed; close one or try again later"),
    )
    .with_retry_after(RETRY_DELAY)
}
