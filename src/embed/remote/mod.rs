//! Models that other servers compute, as the operator configures them (`embedding.providers`, ADR 0021).
//!
//! Over OpenAI's `/v1/embeddings` or Chroma Cloud's embed wire, to any number of endpoints that serve the same model.
//! The addresses are the operator's, so no egress policy applies; redirects are not followed, since the key would go
//! along.
//!
//! Invariants: a vector is finite, has length 1 and the configured dimensions, whatever the server says; no answer is
//! read past what its texts can need; no request lasts longer than [`RemoteOptions::longest_timeout`], and no batch
//! longer than [`RemoteOptions::deadline`] once a server has a place for it; a text that is refused never takes others
//! with it. Absent on purpose: batches over several calls, which the servers make themselves, and any fallback to
//! another model.

mod batches;
mod client;
mod endpoints;
mod error;
mod lengths;
mod timeouts;
mod wire;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use futures::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use url::Url;

pub use error::RemoteError;
pub use wire::DenseWire;

use self::{
    batches::BatchLimits,
    client::RemoteClient,
    endpoints::Endpoints,
    lengths::Lengths,
    timeouts::Timeouts,
    wire::{Dense, Sparse, Wire},
};
use super::{
    EmbedError, EmbeddedText, Embedder, LoadError, Purpose, SparseEmbedder, SparseVector, check_count,
};
use crate::{domain::embedding::ModelDescription, outbound, secret::Secret};

const TOKEN: HeaderName = HeaderName::from_static("x-chroma-token");
const MODEL: HeaderName = HeaderName::from_static("x-chroma-embedding-model");

/// Where a model is computed, and how patient to be.
#[derive(Clone)]
pub struct RemoteOptions {
    /// Bases of the servers' APIs; at least one.
    pub endpoints: Vec<Url>,
    /// Sent to all of them.
    pub api_key: Secret,
    /// The model's name there.
    pub remote_model: String,
    /// `tokenizer.json` of the model, to cut texts to what it reads; without it tokens are estimated.
    pub tokenizer: Option<PathBuf>,
    /// Tokens of a text that the model reads.
    pub max_tokens: u32,
    /// Most texts of a request.
    pub max_batch_texts: usize,
    /// Most tokens of a request.
    pub max_batch_tokens: usize,
    /// Most bytes of text of a request.
    pub max_batch_bytes: usize,
    /// Requests of one purpose that an endpoint has under way at once.
    pub concurrency: usize,
    /// The most time for a connection.
    pub connect_timeout: Duration,
    /// The least time for a request.
    pub shortest_timeout: Duration,
    /// The most time for a request.
    pub longest_timeout: Duration,
    /// The most time for a batch with all its tries.
    pub deadline: Duration,
}

/// Prints no password that a URL may hold.
impl fmt::Debug for RemoteOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints = self.endpoints.iter();
        let origins: Vec<String> = endpoints.map(|url| url.origin().ascii_serialization()).collect();
        formatter
            .debug_struct("RemoteOptions")
            .field("endpoints", &origins)
            .field("api_key", &self.api_key)
            .field("remote_model", &self.remote_model)
            .finish_non_exhaustive()
    }
}

/// A dense model on other servers.
pub struct RemoteEmbedder {
    description: ModelDescription,
    lengths: Lengths,
    client: RemoteClient<Dense>,
}

/// A sparse model on other servers, over Chroma Cloud's wire.
pub struct RemoteSparseEmbedder {
    lengths: Lengths,
    client: RemoteClient<Sparse>,
}

impl RemoteEmbedder {
    /// The client of `description`; nothing is sent yet. Reads the tokenizer, so call it on a blocking thread.
    ///
    /// # Errors
    /// When the tokenizer cannot be read, the key fits no header, or the HTTP client cannot start.
    pub fn new(
        description: ModelDescription,
        wire: DenseWire,
        options: RemoteOptions,
    ) -> Result<Self, LoadError> {
        let lengths = Lengths::load(options.tokenizer.as_deref(), description.max_tokens as usize)?;
        let headers = match wire {
            DenseWire::Openai => bearer(&description.name, &options)?,
            DenseWire::ChromaCloud => chroma(&description.name, &options)?,
        };
        let wire = Dense {
            wire,
            remote_model: options.remote_model.clone(),
            dimensions: description.dimensions as usize,
        };
        let client = connect(description.name.clone(), wire, headers, options)?;
        Ok(Self {
            description,
            lengths,
            client,
        })
    }

    /// Asks every endpoint to embed a fixed text, and writes into the log which of them can be used. What cannot be
    /// used now is asked again at its first request.
    pub async fn check(&self) {
        self.client.check().await;
    }
}

impl RemoteSparseEmbedder {
    /// The client of the sparse model `name`, as [`RemoteEmbedder::new`].
    ///
    /// # Errors
    /// The same.
    pub fn new(name: &str, options: RemoteOptions) -> Result<Self, LoadError> {
        let lengths = Lengths::load(options.tokenizer.as_deref(), options.max_tokens as usize)?;
        let headers = chroma(name, &options)?;
        let client = connect(name.to_owned(), Sparse, headers, options)?;
        Ok(Self { lengths, client })
    }

    /// As [`RemoteEmbedder::check`].
    pub async fn check(&self) {
        self.client.check().await;
    }
}

impl Embedder for RemoteEmbedder {
    fn model(&self) -> &ModelDescription {
        &self.description
    }

    fn embed(
        &self,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
        instruction: &str,
    ) -> BoxFuture<'_, Result<Vec<EmbeddedText>, EmbedError>> {
        let instruction = match self.description.takes_instructions {
            true => instruction.to_owned(),
            false => String::new(),
        };
        Box::pin(async move {
            check_count(&texts)?;
            let before = self.client.wire.before(&instruction);
            let prepared = self.lengths.prepare(texts, before).await?;
            let embedded = self.client.embed(&prepared, purpose, &instruction).await?;
            let embedded = embedded.into_iter().map(|text| EmbeddedText {
                vector: text.vector,
                tokens: text.tokens,
                truncated: text.truncated,
            });
            Ok(embedded.collect())
        })
    }
}

impl SparseEmbedder for RemoteSparseEmbedder {
    fn model(&self) -> &str {
        &self.client.model
    }

    fn embed(
        &self,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<SparseVector>, EmbedError>> {
        Box::pin(async move {
            check_count(&texts)?;
            let prepared = self.lengths.prepare(texts, String::new()).await?;
            let embedded = self.client.embed(&prepared, purpose, "").await?;
            Ok(embedded.into_iter().map(|text| text.vector).collect())
        })
    }
}

type Headers = Vec<(HeaderName, HeaderValue)>;

fn bearer(model: &str, options: &RemoteOptions) -> Result<Headers, LoadError> {
    let Some(key) = options.api_key.non_empty() else {
        return Ok(Vec::new());
    };
    let value = Secret::new(format!("Bearer {key}"));
    Ok(vec![(AUTHORIZATION, header(model, &value)?)])
}

fn chroma(model: &str, options: &RemoteOptions) -> Result<Headers, LoadError> {
    let name = Secret::new(options.remote_model.clone());
    let mut headers = vec![(MODEL, header(model, &name)?)];
    if options.api_key.non_empty().is_some() {
        headers.push((TOKEN, header(model, &options.api_key)?));
    }
    Ok(headers)
}

fn header(model: &str, value: &Secret) -> Result<HeaderValue, LoadError> {
    outbound::secret_header(value).ok_or_else(|| LoadError::RemoteHeader {
        model: model.to_owned(),
    })
}

fn connect<W: Wire>(
    model: String,
    wire: W,
    headers: Headers,
    options: RemoteOptions,
) -> Result<RemoteClient<W>, LoadError> {
    let http = outbound::client(options.connect_timeout).map_err(|source| LoadError::RemoteClient {
        model: model.clone(),
        source,
    })?;
    Ok(RemoteClient {
        model,
        wire,
        http,
        headers,
        api_key: options.api_key,
        limits: BatchLimits {
            texts: options.max_batch_texts.max(1),
            tokens: options.max_batch_tokens,
            bytes: options.max_batch_bytes,
        },
        endpoints: Endpoints::new(options.endpoints, options.concurrency.max(1)),
        timeouts: Mutex::new(Timeouts::new(options.shortest_timeout, options.longest_timeout)),
        deadline: options.deadline,
        canary: OnceLock::new(),
    })
}
