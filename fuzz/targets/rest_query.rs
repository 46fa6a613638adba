//! What a REST request says outside its body. An input is up to three lines: the query string, the value
//! of `Idempotency-Key` (and of `authorization`), and an id in the path.

#![no_main]

use chroma_sync::{
    domain::{
        ids::{InvocationId, SourceId, parse_uuid},
        invocation::InvocationFilter,
        page::{MAX_PAGE_SIZE, Order, PageRequest},
        source::SourceFilter,
    },
    rest, token,
};
use chroma_sync_fuzz::assert_refused;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header::AUTHORIZATION};
use libfuzzer_sys::fuzz_target;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    query(line());
    header(line());
    path_id(line());
});

fn query(text: &[u8]) {
    let Ok(uri) = Uri::try_from([b"/api/v1/sources?", text].concat()) else {
        return;
    };
    match rest::read_source_listing(uri.query()) {
        Ok((filter, page)) => {
            assert_page(&page);
            let SourceFilter {
                database,
                source_type,
                github_app_id,
                github_repository,
            } = &filter;
            let again = encoded(
                &page,
                [
                    ("database_name", database.as_ref().map(|name| name.as_str())),
                    ("source_type", source_type.map(|kind| kind.as_str())),
                    ("github.app_id", github_app_id.as_ref().map(|id| id.as_str())),
                    (
                        "github.repository",
                        github_repository.as_ref().map(|name| name.as_str()),
                    ),
                ],
            );
            let read = rest::read_source_listing(Some(&again)).unwrap();
            assert_eq!(read, (filter, page), "{again}");
        }
        Err(violation) => assert_refused(violation),
    }
    match rest::read_invocation_listing(uri.query()) {
        Ok((filter, page)) => {
            assert_page(&page);
            let InvocationFilter {
                source_id,
                database,
                source_type,
                github_app_id,
                github_repository,
                state,
            } = &filter;
            let again = encoded(
                &page,
                [
                    ("source_id", source_id.map(|id| id.to_string()).as_deref()),
                    ("database_name", database.as_ref().map(|name| name.as_str())),
                    ("source_type", source_type.map(|kind| kind.as_str())),
                    ("github.app_id", github_app_id.as_ref().map(|id| id.as_str())),
                    (
                        "github.repository",
                        github_repository.as_ref().map(|name| name.as_str()),
                    ),
                    ("status", state.map(|state| state.as_str())),
                ],
            );
            let read = rest::read_invocation_listing(Some(&again)).unwrap();
            assert_eq!(read, (filter, page), "{again}");
        }
        Err(violation) => assert_refused(violation),
    }
}

fn assert_page(page: &PageRequest) {
    assert!(page.size <= MAX_PAGE_SIZE, "{page:?}");
    assert!(i64::try_from(page.skip).is_ok(), "{page:?}");
    assert_eq!(page.after, None);
}

fn encoded<const N: usize>(page: &PageRequest, filter: [(&str, Option<&str>); N]) -> String {
    let order = match page.order {
        Order::Ascending => "ASC",
        Order::Descending => "DESC",
    };
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query
        .append_pair("limit", &page.size.to_string())
        .append_pair("offset", &page.skip.to_string())
        .append_pair("order_by", order);
    for (name, value) in filter {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

fn header(text: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(text) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, value.clone());
    if let Some(token) = token::from_headers(&headers) {
        assert!(
            token
                .bytes()
                .all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
        );
    }
    headers.insert(IDEMPOTENCY_KEY, value.clone());
    match rest::read_request_id(&headers) {
        Ok(None) => panic!("a key that is given is never none"),
        Ok(Some(id)) => {
            // The id stands for itself, and quotes are no part of a key.
            for text in [id.to_string(), format!("\"{id}\"")] {
                headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(&text).unwrap());
                assert_eq!(rest::read_request_id(&headers), Ok(Some(id)), "{text}");
            }
        }
        Err(violation) => assert_refused(violation),
    }
    headers.append(IDEMPOTENCY_KEY, value);
    assert_refused(rest::read_request_id(&headers).unwrap_err());
}

fn path_id(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let source = text.parse::<SourceId>();
    let invocation = text.parse::<InvocationId>();
    match (source, invocation) {
        (Ok(source), Ok(invocation)) => {
            assert_eq!(source.0, invocation.0);
            assert_eq!(source.to_string(), text.to_ascii_lowercase());
            assert_eq!(parse_uuid("id", &source.to_string()), Ok(source.0));
        }
        (Err(source), Err(invocation)) => {
            assert_eq!(source.field, "source_id");
            assert_eq!(invocation.field, "invocation_id");
            assert_refused(source);
            assert_refused(invocation);
        }
        (source, invocation) => panic!("one rule for all ids: {source:?}, {invocation:?}"),
    }
}
