//! Where buckets and objects are: hosts, paths, and how keys are written into them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::Bucket;

/// What S3 wants encoded: all but letters, digits and these four.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The same within a key, whose slashes part the path.
const ENCODED_IN_KEY: &AsciiSet = &ENCODED.remove(b'/');

/// The URL of a bucket, without a final slash in its path.
///
/// AWS is asked by host name, `{bucket}.s3.{region}.amazonaws.com`; a dot in the bucket's name would not fit
/// the certificate, so such a bucket goes into the path, as all do where `path_style` says so for `endpoint`.
pub(super) fn bucket_url(
    bucket: &Bucket,
    endpoint: Option<&Url>,
    path_style: bool,
) -> Result<Url, url::ParseError> {
    let name = bucket.name.as_str();
    let Some(endpoint) = endpoint else {
        let region = bucket.region.as_str();
        let domain = if region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        return Url::parse(&if name.contains('.') {
            format!("https://s3.{region}.{domain}/{name}")
        } else {
            format!("https://{name}.s3.{region}.{domain}/")
        });
    };
    let mut url = endpoint.clone();
    url.set_query(None);
    url.set_fragment(None);
    let base = endpoint.path().trim_end_matches('/');
    match endpoint.domain() {
        // An address has no names below it.
        Some(domain) if !path_style => {
            url.set_host(Some(&format!("{name}.{domain}")))?;
            url.set_path(base);
        }
        Some(_) | None => url.set_path(&format!("{base}/{name}")),
    }
    Ok(url)
}

/// The URL of an object; none when a URL cannot hold its key, because `.` and `..` between slashes have a
/// meaning there.
pub(super) fn object_url(bucket: &Url, key: &str) -> Option<Url> {
    let path = format!(
        "{}/{}",
        bucket.path().trim_end_matches('/'),
        utf8_percent_encode(key, ENCODED_IN_KEY)
    );
    let mut url = bucket.clone();
    url.set_path(&path);
    (url.path() == path).then_some(url)
}

/// Adds a query, encoded as signatures want it.
pub(super) fn with_query(mut url: Url, query: &[(&str, &str)]) -> Url {
    let pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ENCODED)))
        .collect();
    url.set_query(Some(&pairs.join("&")));
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::s3::{BucketName, Region};

    fn url(name: &str, region: &str, endpoint: Option<&str>, path_style: bool) -> String {
        let bucket = Bucket {
            name: BucketName::parse("bucket", name).unwrap(),
            region: Region::parse("region", region).unwrap(),
        };
        let endpoint = endpoint.map(|endpoint| Url::parse(endpoint).unwrap());
        bucket_url(&bucket, endpoint.as_ref(), path_style)
            .unwrap()
            .to_string()
    }

    #[test]
    fn a_bucket_is_a_host_of_aws_or_a_path_of_another_endpoint() {
        for path_style in [true, false] {
            assert_eq!(
                url("docs", "eu-central-1", None, path_style),
                "https://docs.s3.eu-central-1.amazonaws.com/"
            );
            assert_eq!(
                url("my.docs", "eu-central-1", None, path_style),
                "https://s3.eu-central-1.amazonaws.com/my.docs"
            );
            assert_eq!(
                url("docs", "cn-north-1", None, path_style),
                "https://docs.s3.cn-north-1.amazonaws.com.cn/"
            );
            assert_eq!(
                url("docs", "auto", Some("http://127.0.0.1:9000"), path_style),
                "http://127.0.0.1:9000/docs"
            );
        }
        assert_eq!(
            url(
                "docs",
                "auto",
                Some("https://objects.example.com:9000/base/"),
                true
            ),
            "https://objects.example.com:9000/base/docs"
        );
        assert_eq!(
            url("docs", "auto", Some("https://objects.example.com:9000"), false),
            "https://docs.objects.example.com:9000/"
        );
    }

    #[test]
    fn keys_are_written_byte_for_byte() {
        let bucket = Url::parse("https://h/docs").unwrap();
        for (key, path) in [
            ("a/b.md", "/docs/a/b.md"),
            ("a b+c&d=e?f#g%h", "/docs/a%20b%2Bc%26d%3De%3Ff%23g%25h"),
            ("/leading//double/", "/docs//leading//double/"),
            ("ü/\u{1f600}", "/docs/%C3%BC/%F0%9F%98%80"),
            ("back\\slash\ttab\nline", "/docs/back%5Cslash%09tab%0Aline"),
            ("...", "/docs/..."),
            ("%2e%2e", "/docs/%252e%252e"),
        ] {
            assert_eq!(object_url(&bucket, key).unwrap().path(), path, "{key:?}");
        }
        for key in [".", "..", "a/../b", "a/./b", "./a", "a/.."] {
            assert_eq!(object_url(&bucket, key), None, "{key:?}");
        }
    }

    #[test]
    fn a_query_has_no_plus_for_a_blank() {
        let url = with_query(Url::parse("https://h/docs").unwrap(), &[("prefix", "a b/+é")]);
        assert_eq!(url.as_str(), "https://h/docs?prefix=a%20b%2F%2B%C3%A9");
    }
}
