//! The server that `sync`, `watch`, `search` and `credentials` talk to, through the same contract as any other client.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt;

use crate::{
    proto::{
        credential_service_client::CredentialServiceClient, file_service_client::FileServiceClient,
        invocation_service_client::InvocationServiceClient, search_service_client::SearchServiceClient,
        source_service_client::SourceServiceClient,
    },
    token::TOKEN_HEADER,
};

#[derive(Debug, Clone, Args)]
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

    pub(super) fn credentials(&self) -> anyhow::Result<CredentialServiceClient<Service>> {
        Ok(CredentialServiceClient::new(self.service()?))
    }

    pub(super) fn files(&self) -> anyhow::Result<FileServiceClient<Service>> {
        Ok(FileServiceClient::new(self.service()?))
    }

    pub(super) fn searches(&self) -> anyhow::Result<SearchServiceClient<Service>> {
        Ok(SearchServiceClient::new(self.service()?))
    }

    pub(super) fn invocations(&self) -> anyhow::Result<InvocationServiceClient<Service>> {
        Ok(InvocationServiceClient::new(self.service()?))
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
