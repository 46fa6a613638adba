//! `chroma-sync serve`.

use std::{net::SocketAddr, process::ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::output;
use crate::{
    config::Config,
    service::{self, Roles},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What this process does.
    #[arg(long, value_enum, default_value = "all")]
    role: Role,
    /// Address and port to listen on, over server.listen.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// Both.
    All,
    /// Answers calls only.
    Api,
    /// Works on invocations only; listens nowhere.
    Worker,
}

impl Arguments {
    /// The options that flags override.
    pub(super) fn flags(&self) -> Vec<(&'static str, String)> {
        self.listen
            .iter()
            .map(|listen| ("server.listen", listen.to_string()))
            .collect()
    }
}

pub(super) async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let roles = match arguments.role {
        Role::All => Roles {
            api: true,
            worker: true,
        },
        Role::Api => Roles {
            api: true,
            worker: false,
        },
        Role::Worker => Roles {
            api: false,
            worker: true,
        },
    };
    let drain = CancellationToken::new();
    spawn_signal_listener(drain.clone())?;
    let listener = if roles.api {
        let listen = config.server.listen;
        Some(
            TcpListener::bind(listen)
                .await
                .with_context(|| format!("cannot listen on {listen} (server.listen)"))?,
        )
    } else {
        None
    };
    let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let scheme = if config.server.speaks_tls() {
        "https"
    } else {
        "http"
    };
    let service = service::start(config, roles, listener, drain).await?;
    match address {
        Some(address) => output::line(&format!("listening on {scheme}://{address}")),
        None => output::line("worker ready"),
    }
    service.join().await?;
    Ok(ExitCode::SUCCESS)
}

/// SIGTERM and SIGINT drain; a second one ends the process at once.
fn spawn_signal_listener(drain: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        tracing::info!("draining; a second signal ends the process at once");
        drain.cancel();
        next().await;
        std::process::exit(1);
    });
    Ok(())
}
