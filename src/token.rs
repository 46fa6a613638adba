//! Where a caller's token is found; the same for both transports.

use http::{HeaderMap, header::AUTHORIZATION};

/// The header that Chroma's clients send.
pub const TOKEN_HEADER: &str = "x-chroma-token";

/// The token of `x-chroma-token`, else of `authorization: Bearer`. A value that is not visible ASCII is
/// no token.
pub fn from_headers(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(TOKEN_HEADER) {
        return value.to_str().ok();
    }
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_token_is_found_in_either_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(from_headers(&headers), None);
        headers.insert(AUTHORIZATION, HeaderValue::from_static("bearer abc"));
        assert_eq!(from_headers(&headers), Some("abc"));
        headers.insert(TOKEN_HEADER, HeaderValue::from_static("xyz"));
        assert_eq!(from_headers(&headers), Some("xyz"));
    }

    #[test]
    fn another_scheme_is_no_token() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic abc"));
        assert_eq!(from_headers(&headers), None);
    }
}
