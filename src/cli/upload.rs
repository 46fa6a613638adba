//! `chroma-sync upload`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow};
use clap::Args;
use futures::{StreamExt, stream};
use tokio::{fs::File, io::AsyncReadExt};

use super::{
    follow::follow_one,
    output,
    remote::{Remote, explain},
    view::View,
};
use crate::proto::{self, add_file_request::Content};

/// Bytes of one message.
const CHUNK_BYTES: usize = 256 * 1_024;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files to upload.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Database of the Chroma server.
    #[arg(long, default_value = "default_database")]
    database: String,
    /// Collection to write to.
    #[arg(long)]
    collection: String,
    /// Names the records instead of the file's name; for a single file.
    #[arg(long)]
    custom_id: Option<String>,
    /// Metadata of all records, as a JSON object.
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// What the files are, such as application/pdf; without it their names say.
    #[arg(long)]
    content_type: Option<String>,
    /// Print one JSON object a message of the watch.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Uploads one file after the other. Exits with 0 when all invocations ended complete, else with the code of the
/// first that did not: 2 when failed, 3 when cancelled.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if arguments.custom_id.is_some() && arguments.files.len() > 1 {
        return Err(anyhow!(
            "--custom-id names the records of one file; give one file"
        ));
    }
    let mut code = ExitCode::SUCCESS;
    let mut view = View::new(arguments.json);
    for path in &arguments.files {
        let invocation_id = upload(&arguments, path).await?;
        output::line(&format!("invocation {invocation_id}"));
        let ended = follow_one(&arguments.remote, &invocation_id, |message| {
            view.show_one(message)
        })
        .await?;
        if code == ExitCode::SUCCESS {
            code = ended;
        }
    }
    Ok(code)
}

async fn upload(arguments: &Arguments, path: &Path) -> anyhow::Result<String> {
    let reading = || format!("cannot read {}", path.display());
    let file = File::open(path).await.with_context(reading)?;
    let size = file.metadata().await.with_context(reading)?.len();
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| anyhow!("{} has no name that is UTF-8", path.display()))?;
    let metadata = arguments.metadata.as_deref().map(metadata).transpose()?;
    let first = Content::Metadata(proto::FileMetadata {
        database_name: arguments.database.clone(),
        collection_name: arguments.collection.clone(),
        file_name: name.to_owned(),
        size_bytes: i64::try_from(size)?,
        custom_id: arguments.custom_id.clone().unwrap_or_default(),
        metadata,
        content_type: arguments.content_type.clone().unwrap_or_default(),
        ..proto::FileMetadata::default()
    });
    // A file that cannot be read to its end has fewer bytes than declared, which the server refuses.
    let chunks = stream::unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        match file.read(&mut chunk).await {
            Ok(0) | Err(_) => None,
            Ok(read) => {
                chunk.truncate(read);
                Some((Content::Chunk(chunk), file))
            }
        }
    });
    let messages = stream::iter([first]).chain(chunks);
    let messages = messages.map(|content| proto::AddFileRequest {
        content: Some(content),
    });
    let answer = arguments.remote.files()?.add_file(messages).await;
    match answer {
        Ok(invocation) => Ok(invocation.into_inner().id),
        Err(status) => Err(explain(&status).context(format!("cannot upload {}", path.display()))),
    }
}

fn metadata(json: &str) -> anyhow::Result<prost_types::Struct> {
    let value: serde_json::Value = serde_json::from_str(json).context("--metadata is not JSON")?;
    match wire(value).kind {
        Some(prost_types::value::Kind::StructValue(fields)) => Ok(fields),
        Some(_) | None => Err(anyhow!("--metadata must be a JSON object")),
    }
}

fn wire(value: serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    use serde_json::Value;

    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.into_iter().map(wire).collect(),
        }),
        Value::Object(fields) => Kind::StructValue(prost_types::Struct {
            fields: fields
                .into_iter()
                .map(|(key, value)| (key, wire(value)))
                .collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}
