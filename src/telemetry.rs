//! Logging. Lines go to standard error, so that standard output carries answers alone.
//!
//! Absent on purpose: request bodies, tokens and source text never reach a log line.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogConfig, LogFormat};

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("log.filter is not a filter such as \"info\" or \"info,chroma_sync=debug\"")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Another subscriber is in place.
    #[error("logging was started twice")]
    Started(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts logging for the process. `RUST_LOG` overrides the configured filter.
///
/// # Errors
/// See [`TelemetryError`].
pub fn start(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) if !filter.is_empty() => EnvFilter::try_new(filter)?,
        Ok(_) | Err(_) => EnvFilter::try_new(&config.filter)?,
    };
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().try_init(),
    }
    .map_err(TelemetryError::Started)
}
