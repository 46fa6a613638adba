//! The server that `sync` and `watch` talk to, through the same contract as any other client.

use std::{collections::HashMap, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt;

use super::output;
use crate::{
    proto::{
        self, invocation::State, invocation_service_client::InvocationServiceClient,
        source_service_client::SourceServiceClient,
    },
    token::TOKEN_HEADER,
};

/// Tries to reach a server that went away during a watch.
const MAX_RECONNECTS: u32 = 60;
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Remote {
    /// URL of the chroma-sync server.
    #[arg(long, env = "CHROMA_SYNC_SERVER", default_value = "http://127.0.0.1:50051")]
    server: String,
    /// Token of an API key; none for a server without authentication.
    #[arg(long, env = "CHROMA_SYNC_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM file with a certificate authority to trust beside the system's, for an https:// server.
    #[arg(long, env = "CHROMA_SYNC_CA_CERTIFICATE", value_name = "FILE")]
    ca_certificate: Option<PathBuf>,
}

/// Adds the token to every call.
#[derive(Clone)]
pub(super) struct TokenInterceptor(Option<MetadataValue<Ascii>>);

impl Interceptor for TokenInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert(TOKEN_HEADER, token.clone());
        }
        Ok(request)
    }
}

type Service = InterceptedService<Channel, TokenInterceptor>;

impl Remote {
    fn service(&self) -> anyhow::Result<Service> {
        let mut endpoint = Endpoint::from_shared(self.server.clone())
            .with_context(|| format!("{} is not a URL", self.server))?
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        if endpoint.uri().scheme_str() == Some("https") {
            endpoint = endpoint.tls_config(self.tls()?)?;
        }
        let token = match &self.token {
            Some(token) => {
                let mut value: MetadataValue<Ascii> = token
                    .parse()
                    .map_err(|_| anyhow!("the token has characters that no token has"))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(InterceptedService::new(
            endpoint.connect_lazy(),
            TokenInterceptor(token),
        ))
    }

    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let config = ClientTlsConfig::new().with_native_roots();
        let Some(path) = &self.ca_certificate else {
            return Ok(config);
        };
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(config.ca_certificate(Certificate::from_pem(pem)))
    }

    pub(super) fn sources(&self) -> anyhow::Result<SourceServiceClient<Service>> {
        Ok(SourceServiceClient::new(self.service()?))
    }

    pub(super) fn invocations(&self) -> anyhow::Result<InvocationServiceClient<Service>> {
        Ok(InvocationServiceClient::new(self.service()?))
    }

    /// Follows an invocation to its end, over restarts of the server, and prints each message.
    pub(super) async fn follow(
        &self,
        invocation_id: &str,
        mut show: impl FnMut(&proto::WatchInvocationResponse),
    ) -> anyhow::Result<ExitCode> {
        let mut client = self.invocations()?;
        let mut after_revision = None;
        let mut last_state = State::Unspecified;
        let mut failures = 0;
        loop {
            let request = proto::WatchInvocationRequest {
                invocation_id: invocation_id.to_owned(),
                after_revision,
            };
            let ended = async {
                let mut stream = client.watch_invocation(request).await?.into_inner();
                while let Some(message) = stream.message().await? {
                    failures = 0;
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
                Err(status) if is_passing(&status) && failures < MAX_RECONNECTS => {
                    failures += 1;
                    output::error(&format!(
                        "watch interrupted ({}); connecting again",
                        status.message()
                    ));
                    tokio::time::sleep(RECONNECT_DELAY).await;
                }
                Err(status) => return Err(explain(&status)),
            }
        }
    }
}

/// Whether a watch that ended so may be taken up again.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
    )
}

/// 0 complete, 2 failed, 3 cancelled.
fn exit_code(state: State) -> ExitCode {
    match state {
        State::Complete => ExitCode::SUCCESS,
        State::Failed => ExitCode::from(2),
        State::Cancelled => ExitCode::from(3),
        State::Unspecified | State::Pending | State::Processing => ExitCode::FAILURE,
    }
}

/// A status as a person reads it.
pub(super) fn explain(status: &Status) -> anyhow::Error {
    let reason = status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default();
    match reason.as_str() {
        "" => anyhow!("{} ({:?})", status.message(), status.code()),
        reason => anyhow!("{} ({reason})", status.message()),
    }
}

/// The metadata of a status' `ErrorInfo`.
pub(super) fn error_metadata(status: &Status) -> HashMap<String, String> {
    status
        .get_details_error_info()
        .map(|info| info.metadata)
        .unwrap_or_default()
}
