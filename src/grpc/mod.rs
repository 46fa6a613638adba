//! The gRPC surface: take the request apart, authenticate, call the use case, wrap the answer.
//!
//! Absent on purpose: rules. Whatever a request may or may not do is decided in `app/`; whatever a
//! value may be is decided in `domain/`.

mod convert;
mod convert_source;
mod credentials;
pub mod deadline;
mod embedding;
mod files;
mod invocations;
pub mod requests;
mod search;
mod source_settings;
mod sources;
pub mod status;

use http::HeaderMap;
use tonic::{
    Status,
    codec::CompressionEncoding,
    service::{Routes, RoutesBuilder},
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    app::{App, Auth},
    proto::{
        self, credential_service_server::CredentialServiceServer,
        embedding_service_server::EmbeddingServiceServer, file_service_server::FileServiceServer,
        invocation_service_server::InvocationServiceServer, search_service_server::SearchServiceServer,
        source_service_server::SourceServiceServer,
    },
};

/// Path of the method that takes files.
pub const ADD_FILE: &str = "/chromasync.v1.FileService/AddFile";

/// What the gRPC surface needs to be told.
#[derive(Debug, Clone, Copy)]
pub struct GrpcOptions {
    /// The largest message taken, in bytes.
    pub max_request_bytes: usize,
}

/// Why the surface cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("cannot build the reflection service from the compiled descriptors")]
pub struct BuildError(#[from] tonic_reflection::server::Error);

/// The services of the contract, with reflection (v1 and v1alpha) and health.
///
/// # Errors
/// When the descriptors that were compiled in cannot be read.
pub async fn routes(app: App, options: GrpcOptions) -> Result<(Routes, HealthReporter), BuildError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_serving::<SourceServiceServer<sources::Sources>>()
        .await;
    reporter
        .set_serving::<InvocationServiceServer<invocations::Invocations>>()
        .await;
    reporter
        .set_serving::<CredentialServiceServer<credentials::Credentials>>()
        .await;
    reporter.set_serving::<FileServiceServer<files::Files>>().await;
    reporter
        .set_serving::<EmbeddingServiceServer<embedding::Embeddings>>()
        .await;
    reporter
        .set_serving::<SearchServiceServer<search::Searches>>()
        .await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = RoutesBuilder::default();
    routes.add_service(
        SourceServiceServer::new(sources::Sources::new(app.clone()))
            .max_decoding_message_size(options.max_request_bytes)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip),
    );
    routes.add_service(
        InvocationServiceServer::new(invocations::Invocations::new(app.clone()))
            .max_decoding_message_size(options.max_request_bytes)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip),
    );
    routes.add_service(
        CredentialServiceServer::new(credentials::Credentials::new(app.clone()))
            .max_decoding_message_size(options.max_request_bytes)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip),
    );
    routes.add_service(
        FileServiceServer::new(files::Files::new(app.clone()))
            .max_decoding_message_size(options.max_request_bytes)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip),
    );
    routes.add_service(
        EmbeddingServiceServer::new(embedding::Embeddings::new(app.clone()))
            .max_decoding_message_size(options.max_request_bytes)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip),
    );
    routes.add_service(
        SearchServiceServer::new(search::Searches::new(app))
            .max_decoding_message_size(options.max_request_bytes)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip),
    );
    routes.add_service(health);
    routes.add_service(reflection().build_v1()?);
    routes.add_service(reflection().build_v1alpha()?);
    Ok((routes.routes(), reporter))
}

/// Tells health checks that the server is going away.
pub async fn report_draining(reporter: &HealthReporter) {
    reporter.set_service_status("", ServingStatus::NotServing).await;
    reporter
        .set_not_serving::<SourceServiceServer<sources::Sources>>()
        .await;
    reporter
        .set_not_serving::<InvocationServiceServer<invocations::Invocations>>()
        .await;
    reporter
        .set_not_serving::<CredentialServiceServer<credentials::Credentials>>()
        .await;
    reporter
        .set_not_serving::<FileServiceServer<files::Files>>()
        .await;
    reporter
        .set_not_serving::<EmbeddingServiceServer<embedding::Embeddings>>()
        .await;
    reporter
        .set_not_serving::<SearchServiceServer<search::Searches>>()
        .await;
}

/// Finds out who calls, from the metadata of a request.
async fn authenticate<T>(app: &App, request: &tonic::Request<T>) -> Result<Auth, Status> {
    let headers: &HeaderMap = request.metadata().as_ref();
    app.authenticate(crate::token::from_headers(headers))
        .await
        .map_err(status::from_error)
}
