//! How fast the calls are, as ratios to what they stand on: a bare tonic service, and the database itself.
//! Each ratio is of two figures measured in turns in one run, so other load on the machine hits both.
//!
//! `make bench-rpc` runs everything; `cargo bench --bench rpc -- get`, `create` or `lists` runs a part.
//! What is measured, and the last figures, are in `benches/README.md`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod create;
mod get;
#[path = "../../tests/it/harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
#[path = "../shared/invocations.rs"]
mod invocations;
mod lists;
mod load;
mod peers;
#[path = "../shared/processor_time.rs"]
mod processor_time;
mod raw;

use chroma_sync::store::{Store, StoreOptions};

/// The bare service runs in this program, so it has the allocator of the service that it is compared with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Calls at a time in the measurements under load, spread over [`CONNECTIONS`].
const IN_FLIGHT: usize = 128;
const CONNECTIONS: usize = 8;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|text| text != "--bench")
        .collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match arguments.first().map(String::as_str) {
        Some(peers::BARE) => runtime.block_on(peers::serve_bare(&arguments[1])),
        Some(peers::STAND_IN) => runtime.block_on(peers::serve_stand_in()),
        part => runtime.block_on(measure(part)),
    }
}

async fn measure(part: Option<&str>) {
    let wanted = |name| part.is_none_or(|part| part == name);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("load of the machine before: {}", load.trim());
    // With its disk as it is in service: each commit is synced.
    let cluster = harness::postgres::start(&["max_connections=300", "max_wal_size=8GB"]);
    // On the disk of the build, since a temporary directory may lie in memory.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    if wanted("get") {
        get::measure(&cluster, directory.path()).await;
    }
    if wanted("create") {
        create::measure(&cluster, directory.path()).await;
    }
    if wanted("lists") {
        lists::measure(&cluster, directory.path()).await;
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("\nload of the machine after: {}", load.trim());
}

fn sqlite_url(directory: &std::path::Path, name: &str) -> String {
    format!("sqlite://{}", directory.join(name).display())
}

/// A store with the schema, in this process.
async fn migrated(url: &str) -> Store {
    let store = Store::connect(&StoreOptions::new(url)).await.unwrap();
    store.migrate().await.unwrap();
    store
}
