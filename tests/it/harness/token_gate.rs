//! What stands before a Chroma server that checks tokens: a reverse proxy that knows whose each is.
//!
//! A single-node Chroma server checks none itself, so its operators put such a thing before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

/// The proxy; it ends when dropped.
pub struct TokenGate {
    url: String,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    server: String,
    http: reqwest::Client,
    holders: Mutex<BTreeMap<String, Holder>>,
    wrote: Mutex<BTreeSet<String>>,
}

#[derive(Clone)]
struct Holder {
    tenant: String,
    databases: Vec<String>,
}

impl TokenGate {
    /// Before `server`; each token opens a tenant and the databases named, `*` for all.
    pub async fn start(server: &str, tokens: &[(&str, &str, &[&str])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let holders = tokens.iter().map(|(token, tenant, databases)| {
            let databases = databases.iter().map(|name| (*name).to_owned()).collect();
            let tenant = (*tenant).to_owned();
            ((*token).to_owned(), Holder { tenant, databases })
        });
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            http: reqwest::Client::new(),
            holders: Mutex::new(holders.collect()),
            wrote: Mutex::default(),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, serving }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on the token opens nothing.
    pub fn revoke(&self, token: &str) {
        self.shared.holders.lock().unwrap().remove(token);
    }

    /// The tokens with which something other than a read was sent.
    pub fn wrote(&self) -> Vec<String> {
        self.shared.wrote.lock().unwrap().iter().cloned().collect()
    }
}

impl Drop for TokenGate {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let token = parts
        .headers
        .get("x-chroma-token")
        .map(|token| token.to_str().unwrap().to_owned());
    let token = token.unwrap_or_default();
    let holder = shared.holders.lock().unwrap().get(&token).cloned();
    let Some(Holder { tenant, databases }) = holder else {
        let body = json!({"error": "AuthError", "message": "the token is not known here"});
        return (StatusCode::UNAUTHORIZED, axum::Json(body)).into_response();
    };
    if parts.uri.path() == "/api/v2/auth/identity" {
        let body = json!({"user_id": "somebody", "tenant": tenant, "databases": databases});
        return axum::Json(body).into_response();
    }
    if parts.method != Method::GET {
        shared.wrote.lock().unwrap().insert(token);
    }
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let mut onward = shared
        .http
        .request(parts.method, format!("{}{}", shared.server, parts.uri))
        .body(body);
    if let Some(kind) = parts.headers.get("content-type") {
        onward = onward.header("content-type", kind);
    }
    let answer = onward.send().await.unwrap();
    let status = answer.status();
    let kind = answer.headers().get("content-type").cloned();
    let mut response = Response::new(Body::from(answer.bytes().await.unwrap()));
    *response.status_mut() = status;
    if let Some(kind) = kind {
        response.headers_mut().insert("content-type", kind);
    }
    response
}
