//! `[metrics]`. Meanings and defaults are in `config/default.toml`.

use std::net::SocketAddr;

use serde::Deserialize;

use super::ConfigError;

/// `[metrics]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MetricsConfig {
    pub listen: String,
}

impl MetricsConfig {
    /// Where to listen; none when nobody reads.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.listen.is_empty() || self.address().is_some() {
            return Ok(());
        }
        Err(ConfigError::Refused {
            option: "metrics.listen",
            problem: "it must be an address with a port, such as 127.0.0.1:9464, or empty".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_needs_a_port_and_nothing_is_an_address_too() {
        let of = |listen: &str| MetricsConfig {
            listen: listen.to_owned(),
        };
        of("").validate().unwrap();
        assert_eq!(of("").address(), None);
        of("[::1]:9464").validate().unwrap();
        assert_eq!(of("127.0.0.1:0").address(), Some(([127, 0, 0, 1], 0).into()));
        for wrong in ["9464", "localhost:9464", "127.0.0.1"] {
            let error = of(wrong).validate().unwrap_err().to_string();
            assert!(error.contains("metrics.listen"), "{error}");
        }
    }
}
