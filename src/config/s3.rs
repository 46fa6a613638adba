//! The sections about S3. Meanings and defaults are in `config/default.toml`.

use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::{ConfigError, Secret};

/// What SQS allows for one request.
const MAX_WAIT_SECONDS: u64 = 20;
const MAX_MESSAGES: u32 = 10;
const MAX_VISIBILITY_SECONDS: u64 = 43_200;

/// `[s3]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct S3Config {
    pub endpoint_url: String,
    pub path_style: bool,
    pub max_object_bytes: u64,
    pub connect_timeout_seconds: u64,
    pub idle_timeout_seconds: u64,
}

impl S3Config {
    /// Where buckets are; none for AWS.
    pub fn endpoint(&self) -> Option<Url> {
        parsed(&self.endpoint_url)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_url("s3.endpoint_url", &self.endpoint_url)?;
        check_range("s3.max_object_bytes", self.max_object_bytes, 1, u64::MAX)?;
        check_range("s3.connect_timeout_seconds", self.connect_timeout_seconds, 1, 600)?;
        check_range("s3.idle_timeout_seconds", self.idle_timeout_seconds, 1, 600)
    }
}

/// `[sqs]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SqsConfig {
    pub queue_url: String,
    pub endpoint_url: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Secret,
    pub wait_seconds: u64,
    pub visibility_timeout_seconds: u64,
    pub max_messages: u32,
    pub delete_removed_objects: bool,
}

impl SqsConfig {
    /// The queue; none when there is none to read.
    pub fn queue(&self) -> Option<Url> {
        parsed(&self.queue_url)
    }

    /// Where requests go; none for the host of the queue.
    pub fn endpoint(&self) -> Option<Url> {
        parsed(&self.endpoint_url)
    }

    /// How long a request waits for a message.
    pub fn wait(&self) -> Duration {
        Duration::from_secs(self.wait_seconds)
    }

    /// How long others do not see a message that was received.
    pub fn visibility_timeout(&self) -> Duration {
        Duration::from_secs(self.visibility_timeout_seconds)
    }

    /// The region as configured, or as the queue's host has it; none when neither says it.
    pub fn queue_region(&self) -> Option<String> {
        if !self.region.is_empty() {
            return Some(self.region.clone());
        }
        let queue = self.queue()?;
        let mut labels = queue.host_str()?.split('.');
        match (labels.next()?, labels.next()?, labels.next()?) {
            ("sqs", region, "amazonaws") => Some(region.to_owned()),
            _ => None,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_url("sqs.queue_url", &self.queue_url)?;
        check_url("sqs.endpoint_url", &self.endpoint_url)?;
        check_range("sqs.wait_seconds", self.wait_seconds, 0, MAX_WAIT_SECONDS)?;
        check_range(
            "sqs.visibility_timeout_seconds",
            self.visibility_timeout_seconds,
            1,
            MAX_VISIBILITY_SECONDS,
        )?;
        check_range(
            "sqs.max_messages",
            u64::from(self.max_messages),
            1,
            u64::from(MAX_MESSAGES),
        )?;
        if self.queue_url.is_empty() {
            return Ok(());
        }
        if self.queue_region().is_none() {
            return Err(refused(
                "sqs.region",
                "is needed, since the host of sqs.queue_url does not name it",
            ));
        }
        if self.access_key_id.is_empty() || self.secret_access_key.non_empty().is_none() {
            let problem = "is needed with sqs.secret_access_key to read sqs.queue_url";
            return Err(refused("sqs.access_key_id", problem));
        }
        Ok(())
    }
}

fn parsed(url: &str) -> Option<Url> {
    Url::parse(url).ok()
}

fn refused(option: &'static str, problem: &str) -> ConfigError {
    ConfigError::Refused {
        option,
        problem: problem.to_owned(),
    }
}

fn check_url(option: &'static str, url: &str) -> Result<(), ConfigError> {
    let right = url.is_empty()
        || parsed(url).is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if right {
        Ok(())
    } else {
        Err(refused(option, "must be an http:// or https:// URL, or empty"))
    }
}

fn check_range(option: &'static str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(refused(
        option,
        &if most == u64::MAX {
            format!("must be at least {least}")
        } else {
            format!("must be {least} to {most}")
        },
    ))
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};

    fn load(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let prefixed = environment
            .iter()
            .map(|(name, value)| (format!("CHROMA_SYNC__{name}"), (*value).to_owned()));
        Config::load(None, prefixed, &[])
    }

    #[test]
    fn a_queue_of_aws_needs_no_region_and_others_do() {
        let keys = [
            ("SQS__ACCESS_KEY_ID", "AKIA"),
            ("SQS__SECRET_ACCESS_KEY", "planted-secret"),
        ];
        let queue = (
            "SQS__QUEUE_URL",
            "https://sqs.eu-west-1.amazonaws.com/123456789012/events",
        );
        let config = load(&[keys[0], keys[1], queue]).unwrap();
        assert_eq!(config.sqs.queue_region().as_deref(), Some("eu-west-1"));
        assert!(!format!("{config:?}").contains("planted-secret"));
        let elsewhere = ("SQS__QUEUE_URL", "http://127.0.0.1:9324/000000000000/events");
        let error = load(&[keys[0], keys[1], elsewhere]).unwrap_err();
        assert!(error.to_string().starts_with("sqs.region"), "{error}");
        assert!(load(&[keys[0], keys[1], elsewhere, ("SQS__REGION", "elasticmq")]).is_ok());
        let error = load(&[queue]).unwrap_err();
        assert!(error.to_string().starts_with("sqs.access_key_id"), "{error}");
    }

    #[test]
    fn values_that_sqs_and_s3_do_not_take_are_refused_by_name() {
        for (name, value, option) in [
            ("SQS__WAIT_SECONDS", "21", "sqs.wait_seconds"),
            ("SQS__MAX_MESSAGES", "11", "sqs.max_messages"),
            ("SQS__MAX_MESSAGES", "0", "sqs.max_messages"),
            (
                "SQS__VISIBILITY_TIMEOUT_SECONDS",
                "43201",
                "sqs.visibility_timeout_seconds",
            ),
            ("SQS__QUEUE_URL", "queue", "sqs.queue_url"),
            ("SQS__ENDPOINT_URL", "ftp://host", "sqs.endpoint_url"),
            ("S3__ENDPOINT_URL", "host:9000", "s3.endpoint_url"),
            ("S3__MAX_OBJECT_BYTES", "0", "s3.max_object_bytes"),
            ("S3__IDLE_TIMEOUT_SECONDS", "0", "s3.idle_timeout_seconds"),
        ] {
            let error = load(&[(name, value)]).unwrap_err();
            assert!(error.to_string().starts_with(option), "{name}: {error}");
        }
    }
}
