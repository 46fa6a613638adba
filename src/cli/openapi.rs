//! `chroma-sync openapi`.

use std::process::ExitCode;

use super::output;
use crate::{
    config::Config,
    domain::embedding::{BM25, ModelCatalog, ModelDescription, takes_instructions},
    openapi,
};

/// Prints what `GET /openapi.json` answers with this configuration.
pub(super) fn run(config: &Config) -> ExitCode {
    // The models are not loaded for this, so what matters of them here is what their names say.
    let models = config.embedding.models.iter().map(|name| ModelDescription {
        name: name.clone(),
        dimensions: 0,
        max_tokens: 0,
        takes_instructions: takes_instructions(name),
    });
    let catalog = ModelCatalog::new(models.collect(), config.embedding.default_model.clone())
        .with_sparse(vec![BM25.to_owned()]);
    let document = openapi::document(&catalog);
    output::line(document.trim_end());
    ExitCode::SUCCESS
}
