//! What is read and watched: invocations of one source.

use chroma_sync::{domain::names::TenantName, store::Store};
use futures::StreamExt;

use crate::harness::stores::{created, created_source, new_invocation, new_source};

/// Creates invocations of one source and returns their ids; `in_flight` are created at a time.
pub async fn fill(store: &Store, count: usize, in_flight: usize) -> Vec<String> {
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
        .buffer_unordered(in_flight)
        .collect()
        .await
}
