//! Follows invocations over restarts of the server: whatever interrupts a watch, it goes on after the last
//! message.

use std::{process::ExitCode, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{
    output,
    remote::{Remote, explain},
};
use crate::proto::{self, invocation::State};

/// Tries in a row to reach a server that went away.
const MAX_RECONNECTS: u32 = 60;
/// The pause before a try when the server says nothing else.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// The longest pause that a server is believed.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(30);

/// What to do after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    End,
}

/// Follows an invocation to its end and shows each message; the exit code says how it ended.
pub(super) async fn follow_one(
    remote: &Remote,
    invocation_id: &str,
    mut show: impl FnMut(&proto::WatchInvocationResponse),
) -> anyhow::Result<ExitCode> {
    let mut client = remote.invocations()?;
    let mut after_revision = None;
    let mut last_state = State::Unspecified;
    let mut tries = Tries::default();
    loop {
        let request = proto::WatchInvocationRequest {
            invocation_id: invocation_id.to_owned(),
            after_revision,
        };
        let ended = async {
            let mut stream = client.watch_invocation(request).await?.into_inner();
            while let Some(message) = stream.message().await? {
                tries = Tries::default();
                after_revision = Some(message.revision);
                if let Some(invocation) = &message.invocation {
                    last_state = invocation.state();
                }
                show(&message);
            }
            Ok::<(), Status>(())
        };
        match ended.await {
            Ok(()) => return Ok(exit_code(last_state)),
            Err(status) => tries.pause_after(&status).await?,
        }
    }
}

/// Follows many invocations until `show` says that it is enough.
pub(super) async fn follow_many(
    remote: &Remote,
    mut request: proto::WatchInvocationsRequest,
    mut show: impl FnMut(&proto::WatchInvocationsResponse) -> Next,
) -> anyhow::Result<()> {
    let mut client = remote.invocations()?;
    let mut tries = Tries::default();
    loop {
        let ended = async {
            let mut stream = client.watch_invocations(request.clone()).await?.into_inner();
            while let Some(message) = stream.message().await? {
                tries = Tries::default();
                let resume_token = message.resume_token.clone();
                if show(&message) == Next::End {
                    return Ok(());
                }
                request.resume_token = resume_token;
                request.include_live = false;
            }
            Err(Status::unavailable("the stream ended"))
        };
        match ended.await {
            Ok(()) => return Ok(()),
            Err(status) => tries.pause_after(&status).await?,
        }
    }
}

/// How often in a row the server could not be reached.
#[derive(Debug, Default)]
struct Tries(u32);

impl Tries {
    /// Waits before the next try, as long as the server asks.
    ///
    /// # Errors
    /// What ended the watch, when another try would end alike.
    async fn pause_after(&mut self, status: &Status) -> anyhow::Result<()> {
        if !is_passing(status) || self.0 >= MAX_RECONNECTS {
            return Err(explain(status));
        }
        self.0 += 1;
        output::error(&format!(
            "watch interrupted ({}); connecting again",
            status.message()
        ));
        let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let pause = asked.unwrap_or(RECONNECT_DELAY).min(MAX_RECONNECT_DELAY);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Whether a watch that ended so may be taken up again.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal | Code::ResourceExhausted
    )
}

/// 0 complete, 2 failed, 3 cancelled.
pub(super) fn exit_code(state: State) -> ExitCode {
    match state {
        State::Complete => ExitCode::SUCCESS,
        State::Failed => ExitCode::from(2),
        State::Cancelled => ExitCode::from(3),
        State::Unspecified | State::Pending | State::Processing => ExitCode::FAILURE,
    }
}
