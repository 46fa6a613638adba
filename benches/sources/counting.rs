//! Hands requests for a bucket on, and counts which of them list.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Body, extract::State, response::Response};
use http::{Request, StatusCode};
use reqwest::Url;

/// What was asked for so far.
#[derive(Default)]
struct Counts {
    listings: AtomicUsize,
    others: AtomicUsize,
}

#[derive(Clone)]
struct Shared {
    target: Url,
    http: reqwest::Client,
    counts: Arc<Counts>,
}

/// Dropping it leaves it running until the process ends.
pub struct CountingProxy {
    pub url: String,
    counts: Arc<Counts>,
}

impl CountingProxy {
    pub async fn start(target: Url) -> Self {
        let counts = Arc::new(Counts::default());
        let shared = Shared {
            target,
            http: reqwest::Client::new(),
            counts: Arc::clone(&counts),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(hand_on).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, counts }
    }

    pub fn reset(&self) {
        self.counts.listings.store(0, Ordering::Relaxed);
        self.counts.others.store(0, Ordering::Relaxed);
    }

    /// Listings, and requests that are none.
    pub fn counted(&self) -> (usize, usize) {
        (
            self.counts.listings.load(Ordering::Relaxed),
            self.counts.others.load(Ordering::Relaxed),
        )
    }
}

async fn hand_on(State(shared): State<Shared>, request: Request<Body>) -> Result<Response, StatusCode> {
    let query = request.uri().query().unwrap_or_default();
    let count = if query.contains("list-type=2") {
        &shared.counts.listings
    } else {
        &shared.counts.others
    };
    count.fetch_add(1, Ordering::Relaxed);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let url = format!("{}{path}", shared.target.as_str().trim_end_matches('/'));
    let answer = shared
        .http
        .request(request.method().clone(), url)
        .headers(request.headers().clone())
        .send()
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    *response.body_mut() = Body::from_stream(answer.bytes_stream());
    Ok(response)
}
