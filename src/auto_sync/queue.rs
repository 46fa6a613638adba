//! A queue of Amazon SQS, or of anything that speaks its JSON protocol: receive, delete, leave for later.
//!
//! Absent on purpose: the egress policy. The operator names the queue, no user does.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, Request, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    redirect::Policy,
};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::aws::{AwsCredentials, AwsService, SignError, Signer};

/// What an answer may take beyond the time that was asked for.
const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most of an answer that is read: ten messages of 1 MiB, escaped.
const MAX_ANSWER_BYTES: usize = 32 << 20;
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const MAX_CODE_BYTES: usize = 64;

/// Which queue, and how it is read.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// URL of the queue, as AWS shows it.
    pub queue_url: Url,
    /// Where requests go; none for the host of the queue.
    pub endpoint_url: Option<Url>,
    /// Region of the queue.
    pub region: String,
    /// Access key that may read it.
    pub credentials: AwsCredentials,
    /// How long a request waits for a message, up to 20 s.
    pub wait: Duration,
    /// How long others do not see a message that was received.
    pub visibility_timeout: Duration,
    /// The most messages of one request, 1 to 10.
    pub max_messages: u32,
}

/// A message that was received.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Message {
    /// Its id.
    pub message_id: String,
    /// Stands for this receipt of it.
    pub receipt_handle: String,
    /// Its text.
    #[serde(default)]
    pub body: String,
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Message({})", self.message_id)
    }
}

/// Why a request to the queue failed, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There is no such queue.
    #[error("the queue does not exist; check sqs.queue_url and sqs.region")]
    NotFound,
    /// The access key is not good, or may not do this.
    #[error(
        "{host} refuses {operation} ({code}); check sqs.access_key_id and sqs.secret_access_key, and allow them \
         sqs:{operation} on the queue"
    )]
    Refused {
        /// Who refuses.
        host: String,
        /// What was asked.
        operation: &'static str,
        /// The service's own name for the cause.
        code: String,
    },
    /// An answer of another kind.
    #[error("{host} answers {operation} with {code}")]
    Unexpected {
        /// Who answers.
        host: String,
        /// What was asked.
        operation: &'static str,
        /// The service's own name for the cause, or the status.
        code: String,
    },
    /// No connection, or no answer.
    #[error("{host} cannot be reached")]
    Unreachable {
        /// Who does not answer.
        host: String,
        /// Why.
        source: reqwest::Error,
    },
    /// A fault of ours.
    #[error("the request to the queue could not be made")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<SignError> for QueueError {
    fn from(error: SignError) -> Self {
        Self::Internal(error.into())
    }
}

/// A queue. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    endpoint: Url,
    host: String,
    signer: Signer,
    options: QueueOptions,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Received {
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Deserialize, Default)]
struct Description {
    #[serde(rename = "__type", default)]
    code: String,
}

impl Queue {
    /// Prepares to read a queue; nothing is requested yet.
    ///
    /// # Errors
    /// [`QueueError::Internal`] where no client can be made.
    pub fn new(options: QueueOptions) -> Result<Self, QueueError> {
        let mut endpoint = options
            .endpoint_url
            .as_ref()
            .unwrap_or(&options.queue_url)
            .clone();
        if options.endpoint_url.is_none() {
            endpoint.set_path("/");
        }
        endpoint.set_query(None);
        let client = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(options.wait + TIMEOUT)
            .build()
            .map_err(|error| QueueError::Internal(error.into()))?;
        Ok(Self {
            client,
            host: endpoint.host_str().unwrap_or_default().to_owned(),
            endpoint,
            signer: Signer::new(options.credentials.clone(), &options.region, AwsService::Sqs),
            options,
        })
    }

    /// How long others do not see a message that was received.
    pub fn visibility_timeout(&self) -> Duration {
        self.options.visibility_timeout
    }

    /// Waits for messages, at most [`QueueOptions::wait`]; none when there were none.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn receive(&self) -> Result<Vec<Message>, QueueError> {
        let question = json!({
            "QueueUrl": self.options.queue_url.as_str(),
            "MaxNumberOfMessages": self.options.max_messages,
            "WaitTimeSeconds": self.options.wait.as_secs(),
            "VisibilityTimeout": self.options.visibility_timeout.as_secs(),
        });
        let answer = self.call("ReceiveMessage", &question).await?;
        // Without messages there may be no body at all.
        if answer.is_empty() {
            return Ok(Vec::new());
        }
        let received: Received = serde_json::from_slice(&answer).map_err(|_| QueueError::Unexpected {
            host: self.host.clone(),
            operation: "ReceiveMessage",
            code: "something else than JSON of SQS".to_owned(),
        })?;
        Ok(received.messages)
    }

    /// Deletes a message for good.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn delete(&self, message: &Message) -> Result<(), QueueError> {
        let question = json!({
            "QueueUrl": self.options.queue_url.as_str(),
            "ReceiptHandle": message.receipt_handle,
        });
        self.call("DeleteMessage", &question).await.map(drop)
    }

    /// Has a message appear again after `delay`, counted from now.
    ///
    /// # Errors
    /// See [`QueueError`].
    pub async fn show_again_after(&self, message: &Message, delay: Duration) -> Result<(), QueueError> {
        let question = json!({
            "QueueUrl": self.options.queue_url.as_str(),
            "ReceiptHandle": message.receipt_handle,
            "VisibilityTimeout": delay.as_secs(),
        });
        self.call("ChangeMessageVisibility", &question).await.map(drop)
    }

    async fn call(&self, operation: &'static str, question: &Value) -> Result<Vec<u8>, QueueError> {
        let unreachable = |error: reqwest::Error| QueueError::Unreachable {
            host: self.host.clone(),
            source: error.without_url(),
        };
        let mut request = Request::new(reqwest::Method::POST, self.endpoint.clone());
        let target = HeaderValue::from_str(&format!("AmazonSQS.{operation}"));
        let headers = request.headers_mut();
        headers.insert(
            TARGET,
            target.map_err(|error| QueueError::Internal(error.into()))?,
        );
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-amz-json-1.0"),
        );
        *request.body_mut() = Some(question.to_string().into());
        self.signer.sign(&mut request, SystemTime::now())?;
        let mut response = self.client.execute(request).await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(QueueError::Unexpected {
                    host: self.host.clone(),
                    operation,
                    code: format!("more than {MAX_ANSWER_BYTES} bytes"),
                });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            Ok(body)
        } else {
            Err(self.refused(operation, status, &body))
        }
    }

    fn refused(&self, operation: &'static str, status: StatusCode, body: &[u8]) -> QueueError {
        let host = self.host.clone();
        let description: Description = serde_json::from_slice(body).unwrap_or_default();
        let code = description.code.rsplit('#').next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
        let code = match code {
            code if !code.is_empty() && code.len() <= MAX_CODE_BYTES && code.chars().all(plain) => {
                code.to_owned()
            }
            _ => format!("HTTP {}", status.as_u16()),
        };
        match code.as_str() {
            "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue" => QueueError::NotFound,
            "AccessDenied"
            | "AccessDeniedException"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "MissingAuthenticationToken"
            | "IncompleteSignature"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidSecurity" => QueueError::Refused {
                host,
                operation,
                code,
            },
            _ if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => QueueError::Refused {
                host,
                operation,
                code,
            },
            _ => QueueError::Unexpected {
                host,
                operation,
                code,
            },
        }
    }
}
