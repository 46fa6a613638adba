//! The models as configured: in this process, or on other servers.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use crate::{
    config::{Config, EmbeddingDevice, EmbeddingPrecision, ProviderConfig, ProviderKind},
    domain::embedding::ModelDescription,
    embed::{
        Bm25, Device, Embedders, LoadError, LocalOptions, ModelDirectories, Precision,
        remote::{DenseWire, RemoteEmbedder, RemoteOptions, RemoteSparseEmbedder},
    },
};

/// Where model files are looked for.
pub fn model_directories(config: &Config) -> ModelDirectories {
    let directory = (!config.models.dir.as_os_str().is_empty()).then(|| config.models.dir.clone());
    ModelDirectories::from_environment(directory).with_revisions(config.models.revisions.clone())
}

/// Loads the configured models, and makes clients of those that other servers compute.
///
/// # Errors
/// See [`LoadError`]: names the model, the file and the places searched.
pub fn load_embedders(config: &Config) -> Result<Embedders, LoadError> {
    let mut options = LocalOptions {
        device: match config.embedding.device {
            EmbeddingDevice::Cpu => Device::Cpu,
            EmbeddingDevice::Cuda { ordinal } => Device::Cuda { ordinal },
        },
        precision: match config.embedding.precision {
            EmbeddingPrecision::Auto => None,
            EmbeddingPrecision::F32 => Some(Precision::Single),
            EmbeddingPrecision::Bf16 => Some(Precision::Bfloat16),
            EmbeddingPrecision::Int8 => Some(Precision::EightBit),
        },
        max_tokens: config.embedding.max_tokens,
        ..LocalOptions::default()
    };
    if let Some(threads) = NonZeroUsize::new(config.embedding.threads) {
        options.threads = threads;
    }
    let embedding = &config.embedding;
    let local = embedding.models.iter().map(String::as_str);
    let local = local.filter(|model| embedding.provider(model).is_none());
    let mut embedders = Embedders::load_local(local, &model_directories(config), options)?;
    // It needs nothing, so it is always there.
    embedders.insert_sparse(Arc::new(Bm25));
    for provider in &embedding.providers {
        // Of one model alone, as for a search, the others are left out.
        if provider.sparse || embedding.models.contains(&provider.model) {
            connect(provider, &mut embedders)?;
        }
    }
    // It needs nothing, so it is always there.
    embedders.insert_sparse(Arc::new(Bm25));
    Ok(embedders)
}

fn connect(provider: &ProviderConfig, embedders: &mut Embedders) -> Result<(), LoadError> {
    let wire = match provider.provider {
        ProviderKind::Local => return Ok(()),
        ProviderKind::Openai => DenseWire::Openai,
        ProviderKind::ChromaCloud => DenseWire::ChromaCloud,
    };
    let options = remote_options(provider);
    if provider.sparse {
        embedders.insert_remote_sparse(RemoteSparseEmbedder::new(&provider.model, options)?);
    } else {
        let description = ModelDescription {
            name: provider.model.clone(),
            dimensions: provider.dimensions,
            max_tokens: provider.max_tokens,
            takes_instructions: provider.takes_instructions,
        };
        embedders.insert_remote(RemoteEmbedder::new(description, wire, options)?);
    }
    Ok(())
}

fn remote_options(provider: &ProviderConfig) -> RemoteOptions {
    let (shortest_timeout, longest_timeout) = provider.timeouts();
    RemoteOptions {
        endpoints: provider.endpoints.clone(),
        api_key: provider.api_key.clone(),
        remote_model: provider.remote_name().to_owned(),
        tokenizer: (!provider.tokenizer.as_os_str().is_empty()).then(|| provider.tokenizer.clone()),
        max_tokens: provider.max_tokens,
        max_batch_texts: provider.max_batch_texts,
        max_batch_tokens: provider.max_batch_tokens,
        max_batch_bytes: provider.max_batch_bytes,
        concurrency: provider.concurrency,
        connect_timeout: Duration::from_secs(provider.connect_timeout_seconds),
        shortest_timeout,
        longest_timeout,
        deadline: Duration::from_secs(provider.deadline_seconds),
    }
}
