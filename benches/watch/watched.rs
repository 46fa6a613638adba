//! The service with invocations to watch.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use chroma_sync::{
    proto::{
        self, WatchInvocationResponse, invocation_service_client::InvocationServiceClient,
        watch_invocation_response::Kind,
    },
    store::{Store, StoreOptions},
};
use prost::Message;
use tonic::{Request, Streaming, metadata::AsciiMetadataValue, transport::Channel};

use crate::{
    harness::service::{Deployment, Service},
    invocations::fill,
};

/// Limits that the largest measurement needs; everything else is as configured by default.
const OPTIONS: &[(&str, &str)] = &[
    ("watch.max_streams", "60000"),
    ("watch.max_streams_per_key", "60000"),
    ("log.filter", "warn"),
];
/// Invocations that are created at a time.
const IN_FLIGHT: usize = 128;

/// Who works on the invocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// Nobody: the process has the role `api` alone.
    None,
    /// The process that has the streams.
    Within,
    /// A process of its own.
    Beside,
}

/// A service with pending invocations.
pub struct WatchedService {
    service: Service,
    _worker: Option<Service>,
    token: AsciiMetadataValue,
    ids: Arc<Vec<String>>,
}

impl WatchedService {
    /// On the database at this URL, which is empty, with `count` invocations that nobody works on.
    pub async fn start(store_url: &str, directory: &Path, count: usize) -> Self {
        Self::start_with(store_url, directory, count, Workers::None, "file:///").await
    }

    /// With a worker that takes one invocation at a time, in their order, and tries each once.
    pub async fn start_with(
        store_url: &str,
        directory: &Path,
        count: usize,
        workers: Workers,
        git_url: &str,
    ) -> Self {
        let store = Store::connect(&StoreOptions::new(store_url)).await.unwrap();
        store.migrate().await.unwrap();
        // Workers take them in the order of their creation, so it has to be known.
        let in_flight = if workers == Workers::None { IN_FLIGHT } else { 1 };
        let ids = Arc::new(fill(&store, count, in_flight).await);
        store.close().await;
        let deployment = Deployment::new(store_url, "http://127.0.0.1:1", git_url, directory)
            .with("worker.concurrency", "1")
            .with("worker.max_failed_attempts", "1");
        let deployment = OPTIONS.iter().fold(deployment, |deployment, (option, value)| {
            deployment.with(option, value)
        });
        let token = deployment.create_key(&["--role", "admin"]).parse().unwrap();
        let within = workers == Workers::Within;
        Self {
            service: deployment.start_role(if within { "all" } else { "api" }),
            _worker: (workers == Workers::Beside).then(|| deployment.start_role("worker")),
            token,
            ids,
        }
    }

    pub fn url(&self) -> &str {
        &self.service.url
    }

    pub fn process_id(&self) -> u32 {
        self.service.process_id()
    }

    /// Opens a watch; returns once its snapshot is there.
    pub async fn watch(&self, channel: Channel, key: usize) -> Streaming<WatchInvocationResponse> {
        let request = self.request(proto::WatchInvocationRequest {
            invocation_id: self.ids[key].clone(),
            after_revision: None,
        });
        let mut client = InvocationServiceClient::new(channel);
        let mut stream = client.watch_invocation(request).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        assert_eq!((first.kind(), first.revision), (Kind::Snapshot, 1));
        stream
    }

    /// Cancels the invocation, which ends its watches.
    pub async fn write(&self, channel: Channel, key: usize) {
        let request = self.request(proto::CancelInvocationRequest {
            invocation_id: self.ids[key].clone(),
        });
        let mut client = InvocationServiceClient::new(channel);
        client.cancel_invocation(request).await.unwrap();
    }

    /// When the first attempt at an invocation began.
    pub async fn began(&self, channel: Channel, key: usize) -> SystemTime {
        let request = self.request(proto::GetInvocationRequest {
            invocation_id: self.ids[key].clone(),
        });
        let mut client = InvocationServiceClient::new(channel);
        let invocation = client.get_invocation(request).await.unwrap().into_inner();
        let time = invocation.start_time.unwrap();
        let (seconds, nanoseconds) = (time.seconds.try_into().unwrap(), time.nanos.try_into().unwrap());
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
    }

    /// How long a message of a watch is.
    pub async fn message_bytes(&self) -> usize {
        let channel = Channel::from_shared(self.url().to_owned()).unwrap();
        let mut client = InvocationServiceClient::new(channel.connect().await.unwrap());
        let request = self.request(proto::WatchInvocationRequest {
            invocation_id: self.ids[0].clone(),
            after_revision: Some(0),
        });
        let mut stream = client.watch_invocation(request).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap().encoded_len()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("x-chroma-token", self.token.clone());
        request
    }
}
