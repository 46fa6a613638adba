//! What the fuzz targets share: the models that requests are checked against, and what must hold of
//! every request that is refused.

use chroma_sync::{
    domain::{
        credential::AwsCredentialId,
        embedding::{BM25, MINILM, ModelCatalog, ModelDescription, QWEN3},
        ids::{InvocationId, SourceId},
        invocation::{Invocation, NewInvocation, Progress, State},
        names::{DatabaseName, TenantName},
        source::{NewSource, S3Credential, Source, SourceSettings},
        time::Timestamp,
    },
    error::{Error, ErrorCode, Reason},
    grpc::status,
    rest,
};
use uuid::Uuid;

/// The most bytes of headers that every gRPC client takes; the status of a call is one of them.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// A server with a model of a small window and one of a large one.
pub fn catalog() -> ModelCatalog {
    let model = |name: &str, dimensions, max_tokens| ModelDescription {
        name: name.to_owned(),
        dimensions,
        max_tokens,
        takes_instructions: name == QWEN3,
    };
    ModelCatalog::new(
        vec![model(MINILM, 384, 256), model(QWEN3, 1_024, 32_768)],
        MINILM.to_owned(),
    )
    .with_sparse(vec![BM25.to_owned()])
}

/// A source of each type that invocations are asked of.
pub fn sources() -> Vec<Source> {
    let bodies = [
        r#"{"database_name": "database", "github": {"repository": "owner/name"}}"#,
        r#"{"database_name": "database", "s3": {"bucket_name": "bucket", "region": "eu-central-1",
            "collection_name": "collection", "aws_credential_id": 7, "path_prefix": "a/"}}"#,
        r#"{"database_name": "database", "web_scrape": {"starting_url": "https://example.com/"}}"#,
    ];
    let catalog = catalog();
    let read = |body: &str| stored(rest::read_new_source(body.as_bytes(), &catalog).unwrap());
    bodies.into_iter().map(read).collect()
}

/// An access key that comes with a request is stored first, and the source refers to it.
pub fn store_access_key(settings: &mut SourceSettings) {
    match settings {
        SourceSettings::S3(s3) => match s3.credential {
            S3Credential::Given(_) => {
                s3.credential = S3Credential::Stored(AwsCredentialId::parse("id", 7).unwrap());
            }
            S3Credential::Stored(_) => {}
        },
        SourceSettings::Github(_) | SourceSettings::WebScrape(_) | SourceSettings::FileUpload => {}
    }
}

/// The invocation that a request makes, before a worker takes it.
pub fn pending(new: &NewInvocation, source_id: SourceId) -> Invocation {
    Invocation {
        id: InvocationId(Uuid::nil()),
        tenant: TenantName::default_tenant(),
        source_id: Some(source_id),
        database: DatabaseName::from_stored("database".to_owned()),
        collection: new.collection.clone(),
        input: new.input.clone(),
        state: State::Pending,
        revision: 1,
        progress_version: 0,
        progress: Progress::default(),
        attempt: 0,
        resolved_commit: None,
        create_time: Timestamp(0),
        webhook: new.webhook.clone(),
        webhook_delivery: None,
    }
}

/// The source that a request makes.
pub fn stored(new: NewSource) -> Source {
    let NewSource {
        database,
        settings,
        embedding,
        chunking,
        webhook,
    } = new;
    Source {
        id: SourceId(Uuid::nil()),
        tenant: TenantName::default_tenant(),
        database,
        settings,
        embedding,
        chunking,
        create_time: Timestamp(0),
        webhook,
    }
}

/// A request that is wrong by itself is the caller's to mend: the answer says so, names what is wrong, and
/// reaches a client of either transport.
///
/// # Panics
/// When it does not.
pub fn assert_refused(error: impl Into<Error>) {
    let error = error.into();
    assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error:?}");
    assert!(!error.message().is_empty(), "{error:?}");
    for violation in error.violations() {
        assert!(!violation.field.is_empty(), "{violation:?}");
        assert!(!violation.description.is_empty(), "{violation:?}");
    }
    let names_none = error.violations().is_empty();
    assert_eq!(
        names_none,
        error.reason() == Reason::MalformedRequest,
        "{error:?}"
    );
    let response = status::status(&error).into_http::<()>();
    let bytes: usize = response
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum();
    assert!(bytes <= MAX_HEADER_BYTES, "{bytes} bytes of headers: {error:?}");
}
