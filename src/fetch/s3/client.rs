//! Requests to one bucket: signed, within the egress policy, tried again where that helps.
//!
//! Invariant: every request goes to a URL that [`Egress::check`] passed, by a client whose resolver applies the
//! same policy, and follows no redirect; what S3 redirects for is told to the user instead.
//!
//! [`Egress::check`]: crate::fetch::Egress::check

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, Method, Request, Response, StatusCode,
    header::{HeaderName, HeaderValue},
    redirect::Policy,
};
use url::Url;

use super::{
    Bucket, S3Options,
    address::{bucket_url, object_url},
    answer::{Description, MAX_ERROR_BYTES, Refusal, read_body},
    error::S3Error,
};
use crate::{
    aws::{AwsCredentials, AwsService, Signer},
    fetch::egress::refusal,
};

/// How often a request is made until its failure is reported.
const MAX_TRIES: u32 = 3;
/// Wait before the second try; doubles with the next.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// A server that asks for more is not waited for here: the worker has better things to do meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    /// The bucket's listing.
    Bucket,
    /// The object with this key.
    Object(&'a str),
}

/// Makes requests to one bucket with one access key.
pub(super) struct BucketClient {
    pub(super) bucket: Bucket,
    url: Url,
    client: Client,
    signer: Signer,
    idle_timeout: Duration,
}

impl fmt::Debug for BucketClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BucketClient")
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

impl BucketClient {
    pub(super) fn new(
        options: &S3Options,
        bucket: Bucket,
        credentials: AwsCredentials,
    ) -> Result<Self, S3Error> {
        let endpoint = options.endpoint_url.as_ref();
        let url = bucket_url(&bucket, endpoint, options.path_style).map_err(internal)?;
        let egress = match endpoint {
            // The host is the operator's own, or one below it.
            Some(_) => options.egress.with_origin(&url),
            None => options.egress.clone(),
        };
        egress.check(&url).map_err(|refusal| S3Error::EgressForbidden {
            bucket: bucket.name.clone(),
            refusal,
        })?;
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.idle_timeout)
            // Objects are stored as they were uploaded, whatever their headers say.
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .dns_resolver(egress.resolver(url.port_or_known_default()))
            .build()
            .map_err(internal)?;
        let signer = Signer::new(credentials, bucket.region.as_str(), AwsService::S3);
        Ok(Self {
            bucket,
            url,
            client,
            signer,
            idle_timeout: options.idle_timeout,
        })
    }

    /// The URL of the bucket.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The URL of an object.
    pub(super) fn object_url(&self, key: &str) -> Result<Url, S3Error> {
        object_url(&self.url, key).ok_or_else(|| S3Error::KeyUnsupported { key: key.to_owned() })
    }

    /// Makes a request until it succeeds, fails for good, or was tried often enough.
    pub(super) async fn request(
        &self,
        method: Method,
        url: &Url,
        header: Option<(HeaderName, HeaderValue)>,
        subject: Subject<'_>,
    ) -> Result<Response, S3Error> {
        let mut wait = FIRST_WAIT;
        for _ in 1..MAX_TRIES {
            match self.try_once(&method, url, header.as_ref(), subject).await {
                Err(error) if error.is_transient() => {
                    let asked = error.retry_after().unwrap_or_default();
                    if asked > LONGEST_WAIT {
                        return Err(error);
                    }
                    tracing::debug!(bucket = %self.bucket.name, error = %crate::error::chain(&error), "trying again");
                    tokio::time::sleep(wait.max(asked)).await;
                    wait = wait.saturating_mul(2);
                }
                settled => return settled,
            }
        }
        self.try_once(&method, url, header.as_ref(), subject).await
    }

    async fn try_once(
        &self,
        method: &Method,
        url: &Url,
        header: Option<&(HeaderName, HeaderValue)>,
        subject: Subject<'_>,
    ) -> Result<Response, S3Error> {
        let response = self.send(method.clone(), url, header).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        // The answer to HEAD has no body that could say why.
        let response = if method == Method::HEAD && response.status() != StatusCode::PRECONDITION_FAILED {
            let explained = self.send(Method::GET, url, header).await?;
            if explained.status().is_success() {
                let problem = format!("{} refuses and grants the same object", self.host());
                return Err(self.unexpected(problem));
            }
            explained
        } else {
            response
        };
        Err(self.refused(response, subject).await)
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        header: Option<&(HeaderName, HeaderValue)>,
    ) -> Result<Response, S3Error> {
        let mut request = Request::new(method, url.clone());
        if let Some((name, value)) = header {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        self.signer
            .sign(&mut request, SystemTime::now())
            .map_err(internal)?;
        self.client
            .execute(request)
            .await
            .map_err(|error| self.broken_connection(error))
    }

    async fn refused(&self, response: Response, subject: Subject<'_>) -> S3Error {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = match read_body(response, MAX_ERROR_BYTES).await {
            Ok(body) => body.unwrap_or_default(),
            Err(error) => return self.broken_connection(error),
        };
        let refusal = Refusal {
            host: self.host(),
            status,
            headers,
            description: Description::parse(&body),
        };
        refusal.into_error(&self.bucket, subject)
    }

    /// Why a request, or reading its answer, failed.
    pub(super) fn broken_connection(&self, error: reqwest::Error) -> S3Error {
        // The URL has the key in it.
        let error = error.without_url();
        let bucket = self.bucket.name.clone();
        let host = self.host();
        if let Some(refusal) = refusal(&error) {
            let refusal = refusal.clone();
            return S3Error::EgressForbidden { bucket, refusal };
        }
        if error.is_builder() {
            return internal(error);
        }
        let problem = if error.is_connect() {
            format!("{host} cannot be reached")
        } else if error.is_timeout() {
            format!(
                "{host} sent nothing for {} seconds (s3.idle_timeout_seconds)",
                self.idle_timeout.as_secs()
            )
        } else {
            format!("the connection to {host} broke")
        };
        S3Error::Network {
            bucket,
            problem,
            source: error.into(),
        }
    }

    /// An answer that is not S3's.
    pub(super) fn unexpected(&self, problem: String) -> S3Error {
        S3Error::UnexpectedAnswer {
            bucket: self.bucket.name.clone(),
            problem,
            source: None,
        }
    }

    /// The host that is asked.
    pub(super) fn host(&self) -> String {
        self.url.host_str().unwrap_or_default().to_owned()
    }
}

pub(super) fn internal(source: impl Into<crate::fetch::Cause>) -> S3Error {
    S3Error::Internal {
        source: source.into(),
    }
}
