//! `chroma-sync parse-document`: the child process that converts one document. For the service alone.

use std::process::ExitCode;

use clap::Args;

use crate::parse::{
    Format,
    child::{self, Request},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What the document on standard input is read as.
    #[arg(long, value_parser = format)]
    format: Format,
    /// How long it is.
    #[arg(long)]
    content_bytes: u64,
    /// The most address space.
    #[arg(long)]
    max_memory_bytes: u64,
    /// The most processor time.
    #[arg(long)]
    max_cpu_seconds: u64,
    /// The longest Markdown.
    #[arg(long)]
    max_output_bytes: u64,
    /// The most pages.
    #[arg(long)]
    max_pages: u32,
}

fn format(name: &str) -> Result<Format, String> {
    Format::from_name(name).ok_or_else(|| "is not a format".to_owned())
}

/// Reads no configuration and starts no runtime: nothing of the service is in this process.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    child::run(&Request {
        format: arguments.format,
        content_bytes: arguments.content_bytes,
        max_memory_bytes: arguments.max_memory_bytes,
        max_cpu_seconds: arguments.max_cpu_seconds,
        max_output_bytes: arguments.max_output_bytes,
        max_pages: arguments.max_pages,
    })
}
