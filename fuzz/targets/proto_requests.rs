//! The request messages of the contract. The first byte of an input picks the message, the rest is its
//! encoding.

#![no_main]

use std::sync::LazyLock;

use chroma_sync::{
    domain::{
        embedding::ModelCatalog,
        ids::{InvocationId, SourceId},
        invocation::NewInvocation,
        page::{MAX_PAGE_SIZE, PageRequest, encode_token},
        source::Source,
    },
    error::{Error, FieldViolation},
    grpc::requests,
    proto,
};
use chroma_sync_fuzz::{assert_refused, catalog, pending, sources, store_access_key, stored};
use libfuzzer_sys::{Corpus, fuzz_target};
use prost::Message;
use uuid::Uuid;

static CATALOG: LazyLock<ModelCatalog> = LazyLock::new(catalog);
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(sources);

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((method, message)) = bytes.split_first() else {
        return Corpus::Reject;
    };
    let checked = match method {
        b'c' => decoded(message).map(create_source),
        b'i' => decoded(message).map(create_invocation),
        b's' => decoded(message).map(list_sources),
        b'l' => decoded(message).map(list_invocations),
        b'd' => decoded(message).map(list_documents),
        b'w' => decoded(message).map(watch),
        b'g' => decoded(message).map(|proto::GetSourceRequest { source_id }| read_id(&source_id, source)),
        b'k' => decoded(message).map(|proto::CancelInvocationRequest { invocation_id }| {
            read_id(&invocation_id, invocation);
        }),
        b'b' => decoded(message).map(
            |proto::BatchGetLatestInvocationsRequest {
                 source_id,
                 object_keys: _,
             }| read_id(&source_id, source),
        ),
        _ => None,
    };
    // Bytes that are no message never reach our code.
    match checked {
        Some(()) => Corpus::Keep,
        None => Corpus::Reject,
    }
});

fn decoded<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

/// The value, or nothing when the request was refused as it has to be.
fn accepted<T>(read: Result<T, Error>) -> Option<T> {
    read.map_err(assert_refused).ok()
}

/// What a source is shown as makes the same source again.
fn create_source(request: proto::CreateSourceRequest) {
    let Some((mut new, request_id)) = accepted(requests::new_source(request, &CATALOG)) else {
        return;
    };
    store_access_key(&mut new.settings);
    let proto::Source {
        id: _,
        database_name,
        settings,
        embedding,
        chunking,
        create_time: _,
        webhook,
    } = stored(new.clone()).into();
    let again = proto::CreateSourceRequest {
        database_name,
        settings: settings.map(|settings| {
            use proto::{create_source_request::Settings as Asked, source::Settings};

            match settings {
                Settings::Github(github) => Asked::Github(github),
                Settings::S3(s3) => Asked::S3(s3),
                Settings::WebScrape(web) => Asked::WebScrape(web),
                Settings::FileUpload(proto::FileUploadSource {}) => panic!("nobody asks for one"),
            }
        }),
        embedding,
        chunking,
        request_id: request_id.map(|id| id.to_string()),
        webhook,
    };
    let read = requests::new_source(again, &CATALOG).unwrap();
    assert_eq!(read.0.fingerprint(), new.fingerprint());
    assert_eq!(read, (new, request_id));
}

/// Whatever the source is, the request is refused or makes an invocation.
fn create_invocation(request: proto::CreateInvocationRequest) {
    let Some((source_id, requested, request_id)) = accepted(requests::new_invocation(request)) else {
        return;
    };
    for source in SOURCES.iter() {
        match requested.clone().for_source(source) {
            Ok(new) => invocation_survives(new, source, source_id, request_id),
            Err(violation) => assert_refused(violation),
        }
    }
}

/// What an invocation is shown as asks for the same invocation again.
fn invocation_survives(new: NewInvocation, source: &Source, source_id: SourceId, request_id: Option<Uuid>) {
    let shown = proto::Invocation::from(pending(&new, source_id));
    let again = proto::CreateInvocationRequest {
        source_id: shown.source_id.unwrap(),
        target_collection_name: shown.collection_name,
        input: shown.input.map(|input| {
            use proto::{create_invocation_request::Input as Asked, invocation::Input};

            match input {
                Input::Github(github) => Asked::Github(github),
                Input::S3(s3) => Asked::S3(proto::S3Input {
                    bucket_name: String::new(),
                    ..s3
                }),
                Input::WebScrape(web) => Asked::WebScrape(web),
                Input::FileUpload(_) => panic!("nobody asks for one"),
            }
        }),
        request_id: request_id.map(|id| id.to_string()),
        webhook: shown.webhook,
        update_collection: new.update_collection,
    };
    let (same_source, requested, same_id) = requests::new_invocation(again).unwrap();
    assert_eq!((same_source, same_id), (source_id, request_id));
    assert_eq!(requested.for_source(source).unwrap(), new);
}

/// A page is within its bounds; the token made for it continues it.
fn list_sources(request: proto::ListSourcesRequest) {
    let Some((filter, page, listing)) = accepted(requests::source_listing(request.clone())) else {
        return;
    };
    let last = Uuid::from_u128(7);
    let next = proto::ListSourcesRequest {
        page_token: encode_token(&listing, last),
        ..request
    };
    let (same, next, _) = requests::source_listing(next).unwrap();
    assert_eq!(same, filter);
    assert_continues(page, next, last);
}

fn list_invocations(request: proto::ListInvocationsRequest) {
    let Some((filter, page, listing)) = accepted(requests::invocation_listing(request.clone())) else {
        return;
    };
    let last = Uuid::from_u128(7);
    let next = proto::ListInvocationsRequest {
        page_token: encode_token(&listing, last),
        ..request
    };
    let (same, next, _) = requests::invocation_listing(next).unwrap();
    assert_eq!(same, filter);
    assert_continues(page, next, last);
}

fn assert_continues(page: PageRequest, next: PageRequest, last: Uuid) {
    assert!((1..=MAX_PAGE_SIZE).contains(&page.size), "{page:?}");
    let after = Some(last);
    assert_eq!(next, PageRequest { after, ..page });
}

fn list_documents(request: proto::ListDocumentsRequest) {
    let Some(listing) = accepted(requests::document_listing(request.clone())) else {
        return;
    };
    assert!((1..=MAX_PAGE_SIZE).contains(&listing.size), "{listing:?}");
    let next = proto::ListDocumentsRequest {
        page_token: encode_token(&listing.listing, Uuid::from_u128(7)),
        ..request
    };
    let after = Some(7);
    assert_eq!(
        requests::document_listing(next).unwrap(),
        requests::DocumentListing { after, ..listing }
    );
}

fn watch(request: proto::WatchInvocationRequest) {
    let Some((id, after)) = accepted(requests::watch(request)) else {
        return;
    };
    let again = proto::WatchInvocationRequest {
        invocation_id: id.to_string(),
        after_revision: after.map(|after| i64::try_from(after).unwrap()),
    };
    assert_eq!(requests::watch(again).unwrap(), (id, after));
}

fn source(text: &str) -> Result<String, FieldViolation> {
    text.parse().map(|id: SourceId| id.to_string())
}

fn invocation(text: &str) -> Result<String, FieldViolation> {
    text.parse().map(|id: InvocationId| id.to_string())
}

fn read_id(text: &str, read: fn(&str) -> Result<String, FieldViolation>) {
    match read(text) {
        Ok(id) => assert_eq!(id, text.to_ascii_lowercase()),
        Err(violation) => assert_refused(violation),
    }
}
