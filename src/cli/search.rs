//! `chroma-sync search`: asks a collection in words, with the model it was built with.

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;
use prost_types::{ListValue, Struct, Value as WireValue, value::Kind};
use serde_json::{Map, Value, json};

use super::{
    output,
    remote::{Remote, explain},
};
use crate::{
    domain::search::SearchHit,
    json::{flatten, search_hit},
    proto::{self, search_request::Place},
};

/// Characters of a hit's text on its line.
const SHOWN_CHARACTERS: usize = 80;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The question; several are asked one after the other.
    #[arg(required = true)]
    questions: Vec<String>,
    /// Collection to ask.
    #[arg(long)]
    collection: String,
    /// Database of the Chroma server.
    #[arg(long, default_value = "default_database", value_name = "NAME")]
    database: String,
    /// Source whose database it is, in place of --database; its model counts where the collection names none.
    #[arg(long, value_name = "ID", conflicts_with = "database")]
    source: Option<String>,
    /// Model the collection was built with, where it does not say that itself.
    #[arg(long)]
    model: Option<String>,
    /// Filter on metadata in Chroma's language, such as '{"language": "rust"}'.
    #[arg(long = "where", value_name = "JSON")]
    metadata_filter: Option<String>,
    /// Filter on texts in Chroma's language, such as '{"$contains": "fn main"}'.
    #[arg(long = "where-document", value_name = "JSON")]
    document_filter: Option<String>,
    /// Hits of each question, 1 to 100.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(i32).range(1..=100))]
    hits: i32,
    /// Count the sparse vectors of the collection as well; the Chroma server must have the Search API.
    #[arg(long)]
    hybrid: bool,
    /// Print one JSON object a hit.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Exits with 0 when every question had a hit, 2 when one had none.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let metadata_filter = filter("--where", arguments.metadata_filter.as_deref())?;
    let document_filter = filter("--where-document", arguments.document_filter.as_deref())?;
    let place = match &arguments.source {
        Some(id) => Place::SourceId(id.clone()),
        None => Place::DatabaseName(arguments.database.clone()),
    };
    let mut client = arguments.remote.searches()?;
    let mut code = ExitCode::SUCCESS;
    for question in &arguments.questions {
        let request = proto::SearchRequest {
            query: question.clone(),
            place: Some(place.clone()),
            collection_name: arguments.collection.clone(),
            model: arguments.model.clone().unwrap_or_default(),
            r#where: metadata_filter.clone(),
            where_document: document_filter.clone(),
            limit: arguments.hits,
            offset: 0,
            hybrid: arguments.hybrid,
        };
        let answer = client.search(request).await;
        let hits = answer.map_err(|status| explain(&status))?.into_inner().hits;
        if hits.is_empty() {
            code = ExitCode::from(2);
        }
        if !arguments.json {
            output::line(&format!("? {question}"));
        }
        for hit in hits {
            output::line(&match arguments.json {
                true => as_json(question, hit).to_string(),
                false => describe(&hit),
            });
        }
    }
    Ok(code)
}

/// `score  path:start-end  first line`.
fn describe(hit: &proto::SearchHit) -> String {
    let first_line = hit
        .text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let short: String = first_line.chars().take(SHOWN_CHARACTERS).collect();
    let place = match hit.document_key.as_str() {
        // No sync wrote it.
        "" => hit.id.clone(),
        key => format!("{key}:{}-{}", hit.start_line, hit.end_line),
    };
    format!("  {:.3}  {place:<48}  {short}", hit.score)
}

/// The hit as REST answers it, with the question.
fn as_json(question: &str, hit: proto::SearchHit) -> Value {
    let mut body = json!({"question": question});
    flatten(&mut body, search_hit(of_wire(hit)));
    body
}

fn of_wire(hit: proto::SearchHit) -> SearchHit {
    // Lines count from 1, and a message has 0 and the empty key for what is absent.
    let line = |line: i32| u32::try_from(line).ok().filter(|line| *line > 0);
    SearchHit {
        start_line: line(hit.start_line),
        end_line: line(hit.end_line),
        document_key: (!hit.document_key.is_empty()).then_some(hit.document_key),
        id: hit.id,
        score: hit.score,
        text: hit.text,
        metadata: from_wire(hit.metadata.unwrap_or_default()),
    }
}

fn filter(flag: &str, text: Option<&str>) -> anyhow::Result<Option<Struct>> {
    let Some(text) = text else { return Ok(None) };
    let fields: Map<String, Value> =
        serde_json::from_str(text).with_context(|| format!("{flag} is not a JSON object: {text}"))?;
    let fields = fields.into_iter();
    let fields = fields.map(|(key, value)| Ok((key, to_wire(value)?)));
    Ok(Some(Struct {
        fields: fields.collect::<anyhow::Result<_>>()?,
    }))
}

fn to_wire(value: Value) -> anyhow::Result<WireValue> {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => {
            let float = number.as_f64();
            Kind::NumberValue(float.ok_or_else(|| anyhow!("{number} is too large for a filter"))?)
        }
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => Kind::ListValue(ListValue {
            values: values.into_iter().map(to_wire).collect::<anyhow::Result<_>>()?,
        }),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            let fields = fields.map(|(key, value)| Ok((key, to_wire(value)?)));
            Kind::StructValue(Struct {
                fields: fields.collect::<anyhow::Result<_>>()?,
            })
        }
    };
    Ok(WireValue { kind: Some(kind) })
}

fn from_wire(fields: Struct) -> Map<String, Value> {
    let fields = fields.fields.into_iter();
    fields.map(|(key, value)| (key, value_from_wire(value))).collect()
}

fn value_from_wire(value: WireValue) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(number)) => whole(number).map_or_else(|| json!(number), |whole| json!(whole)),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(value_from_wire).collect()),
        Some(Kind::StructValue(fields)) => Value::Object(from_wire(fields)),
    }
}

/// The integer that a message carries as a float, so that line 7 prints as 7.
fn whole(number: f64) -> Option<i64> {
    let text = format!("{number:.0}");
    let whole = text.parse().ok()?;
    (number.fract() == 0.0).then_some(whole)
}
