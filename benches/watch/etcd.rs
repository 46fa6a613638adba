//! etcd, and the few of its messages that a watch and a write need. Field numbers are those of etcd's
//! `rpc.proto` and `kv.proto`; fields that are not listed are skipped when a message is read.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures::{StreamExt, stream};
use http::uri::PathAndQuery;
use tempfile::TempDir;
use tonic::{IntoStreamingRequest, Request, Status, Streaming, transport::Channel};
use tonic_prost::ProstCodec;

use crate::harness::{process::die_with_parent, service::project_file, wait_for};

/// A server with a directory of its own. Dropping it kills it.
pub struct Etcd {
    child: Child,
    pub url: String,
    /// What each write writes.
    value: Vec<u8>,
    _directory: TempDir,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub create_request: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchCreateRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchResponse {
    #[prost(bool, tag = "3")]
    pub created: bool,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
}

impl Etcd {
    /// Starts a server whose files lie in `directory`; writes will be of `value_bytes`.
    pub async fn start(directory: &Path, value_bytes: usize) -> Self {
        let directory = tempfile::tempdir_in(directory).unwrap();
        // Another program may take a free port before the server does.
        for attempt in 0..3 {
            let data = directory.path().join(format!("data-{attempt}"));
            let (mut child, url) = spawn(&data);
            let answered = wait_for("etcd's start", async || {
                if child.try_wait().unwrap().is_some() {
                    return Ok(false);
                }
                let channel = Channel::from_shared(url.clone()).unwrap().connect().await;
                let channel = channel.map_err(|error| error.to_string())?;
                let answer = put(channel, b"ready".to_vec(), Vec::new()).await;
                answer.map(|()| true).map_err(|status| status.to_string())
            })
            .await;
            if answered {
                return Self {
                    child,
                    url,
                    value: vec![b'v'; value_bytes],
                    _directory: directory,
                };
            }
        }
        panic!("etcd ended before it was ready");
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Opens a stream with one watch in it; returns once the server says that it is there.
    pub async fn watch(&self, channel: Channel, key: usize) -> Streaming<WatchResponse> {
        let request = WatchRequest {
            create_request: Some(WatchCreateRequest { key: name(key) }),
        };
        // The stream of requests stays open: its end would end the watches.
        let requests = stream::once(async { request }).chain(stream::pending());
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        let answer = client.streaming(requests.into_streaming_request(), path, codec);
        let mut responses = answer.await.unwrap().into_inner();
        let first = responses.message().await.unwrap().unwrap();
        assert!(first.created && !first.canceled, "{first:?}");
        responses
    }

    pub async fn write(&self, channel: Channel, key: usize) {
        put(channel, name(key), self.value.clone()).await.unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the program says it is, in one line.
pub fn version() -> String {
    let output = Command::new(program()).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().next().unwrap_or_default().to_owned()
}

fn program() -> std::path::PathBuf {
    let program = project_file(".peers/etcd");
    assert!(
        program.exists(),
        "{} is missing; run `scripts/peers.sh etcd`",
        program.display()
    );
    program
}

/// A server with the defaults: each write is synced to the disk.
fn spawn(data: &Path) -> (Child, String) {
    let free_url = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let (url, peer_url) = (free_url(), free_url());
    let mut command = Command::new(program());
    command
        .arg("--data-dir")
        .arg(data)
        .args(["--name", "bench", "--log-level", "fatal"])
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &peer_url])
        .args(["--initial-advertise-peer-urls", &peer_url])
        .args(["--initial-cluster", &format!("bench={peer_url}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // The thread that starts it, and with which it ends, is the main one.
    die_with_parent(&mut command, libc::SIGKILL);
    (command.spawn().unwrap(), url)
}

fn name(key: usize) -> Vec<u8> {
    format!("invocations/{key:08}").into_bytes()
}

async fn put(channel: Channel, key: Vec<u8>, value: Vec<u8>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(PutRequest { key, value });
    request.set_timeout(Duration::from_secs(60));
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let codec = ProstCodec::<PutRequest, PutResponse>::default();
    client.unary(request, path, codec).await.map(drop)
}
