//! `chroma-sync openapi`.

use std::process::ExitCode;

use super::output;
use crate::{config::Config, openapi};

/// Prints what `GET /openapi.json` answers with this configuration.
pub(super) fn run(config: &Config) -> ExitCode {
    let document = openapi::document(config.embedding.models.iter().map(String::as_str));
    output::line(document.trim_end());
    ExitCode::SUCCESS
}
