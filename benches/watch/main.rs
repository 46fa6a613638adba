//! How fast one change reaches many watches, what an open watch costs, and the same on etcd.
//!
//! `make bench-watch` runs everything; `cargo bench --bench watch -- one`, `spread`, `idle` or `many` runs a
//! part. What is measured and how, and the last figures, are in `benches/README.md`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod commits;
mod etcd;
mod fan_out;
mod figures;
#[path = "../../tests/it/harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
#[path = "../shared/invocations.rs"]
mod invocations;
#[path = "../shared/processes.rs"]
mod processes;
mod subject;
mod watched;
mod work;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use self::{
    commits::Recorder,
    etcd::Etcd,
    fan_out::{CONNECTIONS, Change, FanOut, PACE, UNWATCHED, WARM_UP},
    figures::{Row, SinceCommit, print_ratios, print_since_commit, print_table, print_verdict},
    harness::postgres::Cluster,
    subject::{Server, Subject},
    watched::WatchedService,
};

/// As in the service, so that the client is not what is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 5;
/// Rounds of a thousand changes each, which take five seconds.
const LONG_ROUNDS: usize = 3;
const KIBIBYTES_A_STREAM: f64 = 6.0;
/// How long the processor time of open streams is taken: two heartbeats of each.
const IDLE: Duration = Duration::from_secs(30);
const IDLE_PERCENT: f64 = 2.0;

fn main() {
    let part = std::env::args().skip(1).find(|text| text != "--bench");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure(part.as_deref()));
    // Streams that are still open have nothing to be waited for.
    runtime.shutdown_background();
}

/// The databases and the directory that subjects are started on.
struct Ground<'a> {
    cluster: &'a Cluster,
    directory: &'a Path,
}

async fn measure(part: Option<&str>) {
    let wanted = |name| part.is_none_or(|part| part == name);
    let start = Instant::now();
    println!("{}; load of the machine before: {}", etcd::version(), load());
    // With its disk as it is in service: each commit is synced.
    let cluster = harness::postgres::start(&["max_connections=300"]);
    // On the disk of the build, since a temporary directory may lie in memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let ground = Ground {
        cluster: &cluster,
        directory: directory.path(),
    };
    if wanted("one") {
        one_key(&ground, 1_000).await;
        one_key(&ground, 10_000).await;
    }
    if wanted("work") {
        work::measure(&ground).await;
    }
    if wanted("spread") {
        spread(&ground).await;
    }
    if wanted("idle") {
        idle(&ground).await;
    }
    if wanted("many") {
        many(&ground).await;
    }
    let seconds = start.elapsed().as_secs();
    println!("\nload of the machine after {seconds} s: {}", load());
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .unwrap()
        .trim()
        .to_owned()
}

/// Where a run of some minutes is.
fn progress(what: &str) {
    eprintln!("watch: {what}");
}

impl Ground<'_> {
    fn sqlite_url(&self, name: &str) -> String {
        format!("sqlite://{}", self.directory.join(name).display())
    }

    async fn sqlite(&self, name: &str, keys: usize) -> Subject {
        let service = WatchedService::start(&self.sqlite_url(name), self.directory, keys).await;
        Subject {
            name: "SQLite",
            server: Server::Service(service),
        }
    }

    /// How long a message of a watch is.
    async fn message_bytes(&self) -> usize {
        let name = format!("message-{}.db", uuid::Uuid::now_v7());
        let service = WatchedService::start(&self.sqlite_url(&name), self.directory, 1).await;
        service.message_bytes().await
    }

    /// The service on both databases and etcd, with as many keys as a measurement uses.
    async fn all(&self, name: &str, keys: usize) -> Vec<Subject> {
        let sqlite = self.sqlite(name, keys).await;
        let etcd = Etcd::start(self.directory, self.message_bytes().await).await;
        let url = self.cluster.fresh_database().await;
        let postgres = WatchedService::start(&url, self.directory, keys).await;
        vec![
            sqlite,
            Subject {
                name: "PostgreSQL",
                server: Server::Service(postgres),
            },
            Subject {
                name: "etcd",
                server: Server::Etcd(etcd),
            },
        ]
    }
}

/// Takes rounds of all subjects in turns, so that other load on the machine hits each.
async fn rounds(
    ground: &Ground<'_>,
    subjects: Vec<Subject>,
    streams: usize,
    keys: usize,
    rounds: usize,
) -> Vec<Row> {
    let mut fan_outs = Vec::new();
    let mut rows = Vec::new();
    for subject in subjects {
        let name = subject.name;
        let mut fan_out = FanOut::new(subject).await;
        fan_out.warm_up().await;
        let opening = fan_out.open(streams, keys).await;
        progress(&format!(
            "{streams} streams on {name} opened in {:.1} s",
            opening.seconds
        ));
        rows.push(Row {
            name,
            opening,
            rounds: Vec::new(),
        });
        fan_outs.push(fan_out);
    }
    let recorder = Recorder::start(ground.directory).await;
    let mut changes: Vec<Vec<Change>> = Vec::new();
    for round in 1..=rounds {
        for (fan_out, row) in fan_outs.iter_mut().zip(&mut rows) {
            let mut changed = Vec::new();
            let figures = fan_out.round(&mut changed).await;
            changes.push(changed);
            progress(&format!(
                "round {round} of {}: p50 {:.2} ms, p99 {:.2} ms, last {:.2} ms",
                row.name, figures.middle, figures.late, figures.last
            ));
            row.rounds.push(figures);
        }
    }
    if let Some(recorder) = recorder {
        let syncs = recorder.stop();
        for (place, changes) in changes.iter().enumerate() {
            let place_of_subject = place % fan_outs.len();
            let commits = fan_outs[place_of_subject].subject.commits(&syncs);
            let round = &mut rows[place_of_subject].rounds[place / fan_outs.len()];
            round.since_commit = Some(SinceCommit::new(&commits, changes));
        }
    }
    rows
}

/// One change to all streams.
async fn one_key(ground: &Ground<'_>, streams: usize) {
    let keys = WARM_UP + ROUNDS * (1 + UNWATCHED);
    let subjects = ground.all(&format!("one-{streams}.db"), keys).await;
    let rows = rounds(ground, subjects, streams, 1, ROUNDS).await;
    print_table(
        &format!("{streams} streams over {CONNECTIONS} connections, one change to all, {ROUNDS} rounds"),
        &rows,
    );
    print_ratios(&rows);
    print_since_commit(&rows);
    // Fewer streams grow by less than what the process gives back meanwhile.
    if streams < 10_000 {
        return;
    }
    for row in rows.iter().filter(|row| row.name != "etcd") {
        let memory = row.opening.resident_a_stream / 1024.0;
        print_verdict(
            &format!("{}: {memory:.1} KiB a stream", row.name),
            memory,
            KIBIBYTES_A_STREAM,
        );
    }
}

/// One change to each of a thousand keys.
async fn spread(ground: &Ground<'_>) {
    const STREAMS: usize = 10_000;
    const KEYS: usize = 1_000;
    let keys = WARM_UP + LONG_ROUNDS * (KEYS + UNWATCHED);
    let subjects = ground.all("spread.db", keys).await;
    let rows = rounds(ground, subjects, STREAMS, KEYS, LONG_ROUNDS).await;
    let rate = 1.0 / PACE.as_secs_f64();
    print_table(
        &format!(
            "{STREAMS} streams on {KEYS} keys, a change to each, {rate:.0} a second, {LONG_ROUNDS} rounds"
        ),
        &rows,
    );
    print_ratios(&rows);
    print_since_commit(&rows);
}

/// What open streams cost that have nothing to say.
async fn idle(ground: &Ground<'_>) {
    const STREAMS: usize = 10_000;
    let subject = ground.sqlite("idle.db", WARM_UP + 1).await;
    let mut fan_out = FanOut::new(subject).await;
    fan_out.warm_up().await;
    fan_out.open(STREAMS, 1).await;
    progress(&format!("{STREAMS} streams are open and idle"));
    let process = fan_out.subject.process_id();
    let (before, heartbeats) = (processes::processor_time(process), fan_out.heartbeats());
    tokio::time::sleep(IDLE).await;
    let used = processes::processor_time(process) - before;
    let percent = used.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    println!("\n{STREAMS} idle streams on SQLite for {IDLE:?}\n");
    println!(
        "{} heartbeats, {:.0} us of the server for each",
        fan_out.heartbeats() - heartbeats,
        used.as_secs_f64() * 1e6 / (fan_out.heartbeats() - heartbeats) as f64,
    );
    print_verdict(&format!("{percent:.1} percent of a core"), percent, IDLE_PERCENT);
}

/// As many streams as one process is to carry.
async fn many(ground: &Ground<'_>) {
    const STREAMS: usize = 50_000;
    let subject = ground.sqlite("many.db", WARM_UP + 1 + UNWATCHED).await;
    let mut fan_out = FanOut::new(subject).await;
    fan_out.warm_up().await;
    let opening = fan_out.open(STREAMS, 1).await;
    progress(&format!("{STREAMS} streams opened in {:.1} s", opening.seconds));
    let round = fan_out.round(&mut Vec::new()).await;
    println!("\n{STREAMS} streams on SQLite, one change to all\n");
    println!(
        "opened in {:.1} s, {:.0} MiB resident, {:.1} KiB a stream",
        opening.seconds,
        opening.resident as f64 / (1024.0 * 1024.0),
        opening.resident_a_stream / 1024.0,
    );
    println!(
        "p50 {:.0} ms, p99 {:.0} ms, the last after {:.0} ms; the write {:.1} ms, one that nobody watches {:.1} ms",
        round.middle, round.late, round.last, round.write, round.write_alone
    );
}
