//! A client of the REST surface that shows each answer whole, and the Python clients of `tests/clients`.

use std::process::Command;

use reqwest::{Method, header::HeaderMap};
use serde_json::Value;

use super::service::{Service, project_file};

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    /// The body; null when there is none.
    pub fn json(&self) -> Value {
        if self.text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {:?}", self.text))
    }

    /// Status and body.
    pub fn parts(&self) -> (u16, Value) {
        (self.status, self.json())
    }

    /// A header; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Calls the documented paths with a token.
pub struct RestClient {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl RestClient {
    /// An empty token sends none.
    pub fn new(service: &Service, token: &str) -> Self {
        Self::at(&service.url, token)
    }

    /// Calls what is at a URL, which need not be the service itself; an empty token sends none.
    pub fn at(url: &str, token: &str) -> Self {
        Self {
            http: reqwest::Client::new(),
            url: url.to_owned(),
            token: token.to_owned(),
        }
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, "", "").await.parts()
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(Method::POST, path, "application/json", body.to_string())
            .await
            .parts()
    }

    pub async fn put(&self, path: &str) -> (u16, Value) {
        self.send(Method::PUT, path, "", "").await.parts()
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.send(Method::DELETE, path, "", "").await.parts()
    }

    /// Sends any request; an empty content type sends none.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .body(body);
        if !self.token.is_empty() {
            request = request.header("x-chroma-token", &self.token);
        }
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let response = request.send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }
}

/// Runs a script of `tests/clients` with the peers' Python and returns the JSON that it prints.
pub fn run_client(script: &str, arguments: &[&str]) -> Value {
    let python = project_file(".peers/venv/bin/python3");
    assert!(
        python.exists(),
        "{} is missing; run `make peers`",
        python.display()
    );
    let output = Command::new(python)
        .arg(project_file("tests/clients").join(script))
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}
