//! Many open streams, changes, and when each stream had its change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use futures::StreamExt;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, timeout},
};
use tonic::transport::Channel;

use crate::{
    commits::since_boot,
    figures::Round,
    processes::{processor_time, resident_bytes},
    subject::{Arrival, Server, Subject},
};

/// Connections that the streams are spread over.
pub const CONNECTIONS: usize = 8;
/// Streams that are being opened at a time.
const OPENING: usize = 128;
/// From one change of a round to the next.
pub const PACE: Duration = Duration::from_millis(5);
/// Changes before each round to keys that nobody watches: what a write takes by itself.
pub const UNWATCHED: usize = 5;
/// Keys that [`FanOut::warm_up`] uses.
pub const WARM_UP: usize = UNWATCHED + 1;
/// Streams that are opened and closed before any are measured.
const WARM_UP_STREAMS: usize = 500;
/// How long the machine is left alone before something is measured, and how long what a change causes may
/// take until its processor time is read.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a round may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// What opening the streams took.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    pub seconds: f64,
    /// Of the server, afterwards, in bytes.
    pub resident: u64,
    /// What the server's memory grew by for each stream, in bytes.
    pub resident_a_stream: f64,
}

/// A subject with its streams.
pub struct FanOut {
    /// Those that read the streams. First, so that they end before the server does.
    tasks: JoinSet<()>,
    pub subject: Arc<Subject>,
    channels: Vec<Channel>,
    writer: Writer,
    next_key: usize,
    /// Keys that the open streams watch; empty when none is open.
    keys: Vec<usize>,
    board: Arc<Board>,
}

/// Where each stream notes when its change arrived.
struct Board {
    zero: Instant,
    /// Nanoseconds after `zero`, by stream.
    arrived: Vec<AtomicU64>,
    missing: AtomicUsize,
    complete: Notify,
    heartbeats: AtomicUsize,
}

impl FanOut {
    pub async fn new(subject: Subject) -> Self {
        let subject = Arc::new(subject);
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            channels.push(subject.connect().await);
        }
        Self {
            writer: Writer::start(Arc::clone(&subject)).await,
            subject,
            channels,
            next_key: 0,
            keys: Vec::new(),
            board: Arc::new(Board::new(0)),
            tasks: JoinSet::new(),
        }
    }

    /// Opens some streams, closes them, and writes what nobody watches. The first calls of a process and of a
    /// connection are slower than others, and what the process needed to start is still in its memory then.
    pub async fn warm_up(&mut self) {
        self.open(WARM_UP_STREAMS, 1).await;
        self.close().await;
        tokio::time::sleep(SETTLE).await;
        let keys = self.fresh_keys(UNWATCHED);
        self.writer.write(keys).await;
    }

    /// Keys that nothing has used yet, in their order.
    pub fn fresh_keys(&mut self, count: usize) -> Vec<usize> {
        let first = self.next_key;
        self.next_key += count;
        (first..self.next_key).collect()
    }

    /// Opens streams, spread evenly over `keys` keys that nothing has watched yet.
    pub async fn open(&mut self, streams: usize, keys: usize) -> Opening {
        assert!(self.tasks.is_empty());
        self.keys = self.fresh_keys(keys);
        self.board = Arc::new(Board::new(streams));
        tokio::time::sleep(SETTLE).await;
        let before = resident_bytes(self.subject.process_id());
        let start = Instant::now();
        let (subject, channels, keys) = (&self.subject, &self.channels, &self.keys);
        let mut opening = futures::stream::iter(0..streams)
            .map(|place| {
                // A task each, so that the opening uses both cores.
                let (subject, channel) = (Arc::clone(subject), channels[place % channels.len()].clone());
                let key = keys[place % keys.len()];
                async move {
                    let open = tokio::spawn(async move { subject.open(channel, key).await });
                    (place, open.await.unwrap())
                }
            })
            .buffer_unordered(OPENING);
        while let Some((place, mut stream)) = opening.next().await {
            let board = Arc::clone(&self.board);
            self.tasks.spawn(async move {
                loop {
                    match stream.next().await {
                        Arrival::Change => board.note(place),
                        Arrival::Heartbeat => drop(board.heartbeats.fetch_add(1, Ordering::Relaxed)),
                        Arrival::Progress => {}
                        Arrival::End => return,
                    }
                }
            });
        }
        drop(opening);
        let seconds = start.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLE).await;
        let resident = resident_bytes(self.subject.process_id());
        Opening {
            seconds,
            resident,
            resident_a_stream: (resident as f64 - before as f64) / streams as f64,
        }
    }

    /// Heartbeats that have come since the streams were opened.
    pub fn heartbeats(&self) -> usize {
        self.board.heartbeats.load(Ordering::Relaxed)
    }

    /// Opens the streams again if the last change ended them; then changes each of their keys once. What was sent and
    /// had when goes into `changes`.
    pub async fn round(&mut self, changes: &mut Vec<Change>) -> Round {
        let (streams, keys) = (self.board.arrived.len(), self.keys.len());
        if self.tasks.is_empty() {
            self.open(streams, keys).await;
        }
        let unwatched = self.fresh_keys(UNWATCHED);
        let alone = self.writer.write(unwatched).await;
        tokio::time::sleep(SETTLE).await;

        self.board.missing.store(streams, Ordering::Release);
        let process = self.subject.process_id();
        let before = (processor_time(process), processor_time(std::process::id()));
        let writes = self.writer.write(self.keys.clone()).await;
        self.board.wait(&self.subject).await;
        tokio::time::sleep(SETTLE).await;
        let server = processor_time(process) - before.0;
        let client = processor_time(std::process::id()) - before.1;
        if self.subject.ends_with_the_change() {
            while let Some(ended) = self.tasks.join_next().await {
                ended.unwrap();
            }
        }

        let arrived = |place: usize| {
            self.board.zero + Duration::from_nanos(self.board.arrived[place].load(Ordering::Acquire))
        };
        let since =
            |place: usize, time: Instant| milliseconds(arrived(place).saturating_duration_since(time));
        // An instant does not say where it lies on the clock that others read.
        let (now, on_the_clock) = (Instant::now(), since_boot());
        let at = |time: Instant| on_the_clock - now.saturating_duration_since(time);
        changes.extend(writes.iter().enumerate().map(|(key, write)| {
            Change {
                started: at(write.started),
                arrived: (key..streams)
                    .step_by(keys)
                    .map(|place| at(arrived(place)))
                    .collect(),
            }
        }));
        let write = |place: usize| &writes[place % keys];
        let duration = |write: &Write| milliseconds(write.answered - write.started);
        Round::new(
            (0..streams).map(|place| since(place, write(place).started)),
            (0..streams).map(|place| since(place, write(place).answered)),
            writes.iter().map(duration),
            alone.iter().map(duration),
            [server, client].map(|time| time.as_secs_f64() * 1e6 / streams as f64),
        )
    }

    /// Has something else change the one key of the streams; returns when each of them had it.
    pub async fn follow(&self, change: impl FnOnce()) -> Vec<SystemTime> {
        self.board
            .missing
            .store(self.board.arrived.len(), Ordering::Release);
        change();
        self.board.wait(&self.subject).await;
        let zero = SystemTime::now() - self.board.zero.elapsed();
        let arrived = self.board.arrived.iter();
        arrived
            .map(|time| zero + Duration::from_nanos(time.load(Ordering::Acquire)))
            .collect()
    }

    /// When the work on what the streams watch began.
    pub async fn watched_began(&self) -> SystemTime {
        let channel = self.channels[0].clone();
        match &self.subject.server {
            Server::Service(service) => service.began(channel, self.keys[0]).await,
            Server::Etcd(_) => panic!("nothing works on a key of etcd"),
        }
    }

    /// Gives up the streams.
    pub async fn close(&mut self) {
        self.tasks.shutdown().await;
    }
}

impl Board {
    fn new(streams: usize) -> Self {
        Self {
            zero: Instant::now(),
            arrived: (0..streams).map(|_| AtomicU64::new(0)).collect(),
            missing: AtomicUsize::new(streams),
            complete: Notify::new(),
            heartbeats: AtomicUsize::new(0),
        }
    }

    fn note(&self, place: usize) {
        let time = u64::try_from(self.zero.elapsed().as_nanos()).unwrap();
        self.arrived[place].store(time, Ordering::Release);
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete.notify_one();
        }
    }

    async fn wait(&self, subject: &Subject) {
        let complete = timeout(DEADLINE, async {
            while self.missing.load(Ordering::Acquire) > 0 {
                self.complete.notified().await;
            }
        });
        if complete.await.is_err() {
            let missing = self.missing.load(Ordering::Acquire);
            let streams = self.arrived.len();
            let name = subject.name;
            panic!("{name}: {missing} of {streams} streams did not get their change within {DEADLINE:?}");
        }
    }
}

/// A change and when each of its streams had it, by the clock of [`since_boot`].
pub struct Change {
    pub started: Duration,
    pub arrived: Vec<Duration>,
}

/// One write.
struct Write {
    started: Instant,
    answered: Instant,
}

/// Writes from a thread and over a connection of its own, so that an answer waits neither for the client's
/// work on ten thousand messages nor behind them.
struct Writer {
    subject: Arc<Subject>,
    handle: Handle,
    channel: Channel,
    /// The thread ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

impl Writer {
    async fn start(subject: Arc<Subject>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        thread::spawn(move || runtime.block_on(stopped).ok());
        let connecting = Arc::clone(&subject);
        let channel = handle.spawn(async move { connecting.connect().await });
        Self {
            subject,
            channel: channel.await.unwrap(),
            handle,
            _stop: stop,
        }
    }

    /// Writes each key, one every [`PACE`] whether the ones before are answered or not.
    async fn write(&self, keys: Vec<usize>) -> Vec<Write> {
        let (subject, channel) = (Arc::clone(&self.subject), self.channel.clone());
        let paced = async move {
            let mut pace = tokio::time::interval(PACE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut writes = Vec::new();
            for key in keys {
                pace.tick().await;
                let (subject, channel) = (Arc::clone(&subject), channel.clone());
                writes.push(tokio::spawn(async move {
                    let started = Instant::now();
                    subject.write(channel, key).await;
                    Write {
                        started,
                        answered: Instant::now(),
                    }
                }));
            }
            futures::future::join_all(writes).await
        };
        let writes = self.handle.spawn(paced).await.unwrap();
        writes.into_iter().map(Result::unwrap).collect()
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
