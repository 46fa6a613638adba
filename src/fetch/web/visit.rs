//! One URL: what it answers, and the document in it.

use std::sync::Arc;

use encoding_rs::Encoding;
use reqwest::{
    StatusCode,
    header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED},
};
use sha2::{Digest, Sha256};
use url::Url;

use super::{
    address,
    requests::{Answer, Body, Fault, Requests, Validators},
    robots::product_token,
    text::{self, Declared, Kind},
};
use crate::{
    domain::document::SkipRule,
    fetch::{egress::EgressError, error::Cause},
    parse::html::{self, RobotsWishes},
};

/// The longest validator that is kept, in bytes. Servers send about 50.
const MAX_VALIDATOR_BYTES: usize = 1_024;

/// What a URL came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A document, and what is to be known of it.
    Document(Box<Visited>),
    /// It is as it was.
    NotModified,
    /// It leads elsewhere; none where that is nothing that can be fetched.
    Redirect(Option<Url>),
    /// There is no such page: 404 or 410.
    Gone(StatusCode),
    /// The site does not give it to everybody: another 4xx.
    Refused(StatusCode),
    /// A rule leaves it out.
    Skip(SkipRule),
    /// It cannot be read.
    Failed(String),
    /// The policy does not let it be fetched.
    Egress(EgressError),
    /// The site does not answer for now.
    Unanswered {
        problem: String,
        retry_after: Option<std::time::Duration>,
        source: Option<Cause>,
    },
    /// A fault of this service.
    Fault(Cause),
}

/// A document that was read.
#[derive(Debug)]
pub(super) struct Visited {
    pub(super) content: Vec<u8>,
    pub(super) kind: Kind,
    /// SHA-256 of the content, hexadecimal.
    pub(super) version_key: String,
    pub(super) title: Option<String>,
    pub(super) canonical: Option<Url>,
    pub(super) links: Vec<Url>,
    pub(super) robots: RobotsWishes,
    pub(super) validators: Validators,
}

/// Asks for `url` and reads what it answers.
pub(super) async fn visit(requests: &Requests, url: &Url, validators: &Validators) -> Outcome {
    let wants = |status: StatusCode, headers: &HeaderMap| {
        status.is_success() && declared(headers, url) != Declared::Other
    };
    let answer = match requests
        .get(url, validators, requests.options.max_page_bytes, wants)
        .await
    {
        Ok(answer) => answer,
        Err(Fault::Egress(refusal)) => return Outcome::Egress(refusal),
        Err(Fault::Internal(cause)) => return Outcome::Fault(cause),
        Err(Fault::Transient {
            problem,
            retry_after,
            source,
        }) => {
            return Outcome::Unanswered {
                problem,
                retry_after,
                source,
            };
        }
    };
    if answer.status == StatusCode::NOT_MODIFIED {
        return Outcome::NotModified;
    }
    if answer.status.is_redirection() {
        return Outcome::Redirect(answer.redirect(url).as_ref().and_then(address::normalise));
    }
    if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return Outcome::Gone(answer.status);
    }
    if answer.status.is_client_error() {
        return Outcome::Refused(answer.status);
    }
    read(requests, url, answer).await
}

fn declared(headers: &HeaderMap, url: &Url) -> Declared {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    text::declared(content_type, url.path())
}

async fn read(requests: &Requests, url: &Url, answer: Answer) -> Outcome {
    let declared = declared(&answer.headers, url);
    let kind = match (declared, &answer.body) {
        (_, Some(Body::TooLarge(_))) => return Outcome::Skip(SkipRule::TooLarge),
        (Declared::Other, _) | (_, None) => return Outcome::Skip(SkipRule::NotText),
        (Declared::Known(kind, encoding), Some(Body::Whole(_))) => Some((kind, encoding)),
        (Declared::Nothing, Some(Body::Whole(bytes))) => text::sniff(bytes).map(|kind| (kind, None)),
    };
    let Some((kind, encoding)) = kind else {
        return Outcome::Skip(SkipRule::NotText);
    };
    let validator = |name: &HeaderName| {
        let value = answer.header(name)?;
        (value.len() <= MAX_VALIDATOR_BYTES).then(|| value.to_owned())
    };
    let validators = Validators {
        etag: validator(&ETAG),
        last_modified: validator(&LAST_MODIFIED),
    };
    let token = product_token(&requests.options.user_agent).to_owned();
    let wishes = header_wishes(&answer.headers, &token);
    let Some(Body::Whole(bytes)) = answer.body else {
        return Outcome::Skip(SkipRule::NotText);
    };
    // Parsing takes memory many times the size of the page, so few are parsed at once.
    let permit = Arc::clone(&requests.options.shared.parsing).acquire_owned().await;
    let (url, max_bytes) = (url.clone(), requests.options.max_page_bytes);
    let parsing = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut outcome = parse(&bytes, kind, encoding, &url, &token, max_bytes);
        if let Outcome::Document(visited) = &mut outcome {
            visited.robots = visited.robots.or(wishes);
            visited.validators = validators;
        }
        outcome
    });
    parsing.await.unwrap_or_else(|error| {
        // The parser met something that its authors did not think of; the next page is another one.
        tracing::error!(%error, "a page could not be parsed");
        Outcome::Failed("it cannot be parsed".to_owned())
    })
}

/// Makes a document of an answer. Takes up to seconds.
fn parse(
    bytes: &[u8],
    kind: Kind,
    encoding: Option<&'static Encoding>,
    url: &Url,
    token: &str,
    max_bytes: usize,
) -> Outcome {
    let mut visited = Visited {
        content: Vec::new(),
        kind,
        version_key: String::new(),
        title: None,
        canonical: None,
        links: Vec::new(),
        robots: RobotsWishes::default(),
        validators: Validators::default(),
    };
    visited.content = match kind {
        Kind::Pdf => bytes.to_vec(),
        // Servers call plain text whatever they do not know.
        Kind::Plain | Kind::Markdown if text::is_binary(bytes) => return Outcome::Skip(SkipRule::Binary),
        Kind::Plain | Kind::Markdown => text::decode(bytes, kind, encoding).into_bytes(),
        Kind::Html => match html::page_to_markdown(&text::decode(bytes, kind, encoding), url, token) {
            Ok(page) => {
                visited.title = page.title;
                visited.canonical = page.canonical;
                visited.links = page.links;
                visited.robots = page.robots;
                page.markdown.into_bytes()
            }
            Err(error) => return Outcome::Failed(error.to_string()),
        },
    };
    if visited.content.len() > max_bytes {
        return Outcome::Skip(SkipRule::TooLarge);
    }
    visited.version_key = hex::encode(Sha256::digest(&visited.content));
    Outcome::Document(Box::new(visited))
}

/// What the headers `X-Robots-Tag` ask of all robots, or of the one with this token.
fn header_wishes(headers: &HeaderMap, token: &str) -> RobotsWishes {
    let values = headers
        .get_all("x-robots-tag")
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.fold(RobotsWishes::default(), |wishes, value| {
        let directives = match value.split_once(':') {
            Some((robot, directives)) if robot.trim().eq_ignore_ascii_case(token) => directives,
            // The one directive with a colon is no robot's name, but none that is looked for either.
            Some(_) => return wishes,
            None => value,
        };
        wishes.or(RobotsWishes::parse(directives))
    })
}
