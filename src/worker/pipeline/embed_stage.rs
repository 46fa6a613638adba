//! Embeds chunks, a window at a time.
//!
//! Two windows are with the embedders at once, so that their threads find the next one when they are done
//! with the first; dense and sparse vectors of a window are computed beside each other. The windows leave in
//! the order they came. A text that a model refuses is handed on as such, with those beside it embedded.

use std::sync::Arc;

use futures::{StreamExt, TryFutureExt, future::OptionFuture, stream};
use tokio::{sync::mpsc, time::Instant};

use super::{Embedded, EmbeddedChunk, EmbeddedWindow, Loaded};
use crate::{
    chunk::CHUNKS_REVISION,
    domain::{
        document::sha256_hex,
        embedding::{Embedding, SparseSettings, Task},
        names::TenantName,
    },
    embed::{EmbedError, Embedder, Purpose, SparseEmbedder},
    index::SparseEntry,
    worker::{
        Environment,
        embedding_cache::{CachedEmbedder, cached_sparse},
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

    /// The same models with the cache of `environment` before them, for an attempt of `tenant`.
    pub(super) async fn with_cache(
        self,
        environment: &Environment,
        tenant: &TenantName,
        progress: &ProgressHandle,
    ) -> Result<Self, EmbedError> {
        let cache = &environment.embedding_cache;
        let dense = CachedEmbedder::new(self.dense, cache.clone(), tenant, progress.clone()).await?;
        let sparse = match self.sparse {
            Some(SparseModel { embedder, key }) => Some(SparseModel {
                embedder: cached_sparse(embedder, cache.as_ref(), tenant).await?,
                key,
            }),
            None => None,
        };
        Ok(Self {
            dense: Arc::new(dense),
            task: self.task,
            sparse,
        })
    }

    /// What the records of an invocation are made with, as a digest; the settings of a source never change, but
    /// what serves them may.
    pub(super) async fn fingerprint(&self) -> Result<String, EmbedError> {
        let prompt = self
            .task
            .as_ref()
            .map_or("", |task| task.document_prompt.as_str());
        let sparse = match &self.sparse {
            Some(SparseModel { embedder, .. }) => {
                Some((embedder.model().to_owned(), embedder.fingerprint().await?))
            }
            None => None,
        };
        let dense = self.dense.fingerprint().await?;
        Ok(sha256_hex(&format!(
            "{CHUNKS_REVISION} {dense:?} {prompt:?} {sparse:?}"
        )))
    }

    async fn embed(&self, items: Vec<Loaded>) -> Result<EmbeddedWindow, AttemptError> {
        let mut open: Vec<(usize, Arc<str>)> = items
            .iter()
            .enumerate()
            .filter_map(|(place, item)| match item {
                Loaded::Chunk(chunk) => Some((place, Arc::clone(&chunk.text))),
                Loaded::Settled { .. } => None,
            })
            .collect();
        // What became of each chunk: its vectors, or why a model refuses it.
        let mut answers: Vec<Option<Result<EmbeddedChunk, String>>> = items.iter().map(|_| None).collect();
        // Every turn refuses a text or is the last one.
        while !open.is_empty() {
            let texts = open.iter().map(|(_, text)| Arc::clone(text)).collect();
            match self.vectors(texts).await {
                Ok(embedded) if embedded.len() == open.len() => {
                    for ((place, _), embedded) in open.drain(..).zip(embedded) {
                        answers[place] = Some(Ok(embedded));
                    }
                }
                Ok(_) => return Err(AttemptError::StageEnded("embed")),
                Err(EmbedError::TextsRefused { texts })
                    if !texts.is_empty() && texts.iter().all(|text| text.index < open.len()) =>
                {
                    for text in texts.into_iter().rev() {
                        let (place, _) = open.remove(text.index);
                        answers[place] = Some(Err(text.problem));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        let items = items.into_iter().zip(answers).map(|pair| match pair {
            (Loaded::Settled { ordinal, outcome }, _) => Ok(Embedded::Settled { ordinal, outcome }),
            (Loaded::Chunk(chunk), Some(Ok(embedded))) => Ok(Embedded::Chunk(chunk, embedded)),
            (Loaded::Chunk(chunk), Some(Err(problem))) => Ok(Embedded::Refused(chunk, problem)),
            (Loaded::Chunk(_), None) => Err(AttemptError::StageEnded("embed")),
        });
        let items = items.collect::<Result<_, _>>()?;
        Ok(EmbeddedWindow { items })
    }

    /// The vectors of each text, dense and sparse ones at the same time.
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
