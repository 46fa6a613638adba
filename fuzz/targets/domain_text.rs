//! Texts that become domain values. The first byte of an input picks the kind, the rest is the text.

#![no_main]

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use chroma_sync::{
    domain::{
        globs::Globs,
        ids::parse_uuid,
        invocation::{DEFAULT_BRANCH, GitReference, StateName},
        names::{CollectionName, DatabaseName},
        page::{decode_token, encode_token},
        source::{GithubAppId, RepositoryName, SourceType},
    },
    error::FieldViolation,
    grpc::deadline,
    seal::{Sealed, SealingKey},
    secret::Secret,
};
use chroma_sync_fuzz::assert_refused;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::{Corpus, fuzz_target};

static KEY: LazyLock<SealingKey> = LazyLock::new(|| SealingKey::from_hex(&"a5".repeat(32)).unwrap());

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((kind, bytes)) = bytes.split_first() else {
        return Corpus::Reject;
    };
    match (kind, std::str::from_utf8(bytes)) {
        (b's', text) => sealed(bytes, text.ok()),
        (b'd', _) => grpc_timeout(bytes),
        (b'r', Ok(text)) => repository(text),
        (b'g', Ok(text)) => globs(text),
        (b'b', Ok(text)) => branch(text),
        (b'n', Ok(text)) => names(text),
        (b't', Ok(text)) => page_token(text),
        _ => return Corpus::Reject,
    }
    Corpus::Keep
});

fn repository(text: &str) {
    let read = |text: &str| RepositoryName::parse("github.repository", text);
    match read(text) {
        Ok(name) => {
            let parts: Vec<&str> = name.as_str().split('/').collect();
            assert!(
                matches!(parts[..], [owner, name] if ![owner, name].iter().any(|part| matches!(*part, "" | "." | ".."))),
                "{name:?}"
            );
            assert_eq!(read(name.as_str()), Ok(name.clone()));
            assert_eq!(read(&format!("https://github.com/{name}.git")), Ok(name));
        }
        Err(violation) => assert_refused(violation),
    }
}

/// Patterns by line; the last line is the key to match.
fn globs(text: &str) {
    let mut patterns: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let key = patterns.pop().unwrap_or_default();
    match Globs::parse("github.include_globs", &patterns) {
        Ok(globs) => {
            let matches = globs.matches(&key);
            let is_literal =
                |pattern: &&String| !pattern.contains(['*', '?', '[', ']', '{', '}', '\\', ',', '!']);
            if patterns.iter().filter(is_literal).any(|pattern| *pattern == key) {
                assert!(matches, "a literal picks its own key");
            }
            let again = Globs::parse("github.include_globs", globs.patterns()).unwrap();
            assert_eq!(again, globs);
            assert_eq!(again.matches(&key), matches);
        }
        Err(violation) => assert_refused(violation),
    }
}

/// Git itself is asked what a branch may be called; we refuse more, for a reason each.
fn branch(text: &str) {
    let by_git = gix_validate::reference::name_partial(text.into()).is_ok();
    let too_long = text.len() > 255;
    let reads_as_an_option = text.starts_with('-');
    let unprintable = text.chars().any(char::is_control);
    match GitReference::branch_or_default("github.branch", text) {
        Ok(None) => assert_eq!(text, DEFAULT_BRANCH),
        Ok(Some(GitReference::Branch(name))) => {
            assert_eq!(name, text);
            assert!(by_git, "{text:?} is no name for git");
        }
        Ok(Some(GitReference::Sha(_))) => panic!("a branch is no commit"),
        Err(violation) => {
            assert!(
                !by_git || too_long || reads_as_an_option || unprintable,
                "{text:?} is a name for git"
            );
            assert_refused(violation);
        }
    }
}

fn names(text: &str) {
    let same = |read: Result<String, FieldViolation>, expected: &str| match read {
        Ok(name) => assert_eq!(name, expected),
        Err(violation) => assert_refused(violation),
    };
    same(
        CollectionName::parse("target_collection_name", text).map(|name| name.to_string()),
        text,
    );
    same(
        DatabaseName::parse("database_name", text).map(|name| name.to_string()),
        text,
    );
    same(
        GithubAppId::parse("github_app_id", text).map(|id| id.to_string()),
        text,
    );
    same(
        SourceType::parse("source_type", text).map(|kind| kind.as_str().to_owned()),
        text,
    );
    same(
        StateName::parse("status", text).map(|state| state.as_str().to_owned()),
        text,
    );
    same(
        parse_uuid("request_id", text).map(|id| id.to_string()),
        &text.to_ascii_lowercase(),
    );
    match GitReference::sha("github.sha", text) {
        Ok(reference) => assert_eq!(reference, GitReference::Sha(text.to_ascii_lowercase())),
        Err(violation) => assert_refused(violation),
    }
}

/// The listing and, behind a line break, the token.
fn page_token(text: &str) {
    let (listing, token) = text.split_once('\n').unwrap_or_default();
    match decode_token(listing, token) {
        Ok(id) => assert_eq!(encode_token(listing, id), token),
        Err(error) => assert_refused(error),
    }
}

/// Nothing opens that was not sealed; what was sealed opens, unless a bit of it was changed.
fn sealed(bytes: &[u8], text: Option<&str>) {
    assert!(KEY.open("tenant", &Sealed::from_bytes(bytes.to_vec())).is_err());
    let Some(text) = text else { return };
    let sealed = KEY.seal("tenant", &Secret::new(text)).unwrap();
    assert_eq!(KEY.open("tenant", &sealed).unwrap().expose(), text);
    assert!(KEY.open(text, &sealed).is_err() || text == "tenant");
    let mut altered = sealed.into_bytes();
    let at = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % altered.len();
    altered[at] ^= 1;
    assert!(KEY.open("tenant", &Sealed::from_bytes(altered)).is_err());
}

fn grpc_timeout(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert("grpc-timeout", value);
    if let Some(timeout) = deadline::timeout(&headers) {
        assert!(bytes.len() <= 9, "at most 8 digits and a unit");
        assert!(timeout <= Duration::from_secs(99_999_999 * 3_600));
        assert!(Instant::now().checked_add(timeout).is_some());
    }
}
