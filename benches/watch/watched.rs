//! The service with invocations to watch.

use std::{path::Path, sync::Arc};

use chroma_sync::{
    domain::names::TenantName,
    proto::{
        self, WatchInvocationResponse, invocation_service_client::InvocationServiceClient,
        watch_invocation_response::Kind,
    },
    store::{Store, StoreOptions},
};
use futures::StreamExt;
use prost::Message;
use tonic::{Request, Streaming, metadata::AsciiMetadataValue, transport::Channel};

use crate::harness::{
    service::{Deployment, Service},
    stores::{created, created_source, new_invocation, new_source},
};

/// Limits that the largest measurement needs; everything else is as configured by default.
const OPTIONS: &[(&str, &str)] = &[("watch.max_streams", "60000"), ("log.filter", "warn")];
/// Invocations that are created at a time.
const IN_FLIGHT: usize = 128;

/// A service with pending invocations. Nothing works on them: the process has the role `api` alone.
pub struct WatchedService {
    service: Service,
    token: AsciiMetadataValue,
    ids: Arc<Vec<String>>,
}

impl WatchedService {
    /// On the database at this URL, which is empty, with `count` invocations.
    pub async fn start(store_url: &str, directory: &Path, count: usize) -> Self {
        let store = Store::connect(&StoreOptions::new(store_url)).await.unwrap();
        store.migrate().await.unwrap();
        let ids = Arc::new(fill(&store, count).await);
        store.close().await;
        let deployment = Deployment::new(store_url, "http://127.0.0.1:1", "file:///", directory);
        let deployment = OPTIONS.iter().fold(deployment, |deployment, (option, value)| {
            deployment.with(option, value)
        });
        let token = deployment.create_key(&["--role", "admin"]).parse().unwrap();
        let service = deployment.start_role("api");
        Self { service, token, ids }
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

/// Creates invocations of one source and returns their ids.
async fn fill(store: &Store, count: usize) -> Vec<String> {
    let tenant = TenantName::default_tenant();
    let source = store
        .create_source(&tenant, new_source("db", "owner/repository"), None)
        .await;
    let source = &created_source(source.unwrap());
    futures::stream::iter(0..count)
        .map(|number| async move {
            let new = new_invocation(&format!("collection-{number}"));
            let outcome = store
                .create_invocation(&source.tenant, source, new, None, None)
                .await;
            created(outcome.unwrap()).id.to_string()
        })
        .buffer_unordered(IN_FLIGHT)
        .collect()
        .await
}
