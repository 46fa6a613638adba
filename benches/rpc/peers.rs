//! What the service is compared with, or set up with, each in a process of its own.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{Json, Router, http::StatusCode, routing::get};
use chroma_sync::proto::{
    self,
    invocation_service_server::{InvocationService, InvocationServiceServer},
};
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::harness::process::die_with_parent;

/// Names of the roles, as arguments of this program.
pub const BARE: &str = "bare-service";
pub const STAND_IN: &str = "chroma-stand-in";

/// A process of this program in another role. Dropping it kills it.
pub struct Peer {
    child: Child,
    pub url: String,
}

impl Peer {
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments).stdout(Stdio::piped());
        // The thread that starts it, and with which it ends, is the main one.
        die_with_parent(&mut command, libc::SIGKILL);
        let mut child = command.spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        let url = url.trim().to_owned();
        Self { child, url }
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    listener
}

/// Answers GetInvocation with one message, on a server built like the service's.
pub async fn serve_bare(message: &str) {
    let message = proto::Invocation::decode(hex::decode(message).unwrap().as_slice()).unwrap();
    Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(Some(10_000))
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(InvocationServiceServer::new(Bare(message)))
        .serve_with_incoming(TcpIncoming::from(listener().await).with_nodelay(Some(true)))
        .await
        .unwrap();
}

struct Bare(proto::Invocation);

#[tonic::async_trait]
impl InvocationService for Bare {
    type WatchInvocationStream = futures::stream::Empty<Result<proto::SharedWatchInvocationResponse, Status>>;
    type WatchInvocationsStream =
        futures::stream::Empty<Result<proto::SharedWatchInvocationsResponse, Status>>;

    async fn get_invocation(
        &self,
        _request: Request<proto::GetInvocationRequest>,
    ) -> Result<Response<proto::Invocation>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn create_invocation(
        &self,
        _request: Request<proto::CreateInvocationRequest>,
    ) -> Result<Response<proto::Invocation>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn list_invocations(
        &self,
        _request: Request<proto::ListInvocationsRequest>,
    ) -> Result<Response<proto::ListInvocationsResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn cancel_invocation(
        &self,
        _request: Request<proto::CancelInvocationRequest>,
    ) -> Result<Response<proto::Invocation>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn batch_get_latest_invocations(
        &self,
        _request: Request<proto::BatchGetLatestInvocationsRequest>,
    ) -> Result<Response<proto::BatchGetLatestInvocationsResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn list_documents(
        &self,
        _request: Request<proto::ListDocumentsRequest>,
    ) -> Result<Response<proto::ListDocumentsResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn watch_invocation(
        &self,
        _request: Request<proto::WatchInvocationRequest>,
    ) -> Result<Response<Self::WatchInvocationStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn watch_invocations(
        &self,
        _request: Request<proto::WatchInvocationsRequest>,
    ) -> Result<Response<Self::WatchInvocationsStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

/// Answers as a Chroma server that has every database and no collection, and takes no time for it.
pub async fn serve_stand_in() {
    let missing = || async {
        (
            StatusCode::NOT_FOUND,
            Json(json!({"error": "NotFoundError", "message": "none"})),
        )
    };
    let router = Router::new()
        .route(
            "/api/v2/tenants/{tenant}/databases/{database}",
            get(|| async { Json(json!({})) }),
        )
        .route(
            "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}",
            get(missing),
        )
        .route(
            "/api/v2/tenants/{tenant}/databases/{database}/collections",
            get(|| async { Json(json!([])) }),
        );
    Server::builder()
        .accept_http1(true)
        .add_routes(tonic::service::Routes::from(router))
        .serve_with_incoming(TcpIncoming::from(listener().await).with_nodelay(Some(true)))
        .await
        .unwrap();
}
