//! Embeds chunks, a window at a time.
//!
//! Two windows are with the embedder at once, so that its threads find the next one when they are done
//! with the first. The windows leave in the order they came.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::{sync::mpsc, time::Instant};

use super::{EmbeddedWindow, Loaded};
use crate::{
    embed::{Embedder, Purpose},
    worker::{
        failure::AttemptError,
        progress::{ProgressHandle, Stage},
    },
};

/// Items of one window: enough to sort by length and to make a request that Chroma takes cheaply, few
/// enough that a watcher sees progress every few seconds on two cores.
const WINDOW_ITEMS: usize = 128;
/// Windows that are with the embedder at once.
const WINDOWS_AHEAD: usize = 2;

/// Embeds until the load stage is done.
pub(super) async fn run(
    embedder: Arc<dyn Embedder>,
    input: mpsc::Receiver<Loaded>,
    out: mpsc::Sender<EmbeddedWindow>,
    progress: &ProgressHandle,
) -> Result<(), AttemptError> {
    let windows = stream::unfold(input, |mut input| async move {
        let mut items = Vec::with_capacity(WINDOW_ITEMS);
        let received = input.recv_many(&mut items, WINDOW_ITEMS).await;
        (received > 0).then_some((items, input))
    });
    let mut embedded = Box::pin(
        windows
            .map(|items| embed(embedder.as_ref(), items))
            .buffered(WINDOWS_AHEAD),
    );
    let mut start = Instant::now();
    while let Some(window) = embedded.next().await {
        // Windows overlap; the time between two results is what the stage really took for one.
        progress.time(Stage::Embed, start);
        if out.send(window?).await.is_err() {
            // The index stage ended and says why.
            return Ok(());
        }
        start = Instant::now();
    }
    Ok(())
}

async fn embed(embedder: &dyn Embedder, items: Vec<Loaded>) -> Result<EmbeddedWindow, AttemptError> {
    let texts: Vec<Arc<str>> = items
        .iter()
        .filter_map(|item| match item {
            Loaded::Chunk(chunk) => Some(Arc::clone(&chunk.text)),
            Loaded::Settled { .. } => None,
        })
        .collect();
    let mut vectors = match texts.is_empty() {
        true => Vec::new(),
        false => embedder.embed(texts, Purpose::Document, "").await?,
    }
    .into_iter();
    let items = items
        .into_iter()
        .map(|item| {
            let vector = match &item {
                Loaded::Chunk(_) => vectors.next(),
                Loaded::Settled { .. } => None,
            };
            (item, vector)
        })
        .collect();
    Ok(EmbeddedWindow { items })
}
