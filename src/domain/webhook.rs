//! Webhooks: where the state changes of an invocation are sent to, and how far that has come.
//!
//! Source of the secret's form: the Standard Webhooks specification, *Signature scheme*.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use url::Url;

use super::{names::TenantName, time::Timestamp};
use crate::{
    error::FieldViolation,
    secret::{Sealed, Secret},
};

/// The longest URL, in bytes.
const MAX_URL_BYTES: usize = 2_048;
const NOT_A_URL: &str = "must be an absolute URL such as 'https://example.com/hooks'";
/// What every signing secret begins with.
const SECRET_PREFIX: &str = "whsec_";
/// Bytes of a key that a signing secret may encode.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Bytes of a key that the server makes.
const MADE_KEY_BYTES: usize = 32;

/// An `http` or `https` URL of a receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

impl WebhookUrl {
    /// An absolute URL with a host, without a user, a password or a fragment, at most 2,048 bytes; the
    /// violation names `field`.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldViolation> {
        let refused = |problem: &str| Err(FieldViolation::new(field, problem));
        if text.len() > MAX_URL_BYTES {
            return refused("must have at most 2048 bytes");
        }
        // The URL standard would have more pass, such as `https:example.com`, and drop line breaks.
        let written_out = text.starts_with("https://") || text.starts_with("http://");
        if !written_out || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return refused(NOT_A_URL);
        }
        let url = match Url::parse(text) {
            Ok(url) if url.has_host() => url,
            Ok(_) | Err(_) => return refused(NOT_A_URL),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return refused("must not have a user or a password; the signature says who sends");
        }
        if url.fragment().is_some() {
            return refused("must not have a fragment; it would not be sent");
        }
        // Writing out what is not ASCII can make it three times as long.
        if url.as_str().len() > 3 * MAX_URL_BYTES {
            return refused("is too long once its special characters are escaped");
        }
        Ok(Self(url))
    }

    /// Takes a URL that was checked before it was stored; none when it no longer is one.
    pub fn from_stored(text: &str) -> Option<Self> {
        Url::parse(text).ok().map(Self)
    }

    /// The URL as it is requested.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The URL, taken apart.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Whether what is sent there can be read on the way.
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// Scheme, host and port: what answers there. Unlike the rest of the URL it may be logged.
    pub fn receiver(&self) -> String {
        self.0.origin().ascii_serialization()
    }
}

/// The path may hold what only the receiver should know.
impl fmt::Debug for WebhookUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WebhookUrl({})", self.receiver())
    }
}

/// Checks a signing secret: `whsec_` and the base64 of 24 to 64 bytes; the violation names `field` and
/// never repeats the secret.
pub fn parse_signing_secret(field: &str, text: &str) -> Result<Secret, FieldViolation> {
    let secret = Secret::new(text);
    match signing_key(&secret) {
        Some(_) => Ok(secret),
        None => Err(FieldViolation::new(
            field,
            "must be 'whsec_' and the base64 of 24 to 64 random bytes, such as \
             \"whsec_$(openssl rand -base64 32)\"; leave it out and the server makes one",
        )),
    }
}

/// A new signing secret.
pub fn generate_signing_secret() -> Secret {
    let key: [u8; MADE_KEY_BYTES] = rand::random();
    Secret::new(format!("{SECRET_PREFIX}{}", BASE64_STANDARD.encode(key)))
}

/// The key that a signing secret encodes; none when it is no such secret.
pub fn signing_key(secret: &Secret) -> Option<Vec<u8>> {
    let key = secret.expose().strip_prefix(SECRET_PREFIX)?;
    let key = BASE64_STANDARD.decode(key).ok()?;
    KEY_BYTES.contains(&key.len()).then_some(key)
}

/// What the signing secrets of a tenant are sealed for.
pub fn sealing_context(tenant: &TenantName) -> String {
    format!("webhook {tenant}")
}

/// A webhook of a source or an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where to send to.
    pub url: WebhookUrl,
    /// In a request the caller's own; in the answer of a creation the one that the server made. None
    /// anywhere else.
    pub signing_secret: Option<Secret>,
    /// As it is stored; none in a request.
    pub sealed_secret: Option<Sealed>,
}

impl Webhook {
    /// A webhook as requested.
    pub fn requested(url: WebhookUrl, signing_secret: Option<Secret>) -> Self {
        Self {
            url,
            signing_secret,
            sealed_secret: None,
        }
    }

    /// A webhook as it is shown.
    pub fn shown(url: WebhookUrl) -> Self {
        Self::requested(url, None)
    }
}

/// How the delivery to a webhook stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// A state change is to be sent, now or again.
    Pending,
    /// The latest state change was delivered.
    Delivered,
    /// The latest state change was given up; the next one will be sent.
    Failed,
    /// The receiver wants no more (410); nothing is sent any longer.
    Stopped,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Failed, Self::Stopped];

    /// The name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }

    /// The state with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// How far the delivery of an invocation's state changes has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// How it stands.
    pub state: DeliveryState,
    /// Revision of the last state change that was delivered; 0 before the first.
    pub delivered_revision: u64,
    /// Attempts that failed at the state change that is due, or was given up last.
    pub attempts: u32,
    /// State changes that were given up.
    pub given_up: u32,
    /// Why the last attempt failed; none after a delivery.
    pub last_error: Option<String>,
    /// When the next attempt begins; none while one runs and when nothing is due.
    pub next_attempt_time: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_nothing_that_is_not_sent() {
        for text in [
            "https://example.com",
            "https://example.com:8443/hooks?key=value",
            "http://localhost:8080/",
            "https://EXAMPLE.com/ä",
            "https://[::1]/",
        ] {
            assert!(WebhookUrl::parse("webhook.url", text).is_ok(), "{text}");
        }
        let long = format!("https://example.com/{}", "x".repeat(2_048));
        for text in [
            "",
            "example.com/hooks",
            "/hooks",
            "ftp://example.com/",
            "https://",
            "https:example.com",
            " https://example.com/",
            "https://exa\nmple.com/",
            "https://[::1",
            "https://user@example.com/",
            "https://:password@example.com/",
            "https://example.com/#fragment",
            "data:text/plain,x",
            &long,
        ] {
            let refused = WebhookUrl::parse("webhook.url", text).unwrap_err();
            assert_eq!(refused.field, "webhook.url", "{text}");
        }
    }

    #[test]
    fn a_url_is_logged_without_its_path() {
        let url = WebhookUrl::parse("url", "https://example.com:444/secret?token=secret").unwrap();
        assert_eq!(format!("{url:?}"), "WebhookUrl(https://example.com:444)");
    }

    #[test]
    fn a_signing_secret_encodes_24_to_64_bytes_and_is_never_repeated() {
        for bytes in [24, 25, 32, 64] {
            let text = format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]));
            assert_eq!(signing_key(&Secret::new(text)), Some(vec![7; bytes]));
        }
        for text in [
            "",
            "whsec_",
            &BASE64_STANDARD.encode([7; 32]),
            &format!("whsec_{}", BASE64_STANDARD.encode([7; 23])),
            &format!("whsec_{}", BASE64_STANDARD.encode([7; 65])),
            "whsec_this-is-not-base64-this-is-not-base64",
        ] {
            let refused = parse_signing_secret("webhook.signing_secret", text).unwrap_err();
            assert_eq!(refused.field, "webhook.signing_secret");
            assert!(text.len() < 7 || !refused.description.contains(text), "{text}");
        }
        let made = generate_signing_secret();
        assert_eq!(signing_key(&made).map(|key| key.len()), Some(32));
        assert_ne!(made, generate_signing_secret());
    }
}
