//! How often one host is asked, whoever asks: all crawls of this process share one count for each host.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// The hosts that are being crawled. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    parallel: usize,
    hosts: Arc<Mutex<HashMap<String, Weak<Host>>>>,
}

/// The requests to one host and port.
#[derive(Debug)]
pub(super) struct Host {
    slots: Arc<Semaphore>,
    schedule: Mutex<Schedule>,
}

#[derive(Debug, Clone, Copy)]
struct Schedule {
    /// When the next request may begin.
    next: Instant,
    /// No request begins before.
    paused_until: Instant,
}

impl Hosts {
    /// At most `parallel` requests to a host at once.
    pub(super) fn new(parallel: usize) -> Self {
        Self {
            parallel,
            hosts: Arc::default(),
        }
    }

    /// The host with this name and port.
    pub(super) fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(name).and_then(Weak::upgrade) {
            return host;
        }
        hosts.retain(|_, host| host.strong_count() > 0);
        let now = Instant::now();
        let host = Arc::new(Host {
            slots: Arc::new(Semaphore::new(self.parallel)),
            schedule: Mutex::new(Schedule {
                next: now,
                paused_until: now,
            }),
        });
        hosts.insert(name.to_owned(), Arc::downgrade(&host));
        host
    }
}

impl Host {
    /// Waits until a request may begin, `delay` after the one before. It counts as under way until the
    /// permit is dropped.
    pub(super) async fn turn(&self, delay: Duration) -> Option<OwnedSemaphorePermit> {
        // A semaphore that is never closed always gives one.
        let permit = Arc::clone(&self.slots).acquire_owned().await.ok();
        let mut at = self.reserve(delay);
        loop {
            tokio::time::sleep_until(at).await;
            // Another request may have been told to wait in the meantime.
            let paused_until = self.schedule().paused_until;
            if paused_until <= at {
                return permit;
            }
            at = self.reserve(delay);
        }
    }

    /// Lets no further request begin for a time.
    pub(super) fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut schedule = self.schedule();
        schedule.paused_until = schedule.paused_until.max(until);
    }

    fn reserve(&self, delay: Duration) -> Instant {
        let mut schedule = self.schedule();
        let at = schedule.next.max(schedule.paused_until).max(Instant::now());
        schedule.next = at + delay;
        at
    }

    fn schedule(&self) -> std::sync::MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const STEP: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn requests_to_a_host_begin_a_delay_apart_and_others_do_not_wait() {
        let hosts = Hosts::new(8);
        let host = hosts.host("a");
        let started = Instant::now();
        for _ in 0..3 {
            hosts.host("a").turn(STEP).await;
        }
        assert!(started.elapsed() >= 2 * STEP, "{:?}", started.elapsed());
        let next = host.schedule().next;
        hosts.host("b").turn(STEP).await;
        assert_eq!(host.schedule().next, next);
    }

    #[tokio::test]
    async fn no_more_requests_than_allowed_are_under_way_at_once() {
        let host = Hosts::new(2).host("a");
        let first = host.turn(Duration::ZERO).await;
        let _second = host.turn(Duration::ZERO).await;
        let third = tokio::time::timeout(STEP, host.turn(Duration::ZERO)).await;
        assert!(third.is_err(), "two are under way");
        drop(first);
        assert!(host.turn(Duration::ZERO).await.is_some());
    }

    #[tokio::test]
    async fn a_pause_holds_up_those_that_wait_already() {
        let host = Hosts::new(8).host("a");
        let started = Instant::now();
        host.turn(STEP).await;
        let waiting = host.turn(STEP);
        let pausing = async { host.pause(4 * STEP) };
        tokio::join!(waiting, pausing);
        assert!(started.elapsed() >= 4 * STEP, "{:?}", started.elapsed());
    }

    #[test]
    fn hosts_that_nobody_crawls_any_more_are_forgotten() {
        let hosts = Hosts::new(1);
        for n in 0..100 {
            hosts.host(&n.to_string());
        }
        assert_eq!(hosts.hosts.lock().unwrap().len(), 1);
    }
}
