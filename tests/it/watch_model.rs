//! Thousands of random histories, each watched by readers that nothing is made easy for.
//!
//! A history is a few invocations whose transitions come in any order and overlap with those of other
//! histories. Beside it, watchers open streams on any of three nodes, read fast or slowly, break off and
//! resume; nodes drain and come back; most transitions are made where no wake-up tells of them. At the end
//! every watcher's log is compared with the table of events.
//!
//! `CHROMA_SYNC_TEST_HISTORIES` sets how many histories are run on each store, `CHROMA_SYNC_TEST_SEED` which.

use std::{
    collections::HashMap,
    env,
    pin::pin,
    sync::{Arc, RwLock},
    time::Duration,
};

use chroma_sync::{
    app::{
        Auth,
        watch::{FeedUpdateKind, ResumeToken, UpdateKind, WatchFilter, WatchOptions, WatchStart},
    },
    domain::{
        ids::{InvocationId, WorkerId},
        invocation::{Failure, Invocation, Phase, Progress, StateName, Statistics},
        names::TenantName,
    },
    error::Reason,
    store::{CancelInvocation, FeedFilter, Scope},
};
use futures::{StreamExt, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use crate::harness::{
    node::Node,
    stores::{LEASE, MANY, TestStore},
    wait_for,
};

/// Histories a store, unless the environment says otherwise.
const HISTORIES: u64 = 150;
/// Histories under way at once.
const AT_ONCE: usize = 24;
const NODES: usize = 3;
const INVOCATIONS: usize = 3;
const WATCHERS: usize = 4;
/// How long a watcher may take for what is missing when everything has happened.
const DEADLINE: Duration = Duration::from_secs(60);
const OPTIONS: WatchOptions = WatchOptions {
    heartbeat: Duration::from_millis(40),
    poll: Duration::from_millis(25),
    max_streams: 10_000,
    max_streams_per_key: 10_000,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_watcher_misses_doubles_or_reorders_a_state_change_on_sqlite() {
    check(TestStore::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_watcher_misses_doubles_or_reorders_a_state_change_on_postgres() {
    check(TestStore::postgres().await).await;
}

/// Everything that the histories of one store share.
struct World {
    test: TestStore,
    nodes: RwLock<Vec<Arc<Node>>>,
    /// Which attempts are under way.
    claimed: RwLock<HashMap<InvocationId, u32>>,
}

impl World {
    fn node(&self, random: &mut StdRng) -> Arc<Node> {
        Arc::clone(self.nodes.read().unwrap().choose(random).unwrap())
    }

    async fn restart(&self, index: usize, hears: bool) {
        let fresh = Arc::new(Node::start(&self.test, OPTIONS, hears).await);
        let old = std::mem::replace(&mut self.nodes.write().unwrap()[index], fresh);
        // Whoever holds it still opens streams on it and is told that it drains; the last one drops it.
        old.drain.cancel();
    }
}

async fn check(test: TestStore) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let histories = number("CHROMA_SYNC_TEST_HISTORIES").unwrap_or(HISTORIES);
    let seed = number("CHROMA_SYNC_TEST_SEED").unwrap_or_else(rand::random);
    eprintln!("{histories} histories from seed {seed}");
    let mut nodes = Vec::new();
    for index in 0..NODES {
        // One node is deaf and lives by polling alone.
        nodes.push(Arc::new(Node::start(&test, OPTIONS, index > 0).await));
    }
    let world = Arc::new(World {
        test,
        nodes: RwLock::new(nodes),
        claimed: RwLock::default(),
    });
    let mut state_changes = 0;
    let mut runs = stream::iter(0..histories)
        .map(|number| run_history(Arc::clone(&world), seed.wrapping_add(number)))
        .buffer_unordered(AT_ONCE);
    while let Some(checked) = runs.next().await {
        state_changes += checked;
    }
    // Every history has at least the creation and the end of each of its invocations.
    assert!(state_changes >= histories * 2 * INVOCATIONS as u64);
    eprintln!("{histories} histories with {state_changes} state changes were checked");
}

/// Runs one history and checks its watchers; returns its state changes.
async fn run_history(world: Arc<World>, seed: u64) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let tenant = TenantName::parse("tenant", &format!("tenant-{seed}")).unwrap();
    let source = world.test.source(&tenant).await;
    let feed_start = world.test.store.feed_head().await.unwrap();
    let (finished, over) = watch::channel(0_u64);
    let (began, begun) = oneshot::channel();
    let feed_watcher = tokio::spawn(watch_feed(
        Arc::clone(&world),
        tenant.clone(),
        StdRng::seed_from_u64(random.random()),
        began,
        over,
    ));
    // What happens before it has begun is not told.
    begun.await.unwrap();
    let mut invocations = Vec::new();
    let mut watchers = Vec::new();
    for _ in 0..INVOCATIONS {
        let invocation = world.test.invocation(&source).await;
        for _ in 0..random.random_range(1..=WATCHERS) {
            let random = StdRng::seed_from_u64(random.random());
            watchers.push((
                invocation.id,
                tokio::spawn(watch_one(
                    Arc::clone(&world),
                    tenant.clone(),
                    invocation.id,
                    random,
                )),
            ));
        }
        invocations.push(invocation.id);
    }
    for _ in 0..random.random_range(0..30) {
        let id = *invocations.choose(&mut random).unwrap();
        take_step(&world, &tenant, id, &mut random).await;
    }
    for id in &invocations {
        end(&world, &tenant, *id, &mut random).await;
    }

    let mut table = HashMap::new();
    for id in &invocations {
        table.insert(*id, world.test.store.events_after(*id, 0, 100).await.unwrap());
    }
    for (id, watcher) in watchers {
        let log = timeout(DEADLINE, watcher).await;
        let log = log
            .unwrap_or_else(|_| panic!("seed {seed}: a watcher of {id} saw no end"))
            .unwrap();
        let path = table[&id]
            .iter()
            .map(|event| (event.revision, event.invocation.state.name()));
        check_log(&log, &path.collect::<Vec<_>>(), seed);
    }
    let state_changes = table.values().map(Vec::len).sum::<usize>() as u64;
    finished.send(state_changes).unwrap();
    let seen = timeout(DEADLINE, feed_watcher).await;
    let seen = seen
        .unwrap_or_else(|_| panic!("seed {seed}: the feed has not told everything"))
        .unwrap();
    let filter = FeedFilter {
        tenant: Some(tenant),
        ..FeedFilter::default()
    };
    world.test.store.place_events().await.unwrap();
    let feed = world
        .test
        .store
        .feed_after(feed_start, u64::MAX, &filter, 1_000)
        .await
        .unwrap();
    let feed: Vec<_> = feed
        .iter()
        .map(|placed| (placed.event.invocation.id, placed.event.revision))
        .collect();
    assert_eq!(seen, feed, "seed {seed}");
    assert_eq!(seen.len() as u64, state_changes, "seed {seed}");
    state_changes
}

/// What a watcher saw: snapshots, state changes and progress with revision and state.
type Log = Vec<(UpdateKind, u64, StateName)>;

/// The log of one watcher against the states that the invocation went through.
fn check_log(log: &Log, path: &[(u64, StateName)], seed: u64) {
    let (first, rest) = log.split_first().expect("a watcher sees something");
    let (kind, from, state) = *first;
    assert!(path.contains(&(from, state)), "seed {seed}: {log:?}");
    let snapshot = kind == UpdateKind::Snapshot;
    assert!(
        snapshot || (kind, from) == (UpdateKind::StateChanged, 1),
        "seed {seed}: {log:?}"
    );
    let (mut revision, mut changes) = (from, vec![(from, state)]);
    for (kind, next, state) in rest {
        match kind {
            UpdateKind::StateChanged => {
                assert_eq!(*next, revision + 1, "seed {seed}: {log:?}");
                revision = *next;
                changes.push((*next, *state));
            }
            UpdateKind::Progress | UpdateKind::Heartbeat => {
                assert_eq!((*next, *state), *changes.last().unwrap(), "seed {seed}: {log:?}");
            }
            UpdateKind::Snapshot => panic!("seed {seed}: a snapshot in the middle: {log:?}"),
        }
    }
    let missed = usize::try_from(from).unwrap() - 1;
    assert_eq!(changes, path[missed..], "seed {seed}: {log:?}");
    let ends = changes.iter().filter(|(_, state)| state.is_terminal()).count();
    assert_eq!(ends, 1, "seed {seed}: {log:?}");
    assert!(log.last().unwrap().2.is_terminal(), "seed {seed}: {log:?}");
}

/// Follows one invocation to its end over any number of streams.
async fn watch_one(world: Arc<World>, tenant: TenantName, id: InvocationId, mut random: StdRng) -> Log {
    let auth = Auth::owner(tenant);
    let mut log = Log::new();
    let mut last = random.random_bool(0.3).then_some(0);
    loop {
        let node = world.node(&mut random);
        let opened = node.app.watch_invocation(&auth, id, last).await;
        let updates = match opened {
            Ok(updates) => updates,
            Err(error) => {
                assert!(is_for_a_while(error.reason()), "{error:?}");
                continue;
            }
        };
        let mut updates = pin!(updates);
        // Some never go away by themselves: what a stream leaves out, they do not get by resuming.
        let steadfast = random.random_bool(0.3);
        let mut patience = if steadfast {
            u32::MAX
        } else {
            random.random_range(1..12)
        };
        loop {
            match updates.next().await {
                None => return log,
                Some(Err(error)) => {
                    assert!(is_for_a_while(error.reason()), "{error:?}");
                    break;
                }
                Some(Ok(update)) => {
                    let revision = update.invocation.revision;
                    log.push((update.kind, revision, update.invocation.state.name()));
                    last = Some(revision);
                }
            }
            patience -= 1;
            if patience == 0 {
                break;
            }
            for _ in 0..random.random_range(0..20) {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Follows all invocations of a tenant until as many state changes came as it is told there are.
async fn watch_feed(
    world: Arc<World>,
    tenant: TenantName,
    mut random: StdRng,
    began: oneshot::Sender<()>,
    mut over: watch::Receiver<u64>,
) -> Vec<(InvocationId, u64)> {
    let auth = Auth::owner(tenant);
    let mut began = Some(began);
    let mut seen = Vec::new();
    let mut start = WatchStart::Now;
    loop {
        let node = world.node(&mut random);
        let updates = match node
            .app
            .watch_invocations(&auth, WatchFilter::default(), start)
            .await
        {
            Ok(updates) => updates,
            Err(error) => {
                assert!(is_for_a_while(error.reason()), "{error:?}");
                continue;
            }
        };
        let mut updates = pin!(updates);
        let mut patience = random.random_range(1..20);
        while patience > 0 {
            patience -= 1;
            match updates.next().await {
                None => panic!("the feed has no end"),
                Some(Err(error)) => {
                    assert!(is_for_a_while(error.reason()), "{error:?}");
                    break;
                }
                Some(Ok(update)) => {
                    // Tokens are kept as text.
                    let token = ResumeToken::decode(&update.resume_token.encode()).unwrap();
                    start = WatchStart::After(token);
                    if let Some(began) = began.take() {
                        began.send(()).unwrap();
                    }
                    if update.kind == FeedUpdateKind::StateChanged {
                        let invocation = update.invocation.unwrap();
                        seen.push((invocation.id, invocation.revision));
                    }
                }
            }
            let expected = *over.borrow_and_update();
            // One heartbeat more would show what comes twice; the comparison with the table does as well.
            if expected > 0 && seen.len() as u64 >= expected {
                return seen;
            }
        }
    }
}

/// Errors after which a client connects again.
fn is_for_a_while(reason: Reason) -> bool {
    matches!(reason, Reason::Draining | Reason::StoreUnavailable)
}

async fn take_step(world: &World, tenant: &TenantName, id: InvocationId, random: &mut StdRng) {
    match random.random_range(0..12) {
        0..4 => claim(world, random).await,
        4 | 5 => report(world, id, random).await,
        6 => cancel(world, tenant, id, random).await,
        7 => hand_back(world, id, random).await,
        8 => {
            if random.random_bool(0.2) {
                let (index, hears) = (random.random_range(0..NODES), random.random_bool(0.7));
                world.restart(index, hears).await;
            }
        }
        _ => finish(world, id, random).await,
    }
}

/// Sometimes one node is told at once; otherwise the notice is lost.
fn tell(world: &World, id: InvocationId, random: &mut StdRng) {
    if random.random_bool(0.4) {
        world.node(random).changes.changed(id);
    }
}

/// Says that an invocation entered a state, perhaps with what was committed, as the process does that changed it.
fn tell_entered(world: &World, entered: &Invocation, random: &mut StdRng) {
    if random.random_bool(0.4) {
        world.node(random).changes.entered(entered);
    } else {
        tell(world, entered.id, random);
    }
}

async fn claim(world: &World, random: &mut StdRng) {
    let store = &world.test.store;
    let claimed = store
        .claim(&WorkerId::generate(), world.test.now(), LEASE, MANY)
        .await
        .unwrap();
    if let Some(claim) = claimed {
        let id = claim.invocation.id;
        world.claimed.write().unwrap().insert(id, claim.attempt);
        tell_entered(world, &claim.invocation, random);
    }
}

fn attempt(world: &World, id: InvocationId) -> Option<u32> {
    world.claimed.read().unwrap().get(&id).copied()
}

async fn report(world: &World, id: InvocationId, random: &mut StdRng) {
    let Some(attempt) = attempt(world, id) else { return };
    let progress = Progress {
        phase: Phase::Indexing,
        wait: None,
        statistics: Statistics {
            chunks_indexed: random.random_range(0..1_000),
            ..Statistics::default()
        },
    };
    let _ = world
        .test
        .store
        .report_progress(id, attempt, &progress, None)
        .await
        .unwrap();
    tell(world, id, random);
}

async fn hand_back(world: &World, id: InvocationId, random: &mut StdRng) {
    let Some(attempt) = attempt(world, id) else { return };
    let _ = world
        .test
        .store
        .release(id, attempt, world.test.now())
        .await
        .unwrap();
    tell(world, id, random);
}

async fn cancel(world: &World, tenant: &TenantName, id: InvocationId, random: &mut StdRng) {
    let scope = Scope::tenant(tenant.clone());
    let outcome = world.test.store.cancel_invocation(&scope, id).await.unwrap();
    match outcome {
        CancelInvocation::Cancelled(invocation) => tell_entered(world, &invocation, random),
        CancelInvocation::NotCancelable(_) => {}
        CancelInvocation::NotFound => panic!("invocation {id} is gone"),
    }
}

async fn finish(world: &World, id: InvocationId, random: &mut StdRng) {
    let Some(attempt) = attempt(world, id) else { return };
    let (store, now, statistics) = (&world.test.store, world.test.now(), Statistics::default());
    let ended = if random.random_bool(0.5) {
        store.complete(id, attempt, statistics, now).await.unwrap()
    } else {
        let failure = Failure {
            reason: "X".to_owned(),
            message: "x".to_owned(),
        };
        store.fail(id, attempt, failure, statistics, now).await.unwrap()
    };
    if let Some(ended) = ended {
        tell_entered(world, &ended, random);
    }
}

/// Brings an invocation to its end, whatever state it is in.
async fn end(world: &World, tenant: &TenantName, id: InvocationId, random: &mut StdRng) {
    let scope = Scope::tenant(tenant.clone());
    wait_for("the end of an invocation", async || {
        let current: Invocation = world
            .test
            .store
            .get_invocation(&scope, id)
            .await
            .unwrap()
            .unwrap();
        match current.state.name() {
            StateName::Pending => cancel(world, tenant, id, random).await,
            // Handed back, it has to be claimed again; whoever claims next may get it.
            StateName::Processing => {
                finish(world, id, random).await;
                claim(world, random).await;
            }
            StateName::Complete | StateName::Failed | StateName::Cancelled => return Ok(()),
        }
        Err(current.state.name())
    })
    .await;
    let store = &world.test.store;
    let again = store.complete(id, 1_000, Statistics::default(), world.test.now());
    assert_eq!(again.await.unwrap(), None);
}
