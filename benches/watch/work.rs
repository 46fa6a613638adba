//! A change that a worker makes, as most are: an invocation goes from pending to processing.
//!
//! The worker takes one invocation at a time and is held in the fetch of each. What lets it go fails that
//! invocation, so it takes the next one, which is the one that the streams watch. When that began is in the
//! messages, as the store's clock had it before the commit.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{Router, http::StatusCode};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    Ground,
    etcd::Etcd,
    fan_out::{CONNECTIONS, FanOut},
    figures::{Latency, print_latencies},
    harness::wait_for,
    processes::processor_time,
    progress,
    subject::{Server, Subject},
    watched::{WatchedService, Workers},
};

const STREAMS: usize = 10_000;
const ROUNDS: usize = 5;
/// How long the phase that follows the change may take to be told to all streams.
const SETTLE: Duration = Duration::from_millis(500);

/// Where repositories would come from: an answer is held until one is let go, and says that there is none.
#[derive(Clone)]
struct Repositories {
    url: String,
    held: Arc<AtomicUsize>,
    released: Arc<Semaphore>,
}

impl Repositories {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let repositories = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            held: Arc::default(),
            released: Arc::new(Semaphore::new(0)),
        };
        let Self { held, released, .. } = repositories.clone();
        let router = Router::new().fallback(async move || {
            held.fetch_add(1, Ordering::AcqRel);
            released.acquire().await.unwrap().forget();
            StatusCode::NOT_FOUND
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        repositories
    }

    /// Waits until the worker is held in its `count`th fetch.
    async fn wait(&self, count: usize) {
        wait_for("the fetch of an invocation", async || {
            match self.held.load(Ordering::Acquire) {
                held if held >= count => Ok(()),
                held => Err(held),
            }
        })
        .await;
    }
}

/// A service whose worker is held.
struct Worked {
    fan_out: FanOut,
    repositories: Repositories,
    rounds: usize,
}

impl Worked {
    async fn start(name: &'static str, url: &str, directory: &Path, workers: Workers) -> Self {
        let repositories = Repositories::start().await;
        let service =
            WatchedService::start_with(url, directory, ROUNDS + 1, workers, &repositories.url).await;
        let subject = Subject {
            name,
            server: Server::Service(service),
        };
        let mut fan_out = FanOut::new(subject).await;
        // The first invocation is what the worker is held in.
        fan_out.fresh_keys(1);
        Self {
            fan_out,
            repositories,
            rounds: 0,
        }
    }

    async fn round(&mut self) -> Latency {
        self.fan_out.open(STREAMS, 1).await;
        self.rounds += 1;
        self.repositories.wait(self.rounds).await;
        let process = self.fan_out.subject.process_id();
        let before = processor_time(process);
        let arrived = self
            .fan_out
            .follow(|| self.repositories.released.add_permits(1))
            .await;
        tokio::time::sleep(SETTLE).await;
        let used = processor_time(process) - before;
        let began = self.fan_out.watched_began().await;
        self.fan_out.close().await;
        let since = |time: SystemTime| time.duration_since(began).unwrap_or_default();
        Latency::new(
            arrived.into_iter().map(|time| since(time).as_secs_f64() * 1e3),
            used.as_secs_f64() * 1e6 / STREAMS as f64,
        )
    }
}

pub async fn measure(ground: &Ground<'_>) {
    let url = ground.sqlite_url("work.db");
    let mut within = Worked::start(
        "SQLite, the same process",
        &url,
        ground.directory,
        Workers::Within,
    )
    .await;
    let url = ground.cluster.fresh_database().await;
    let name = "PostgreSQL, another process";
    let mut beside = Worked::start(name, &url, ground.directory, Workers::Beside).await;
    let etcd = Subject {
        name: "etcd",
        server: Server::Etcd(Etcd::start(ground.directory, ground.message_bytes().await).await),
    };
    let mut etcd = FanOut::new(etcd).await;
    etcd.warm_up().await;
    etcd.open(STREAMS, 1).await;

    let mut rows = [
        (within.fan_out.subject.name, Vec::new()),
        (beside.fan_out.subject.name, Vec::new()),
        (etcd.subject.name, Vec::new()),
    ];
    for round in 1..=ROUNDS {
        rows[0].1.push(within.round().await);
        rows[1].1.push(beside.round().await);
        rows[2].1.push(etcd.round(&mut Vec::new()).await.latency());
        for (name, latencies) in &rows {
            let Latency {
                middle, late, last, ..
            } = latencies[round - 1];
            progress(&format!(
                "round {round} of {name}: p50 {middle:.2} ms, p99 {late:.2} ms, last {last:.2} ms"
            ));
        }
    }
    print_latencies(
        &format!(
            "{STREAMS} streams over {CONNECTIONS} connections, one change to all, made by a worker, {ROUNDS} rounds"
        ),
        &rows,
    );
}
