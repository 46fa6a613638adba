//! How a watch looks: bars on a terminal, lines or JSON anywhere else.

use std::{collections::HashMap, io::IsTerminal, time::Duration};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use super::output;
use crate::proto::{
    self, Invocation, Statistics, invocation::State, watch_invocation_response::Kind,
    watch_invocations_response,
};

/// A bar of one invocation.
const BAR: &str = "{prefix} [{bar:30}] {pos}/{len} documents, {wide_msg}";
/// Bars shown at once; of more invocations only the ends are told.
const MAX_BARS: usize = 16;

/// A view of one or of many invocations.
#[derive(Debug)]
pub(super) enum View {
    Lines,
    Json,
    Bars(Bars),
}

/// The bars of live invocations by id.
#[derive(Debug, Default)]
pub(super) struct Bars {
    all: MultiProgress,
    live: HashMap<String, ProgressBar>,
}

impl View {
    /// JSON when it is asked for, bars where a person looks, lines otherwise.
    pub(super) fn new(json: bool) -> Self {
        match (json, std::io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Bars(Bars::default()),
            (false, false) => Self::Lines,
        }
    }

    /// Whether progress between the state changes is wanted of many invocations.
    pub(super) fn shows_progress(&self) -> bool {
        match self {
            Self::Bars(_) => true,
            Self::Lines | Self::Json => false,
        }
    }

    /// Shows a message of a watch of one invocation.
    pub(super) fn show_one(&mut self, message: &proto::WatchInvocationResponse) {
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
        match self {
            Self::Lines => output::line(&line(kind, invocation)),
            Self::Json => {
                let mut body = object(name(message.kind().as_str_name(), "KIND_"), invocation);
                body["revision"] = json!(message.revision);
                output::line(&body.to_string());
            }
            Self::Bars(bars) => bars.show(invocation),
        }
    }

    /// Shows a message of a watch of many invocations.
    pub(super) fn show_many(&mut self, message: &proto::WatchInvocationsResponse) {
        use watch_invocations_response::Kind;

        let Some(invocation) = &message.invocation else {
            return;
        };
        let kind = match message.kind() {
            Kind::Unspecified => "unknown",
            Kind::Snapshot => "snapshot",
            Kind::StateChanged => "state",
            Kind::Heartbeat => "heartbeat",
        };
        match self {
            Self::Lines => output::line(&format!("{} {}", invocation.id, line(kind, invocation))),
            Self::Json => {
                let mut body = object(name(message.kind().as_str_name(), "KIND_"), invocation);
                body["revision"] = json!(invocation.revision);
                body["resume_token"] = json!(message.resume_token);
                output::line(&body.to_string());
            }
            Self::Bars(bars) => bars.show(invocation),
        }
    }
}

impl Bars {
    /// Moves the bar of an invocation; one that has ended becomes a line.
    fn show(&mut self, invocation: &Invocation) {
        if is_terminal(invocation.state()) {
            if let Some(bar) = self.live.remove(&invocation.id) {
                bar.finish_and_clear();
            }
            let line = line("ended", invocation);
            self.all
                .suspend(|| output::line(&format!("{} {line}", invocation.id)));
            return;
        }
        if self.live.len() >= MAX_BARS && !self.live.contains_key(&invocation.id) {
            return;
        }
        let bar = self.live.entry(invocation.id.clone()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(0));
            if let Ok(style) = ProgressStyle::with_template(BAR) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(invocation.id.clone());
            bar
        });
        let counts = invocation.statistics.unwrap_or_default();
        bar.set_length(count(counts.documents_discovered));
        bar.set_position(count(documents_done(&counts)));
        bar.set_message(pace(invocation, &counts));
    }
}

/// Phase, rates and what is left, as the end of a bar.
fn pace(invocation: &Invocation, counts: &Statistics) -> String {
    let mut text = name(invocation.phase().as_str_name(), "PHASE_");
    if counts.chunks_indexed > 0 {
        text.push_str(&format!(", {} chunks", counts.chunks_indexed));
    }
    if counts.tokens_per_second > 0 {
        text.push_str(&format!(", {} tokens/s", counts.tokens_per_second));
    }
    if let Some(left) = &counts.time_left {
        let left = Duration::from_secs(count(left.seconds));
        text.push_str(&format!(", {} left", HumanDuration(left)));
    }
    if let Some(wait) = &invocation.wait {
        text.push_str(&format!(", waiting: {}", wait.cause));
    }
    text
}

/// One message as one line: what happened, state, phase, counts.
fn line(kind: &str, invocation: &Invocation) -> String {
    let state = name(invocation.state().as_str_name(), "STATE_");
    let phase = name(invocation.phase().as_str_name(), "PHASE_");
    let mut line = format!("{kind:<9} rev {} {state:<10} {phase:<9}", invocation.revision);
    if let Some(counts) = &invocation.statistics {
        line.push_str(&format!(
            " documents {}/{} (indexed {}, unchanged {}, removed {}, skipped {}, failed {}), chunks {}",
            documents_done(counts),
            counts.documents_discovered,
            counts.documents_indexed,
            counts.documents_unchanged,
            counts.documents_removed,
            counts.documents_skipped,
            counts.documents_failed,
            counts.chunks_indexed,
        ));
        if let Some(left) = &counts.time_left {
            line.push_str(&format!(
                ", {} tokens/s, {} s left",
                counts.tokens_per_second, left.seconds
            ));
        }
    }
    if let Some(wait) = &invocation.wait {
        line.push_str(&format!(", waiting: {}", wait.cause));
    }
    if let Some(failure) = &invocation.failure {
        line.push_str(&format!(", {}: {}", failure.reason, failure.message));
    }
    line
}

fn object(kind: String, invocation: &Invocation) -> serde_json::Value {
    let counts = invocation.statistics.unwrap_or_default();
    json!({
        "kind": kind,
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
        "documents_left": counts.documents_left,
        "documents_per_minute": counts.documents_per_minute,
        "chunks_indexed": counts.chunks_indexed,
        "bytes_indexed": counts.bytes_indexed,
        "tokens_embedded": counts.tokens_embedded,
        "tokens_per_second": counts.tokens_per_second,
        "chunks_truncated": counts.chunks_truncated,
        "documents_copied": counts.documents_copied,
        "embeddings_computed": counts.embeddings_computed,
        "embeddings_cached": counts.embeddings_cached,
        "seconds_left": counts.time_left.map(|left| left.seconds),
    })
}

fn documents_done(counts: &Statistics) -> i64 {
    counts.documents_indexed
        + counts.documents_unchanged
        + counts.documents_removed
        + counts.documents_skipped
        + counts.documents_failed
}

/// Whether nothing follows this state.
pub(super) fn is_terminal(state: State) -> bool {
    match state {
        State::Complete | State::Failed | State::Cancelled => true,
        State::Unspecified | State::Pending | State::Processing => false,
    }
}

/// Counts on the wire are never negative.
fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// An enum value as people write it: `STATE_COMPLETE` is `complete`.
fn name(wire: &str, prefix: &str) -> String {
    wire.strip_prefix(prefix).unwrap_or(wire).to_ascii_lowercase()
}
