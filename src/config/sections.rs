//! The sections of the configuration. Meanings and defaults are in `config/default.toml`.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;
use url::Url;

use super::{Config, ConfigError, Secret};

/// `[server]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    pub max_request_bytes: usize,
    pub max_connections: usize,
    pub max_concurrent_streams: u32,
    pub max_concurrent_requests: usize,
    pub request_timeout_seconds: u64,
    pub tls_certificate: PathBuf,
    pub tls_key: PathBuf,
    pub keepalive_interval_seconds: u64,
    pub keepalive_timeout_seconds: u64,
    pub drain_seconds: u64,
}

impl ServerConfig {
    /// Whether the port speaks TLS.
    pub fn speaks_tls(&self) -> bool {
        !self.tls_certificate.as_os_str().is_empty()
    }
}

/// `[store]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct StoreConfig {
    pub url: Secret,
    pub max_connections: u32,
    pub migrate_on_start: bool,
}

/// `[chroma]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ChromaConfig {
    pub url: Url,
    pub token: Secret,
    pub timeout_seconds: u64,
    pub sparse_vectors: SparseVectorsConfig,
}

/// Whether the Chroma server is sent sparse vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SparseVectorsConfig {
    /// If it takes them.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// Tokens made with `keys create`.
    Keys,
    /// Tokens of the Chroma server.
    Chroma,
    /// Everybody, on a loopback address alone.
    None,
}

/// `[auth]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AuthConfig {
    pub mode: AuthMode,
    pub cache_seconds: u64,
    pub chroma_role: ChromaRole,
}

/// The role of callers in mode `chroma`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ChromaRole {
    Owner,
    Admin,
    Member,
}

/// `[encryption]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct EncryptionConfig {
    pub key: Secret,
    pub key_file: PathBuf,
    pub previous_keys: Vec<Secret>,
}

/// `[github]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct GithubConfig {
    pub git_url: Url,
    pub api_url: Url,
    pub token: Secret,
    pub max_file_bytes: u64,
    pub max_repository_bytes: u64,
    pub fetch_timeout_seconds: u64,
}

/// `[web]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct WebConfig {
    pub user_agent: String,
    pub obey_robots: bool,
    pub max_page_bytes: usize,
    pub max_pages: u32,
    pub max_urls: usize,
    pub max_crawl_bytes: u64,
    pub max_requests_per_host: usize,
    pub delay_milliseconds: u64,
    pub max_crawl_delay_seconds: u64,
    pub request_timeout_seconds: u64,
    pub crawl_timeout_seconds: u64,
    pub max_redirects: usize,
    pub attempts: u32,
    pub backoff_milliseconds: u64,
    pub max_wait_seconds: u64,
}

/// `[uploads]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct UploadsConfig {
    pub directory: PathBuf,
    pub s3_bucket: String,
    pub s3_region: String,
    pub s3_endpoint_url: String,
    pub s3_access_key_id: String,
    pub s3_secret_access_key: Secret,
    pub s3_path_style: bool,
    pub max_file_bytes: u64,
    pub max_uploads_per_tenant: u32,
    pub timeout_seconds: u64,
    pub idle_seconds: u64,
    pub keep_hours: u64,
    pub sweep_seconds: u64,
}

impl UploadsConfig {
    /// Where the bucket is, where that is not AWS.
    pub fn endpoint(&self) -> Option<Url> {
        Url::parse(&self.s3_endpoint_url).ok()
    }

    /// Which option is wrong, and what to do.
    fn problem(&self) -> Option<(&'static str, &'static str)> {
        if !self.s3_endpoint_url.is_empty()
            && !self
                .endpoint()
                .is_some_and(|url| matches!(url.scheme(), "http" | "https"))
        {
            let problem = "must be an http:// or https:// URL, or empty";
            return Some(("uploads.s3_endpoint_url", problem));
        }
        if self.s3_access_key_id.is_empty() != self.s3_secret_access_key.non_empty().is_none() {
            let problem = "needs uploads.s3_secret_access_key as well; set both, or neither";
            return Some(("uploads.s3_access_key_id", problem));
        }
        if self.s3_bucket.is_empty() && self.directory.as_os_str().is_empty() {
            return Some(("uploads.directory", "must be set, or uploads.s3_bucket"));
        }
        None
    }
}

/// `[models]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ModelsConfig {
    pub dir: PathBuf,
    pub revisions: BTreeMap<String, String>,
}

/// `[parse]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ParseConfig {
    pub max_memory_bytes: u64,
    pub max_cpu_seconds: u64,
    pub timeout_seconds: u64,
    pub max_output_bytes: u64,
    pub max_pages: u32,
    pub concurrency: usize,
    pub image_descriptions: ImageDescriptionsConfig,
}

/// `[parse.image_descriptions]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ImageDescriptionsConfig {
    pub url: Secret,
    pub model: String,
    pub api_key: Secret,
    pub prompt: String,
    pub timeout_seconds: u64,
    pub max_bytes: u64,
    pub concurrency: usize,
}

impl ImageDescriptionsConfig {
    /// The base of the API, where one is configured.
    pub fn base(&self) -> Option<Url> {
        self.url.non_empty().and_then(|url| Url::parse(url).ok())
    }
}

/// `[worker]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct WorkerConfig {
    pub concurrency: usize,
    pub max_concurrency_per_tenant: u32,
    pub lease_seconds: u64,
    pub poll_seconds: u64,
    pub max_failed_attempts: u32,
    pub backoff_seconds: u64,
    pub max_backoff_seconds: u64,
    pub directory: PathBuf,
    pub stage_buffer_bytes: usize,
}

impl WorkerConfig {
    /// How long a claim holds without renewal.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }
}

/// `[watch]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct WatchConfig {
    pub heartbeat_seconds: u64,
    pub poll_milliseconds: u64,
    pub max_streams: usize,
    pub max_streams_per_key: usize,
}

/// `[webhooks]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct WebhooksConfig {
    pub concurrency: usize,
    pub max_concurrency_per_receiver: usize,
    pub timeout_seconds: u64,
    pub backoff_milliseconds: u64,
    pub max_backoff_seconds: u64,
    pub give_up_after_seconds: u64,
    pub allow_http: bool,
}

/// `[egress]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct EgressConfig {
    pub allow: Vec<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct LogConfig {
    pub filter: String,
    pub format: LogFormat,
}

impl Config {
    /// Checks what types cannot: ranges and combinations.
    ///
    /// # Errors
    /// Names the option and says what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.metrics.validate()?;
        self.s3.validate()?;
        self.sqs.validate()?;
        let refuse = |option, problem: &str| {
            Err(ConfigError::Refused {
                option,
                problem: problem.to_owned(),
            })
        };
        let positive = [
            ("server.max_request_bytes", self.server.max_request_bytes as u64),
            (
                "server.max_concurrent_streams",
                u64::from(self.server.max_concurrent_streams),
            ),
            (
                "server.max_concurrent_requests",
                self.server.max_concurrent_requests as u64,
            ),
            (
                "server.request_timeout_seconds",
                self.server.request_timeout_seconds,
            ),
            (
                "server.keepalive_interval_seconds",
                self.server.keepalive_interval_seconds,
            ),
            (
                "server.keepalive_timeout_seconds",
                self.server.keepalive_timeout_seconds,
            ),
            ("server.max_connections", self.server.max_connections as u64),
            ("store.max_connections", u64::from(self.store.max_connections)),
            ("chroma.timeout_seconds", self.chroma.timeout_seconds),
            ("github.max_file_bytes", self.github.max_file_bytes),
            ("github.max_repository_bytes", self.github.max_repository_bytes),
            ("github.fetch_timeout_seconds", self.github.fetch_timeout_seconds),
            ("parse.max_memory_bytes", self.parse.max_memory_bytes),
            ("parse.max_cpu_seconds", self.parse.max_cpu_seconds),
            ("parse.timeout_seconds", self.parse.timeout_seconds),
            ("parse.max_output_bytes", self.parse.max_output_bytes),
            ("parse.max_pages", u64::from(self.parse.max_pages)),
            ("parse.concurrency", self.parse.concurrency as u64),
            (
                "parse.image_descriptions.timeout_seconds",
                self.parse.image_descriptions.timeout_seconds,
            ),
            (
                "parse.image_descriptions.max_bytes",
                self.parse.image_descriptions.max_bytes,
            ),
            (
                "parse.image_descriptions.concurrency",
                self.parse.image_descriptions.concurrency as u64,
            ),
            ("web.max_page_bytes", self.web.max_page_bytes as u64),
            ("web.max_pages", u64::from(self.web.max_pages)),
            ("web.max_crawl_bytes", self.web.max_crawl_bytes),
            ("web.max_requests_per_host", self.web.max_requests_per_host as u64),
            ("web.request_timeout_seconds", self.web.request_timeout_seconds),
            ("web.crawl_timeout_seconds", self.web.crawl_timeout_seconds),
            ("web.attempts", u64::from(self.web.attempts)),
            ("uploads.max_file_bytes", self.uploads.max_file_bytes),
            (
                "uploads.max_uploads_per_tenant",
                u64::from(self.uploads.max_uploads_per_tenant),
            ),
            ("uploads.timeout_seconds", self.uploads.timeout_seconds),
            ("uploads.idle_seconds", self.uploads.idle_seconds),
            ("uploads.sweep_seconds", self.uploads.sweep_seconds),
            ("worker.concurrency", self.worker.concurrency as u64),
            (
                "worker.max_concurrency_per_tenant",
                u64::from(self.worker.max_concurrency_per_tenant),
            ),
            ("worker.lease_seconds", self.worker.lease_seconds),
            ("worker.poll_seconds", self.worker.poll_seconds),
            (
                "worker.max_failed_attempts",
                u64::from(self.worker.max_failed_attempts),
            ),
            ("worker.backoff_seconds", self.worker.backoff_seconds),
            ("worker.stage_buffer_bytes", self.worker.stage_buffer_bytes as u64),
            ("watch.heartbeat_seconds", self.watch.heartbeat_seconds),
            ("watch.poll_milliseconds", self.watch.poll_milliseconds),
            ("watch.max_streams", self.watch.max_streams as u64),
            ("watch.max_streams_per_key", self.watch.max_streams_per_key as u64),
            ("webhooks.concurrency", self.webhooks.concurrency as u64),
            (
                "webhooks.max_concurrency_per_receiver",
                self.webhooks.max_concurrency_per_receiver as u64,
            ),
            ("webhooks.timeout_seconds", self.webhooks.timeout_seconds),
            (
                "webhooks.backoff_milliseconds",
                self.webhooks.backoff_milliseconds,
            ),
            ("webhooks.max_backoff_seconds", self.webhooks.max_backoff_seconds),
        ];
        for (option, value) in positive {
            if value == 0 {
                return refuse(option, "must be at least 1");
            }
        }
        if self.auth.mode == AuthMode::None && !self.server.listen.ip().is_loopback() {
            return refuse(
                "auth.mode",
                "\"none\" gives every caller all rights, so server.listen must be a loopback address; \
                 use mode \"keys\" to listen elsewhere",
            );
        }
        if self.server.tls_certificate.as_os_str().is_empty() != self.server.tls_key.as_os_str().is_empty() {
            return refuse(
                "server.tls_certificate",
                "needs server.tls_key as well; set both for TLS, or neither",
            );
        }
        if !matches!(self.github.git_url.scheme(), "http" | "https" | "file") {
            return refuse("github.git_url", "must be an http://, https:// or file:// URL");
        }
        if !matches!(self.github.api_url.scheme(), "http" | "https") {
            return refuse("github.api_url", "must be an http:// or https:// URL");
        }
        if !is_user_agent(&self.web.user_agent) {
            return refuse(
                "web.user_agent",
                "must begin with a product token of letters, '-' and '_', such as \"chroma-sync\", and be ASCII",
            );
        }
        if u64::from(self.web.max_pages) > self.web.max_urls as u64 {
            return refuse("web.max_urls", "must not be less than web.max_pages");
        }
        if let Some((option, problem)) = self.uploads.problem() {
            return refuse(option, problem);
        }
        if !matches!(self.chroma.url.scheme(), "http" | "https") {
            return refuse("chroma.url", "must be an http:// or https:// URL");
        }
        let descriptions = &self.parse.image_descriptions;
        if descriptions.url.non_empty().is_some() {
            let base = descriptions.base();
            if !base.is_some_and(|url| matches!(url.scheme(), "http" | "https")) {
                return refuse(
                    "parse.image_descriptions.url",
                    "must be an http:// or https:// URL, or empty",
                );
            }
            if descriptions.model.is_empty() {
                return refuse(
                    "parse.image_descriptions.model",
                    "must name a model of parse.image_descriptions.url",
                );
            }
        }
        if let Some((option, problem)) = self.embedding.problem() {
            return refuse(option, problem);
        }
        if !self.embedding.models.contains(&self.embedding.default_model) {
            return refuse("embedding.default_model", "must be one of embedding.models");
        }
        self.embedding.check_providers()?;
        if self.worker.max_backoff_seconds < self.worker.backoff_seconds {
            return refuse(
                "worker.max_backoff_seconds",
                "must not be less than worker.backoff_seconds",
            );
        }
        Ok(())
    }
}

/// Whether robots.txt files can address a crawler that calls itself this.
fn is_user_agent(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}
