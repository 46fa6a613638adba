//! Embeds chunks, a window at a time.
//!
//! Two windows are with the embedders at once, so that their threads find the next one when they are done
//! with the first; dense and sparse vectors of a window are computed beside each other. The windows leave in
//! the order they came. A text that a model refuses fails its document alone (`refusals.rs`).

use std::sync::Arc;

use futures::{StreamExt, TryFutureExt, future::OptionFuture, stream};
use tokio::{sync::mpsc, time::Instant};

use super::{EmbeddedChunk, EmbeddedWindow, Loaded, refusals::Refusals};
use crate::{
    domain::embedding::{Embedding, SparseSettings, Task},
    embed::{EmbedError, Embedder, Purpose, SparseEmbedder},
    index::SparseEntry,
    worker::{
        Environment,
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
    models: Models,
    input: mpsc::Receiver<Loaded>,
    out: mpsc::Sender<EmbeddedWindow>,
    progress: &ProgressHandle,
) -> Result<(), AttemptError> {
    let windows = stream::unfold(input, |mut input| async move {
        let mut items = Vec::with_capacity(WINDOW_ITEMS);
        let received = input.recv_many(&mut items, WINDOW_ITEMS).await;
        (received > 0).then_some((items, input))
    });
    let mut embedded = Box::pin(windows.map(|items| models.embed(items)).buffered(WINDOWS_AHEAD));
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

/// The models of a source, ready to embed.
pub(super) struct Models {
    pub(super) dense: Arc<dyn Embedder>,
    /// What the dense model is told.
    pub(super) task: Option<Task>,
    pub(super) sparse: Option<SparseModel>,
}

/// A sparse model and where its vectors go.
pub(super) struct SparseModel {
    embedder: Arc<dyn SparseEmbedder>,
    key: Arc<str>,
}

impl Models {
    /// The models of `embedding`.
    pub(super) fn find(environment: &Environment, embedding: &Embedding) -> Result<Self, AttemptError> {
        let not_served = |model: &str| AttemptError::ModelNotServed(model.to_owned());
        let dense = environment
            .embedders
            .get(&embedding.model)
            .ok_or_else(|| not_served(&embedding.model))?;
        let sparse = embedding.sparse.as_ref().map(|SparseSettings { model, key }| {
            let embedder = environment.embedders.sparse(model);
            let embedder = embedder.ok_or_else(|| not_served(model))?;
            let key = key.as_str().into();
            Ok::<_, AttemptError>(SparseModel { embedder, key })
        });
        Ok(Self {
            task: embedding.task_for(dense.model()),
            dense,
            sparse: sparse.transpose()?,
        })
    }

    async fn embed(&self, items: Vec<Loaded>) -> Result<Answered, AttemptError> {
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
            match self.vectors(texts).await {
                Ok(embedded) if embedded.len() == open.len() => {
                    for ((place, _), embedded) in open.drain(..).zip(embedded) {
                        items[place].1 = Some(embedded);
                    }
                }
                Ok(_) => return Err(AttemptError::StageEnded("embed")),
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

    /// The vectors of each text, dense and sparse ones at the same time, as many as both models gave.
    async fn vectors(&self, texts: Vec<Arc<str>>) -> Result<Vec<EmbeddedChunk>, EmbedError> {
        let instruction = self
            .task
            .as_ref()
            .map_or("", |task| task.document_prompt.as_str());
        let sparse = self.sparse.as_ref().map(|SparseModel { embedder, key }| {
            let vectors = embedder.embed(texts.clone(), Purpose::Document);
            vectors.map_ok(|vectors| {
                let entries = vectors.into_iter();
                entries.map(|vector| SparseEntry {
                    key: Arc::clone(key),
                    vector,
                })
            })
        });
        let dense = self.dense.embed(texts, Purpose::Document, instruction);
        let sparse = async { OptionFuture::from(sparse).await.transpose() };
        let (dense, mut sparse) = tokio::try_join!(dense, sparse)?;
        let chunks = dense.into_iter().map_while(|dense| {
            let sparse = match &mut sparse {
                Some(entries) => Some(entries.next()?),
                None => None,
            };
            Some(EmbeddedChunk { dense, sparse })
        });
        Ok(chunks.collect())
    }
}
