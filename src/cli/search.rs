//! `chroma-sync search`: asks a collection in words, with the model it was built with.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde_json::Value;

use super::output;
use crate::{
    config::Config,
    domain::names::{CollectionName, DatabaseName, TenantName},
    embed::Purpose,
    error::FieldViolation,
    index::Hit,
    service,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The question; several are asked one after the other.
    #[arg(required = true)]
    questions: Vec<String>,
    /// Collection to ask.
    #[arg(long)]
    collection: String,
    /// Database of the Chroma server.
    #[arg(long, default_value = "default_database")]
    database: String,
    /// Tenant of the Chroma server.
    #[arg(long, default_value = "default_tenant")]
    tenant: String,
    /// Model the collection was built with; without it the default model.
    #[arg(long)]
    model: Option<String>,
    /// Hits of each question, 1 to 100.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    hits: u32,
}

pub(super) async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let refuse = |violation: FieldViolation| anyhow!("{}: {}", violation.field, violation.description);
    let tenant = TenantName::parse("--tenant", &arguments.tenant).map_err(refuse)?;
    let database = DatabaseName::parse("--database", &arguments.database).map_err(refuse)?;
    let name = CollectionName::parse("--collection", &arguments.collection).map_err(refuse)?;
    let mut config = config.clone();
    let model = arguments
        .model
        .unwrap_or_else(|| config.embedding.default_model.clone());
    config.embedding.models = vec![model.clone()];
    let embedders = service::load_embedders(&config)?;
    let embedder = embedders.get(&model).context("the model was not loaded")?;
    let chroma = service::chroma_client(&config)?;
    let Some(collection) = chroma.find_collection(&tenant, &database, &name).await? else {
        bail!("database {database} has no collection {name}");
    };
    let questions: Vec<Arc<str>> = arguments
        .questions
        .iter()
        .map(|question| question.as_str().into())
        .collect();
    let vectors = embedder.embed(questions, Purpose::Query, "").await?;
    for (question, embedded) in arguments.questions.iter().zip(vectors) {
        output::line(&format!("? {question}"));
        for hit in chroma
            .query(&collection, embedded.vector, arguments.hits, None)
            .await?
        {
            output::line(&describe(&hit));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `path:start-end  distance  first line`.
fn describe(hit: &Hit) -> String {
    let text = |key: &str| hit.metadata.get(key).and_then(Value::as_str).unwrap_or("?");
    let number = |key: &str| hit.metadata.get(key).and_then(Value::as_u64).unwrap_or_default();
    let document = hit.document.as_deref().unwrap_or_default();
    let first_line = document
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let short: String = first_line.chars().take(80).collect();
    let place = format!(
        "{}:{}-{}",
        text("document_key"),
        number("start_line"),
        number("end_line")
    );
    format!("  {place:<48}  {:.3}  {short}", hit.distance)
}
