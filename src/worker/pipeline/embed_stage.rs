//! Embeds chunks, a window at a time.
//!
//! Two windows are with the embedders at once, so that their threads find the next one when they are done
//! with the first; dense and sparse vectors of a window are computed beside each other. The windows leave in
//! the order they came.

use std::sync::Arc;

use futures::{StreamExt, TryFutureExt, future::OptionFuture, stream};
use tokio::{sync::mpsc, time::Instant};

use super::{EmbeddedChunk, EmbeddedWindow, Loaded};
use crate::{
    domain::embedding::{Embedding, SparseSettings, Task},
    embed::{Embedder, Purpose, SparseEmbedder},
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

    async fn embed(&self, items: Vec<Loaded>) -> Result<EmbeddedWindow, AttemptError> {
        let texts: Vec<Arc<str>> = items
            .iter()
            .filter_map(|item| match item {
                Loaded::Chunk(chunk) => Some(Arc::clone(&chunk.text)),
                Loaded::Settled { .. } => None,
            })
            .collect();
        let mut vectors = self.vectors(texts).await?.into_iter();
        let items = items
            .into_iter()
            .map(|item| {
                let embedded = match &item {
                    Loaded::Chunk(_) => vectors.next(),
                    Loaded::Settled { .. } => None,
                };
                (item, embedded)
            })
            .collect();
        Ok(EmbeddedWindow { items })
    }

    /// The vectors of each text, dense and sparse ones at the same time.
    async fn vectors(&self, texts: Vec<Arc<str>>) -> Result<Vec<EmbeddedChunk>, AttemptError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let count = texts.len();
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
        let chunks: Vec<EmbeddedChunk> = dense
            .into_iter()
            .map_while(|dense| {
                let sparse = match &mut sparse {
                    Some(entries) => Some(entries.next()?),
                    None => None,
                };
                Some(EmbeddedChunk { dense, sparse })
            })
            .collect();
        match chunks.len() == count {
            true => Ok(chunks),
            false => Err(AttemptError::StageEnded("embed")),
        }
    }
}
