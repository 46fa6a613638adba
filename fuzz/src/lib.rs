//! What the fuzz targets share: the models that requests are checked against, and what must hold of
//! every request that is refused.

use chroma_sync::{
    domain::{
        embedding::{BM25, MINILM, ModelCatalog, ModelDescription, QWEN3},
        ids::SourceId,
        names::TenantName,
        source::{NewSource, Source},
        time::Timestamp,
    },
    error::{Error, ErrorCode, Reason},
    grpc::status,
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
