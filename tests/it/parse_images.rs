//! Descriptions of pictures, asked of a server that speaks the API of OpenAI.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chroma_sync::{
    domain::document::SkipRule,
    parse::{
        DescribeError, Format, ImageDescriber, ImageDescriberOptions, Input, ParseError, Parser,
        ParserOptions,
    },
    secret::Secret,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::harness::corpus::document;

type Answer = (StatusCode, Vec<(&'static str, &'static str)>, String);

#[derive(Clone)]
struct Told {
    answer: Answer,
    asked: Arc<Mutex<Vec<(String, HeaderMap, Value)>>>,
}

/// Answers every request the same and remembers what was asked.
struct Provider {
    url: url::Url,
    told: Told,
    server: JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(told): State<Told>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let body = serde_json::from_slice(&body).unwrap();
    told.asked
        .lock()
        .unwrap()
        .push((uri.path().to_owned(), headers, body));
    let (status, headers, body) = told.answer;
    let mut response = (status, body).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

impl Provider {
    async fn start(answered: Answer) -> Self {
        let told = Told {
            answer: answered,
            asked: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(told.clone());
        Self {
            url: url.parse().unwrap(),
            told,
            server: tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }),
        }
    }

    fn options(&self) -> ImageDescriberOptions {
        ImageDescriberOptions {
            url: self.url.clone(),
            model: "seer".to_owned(),
            api_key: Some(Secret::new("planted-key")),
            prompt: "What is this?".to_owned(),
            timeout: Duration::from_secs(20),
            max_bytes: 10_000,
            concurrency: 1,
        }
    }

    async fn describe(&self) -> Result<String, ParseError> {
        describe(self.options()).await
    }
}

fn parser(options: ImageDescriberOptions) -> Parser {
    Parser::new(
        ParserOptions::default(),
        Some(ImageDescriber::new(options).unwrap()),
    )
}

async fn describe(options: ImageDescriberOptions) -> Result<String, ParseError> {
    let path = document("picture.png");
    let parsed = parser(options).parse(Format::Image, Input::File(&path)).await?;
    assert_eq!((parsed.pages, parsed.title, parsed.unread_pages), (None, None, 0));
    Ok(parsed.markdown)
}

fn described(content: &Value) -> Answer {
    let body = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]});
    (StatusCode::OK, Vec::new(), body.to_string())
}

#[tokio::test]
async fn a_picture_is_sent_with_the_question_and_its_description_is_its_text() {
    let provider = Provider::start(described(&json!("A page that says **Scanned page 1**."))).await;
    assert_eq!(
        provider.describe().await.unwrap(),
        "A page that says **Scanned page 1**."
    );
    let asked = provider.told.asked.lock().unwrap();
    let [(path, headers, body)] = asked.as_slice() else {
        panic!("{} requests", asked.len())
    };
    assert_eq!(path, "/v1/chat/completions");
    assert_eq!(headers["authorization"], "Bearer planted-key");
    let picture = STANDARD.encode(std::fs::read(document("picture.png")).unwrap());
    assert_eq!(
        *body,
        json!({"model": "seer", "messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{picture}")}},
        ]}]})
    );
}

#[tokio::test]
async fn without_a_provider_pictures_are_left_out_by_a_rule() {
    let parser = Parser::new(ParserOptions::default(), None);
    assert_eq!(parser.skips(Format::Image), Some(SkipRule::ImageNotDescribed));
    assert_eq!(parser.skips(Format::Pdf), None);
    let error = parser.parse(Format::Image, Input::Bytes(b"")).await.unwrap_err();
    assert_eq!(error.skip_rule(), Some(SkipRule::ImageNotDescribed));
    assert!(
        error.to_string().contains("parse.image_descriptions.url"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_picture_or_too_large_is_not_sent() {
    let provider = Provider::start(described(&json!("x"))).await;
    let parser = parser(provider.options());
    assert_eq!(parser.skips(Format::Image), None);
    for (bytes, names) in [
        (b"<svg/>".to_vec(), "none of PNG"),
        (vec![0x89; 10_001], "parse.image_descriptions.max_bytes"),
    ] {
        let error = parser
            .parse(Format::Image, Input::Bytes(&bytes))
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains(names) && !error.is_transient(),
            "{error}"
        );
        assert_eq!(error.skip_rule(), None);
    }
    assert_eq!(provider.told.asked.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_provider_that_is_away_or_busy_is_asked_again_later() {
    let busy = (
        StatusCode::TOO_MANY_REQUESTS,
        vec![("retry-after", "7")],
        String::new(),
    );
    let error = Provider::start(busy).await.describe().await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));

    let broken = (StatusCode::BAD_GATEWAY, Vec::new(), "planted-key".to_owned());
    let error = Provider::start(broken).await.describe().await.unwrap_err();
    assert!(
        error.is_transient() && error.to_string().contains("parse.image_descriptions.url"),
        "{error}"
    );

    let provider = Provider::start(described(&json!("x"))).await;
    let options = provider.options();
    provider.server.abort();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let options = ImageDescriberOptions {
        url: format!("http://{nobody}/v1").parse().unwrap(),
        ..options
    };
    let error = describe(options).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_is_no_description_fails_and_repeats_no_secret() {
    for (answered, names) in [
        (
            (StatusCode::UNAUTHORIZED, Vec::new(), "planted-key".to_owned()),
            "parse.image_descriptions.api_key",
        ),
        (
            (StatusCode::NOT_FOUND, Vec::new(), "planted-key".to_owned()),
            "404",
        ),
        (
            (
                StatusCode::FOUND,
                vec![("location", "http://127.0.0.1:1/")],
                String::new(),
            ),
            "302",
        ),
        (
            (StatusCode::OK, Vec::new(), "planted-key".to_owned()),
            "something else",
        ),
        (
            (StatusCode::OK, Vec::new(), "x".repeat(2_000_000)),
            "something else",
        ),
        (
            (StatusCode::OK, Vec::new(), "{\"choices\": []}".to_owned()),
            "something else",
        ),
        (described(&Value::Null), "something else"),
        (described(&json!(" ")), "something else"),
    ] {
        let provider = Provider::start(answered).await;
        let error = provider.describe().await.unwrap_err();
        assert!(!error.is_transient(), "{error:?}");
        assert!(error.to_string().contains(names), "{error}");
        assert!(!format!("{error:?} {error}").contains("planted-key"), "{error:?}");
        assert_eq!(provider.told.asked.lock().unwrap().len(), 1);
    }
    let provider = Provider::start(described(&json!("x"))).await;
    assert!(!format!("{:?}", parser(provider.options())).contains("planted-key"));
    let late = ImageDescriberOptions {
        timeout: Duration::from_nanos(1),
        ..provider.options()
    };
    let error = describe(late).await.unwrap_err();
    assert!(
        matches!(error, ParseError::Describe(DescribeError::Unavailable(_))),
        "{error:?}"
    );
}
