//! Where the store's time comes from.
//!
//! Leases are compared across processes, so all of them must read one clock. On PostgreSQL that is
//! the server's; on SQLite all processes run on one machine and share its clock. A manual clock lets
//! tests end a lease without waiting for it.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use crate::domain::time::Timestamp;

/// Where the store's time comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The database server's clock; the machine's where there is no server.
    #[default]
    System,
    /// A clock that stands still until it is moved.
    Manual(ManualClock),
}

/// A clock that stands still until it is moved. Clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `time`.
    pub fn new(time: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(time.0)))
    }

    /// The time it shows.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    /// Moves it on and returns the new time.
    pub fn advance(&self, duration: std::time::Duration) -> Timestamp {
        let later = self.now().plus(duration);
        self.0.store(later.0, Ordering::SeqCst);
        later
    }
}
