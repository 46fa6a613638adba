//! A node that serves watches, inside the test's own process.

use chroma_sync::{
    app::{
        App, AppParts, Authenticator,
        watch::{WatchHub, WatchOptions},
    },
    domain::embedding::{MINILM, ModelCatalog},
    index::{ChromaClient, ChromaOptions},
    relay,
    seal::SealingKey,
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
        let app = App::new(AppParts {
            store: store.clone(),
            authenticator: Authenticator::none(),
            chroma: ChromaClient::new(nowhere).unwrap(),
            sealing_key: SealingKey::from_hex(&"0".repeat(64)).unwrap(),
            allow_http_webhooks: false,
            catalog: ModelCatalog::new(Vec::new(), MINILM.to_owned()),
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
