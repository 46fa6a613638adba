//! Web sites: where a crawl begins.

use std::fmt;

use url::{Host, Url};

use crate::error::FieldViolation;

/// The longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 2_048;

/// The URL that a crawl begins with: `http` or `https`, with a host, without credentials and fragment.
///
/// Whether its host may be connected to is for the egress policy to say, whenever it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StartingUrl(Url);

impl StartingUrl {
    /// Reads a URL; the violation names `field`. A fragment is dropped, since it never reaches a server.
    pub fn parse(field: &str, text: &str) -> Result<Self, FieldViolation> {
        let refused = |problem: String| Err(FieldViolation::new(field, problem));
        let text = text.trim();
        if text.len() > MAX_URL_BYTES {
            return refused(format!(
                "must have at most {MAX_URL_BYTES} bytes, has {}",
                text.len()
            ));
        }
        let mut url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                return refused(format!(
                    "must be a URL such as 'https://docs.example.com/': {error}"
                ));
            }
        };
        if !matches!(url.scheme(), "http" | "https") {
            return refused("must be an http:// or https:// URL".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refused("must have no user name and password; only public pages are crawled".to_owned());
        }
        if matches!(url.host(), None | Some(Host::Domain(""))) {
            return refused("must have a host".to_owned());
        }
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// Takes a URL that was checked before it was stored; none when it is none after all.
    pub fn from_stored(text: &str) -> Option<Self> {
        Url::parse(text).ok().map(Self)
    }

    /// The URL.
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for StartingUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starting_url_is_one_of_the_web() {
        for (text, read) in [
            ("https://docs.example.com", "https://docs.example.com/"),
            (" HTTP://Example.com:80/a?b=c#d ", "http://example.com/a?b=c"),
            ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
        ] {
            assert_eq!(StartingUrl::parse("url", text).unwrap().as_str(), read, "{text}");
        }
        for text in [
            "",
            "docs.example.com",
            "/docs",
            "ftp://example.com/",
            "file:///etc/passwd",
            "https://",
            "https://user@example.com/",
            "https://user:password@example.com/",
            "javascript:alert(1)",
            &format!("https://example.com/{}", "a".repeat(2_048)),
        ] {
            assert_eq!(
                StartingUrl::parse("url", text).unwrap_err().field,
                "url",
                "{text}"
            );
        }
    }
}
