//! GetInvocation with an API key, against a bare tonic call with an answer of the same size.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chroma_sync::proto::{self, invocation_service_client::InvocationServiceClient};
use prost::Message;
use tonic::{
    Request,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};

use crate::{
    CONNECTIONS, IN_FLIGHT,
    harness::{
        postgres::Cluster,
        service::{Deployment, Service},
    },
    invocations::fill,
    load::{Figure, Processes, Row, drive, print_processor_ratio, print_ratio, print_table},
    migrated,
    peers::{BARE, Peer},
    sqlite_url,
};

const ROUNDS: usize = 5;
/// Invocations that are read, each as often as the others.
const INVOCATIONS: usize = 5_000;
const TARGET: f64 = 0.6;

/// A service on a store with invocations in it.
struct Subject {
    service: Service,
    requests: Requests,
}

/// Makes requests for one invocation after the other.
#[derive(Clone)]
struct Requests {
    token: AsciiMetadataValue,
    ids: Arc<Vec<String>>,
    next: Arc<AtomicUsize>,
}

impl Requests {
    fn next(&self) -> Request<proto::GetInvocationRequest> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let mut request = Request::new(proto::GetInvocationRequest {
            invocation_id: self.ids[next % self.ids.len()].clone(),
        });
        request
            .metadata_mut()
            .insert("x-chroma-token", self.token.clone());
        request
    }
}

pub async fn measure(cluster: &Cluster, directory: &Path) {
    let sqlite = subject(&sqlite_url(directory, "get.db"), directory).await;
    let postgres = subject(&cluster.fresh_database().await, directory).await;
    let message = one_message(&sqlite).await;
    let size = message.encoded_len();
    let bare = Peer::start(&[BARE, &hex::encode(message.encode_to_vec())]);
    let database: u32 = crate::raw::postmaster(cluster);

    let mut rows = [
        Row::new(format!("bare tonic call, answer of {size} bytes")),
        Row::new("GetInvocation on SQLite"),
        Row::new("GetInvocation on PostgreSQL (server us with PostgreSQL's)"),
    ];
    let mut alone = [
        Row::new("bare tonic call"),
        Row::new("GetInvocation on SQLite"),
        Row::new("GetInvocation on PostgreSQL"),
    ];
    let services = [
        (bare.url.as_str(), vec![bare.process_id()], &sqlite.requests),
        (
            sqlite.service.url.as_str(),
            vec![sqlite.service.process_id()],
            &sqlite.requests,
        ),
        (
            postgres.service.url.as_str(),
            vec![postgres.service.process_id(), database],
            &postgres.requests,
        ),
    ];
    for round in 0..ROUNDS {
        for (place, (url, processes, requests)) in services.iter().enumerate() {
            let processes = Processes(processes.clone());
            rows[place].add(get(url, &processes, requests, IN_FLIGHT).await);
            if round < 3 {
                alone[place].add(get(url, &processes, requests, 1).await);
            }
        }
    }
    let [bare, sqlite, postgres] = &rows;
    print_table(
        &format!("GetInvocation, {IN_FLIGHT} calls in flight over {CONNECTIONS} connections"),
        &[bare, sqlite, postgres],
    );
    print_ratio("SQLite / bare", sqlite, bare, TARGET);
    print_processor_ratio("SQLite / bare, by processor time alone", sqlite, bare);
    print_processor_ratio("PostgreSQL / bare, by processor time alone", postgres, bare);
    print_ratio("PostgreSQL / bare (no target)", postgres, bare, 0.0);
    let [bare, sqlite, postgres] = &alone;
    print_table("GetInvocation, 1 call in flight", &[bare, sqlite, postgres]);
}

async fn subject(url: &str, directory: &Path) -> Subject {
    let store = migrated(url).await;
    let ids = Arc::new(fill(&store, INVOCATIONS, IN_FLIGHT).await);
    store.close().await;
    let deployment =
        Deployment::new(url, "http://127.0.0.1:1", "file:///", directory).with("log.filter", "warn");
    let token = deployment.create_key(&["--role", "admin"]).parse().unwrap();
    Subject {
        service: deployment.start_role("api"),
        requests: Requests {
            token,
            ids,
            next: Arc::default(),
        },
    }
}

async fn one_message(subject: &Subject) -> proto::Invocation {
    let mut client = clients(&subject.service.url).await.remove(0);
    let answer = client.get_invocation(subject.requests.next()).await;
    answer.unwrap().into_inner()
}

/// A client for each connection.
pub async fn clients(url: &str) -> Vec<InvocationServiceClient<Channel>> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
        clients.push(InvocationServiceClient::new(endpoint.connect().await.unwrap()));
    }
    clients
}

async fn get(url: &str, server: &Processes, requests: &Requests, tasks: usize) -> Figure {
    let (clients, requests) = (Arc::new(clients(url).await), requests.clone());
    drive(tasks, server, move |task| {
        let mut client = clients[task % clients.len()].clone();
        let request = requests.next();
        async move {
            client.get_invocation(request).await.unwrap();
        }
    })
    .await
}
