//! Descriptions of pictures by a model behind an OpenAI-compatible API.
//!
//! The address is the operator's, not a user's, so it may be private. Redirects are not followed, since
//! the key would go along, and no answer is read past [`MAX_ANSWER_BYTES`].

use std::{fmt, io, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Client, StatusCode, header::RETRY_AFTER, redirect::Policy};
use serde::Deserialize;
use serde_json::json;
use tokio::{io::AsyncReadExt, sync::Semaphore};
use url::Url;

use super::Input;
use crate::secret::Secret;

/// The largest answer that is read: a description is a few thousand characters.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Who describes pictures, and what is asked.
#[derive(Clone)]
pub struct ImageDescriberOptions {
    /// Base of the API, such as `http://localhost:11434/v1`; `/chat/completions` is appended.
    pub url: Url,
    /// The model's name there.
    pub model: String,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
    /// What is asked about a picture.
    pub prompt: String,
    /// The most time for one picture.
    pub timeout: Duration,
    /// The largest picture that is sent, in bytes.
    pub max_bytes: u64,
    /// Pictures sent at once.
    pub concurrency: usize,
}

/// Prints no password that the URL may hold.
impl fmt::Debug for ImageDescriberOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ImageDescriberOptions")
            .field("url", &self.url.origin().ascii_serialization())
            .field("model", &self.model)
            .field("api_key", &self.api_key)
            .finish_non_exhaustive()
    }
}

/// Why a picture has no description. `Display` names the option to look at, never the answer, which may
/// repeat the key.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// The file is none of the formats that models take.
    #[error("the picture is none of PNG, JPEG, GIF, WebP and TIFF; store it as one of them")]
    NotAPicture,
    /// Larger than is sent.
    #[error(
        "the picture is larger than {limit} bytes (parse.image_descriptions.max_bytes); store a smaller one"
    )]
    TooLarge {
        /// How many bytes are allowed.
        limit: u64,
    },
    /// The file cannot be read.
    #[error("the worker cannot read the picture for now")]
    Unreadable(#[source] io::Error),
    /// The client cannot be made.
    #[error("the provider of image descriptions cannot be used (parse.image_descriptions)")]
    Options(#[source] reqwest::Error),
    /// The provider does not answer, or not in time.
    #[error("the provider of image descriptions does not answer (parse.image_descriptions.url)")]
    Unavailable(#[source] Option<reqwest::Error>),
    /// The provider wants to be asked less often.
    #[error("the provider of image descriptions takes no more requests for now")]
    RateLimited {
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The provider does not know the key.
    #[error("the provider of image descriptions refuses the key (parse.image_descriptions.api_key)")]
    Unauthorized,
    /// The provider does not take this picture, or knows no such model.
    #[error(
        "the provider of image descriptions answers {status}; see whether it serves the model \
         (parse.image_descriptions.model) and takes such pictures"
    )]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// The answer is not of the expected form.
    #[error("the provider of image descriptions answers with something else than a description")]
    Unexpected,
}

impl DescribeError {
    /// Whether another try may go better.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreadable(_) | Self::Unavailable(_) | Self::RateLimited { .. } => true,
            Self::NotAPicture
            | Self::TooLarge { .. }
            | Self::Options(_)
            | Self::Unauthorized
            | Self::Refused { .. }
            | Self::Unexpected => false,
        }
    }

    /// How long the provider wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => *retry_after,
            Self::NotAPicture
            | Self::TooLarge { .. }
            | Self::Unreadable(_)
            | Self::Options(_)
            | Self::Unavailable(_)
            | Self::Unauthorized
            | Self::Refused { .. }
            | Self::Unexpected => None,
        }
    }
}

/// Asks for descriptions; clones share connections and what is allowed at once.
#[derive(Debug, Clone)]
pub struct ImageDescriber {
    options: Arc<ImageDescriberOptions>,
    endpoint: Url,
    client: Client,
    running: Arc<Semaphore>,
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

impl ImageDescriber {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// [`DescribeError::Options`].
    pub fn new(options: ImageDescriberOptions) -> Result<Self, DescribeError> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(options.timeout)
            .redirect(Policy::none())
            .build()
            .map_err(DescribeError::Options)?;
        let mut endpoint = options.url.clone();
        let path = format!("{}/chat/completions", endpoint.path().trim_end_matches('/'));
        endpoint.set_path(&path);
        let running = Arc::new(Semaphore::new(options.concurrency.max(1)));
        Ok(Self {
            options: Arc::new(options),
            endpoint,
            client,
            running,
        })
    }

    /// What is to be seen on a picture, as Markdown.
    ///
    /// # Errors
    /// See [`DescribeError`].
    pub async fn describe(&self, input: Input<'_>) -> Result<String, DescribeError> {
        // The semaphore is never closed.
        let _running = self.running.acquire().await;
        let picture = self.read(input).await?;
        let media_type = media_type(&picture).ok_or(DescribeError::NotAPicture)?;
        let data = format!("data:{media_type};base64,{}", STANDARD.encode(&picture));
        drop(picture);
        let body = json!({
            "model": self.options.model,
            "messages": [{"role": "user", "content": [
                {"type": "text", "text": self.options.prompt},
                {"type": "image_url", "image_url": {"url": data}},
            ]}],
        });
        let mut request = self.client.post(self.endpoint.clone()).json(&body);
        if let Some(key) = &self.options.api_key {
            request = request.bearer_auth(key.expose());
        }
        let unavailable = |error: reqwest::Error| DescribeError::Unavailable(Some(error.without_url()));
        let mut response = request.send().await.map_err(unavailable)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(DescribeError::Unauthorized),
            StatusCode::TOO_MANY_REQUESTS => {
                let seconds = response.headers().get(RETRY_AFTER);
                let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
                return Err(DescribeError::RateLimited {
                    retry_after: seconds.map(Duration::from_secs),
                });
            }
            status if status.is_server_error() => return Err(DescribeError::Unavailable(None)),
            status => {
                return Err(DescribeError::Refused {
                    status: status.as_u16(),
                });
            }
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unavailable)? {
            if body.len() + piece.len() > MAX_ANSWER_BYTES {
                return Err(DescribeError::Unexpected);
            }
            body.extend_from_slice(&piece);
        }
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| DescribeError::Unexpected)?;
        let choice = answer.choices.into_iter().next();
        let description = choice.and_then(|choice| choice.message.content);
        description
            .filter(|description| !description.trim().is_empty())
            .ok_or(DescribeError::Unexpected)
    }

    async fn read(&self, input: Input<'_>) -> Result<Vec<u8>, DescribeError> {
        let limit = self.options.max_bytes;
        let picture = match input {
            Input::Bytes(bytes) => bytes.to_vec(),
            Input::File(path) => {
                let file = tokio::fs::File::open(path)
                    .await
                    .map_err(DescribeError::Unreadable)?;
                let mut bytes = Vec::new();
                let mut bounded = file.take(limit.saturating_add(1));
                bounded
                    .read_to_end(&mut bytes)
                    .await
                    .map_err(DescribeError::Unreadable)?;
                bytes
            }
        };
        if picture.len() as u64 > limit {
            return Err(DescribeError::TooLarge { limit });
        }
        Ok(picture)
    }
}

/// The media type of a picture, by how it begins.
fn media_type(picture: &[u8]) -> Option<&'static str> {
    match picture {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some("image/tiff"),
        _ => None,
    }
}
