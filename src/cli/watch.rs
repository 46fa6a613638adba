//! `chroma-sync watch`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{output, remote::Remote};
use crate::proto::{self, watch_invocation_response::Kind};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Id of the invocation.
    invocation_id: String,
    /// Print one JSON object a message.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Exits with 0 when the invocation ended complete, 2 when failed, 3 when cancelled.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let print = if arguments.json { print_json } else { print_line };
    arguments.remote.follow(&arguments.invocation_id, print).await
}

/// One message as one line: time, what happened, state, phase, counts.
pub(super) fn print_line(message: &proto::WatchInvocationResponse) {
    let Some(invocation) = &message.invocation else {
        return;
    };
    let kind = match message.kind() {
        Kind::Unspecified => "unknown",
        Kind::Snapshot => "snapshot",
        Kind::StateChanged => "state",
        Kind::Progress => "progress",
        Kind::Heartbeat => "heartbeat",
    };
    let state = name(invocation.state().as_str_name(), "STATE_");
    let phase = name(invocation.phase().as_str_name(), "PHASE_");
    let mut line = format!("{kind:<9} rev {} {state:<10} {phase:<9}", message.revision);
    if let Some(counts) = &invocation.statistics {
        let done = counts.documents_indexed
            + counts.documents_unchanged
            + counts.documents_removed
            + counts.documents_skipped
            + counts.documents_failed;
        line.push_str(&format!(
            " documents {done}/{} (indexed {}, unchanged {}, removed {}, skipped {}, failed {}), chunks {}",
            counts.documents_discovered,
            counts.documents_indexed,
            counts.documents_unchanged,
            counts.documents_removed,
            counts.documents_skipped,
            counts.documents_failed,
            counts.chunks_indexed,
        ));
    }
    if let Some(wait) = &invocation.wait {
        line.push_str(&format!(", waiting: {}", wait.cause));
    }
    if let Some(failure) = &invocation.failure {
        line.push_str(&format!(", {}: {}", failure.reason, failure.message));
    }
    output::line(&line);
}

fn print_json(message: &proto::WatchInvocationResponse) {
    let Some(invocation) = &message.invocation else {
        return;
    };
    let counts = invocation.statistics.unwrap_or_default();
    let body = json!({
        "kind": name(message.kind().as_str_name(), "KIND_"),
        "revision": message.revision,
        "invocation_id": invocation.id,
        "state": name(invocation.state().as_str_name(), "STATE_"),
        "phase": name(invocation.phase().as_str_name(), "PHASE_"),
        "attempt": invocation.attempt,
        "resolved_commit": invocation.resolved_commit,
        "failure": invocation.failure.as_ref().map(|f| json!({"reason": f.reason, "message": f.message})),
        "documents_discovered": counts.documents_discovered,
        "documents_indexed": counts.documents_indexed,
        "documents_unchanged": counts.documents_unchanged,
        "documents_removed": counts.documents_removed,
        "documents_skipped": counts.documents_skipped,
        "documents_failed": counts.documents_failed,
        "chunks_indexed": counts.chunks_indexed,
        "bytes_indexed": counts.bytes_indexed,
        "tokens_embedded": counts.tokens_embedded,
        "chunks_truncated": counts.chunks_truncated,
    });
    output::line(&body.to_string());
}

/// An enum value as people write it: `STATE_COMPLETE` is `complete`.
fn name(wire: &str, prefix: &str) -> String {
    wire.strip_prefix(prefix).unwrap_or(wire).to_ascii_lowercase()
}
