//! Embeds chunks, a window at a time.
//!
//! Two windows are with the embedder at once, so that its threads find the next one when they are done
//! with the first. The windows leave in the order they came. A text that the model refuses fails its document
//! alone (`refusals.rs`).

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::{sync::mpsc, time::Instant};

use super::{EmbeddedWindow, Loaded, refusals::Refusals};
use crate::{
    embed::{EmbedError, Embedder, Purpose},
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
    let mut refusals = Refusals::default();
    let mut start = Instant::now();
    while let Some(window) = embedded.next().await {
        // Windows overlap; the time between two results is what the stage really took for one.
        progress.time(Stage::Embed, start);
        let window = refusals.settle(window?);
        if out.send(window).await.is_err() {
            // The index stage ended and says why.
            return Ok(());
        }
        start = Instant::now();
    }
    Ok(())
}

/// What became of one window.
pub(super) struct Answered {
    pub(super) window: EmbeddedWindow,
    /// Places in the window of chunks that the model refuses, in order, and why.
    pub(super) refused: Vec<(usize, String)>,
}

async fn embed(embedder: &dyn Embedder, items: Vec<Loaded>) -> Result<Answered, AttemptError> {
    let mut open: Vec<(usize, Arc<str>)> = items
        .iter()
        .enumerate()
        .filter_map(|(place, item)| match item {
            Loaded::Chunk(chunk) => Some((place, Arc::clone(&chunk.text))),
            Loaded::Settled { .. } => None,
        })
        .collect();
    let mut items: Vec<(Loaded, Option<_>)> = items.into_iter().map(|item| (item, None)).collect();
    let mut refused = Vec::new();
    // Every turn refuses a text or is the last one.
    while !open.is_empty() {
        let texts = open.iter().map(|(_, text)| Arc::clone(text)).collect();
        match embedder.embed(texts, Purpose::Document, "").await {
            Ok(embedded) => {
                for ((place, _), embedded) in open.drain(..).zip(embedded) {
                    items[place].1 = Some(embedded);
                }
            }
            Err(EmbedError::TextsRefused { texts })
                if !texts.is_empty() && texts.iter().all(|text| text.index < open.len()) =>
            {
                for text in texts.into_iter().rev() {
                    let (place, _) = open.remove(text.index);
                    refused.push((place, text.problem));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    refused.sort_unstable_by_key(|(place, _)| *place);
    Ok(Answered {
        window: EmbeddedWindow { items },
        refused,
    })
}
