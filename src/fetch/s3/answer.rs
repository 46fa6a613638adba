//! What S3 answers: pages of listings and errors, both XML.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::{Response, StatusCode, header::HeaderMap};
use serde::Deserialize;

use super::{Bucket, client::Subject, error::S3Error};
use crate::domain::s3::Region;

/// The most of a page of a listing that is read; a thousand of the longest keys, encoded, need 4 MB.
pub(super) const MAX_PAGE_BYTES: usize = 16 << 20;
/// The most of an error that is read.
pub(super) const MAX_ERROR_BYTES: usize = 64 << 10;
const MAX_CODE_BYTES: usize = 64;

/// One page of a listing. What S3 always says is asked for, lest something else, such as a web page, is taken for
/// a bucket without objects.
#[derive(Debug, Deserialize)]
#[serde(rename = "ListBucketResult", rename_all = "PascalCase")]
pub(super) struct Page {
    #[serde(rename = "Name")]
    _name: String,
    is_truncated: bool,
    next_continuation_token: Option<String>,
    encoding_type: Option<String>,
    #[serde(default)]
    contents: Vec<Contents>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    key: String,
    e_tag: Option<String>,
    #[serde(default)]
    size: u64,
}

/// An object as the listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) key: String,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) size: u64,
}

impl Page {
    /// Reads a page; the text says what is wrong with it.
    pub(super) fn parse(body: &[u8]) -> Result<Self, quick_xml::DeError> {
        quick_xml::de::from_reader(body)
    }

    /// The objects, and where the next page begins.
    ///
    /// # Errors
    /// The key of an object that has no ETag or whose key is not UTF-8; `None` where the next page has no
    /// beginning.
    pub(super) fn into_parts(self) -> Result<(Vec<Listing>, Option<String>), Option<String>> {
        let encoded = self.encoding_type.as_deref() == Some("url");
        let objects = self
            .contents
            .into_iter()
            .map(|object| {
                let key = if encoded {
                    decode_key(&object.key).ok_or_else(|| object.key.clone())?
                } else {
                    object.key
                };
                let etag = object.e_tag.as_deref().map(plain_etag).unwrap_or_default();
                if etag.is_empty() {
                    return Err(key);
                }
                Ok(Listing {
                    key,
                    etag,
                    size: object.size,
                })
            })
            .collect::<Result<_, String>>()
            .map_err(Some)?;
        match (self.is_truncated, self.next_continuation_token) {
            (true, None) => Err(None),
            (true, Some(token)) => Ok((objects, Some(token))),
            (false, _) => Ok((objects, None)),
        }
    }
}

/// Decodes a key as S3 writes it into listings and events: as in a form, where `+` is a blank. None when it is not
/// UTF-8.
pub fn decode_key(text: &str) -> Option<String> {
    let text = text.replace('+', "%20");
    percent_decode_str(&text)
        .decode_utf8()
        .ok()
        .map(|key| key.into_owned())
}

/// An ETag without its quotes and the mark of a weak one.
pub(super) fn plain_etag(text: &str) -> String {
    text.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

/// S3's description of an error.
#[derive(Debug, Default, Deserialize)]
#[serde(rename = "Error", rename_all = "PascalCase")]
pub(super) struct Description {
    #[serde(default)]
    code: String,
    region: Option<String>,
}

impl Description {
    /// Reads a description; one without a code when there is none.
    pub(super) fn parse(body: &[u8]) -> Self {
        let parsed: Self = quick_xml::de::from_reader(body).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if parsed.code.len() <= MAX_CODE_BYTES && parsed.code.chars().all(plain) {
            parsed
        } else {
            Self::default()
        }
    }
}

/// Status and headers of an answer that is not a success.
pub(super) struct Refusal {
    pub(super) host: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) description: Description,
}

impl Refusal {
    /// Why `subject` of `bucket` was refused.
    pub(super) fn into_error(self, bucket: &Bucket, subject: Subject<'_>) -> S3Error {
        let Bucket { name, region } = bucket.clone();
        let code = self.description.code.as_str();
        let shown = if code.is_empty() {
            format!("HTTP {}", self.status.as_u16())
        } else {
            code.to_owned()
        };
        let actual = self
            .headers
            .get("x-amz-bucket-region")
            .and_then(|value| value.to_str().ok())
            .or(self.description.region.as_deref())
            .and_then(|text| Region::parse("region", text).ok())
            .filter(|actual| *actual != region);
        let unexpected = |problem: String| S3Error::UnexpectedAnswer {
            bucket: name.clone(),
            problem,
            source: None,
        };
        match (code, subject) {
            ("NoSuchBucket", _) => S3Error::BucketNotFound { bucket: name, region },
            ("NoSuchKey" | "NoSuchVersion", Subject::Object(key)) => S3Error::ObjectNotFound {
                bucket: name,
                key: key.to_owned(),
            },
            ("InvalidObjectState", Subject::Object(key)) => S3Error::ObjectArchived {
                bucket: name,
                key: key.to_owned(),
            },
            ("PreconditionFailed", Subject::Object(key)) => S3Error::ObjectChanged { key: key.to_owned() },
            ("PermanentRedirect" | "TemporaryRedirect" | "IllegalLocationConstraintException", _) => {
                S3Error::RegionMismatch {
                    bucket: name,
                    region,
                    actual,
                }
            }
            ("AuthorizationHeaderMalformed", _) if actual.is_some() => S3Error::RegionMismatch {
                bucket: name,
                region,
                actual,
            },
            (
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "InvalidToken"
                | "ExpiredToken"
                | "TokenRefreshRequired"
                | "InvalidSecurity"
                | "NotSignedUp"
                | "AuthorizationHeaderMalformed"
                | "InvalidClientTokenId"
                | "UnrecognizedClientException",
                _,
            ) => S3Error::CredentialsRefused {
                bucket: name,
                code: shown,
            },
            ("RequestTimeTooSkewed", _) => unexpected(
                "the clock of this server differs from that of S3; set it right (RequestTimeTooSkewed)"
                    .to_owned(),
            ),
            (
                "SlowDown"
                | "ServiceUnavailable"
                | "InternalError"
                | "RequestTimeout"
                | "OperationAborted"
                | "ThrottlingException",
                _,
            ) => self.unavailable(bucket, shown),
            ("", _) if self.status.is_redirection() => S3Error::RegionMismatch {
                bucket: name,
                region,
                actual,
            },
            ("", _) if self.status == StatusCode::UNAUTHORIZED => S3Error::CredentialsRefused {
                bucket: name,
                code: shown,
            },
            ("", Subject::Object(key)) if self.status == StatusCode::PRECONDITION_FAILED => {
                S3Error::ObjectChanged { key: key.to_owned() }
            }
            _ if self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS => {
                self.unavailable(bucket, shown)
            }
            (_, Subject::Bucket) if self.status == StatusCode::FORBIDDEN => S3Error::ListingDenied {
                bucket: name,
                code: shown,
            },
            (_, Subject::Object(key)) if self.status == StatusCode::FORBIDDEN => S3Error::ObjectDenied {
                bucket: name,
                key: key.to_owned(),
                code: shown,
            },
            ("", _) => unexpected(format!(
                "{} answers {shown} without saying why, as S3 would; check s3.endpoint_url",
                self.host
            )),
            _ => unexpected(format!(
                "{} answers {shown} (HTTP {})",
                self.host,
                self.status.as_u16()
            )),
        }
    }

    fn unavailable(self, bucket: &Bucket, code: String) -> S3Error {
        S3Error::Unavailable {
            bucket: bucket.name.clone(),
            host: self.host,
            code,
            retry_after: self
                .headers
                .get(reqwest::header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .map(Duration::from_secs),
        }
    }
}

/// Reads a body of at most `limit` bytes; none when it is longer.
pub(super) async fn read_body(
    mut response: Response,
    limit: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_with_its_keys_decoded() {
        let page = br#"<?xml version="1.0" encoding="UTF-8"?>
            <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Name>docs</Name><Prefix></Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys>
              <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
              <NextContinuationToken>1a/b=</NextContinuationToken>
              <Contents><Key>a+b%2Bc/%C3%BC%0A</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>
                <ETag>&quot;d41d8-2&quot;</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>
              <Contents><Key>z</Key><ETag>"e"</ETag><Size>0</Size></Contents>
            </ListBucketResult>"#;
        let (objects, next) = Page::parse(page).unwrap().into_parts().unwrap();
        assert_eq!(next.as_deref(), Some("1a/b="));
        assert_eq!(
            objects[0],
            Listing {
                key: "a b+c/ü\n".to_owned(),
                etag: "d41d8-2".to_owned(),
                size: 7
            }
        );
        assert_eq!(objects[1].key, "z");
    }

    #[test]
    fn keys_are_taken_as_they_are_where_the_server_does_not_encode_them() {
        let page = b"<ListBucketResult><Name>docs</Name><IsTruncated>false</IsTruncated>\
            <Contents><Key>a+b%20</Key><ETag>e</ETag></Contents></ListBucketResult>";
        let (objects, next) = Page::parse(page).unwrap().into_parts().unwrap();
        assert_eq!((objects[0].key.as_str(), next), ("a+b%20", None));
    }

    #[test]
    fn a_page_that_cannot_be_followed_or_names_no_version_is_refused() {
        let endless = b"<ListBucketResult><Name>n</Name><IsTruncated>true</IsTruncated></ListBucketResult>";
        assert_eq!(Page::parse(endless).unwrap().into_parts(), Err(None));
        let bare = b"<ListBucketResult><Name>n</Name><IsTruncated>false</IsTruncated>\
            <Contents><Key>a</Key></Contents></ListBucketResult>";
        assert_eq!(Page::parse(bare).unwrap().into_parts(), Err(Some("a".to_owned())));
        let pages = [
            "",
            "<html>",
            "<html><head></head><body>It works!</body></html>",
            "<ListBucketResult></ListBucketResult>",
        ];
        for page in pages {
            assert!(Page::parse(page.as_bytes()).is_err(), "{page}");
        }
    }

    #[test]
    fn an_error_without_a_plain_code_has_none() {
        assert_eq!(
            Description::parse(b"<Error><Code>SlowDown</Code><X>1</X></Error>").code,
            "SlowDown"
        );
        for body in [
            "",
            "<html><body>no</body></html>",
            "<Error><Code>a b <x></Code></Error>",
        ] {
            assert_eq!(Description::parse(body.as_bytes()).code, "", "{body}");
        }
    }
}
