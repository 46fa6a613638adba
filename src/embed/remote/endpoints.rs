//! The servers of one model: which of them is asked next, and which is left alone.
//!
//! A request takes a place with the endpoint that has the fewest of its purpose under way. An endpoint that fails
//! is down for a while that doubles with each failure, then one request alone tries it. Places of queries and of
//! documents are apart, so no query waits behind documents.
//!
//! Invariant: a place is given back when it is dropped, whatever became of the request.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OnceCell},
    time::Instant,
};
use url::Url;

use crate::{embed::Purpose, outbound};

/// How long an endpoint is left alone after its first failure in a row, and at most unless it asks for more.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// All endpoints of a model.
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    /// Requests of one purpose that one endpoint may have under way.
    concurrency: usize,
    /// Something was given back.
    changed: Notify,
}

/// One of them.
pub(super) struct Endpoint {
    /// Where requests go.
    pub(super) url: Url,
    /// Set once it has shown that it runs the model.
    pub(super) checked: OnceCell<()>,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    queries: usize,
    documents: usize,
    /// Failures in a row.
    failures: u32,
    /// Until when it is left alone.
    down_until: Option<Instant>,
}

impl Health {
    fn under_way(&mut self, purpose: Purpose) -> &mut usize {
        match purpose {
            Purpose::Query => &mut self.queries,
            Purpose::Document => &mut self.documents,
        }
    }
}

impl Endpoint {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address without a password, for the log.
    pub(super) fn name(&self) -> String {
        format!("{}{}", self.url.origin().ascii_serialization(), self.url.path())
    }
}

/// The right to send one request to an endpoint.
pub(super) struct Place<'a> {
    pub(super) index: usize,
    pub(super) endpoint: &'a Endpoint,
    endpoints: &'a Endpoints,
    purpose: Purpose,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.endpoint.health().under_way(self.purpose) -= 1;
        self.endpoints.changed.notify_waiters();
    }
}

impl Place<'_> {
    /// The endpoint answered.
    pub(super) fn succeeded(&self) {
        let mut health = self.endpoint.health();
        if health.failures > 0 {
            tracing::info!(endpoint = self.endpoint.name(), "an embedding server is back");
        }
        health.failures = 0;
        health.down_until = None;
    }

    /// The endpoint did not answer as it should; it is left alone, as long as it asks for.
    pub(super) fn failed(&self, retry_after: Option<Duration>) {
        let mut health = self.endpoint.health();
        let pause =
            retry_after.unwrap_or_else(|| outbound::backoff(FIRST_PAUSE, LONGEST_PAUSE, health.failures));
        // Requests that were under way together fail together, and are one failure.
        let now = Instant::now();
        if health.down_until.is_none_or(|until| until <= now) {
            health.failures = health.failures.saturating_add(1);
        }
        health.down_until = health.down_until.max(now.checked_add(pause));
    }
}

/// That all endpoints which may be asked stay down for too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AllDown {
    /// Until the first of them may be asked again.
    pub(super) wait: Duration,
}

/// What a look at the endpoints shows.
enum Look {
    Free(usize),
    /// Some are up, with all their places taken.
    Busy,
    DownUntil(Instant),
}

impl Endpoints {
    /// None of them was asked yet.
    pub(super) fn new(urls: Vec<Url>, concurrency: usize) -> Self {
        let all = urls
            .into_iter()
            .map(|url| Endpoint {
                url,
                checked: OnceCell::new(),
                health: Mutex::default(),
            })
            .collect();
        Self {
            all,
            concurrency,
            changed: Notify::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Requests of one purpose that all together may have under way.
    pub(super) fn places(&self) -> usize {
        self.concurrency.saturating_mul(self.all.len())
    }

    /// Waits for a place with an endpoint that is not in `without`, for any time while they are busy.
    ///
    /// # Errors
    /// When they are down for longer than until `end`, or than `patience` from now where there is no end yet.
    pub(super) async fn place(
        &self,
        purpose: Purpose,
        without: &[usize],
        end: Option<Instant>,
        patience: Duration,
    ) -> Result<Place<'_>, AllDown> {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            match self.look(purpose, without) {
                Look::Free(index) => {
                    return Ok(Place {
                        index,
                        endpoint: &self.all[index],
                        endpoints: self,
                        purpose,
                    });
                }
                Look::Busy => changed.await,
                Look::DownUntil(until) => {
                    let now = Instant::now();
                    if until > end.unwrap_or(now + patience) {
                        return Err(AllDown {
                            wait: until.saturating_duration_since(now),
                        });
                    }
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = changed => {}
                    }
                }
            }
        }
    }

    /// Takes a place, or tells why there is none.
    fn look(&self, purpose: Purpose, without: &[usize]) -> Look {
        let now = Instant::now();
        let mut best: Option<(usize, usize)> = None;
        let (mut busy, mut up_at) = (false, None::<Instant>);
        for (index, endpoint) in self.all.iter().enumerate() {
            if without.contains(&index) {
                continue;
            }
            let mut health = endpoint.health();
            if let Some(until) = health.down_until.filter(|until| *until > now) {
                up_at = Some(up_at.map_or(until, |earliest| earliest.min(until)));
                continue;
            }
            // One request alone finds out whether it is back.
            let (on_trial, total) = (health.failures > 0, health.queries + health.documents);
            let under_way = *health.under_way(purpose);
            if under_way >= self.concurrency || (on_trial && total > 0) {
                busy = true;
            } else if best.is_none_or(|(_, fewest)| total < fewest) {
                best = Some((index, total));
            }
        }
        match (best, up_at) {
            (Some((index, _)), _) => {
                *self.all[index].health().under_way(purpose) += 1;
                Look::Free(index)
            }
            (None, Some(until)) if !busy => Look::DownUntil(until),
            (None, _) => Look::Busy,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use futures::FutureExt;

    use super::*;

    fn endpoints(count: usize, concurrency: usize) -> Endpoints {
        let urls = (0..count)
            .map(|n| Url::parse(&format!("http://user:planted@h{n}/v1")).unwrap())
            .collect();
        Endpoints::new(urls, concurrency)
    }

    async fn take(endpoints: &Endpoints, purpose: Purpose) -> Place<'_> {
        endpoints
            .place(purpose, &[], None, LONGEST_PAUSE)
            .await
            .ok()
            .unwrap()
    }

    /// As if the pause of an endpoint were over.
    fn pass_pause(endpoints: &Endpoints, index: usize) {
        endpoints.all[index].health().down_until = Some(Instant::now());
    }

    #[tokio::test]
    async fn the_endpoint_with_the_fewest_requests_is_next() {
        let endpoints = endpoints(2, 4);
        let first = take(&endpoints, Purpose::Document).await;
        let second = take(&endpoints, Purpose::Query).await;
        assert_eq!((first.index, second.index), (0, 1));
        drop(second);
        assert_eq!(take(&endpoints, Purpose::Document).await.index, 1);
    }

    #[tokio::test]
    async fn queries_find_a_place_while_documents_wait_for_one() {
        let endpoints = endpoints(1, 1);
        let held = take(&endpoints, Purpose::Document).await;
        let mut waiting = Box::pin(take(&endpoints, Purpose::Document));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(take(&endpoints, Purpose::Query).await.index, 0);
        drop(held);
        assert_eq!(waiting.await.index, 0);
    }

    #[tokio::test]
    async fn an_endpoint_that_failed_is_left_alone_then_tried_by_one_request() {
        let endpoints = endpoints(2, 4);
        take(&endpoints, Purpose::Document).await.failed(None);
        let others = [
            take(&endpoints, Purpose::Document).await,
            take(&endpoints, Purpose::Document).await,
        ];
        assert!(others.iter().all(|place| place.index == 1));
        pass_pause(&endpoints, 0);
        let trial = take(&endpoints, Purpose::Document).await;
        assert_eq!(trial.index, 0);
        assert_eq!(
            take(&endpoints, Purpose::Document).await.index,
            1,
            "one is enough"
        );
        trial.succeeded();
        drop(trial);
        assert_eq!(take(&endpoints, Purpose::Document).await.index, 0);
    }

    #[tokio::test]
    async fn pauses_double_and_failures_that_come_together_are_one() {
        let endpoints = endpoints(1, 4);
        let together = [
            take(&endpoints, Purpose::Document).await,
            take(&endpoints, Purpose::Document).await,
        ];
        together.iter().for_each(|place| place.failed(None));
        drop(together);
        assert_eq!(endpoints.all[0].health().failures, 1);
        for failures in 2..10 {
            pass_pause(&endpoints, 0);
            let before = Instant::now();
            take(&endpoints, Purpose::Document).await.failed(None);
            let until = endpoints.all[0].health().down_until.unwrap();
            let (shortest, longest) = (until - Instant::now(), until - before);
            let full = FIRST_PAUSE.saturating_mul(1 << (failures - 1)).min(LONGEST_PAUSE);
            assert!(
                longest >= full / 2 && shortest <= full,
                "{shortest:?} after {failures}"
            );
        }
    }

    #[tokio::test]
    async fn a_pause_that_is_asked_for_is_kept_unless_it_is_longer_than_the_caller_can_wait() {
        let endpoints = endpoints(1, 1);
        let hour = Duration::from_secs(3_600);
        take(&endpoints, Purpose::Query).await.failed(Some(hour));
        let down = endpoints
            .place(Purpose::Query, &[], None, Duration::from_secs(60))
            .await;
        let wait = down.err().unwrap().wait;
        assert!(wait <= hour && wait > hour - Duration::from_secs(60), "{wait:?}");
        let end = Some(Instant::now() + hour / 2);
        assert!(endpoints.place(Purpose::Query, &[], end, hour).await.is_err());
        pass_pause(&endpoints, 0);
        assert!(endpoints.place(Purpose::Query, &[], end, hour).await.is_ok());
    }

    #[tokio::test]
    async fn an_endpoint_is_named_without_its_password() {
        let endpoints = endpoints(1, 1);
        assert_eq!(endpoints.all[0].name(), "http://h0/v1");
    }
}
