//! `chroma-sync watch`.

use std::{
    collections::HashSet,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Args;

use super::{
    follow::{Next, exit_code, follow_many, follow_one},
    remote::Remote,
    view::{View, is_terminal},
};
use crate::proto::{self, invocation::State, watch_invocations_response::Kind};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Id of the invocation. Without one, many are followed: those that are live and those to come.
    invocation_id: Option<String>,
    /// Follow the invocations of this source.
    #[arg(long, value_name = "ID", conflicts_with_all = ["invocation_id", "database"])]
    source: Option<String>,
    /// Follow the invocations into this database.
    #[arg(long, value_name = "NAME", conflicts_with = "invocation_id")]
    database: Option<String>,
    /// End once none of the invocations followed is live; the exit code is that of the worst end.
    #[arg(long, conflicts_with = "invocation_id")]
    until_idle: bool,
    /// Print one JSON object a message.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Exits with 0 when the invocation ended complete, 2 when failed, 3 when cancelled.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut view = View::new(arguments.json);
    match &arguments.invocation_id {
        Some(id) => follow_one(&arguments.remote, id, |message| view.show_one(message)).await,
        None => follow_all(&arguments, view).await,
    }
}

async fn follow_all(arguments: &Arguments, view: View) -> anyhow::Result<ExitCode> {
    let request = proto::WatchInvocationsRequest {
        source_id: arguments.source.clone().unwrap_or_default(),
        database_name: arguments.database.clone().unwrap_or_default(),
        include_live: true,
        ..Default::default()
    };
    let shows_progress = view.shows_progress();
    let view = Arc::new(Mutex::new(view));
    let mut live = Live::default();
    let mut followed = HashSet::new();
    follow_many(&arguments.remote, request, |message| {
        show(&view, |view| view.show_many(message));
        let next = live.take(message);
        if let Some(invocation) = message.invocation.as_ref().filter(|_| shows_progress)
            && invocation.state() == State::Processing
            && followed.insert(invocation.id.clone())
        {
            tokio::spawn(show_progress(
                arguments.remote.clone(),
                invocation.id.clone(),
                Arc::clone(&view),
            ));
        }
        if arguments.until_idle { next } else { Next::GoOn }
    })
    .await?;
    Ok(exit_code(live.worst))
}

/// Progress is told by a watch of the invocation alone; its end is told by the watch of all.
async fn show_progress(remote: Remote, id: String, view: Arc<Mutex<View>>) {
    let shown = follow_one(&remote, &id, |message| {
        let live = message
            .invocation
            .as_ref()
            .is_some_and(|it| !is_terminal(it.state()));
        if live {
            show(&view, |view| view.show_one(message));
        }
    });
    // Bars are an extra: the watch of all says what goes wrong.
    shown.await.ok();
}

fn show(view: &Mutex<View>, act: impl FnOnce(&mut View)) {
    act(&mut view.lock().unwrap_or_else(PoisonError::into_inner));
}

/// The invocations that have not ended, and how the others did.
#[derive(Debug)]
struct Live {
    ids: HashSet<String>,
    worst: State,
    heartbeats: u32,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            ids: HashSet::new(),
            worst: State::Complete,
            heartbeats: 0,
        }
    }
}

impl Live {
    /// Whether anything is live after a message. The snapshots come between the first heartbeat and the
    /// second, so nothing is known before that.
    fn take(&mut self, message: &proto::WatchInvocationsResponse) -> Next {
        if let Some(invocation) = &message.invocation {
            if is_terminal(invocation.state()) {
                self.ids.remove(&invocation.id);
                self.worst = worse(self.worst, invocation.state());
            } else {
                self.ids.insert(invocation.id.clone());
            }
        }
        if message.kind() == Kind::Heartbeat {
            self.heartbeats = self.heartbeats.saturating_add(1);
        }
        let knows_all = self.heartbeats > 1;
        if knows_all && self.ids.is_empty() {
            Next::End
        } else {
            Next::GoOn
        }
    }
}

fn worse(one: State, other: State) -> State {
    let rank = |state| match state {
        State::Failed => 2,
        State::Cancelled => 1,
        State::Unspecified | State::Pending | State::Processing | State::Complete => 0,
    };
    if rank(other) > rank(one) { other } else { one }
}
