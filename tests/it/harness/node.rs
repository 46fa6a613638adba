//! A node that serves watches, inside the test's own process.

use std::time::Duration;

use chroma_sync::{
    app::{
        App, AppParts, Authenticator, EmbeddingLimits, UploadLimits,
        watch::{WatchHub, WatchOptions},
    },
    domain::embedding::{MINILM, ModelCatalog},
    embed::Embedders,
    index::{ChromaClient, ChromaOptions},
    relay,
    seal::SealingKey,
    secret::Secret,
    uploads::{BucketOptions, UploadStore},
    wake::{ChangeSignal, WorkSignal},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::stores::TestStore;

/// One process that serves watches.
pub struct Node {
    pub app: App,
    pub changes: ChangeSignal,
    pub drain: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    /// A node on this store, of an owner of any tenant. One that does not hear lives by polling.
    pub async fn start(test: &TestStore, options: WatchOptions, hears: bool) -> Self {
        let store = test.second().await;
        let (changes, work, drain) = <(ChangeSignal, WorkSignal, CancellationToken)>::default();
        let watches = WatchHub::new(store.clone(), options, changes.clone(), drain.clone());
        let mut tasks = vec![tokio::spawn(watches.clone().run())];
        if hears {
            tasks.push(tokio::spawn(relay::run(
                store.clone(),
                changes.clone(),
                work.clone(),
            )));
        }
        let nowhere = ChromaOptions::new("http://127.0.0.1:1".parse().unwrap());
        let bucket = BucketOptions {
            bucket: "nowhere".to_owned(),
            region: "us-east-1".to_owned(),
            endpoint_url: Some("http://127.0.0.1:1".parse().unwrap()),
            access_key: Some(("id".to_owned(), Secret::new("secret"))),
            path_style: true,
        };
        let app = App::new(AppParts {
            store: store.clone(),
            authenticator: Authenticator::none(),
            chroma: ChromaClient::new(nowhere).unwrap(),
            sealing_key: SealingKey::from_hex(&"0".repeat(64)).unwrap(),
            allow_http_webhooks: false,
            uploads: UploadStore::in_bucket(bucket).unwrap(),
            upload_limits: UploadLimits {
                max_file_bytes: 1,
                max_per_tenant: 1,
                idle: Duration::from_secs(1),
            },
            catalog: ModelCatalog::new(Vec::new(), MINILM.to_owned()),
            embedders: Embedders::new(),
            embedding_limits: EmbeddingLimits {
                max_texts: 1,
                max_calls: 1,
            },
            watches,
            work,
            changes: changes.clone(),
        });
        Self {
            app,
            changes,
            drain,
            tasks,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.drain.cancel();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
