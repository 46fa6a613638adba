//! The command line: one file a subcommand.
//!
//! Answers go to standard output, everything else to standard error. `anyhow` is used here and
//! nowhere below: what reaches this layer is for a person to read.

mod credentials;
mod follow;
mod keys;
mod migrate;
mod models;
mod openapi;
mod output;
mod parse_document;
mod remote;
mod search;
mod serve;
mod sync;
mod upload;
mod view;
mod watch;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::{config::Config, telemetry};

/// Self-hosted Chroma Sync: turns git repositories into ready-to-query Chroma collections.
#[derive(Debug, Parser)]
#[command(name = "chroma-sync", version, about)]
struct Arguments {
    /// Configuration file; every option is documented in config/default.toml.
    #[arg(long, global = true, value_name = "FILE", env = "CHROMA_SYNC_CONFIG")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve gRPC, gRPC-Web and REST on one port, work on invocations, or both.
    Serve(serve::Arguments),
    /// Apply, revert or show the migrations of the service's database.
    Migrate(migrate::Arguments),
    /// Fetch the files of models, and list what is served and what is there.
    Models(models::Arguments),
    /// Create, list and revoke API keys, or replace the key that seals secrets.
    Keys(keys::Arguments),
    /// Store, list and delete what gives access to sources that are not public.
    Credentials(credentials::Arguments),
    /// Print the OpenAPI document of the REST surface, as GET /openapi.json answers it.
    Openapi,
    /// Sync a repository into a collection and follow it to its end.
    Sync(sync::Arguments),
    /// Upload files, sync them into a collection and follow each to its end.
    Upload(upload::Arguments),
    /// Follow an invocation to its end, or many.
    Watch(watch::Arguments),
    /// Ask a collection in words.
    Search(search::Arguments),
    /// Convert one document to Markdown; the service starts itself with this.
    #[command(name = crate::parse::child::SUBCOMMAND, hide = true)]
    ParseDocument(parse_document::Arguments),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::ParseDocument(arguments) = &arguments.command {
        return parse_document::run(arguments);
    }
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let flags = match &arguments.command {
        Command::Serve(serve) => serve.flags(),
        Command::Migrate(_)
        | Command::Models(_)
        | Command::Keys(_)
        | Command::Credentials(_)
        | Command::Openapi
        | Command::Sync(_)
        | Command::Upload(_)
        | Command::Watch(_)
        | Command::Search(_)
        | Command::ParseDocument(_) => Vec::new(),
    };
    let config = Config::load(arguments.config.as_deref(), std::env::vars(), &flags)?;
    telemetry::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let code = runtime.block_on(async {
        match arguments.command {
            Command::Serve(arguments) => serve::run(arguments, config).await,
            Command::Migrate(arguments) => migrate::run(arguments, &config).await,
            Command::Models(arguments) => models::run(arguments, &config).await,
            Command::Keys(arguments) => keys::run(arguments, &config).await,
            Command::Credentials(arguments) => credentials::run(arguments).await,
            Command::Openapi => Ok(openapi::run(&config)),
            Command::Sync(arguments) => sync::run(arguments).await,
            Command::Upload(arguments) => upload::run(arguments).await,
            Command::Watch(arguments) => watch::run(arguments).await,
            Command::Search(arguments) => search::run(arguments, &config).await,
            Command::ParseDocument(arguments) => Ok(parse_document::run(&arguments)),
        }
    })?;
    // A blocking fetch that is being stopped must not hold the process back.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(code)
}
