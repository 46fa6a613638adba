//! What is measured: the service on either database, or etcd.

use std::time::Duration;

use chroma_sync::proto::{WatchInvocationResponse, watch_invocation_response::Kind};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    commits::Sync,
    etcd::{Etcd, WatchResponse},
    watched::WatchedService,
};

pub enum Server {
    Service(WatchedService),
    Etcd(Etcd),
}

/// A server with a name.
pub struct Subject {
    pub name: &'static str,
    pub server: Server,
}

/// One open stream.
pub enum Stream {
    Service(Streaming<WatchInvocationResponse>),
    Etcd(Streaming<WatchResponse>),
}

/// What a stream brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    Change,
    Progress,
    Heartbeat,
    /// The stream ended, without an error.
    End,
}

impl Subject {
    fn url(&self) -> &str {
        match &self.server {
            Server::Service(service) => service.url(),
            Server::Etcd(etcd) => &etcd.url,
        }
    }

    pub fn process_id(&self) -> u32 {
        match &self.server {
            Server::Service(service) => service.process_id(),
            Server::Etcd(etcd) => etcd.process_id(),
        }
    }

    /// When it had synced its files.
    pub fn commits(&self, syncs: &[Sync]) -> Vec<Duration> {
        let is_own = |sync: &&Sync| match &self.server {
            // Its connections are processes of their own; no other cluster runs meanwhile.
            Server::Service(_) if self.name == "PostgreSQL" => sync.thread == "postgres",
            Server::Service(_) | Server::Etcd(_) => sync.process == self.process_id(),
        };
        syncs.iter().filter(is_own).map(|sync| sync.ended).collect()
    }

    /// Whether a change is the last of its key, so that another one needs new streams on a fresh key.
    pub fn ends_with_the_change(&self) -> bool {
        matches!(self.server, Server::Service(_))
    }

    /// A connection of its own, kept alive as the documentation advises.
    pub async fn connect(&self) -> Channel {
        Endpoint::from_shared(self.url().to_owned())
            .unwrap()
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .connect()
            .await
            .unwrap()
    }

    /// Opens a stream; returns once the server has said that it is open.
    pub async fn open(&self, channel: Channel, key: usize) -> Stream {
        match &self.server {
            Server::Service(service) => Stream::Service(service.watch(channel, key).await),
            Server::Etcd(etcd) => Stream::Etcd(etcd.watch(channel, key).await),
        }
    }

    /// Changes what a key stands for.
    pub async fn write(&self, channel: Channel, key: usize) {
        match &self.server {
            Server::Service(service) => service.write(channel, key).await,
            Server::Etcd(etcd) => etcd.write(channel, key).await,
        }
    }
}

impl Stream {
    pub async fn next(&mut self) -> Arrival {
        match self {
            Self::Service(stream) => match stream.message().await.unwrap() {
                None => Arrival::End,
                Some(message) => match message.kind() {
                    Kind::StateChanged => Arrival::Change,
                    Kind::Progress => Arrival::Progress,
                    Kind::Heartbeat => Arrival::Heartbeat,
                    Kind::Unspecified | Kind::Snapshot => {
                        panic!("unexpected: {message:?}")
                    }
                },
            },
            Self::Etcd(stream) => match stream.message().await.unwrap() {
                None => Arrival::End,
                Some(message) if message.events.len() == 1 => Arrival::Change,
                Some(message) => panic!("unexpected: {message:?}"),
            },
        }
    }
}
