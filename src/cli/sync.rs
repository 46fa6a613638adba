//! `chroma-sync sync`: source, invocation and watch in one go.

use std::process::ExitCode;

use clap::Args;
use tonic::Code;

use super::{
    follow::follow_one,
    output,
    remote::{Remote, error_metadata, explain},
    view::View,
};
use crate::proto;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Repository, as owner/name.
    repository: String,
    /// Collection to sync into; must not hold a finished sync.
    #[arg(long)]
    collection: String,
    /// Database of the Chroma server.
    #[arg(long, default_value = "default_database")]
    database: String,
    /// Branch or tag; without it and --sha the default branch.
    #[arg(long, conflicts_with = "sha")]
    branch: Option<String>,
    /// Full commit id.
    #[arg(long)]
    sha: Option<String>,
    /// Glob of the files to take; repeat for several. Without it: all.
    #[arg(long = "include", value_name = "GLOB")]
    include_globs: Vec<String>,
    /// Embedding model, as owner/name; without it the server's default.
    #[arg(long)]
    model: Option<String>,
    /// Print one JSON object a message of the watch.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Exits with 0 when the invocation ended complete, 2 when failed, 3 when cancelled.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let source_id = find_or_create_source(&arguments).await?;
    output::line(&format!("source {source_id}"));
    let invocation_id = create_invocation(&arguments, source_id).await?;
    output::line(&format!("invocation {invocation_id}"));
    let mut view = View::new(arguments.json);
    follow_one(&arguments.remote, &invocation_id, |message| {
        view.show_one(message)
    })
    .await
}

/// Creating a source that exists answers with its id, which is just as good here.
async fn find_or_create_source(arguments: &Arguments) -> anyhow::Result<String> {
    let dense = arguments
        .model
        .clone()
        .map(|model| proto::DenseEmbedding { model, task: None });
    let request = proto::CreateSourceRequest {
        database_name: arguments.database.clone(),
        settings: Some(proto::create_source_request::Settings::Github(
            proto::GithubSource {
                repository: arguments.repository.clone(),
                app_id: None,
                include_globs: arguments.include_globs.clone(),
            },
        )),
        embedding: dense.map(|dense| proto::Embedding {
            dense: Some(dense),
            sparse: None,
        }),
        chunking: None,
        request_id: None,
        webhook: None,
    };
    match arguments.remote.sources()?.create_source(request).await {
        Ok(response) => Ok(response.into_inner().id),
        Err(status) if status.code() == Code::AlreadyExists => error_metadata(&status)
            .remove("source_id")
            .ok_or_else(|| explain(&status)),
        Err(status) => Err(explain(&status)),
    }
}

async fn create_invocation(arguments: &Arguments, source_id: String) -> anyhow::Result<String> {
    let reference = match (&arguments.branch, &arguments.sha) {
        (Some(branch), _) => Some(proto::github_input::Reference::Branch(branch.clone())),
        (None, Some(sha)) => Some(proto::github_input::Reference::Sha(sha.clone())),
        (None, None) => None,
    };
    let request = proto::CreateInvocationRequest {
        source_id,
        target_collection_name: arguments.collection.clone(),
        input: Some(proto::create_invocation_request::Input::Github(
            proto::GithubInput { reference },
        )),
        request_id: None,
        webhook: None,
        update_collection: false,
    };
    match arguments.remote.invocations()?.create_invocation(request).await {
        Ok(response) => Ok(response.into_inner().id),
        Err(status) => Err(explain(&status)),
    }
}
