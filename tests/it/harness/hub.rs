//! A stand-in for a Hugging Face hub: its documented routes for one model, with large files on a host of their own, as
//! the real hub has them on a CDN.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::Response,
};
use http::Method;
use ring::digest;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The model, its commit, and the token that opens it where it needs one.
pub const MODEL: &str = "owner/model";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const TOKEN: &str = "hf_planted";

/// What becomes of a request for a large file.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// So many bytes of the answer, then the connection breaks.
    CutAfter(usize),
    /// Other bytes than the listing says, of the same number.
    OtherBytes,
    /// This status.
    Status(u16),
}

#[derive(Debug, Clone)]
struct File {
    path: String,
    content: Bytes,
    large: bool,
}

struct Shared {
    files: Vec<File>,
    private: bool,
    /// Whether the listing says sizes and checksums.
    names_blobs: bool,
    cdn: Mutex<Option<SocketAddr>>,
    faults: Mutex<VecDeque<Fault>>,
    /// `METHOD path range` of everything that came.
    requests: Mutex<Vec<String>>,
}

/// A running hub. Dropping it ends it.
pub struct StandInHub {
    address: SocketAddr,
    shared: Arc<Shared>,
    servers: [JoinHandle<()>; 2],
}

impl Drop for StandInHub {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

/// How a hub is.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    pub private: bool,
    pub names_blobs: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            private: false,
            names_blobs: true,
        }
    }
}

fn sha256(content: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, content))
}

fn git_blob(content: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("blob {}\0", content.len()).as_bytes());
    context.update(content);
    hex::encode(context.finish())
}

impl File {
    fn etag(&self) -> String {
        if self.large {
            sha256(&self.content)
        } else {
            git_blob(&self.content)
        }
    }
}

impl StandInHub {
    /// A hub with these files; those named `*.safetensors` are large.
    pub async fn start(files: &[(&str, Vec<u8>)], manners: Manners) -> Self {
        let files = files.iter().map(|(path, content)| File {
            path: (*path).to_owned(),
            content: content.clone().into(),
            large: path.ends_with(".safetensors"),
        });
        let shared = Arc::new(Shared {
            files: files.collect(),
            private: manners.private,
            names_blobs: manners.names_blobs,
            cdn: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
        });
        let (hub, address) = serve(Router::new().fallback(hub).with_state(Arc::clone(&shared))).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        *shared.cdn.lock().unwrap() = Some(listener.local_addr().unwrap());
        let files = Arc::clone(&shared);
        let cdn = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(cdn(Arc::clone(&files), connection));
            }
        });
        Self {
            address,
            shared,
            servers: [hub, cdn],
        }
    }

    /// What `HF_ENDPOINT` is set to.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What becomes of the next requests for large files.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    /// Everything that was asked so far, and forgets it.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap())
    }
}

async fn serve(router: Router) -> (JoinHandle<()>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (server, address)
}

fn status(status: u16) -> Response {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

fn header<'a>(request: &'a Request, name: &str) -> &'a str {
    request
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

impl Shared {
    fn remember(&self, request: &Request) {
        let line = format!(
            "{} {} {}",
            request.method(),
            request.uri().path(),
            header(request, "range")
        );
        self.requests.lock().unwrap().push(line.trim().to_owned());
    }

    fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    fn listing(&self) -> Value {
        let siblings = self.files.iter().map(|file| {
            let mut sibling = json!({"rfilename": file.path});
            if self.names_blobs {
                sibling["size"] = json!(file.content.len());
                sibling["blobId"] = json!(git_blob(&file.content));
            }
            if self.names_blobs && file.large {
                sibling["lfs"] =
                    json!({"sha256": file.etag(), "size": file.content.len(), "pointerSize": 134});
            }
            sibling
        });
        json!({"id": MODEL, "sha": COMMIT, "siblings": siblings.collect::<Vec<_>>()})
    }
}

async fn hub(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    shared.remember(&request);
    if shared.private && header(&request, "authorization") != format!("Bearer {TOKEN}") {
        return status(401);
    }
    let path = request.uri().path().trim_start_matches('/');
    if let Some(revision) = path.strip_prefix(&format!("api/models/{MODEL}/revision/")) {
        return match revision {
            "main" | COMMIT | "v1" => Response::new(shared.listing().to_string().into()),
            _ => status(404),
        };
    }
    let Some(path) = path.strip_prefix(&format!("{MODEL}/resolve/{COMMIT}/")) else {
        return status(404);
    };
    let Some(file) = shared.file(path) else {
        return status(404);
    };
    let answer = Response::builder().header("x-repo-commit", COMMIT);
    if file.large {
        let cdn = shared.cdn.lock().unwrap().unwrap();
        return answer
            .status(302)
            .header("location", format!("http://{cdn}/{path}?signature=planted"))
            .header("x-linked-etag", format!("\"{}\"", file.etag()))
            .header("x-linked-size", file.content.len())
            .body(Body::empty())
            .unwrap();
    }
    let body = if request.method() == Method::HEAD {
        Body::empty()
    } else {
        file.content.clone().into()
    };
    answer
        .header("etag", format!("\"{}\"", file.etag()))
        .header("content-length", file.content.len())
        .body(body)
        .unwrap()
}

/// Takes one request of a connection, answers it and closes: so an answer can be cut at a byte.
async fn cdn(shared: Arc<Shared>, mut connection: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    let value = |name: &str| {
        let of = |line: &str| {
            line.to_ascii_lowercase()
                .strip_prefix(name)
                .map(|value| value.trim().to_owned())
        };
        headers.lines().find_map(of).unwrap_or_default()
    };
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let path = target.split('?').next().unwrap();
    let range = value("range:");
    let request = format!("{method} {path} {range}");
    shared.requests.lock().unwrap().push(request.trim().to_owned());
    // The token is for the hub alone, and addresses on the real one are signed for GET alone.
    let refused = if !value("authorization:").is_empty() {
        Some(400)
    } else if method != "GET" {
        Some(403)
    } else {
        None
    };
    let fault = match refused {
        Some(status) => Some(Fault::Status(status)),
        None => shared.faults.lock().unwrap().pop_front(),
    };
    let mut content = shared
        .file(path.trim_start_matches('/'))
        .unwrap()
        .content
        .to_vec();
    let total = content.len();
    let from: usize = match range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-'))
    {
        Some(from) => from.parse().unwrap(),
        None => 0,
    };
    let mut body = content.split_off(from);
    let status = match from {
        0 => "200 OK".to_owned(),
        from => format!(
            "206 Partial Content\r\ncontent-range: bytes {from}-{}/{total}",
            total - 1
        ),
    };
    let length = body.len();
    let status = match fault {
        Some(Fault::Status(code)) => {
            body.clear();
            format!("{code} Refused\r\ncontent-length: 0")
        }
        Some(Fault::OtherBytes) => {
            body[0] ^= 1;
            format!("{status}\r\ncontent-length: {length}")
        }
        Some(Fault::CutAfter(bytes)) => {
            body.truncate(bytes);
            format!("{status}\r\ncontent-length: {length}")
        }
        None => format!("{status}\r\ncontent-length: {length}"),
    };
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await.ok();
    connection.write_all(&body).await.ok();
    connection.shutdown().await.ok();
}
