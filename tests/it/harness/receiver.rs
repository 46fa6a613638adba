//! A receiver of webhooks: answers as it is told and remembers what came.

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    process::Command,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{Router, body::Bytes, extract::State, response::Response};
use http::{HeaderMap, Uri};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

use super::{
    examples::{Ended, Program, python},
    wait_for,
};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
    pub at: Instant,
    /// The status it was answered.
    pub answered: u16,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// `webhook-id`, the same in every attempt.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Of which invocation.
    pub fn invocation(&self) -> String {
        self.json()["data"]["invocation"]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub fn revision(&self) -> u64 {
        self.json()["data"]["revision"].as_u64().unwrap()
    }

    /// What the verification of docs/api.md is given.
    pub fn signed(&self, secret: &str) -> Value {
        let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers = headers.map(|name| (name, self.header(name)));
        json!({"secret": secret, "headers": std::collections::BTreeMap::from(headers), "body": self.body})
    }
}

#[derive(Default)]
struct Told {
    /// What the next requests are answered: status, and a header.
    answers: VecDeque<(u16, Option<(&'static str, String)>)>,
    /// What is answered afterwards.
    then: u16,
    received: Vec<Received>,
}

#[derive(Clone)]
struct Shared {
    told: Arc<Mutex<Told>>,
    gate: Arc<Semaphore>,
}

/// A server on loopback that ends with this value.
pub struct Receiver {
    pub address: SocketAddr,
    shared: Shared,
    server: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Receiver {
    /// Answers these statuses, then 204.
    pub async fn start(statuses: &[u16]) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), statuses).await
    }

    /// The same at an address that is known beforehand.
    pub async fn start_at(address: SocketAddr, statuses: &[u16]) -> Self {
        let told = Told {
            answers: statuses.iter().map(|status| (*status, None)).collect(),
            then: 204,
            received: Vec::new(),
        };
        let shared = Shared {
            told: Arc::new(Mutex::new(told)),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        };
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            shared,
            server,
        }
    }

    /// An address where nothing listens.
    pub async fn address_of_none() -> SocketAddr {
        Self::start(&[]).await.address
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks?key=planted-path-secret", self.address)
    }

    /// Answers `status` from now on.
    pub fn then(&self, status: u16) {
        self.shared.told.lock().unwrap().then = status;
    }

    /// Answers the next request with this header as well.
    pub fn next(&self, status: u16, name: &'static str, value: &str) {
        let header = Some((name, value.to_owned()));
        self.shared
            .told
            .lock()
            .unwrap()
            .answers
            .push_back((status, header));
    }

    /// Takes requests and answers none, until the result is dropped.
    pub fn hold(&self) -> impl Drop + use<> {
        struct Held(Arc<Semaphore>, usize);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.add_permits(self.1);
            }
        }
        let gate = &self.shared.gate;
        let all = gate.available_permits();
        Held(Arc::clone(gate), gate.forget_permits(all))
    }

    /// Everything that came so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.told.lock().unwrap().received.clone()
    }

    /// Waits until `wanted` of what came, and returns everything.
    pub async fn wait_until(&self, what: &str, wanted: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        wait_for(what, async || {
            let received = self.received();
            if wanted(&received) {
                Ok(received)
            } else {
                let seen = received.iter().map(|it| (it.id().to_owned(), it.answered));
                Err(seen.collect::<Vec<_>>())
            }
        })
        .await
    }

    /// Waits until this many requests came.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        self.wait_until("requests", |received| received.len() >= count)
            .await
    }
}

/// The revisions of an invocation that were taken with success, as they came.
pub fn delivered(received: &[Received], invocation: &str) -> Vec<u64> {
    received
        .iter()
        .filter(|it| (200..300).contains(&it.answered) && it.invocation() == invocation)
        .map(Received::revision)
        .collect()
}

/// How many different ids these requests have.
pub fn ids(received: &[Received]) -> usize {
    received.iter().map(Received::id).collect::<HashSet<_>>().len()
}

async fn answer(State(shared): State<Shared>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let at = Instant::now();
    let (status, header) = {
        let mut told = shared.told.lock().unwrap();
        let then = (told.then, None);
        let (status, header) = told.answers.pop_front().unwrap_or(then);
        told.received.push(Received {
            path: uri.to_string(),
            headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
            at,
            answered: status,
        });
        (status, header)
    };
    let passed = shared.gate.acquire().await.unwrap();
    drop(passed);
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    response.body("what a receiver says is not shown".into()).unwrap()
}

/// Whether the verification of docs/api.md, in Python, accepts each of these.
pub async fn verified(requests: &[Value]) -> Vec<bool> {
    let page = std::fs::read_to_string(super::service::project_file("docs/api.md")).unwrap();
    let mut blocks = page.split("```python\n").skip(1);
    let block = blocks.find(|block| block.contains("def verify(")).unwrap();
    let block = block.split("\n```").next().unwrap();
    let run = r#"
import sys

def accepted(request):
    try:
        verify(request["secret"], request["headers"], request["body"].encode())
        return True
    except ValueError:
        return False

print(json.dumps([accepted(request) for request in json.loads(sys.argv[1])]))
"#;
    let mut command: Command = python();
    command.args([
        "-c",
        &format!("{block}\n{run}"),
        &Value::from(requests).to_string(),
    ]);
    let Ended { code, lines, errors } = Program::start(command, "").end().await;
    assert_eq!(code, Some(0), "{errors}");
    serde_json::from_str(&lines.join("")).unwrap()
}
