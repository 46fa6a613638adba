//! Objects of S3 buckets, on AWS or on anything that speaks its protocol.
//!
//! Three requests are all that is made: `ListObjectsV2`, `HeadObject` and `GetObject`, each signed with the
//! access key of the source. Keys are taken byte for byte, so that what S3 tells apart stays apart. Futures stop
//! at once, and leave nothing, when they are dropped.
//!
//! Absent on purpose: writing, and credentials of the machine.

mod address;
mod answer;
mod client;
mod error;
mod load;

use std::{path::PathBuf, time::Duration};

use reqwest::{Method, header};
use url::Url;

use self::{
    address::with_query,
    answer::{Listing, MAX_PAGE_BYTES, Page, plain_etag, read_body},
    client::{BucketClient, Subject},
};
pub use self::{answer::decode_key, error::S3Error};
pub use super::sink::MAX_BYTES_IN_MEMORY;
use super::{
    Egress,
    listing::{Entry, Listed},
    sink::LazyScratch,
};
use crate::{
    aws::AwsCredentials,
    domain::{
        credential::AwsKeys,
        document::{SkipRule, sha256_hex},
        s3::{BucketName, ObjectKey, PathPrefix, Region},
        source::S3Source,
    },
};

/// The documented limit of 200 MB, read as for uploads: 200 MiB.
pub const DEFAULT_MAX_OBJECT_BYTES: u64 = 209_715_200;
/// The most objects of a listing. An entry takes some 300 bytes of memory.
const MAX_OBJECTS: usize = 1_000_000;

/// How buckets are reached and read.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// Where buckets are; none for AWS.
    pub endpoint_url: Option<Url>,
    /// Whether the name of the bucket goes into the path below `endpoint_url` rather than before its host.
    pub path_style: bool,
    /// Objects of more bytes are not read.
    pub max_object_bytes: u64,
    /// The most objects that one listing may have.
    pub max_objects: usize,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long the other side may send nothing.
    pub idle_timeout: Duration,
    /// Which addresses may be connected to; that of `endpoint_url` always may.
    pub egress: Egress,
    /// Where objects are kept that are too large for memory; made when it is absent.
    pub directory: PathBuf,
}

impl S3Options {
    /// AWS, public addresses, and the defaults of the configuration.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            endpoint_url: None,
            path_style: true,
            max_object_bytes: DEFAULT_MAX_OBJECT_BYTES,
            max_objects: MAX_OBJECTS,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            egress: Egress::public_only(),
            directory: directory.into(),
        }
    }
}

/// A bucket and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: BucketName,
    /// Its region.
    pub region: Region,
}

/// The objects of one bucket.
#[derive(Debug)]
pub struct S3Bucket {
    client: BucketClient,
    options: S3Options,
    scratch: LazyScratch,
}

impl S3Bucket {
    /// Prepares to read a bucket; nothing is requested yet.
    ///
    /// # Errors
    /// [`S3Error::EgressForbidden`] where its URL has an address that may not be connected to.
    pub fn open(options: &S3Options, bucket: Bucket, credentials: AwsCredentials) -> Result<Self, S3Error> {
        Ok(Self {
            client: BucketClient::new(options, bucket, credentials)?,
            options: options.clone(),
            scratch: LazyScratch::new(options.directory.clone()),
        })
    }

    /// Prepares to read the bucket of a source with the access key that the source names.
    ///
    /// # Errors
    /// As [`S3Bucket::open`].
    pub fn of_source(options: &S3Options, source: &S3Source, keys: AwsKeys) -> Result<Self, S3Error> {
        let AwsKeys {
            access_key_id,
            secret_access_key,
        } = keys;
        let credentials = AwsCredentials {
            access_key_id,
            secret_access_key,
            session_token: None,
        };
        let bucket = Bucket {
            name: source.bucket.clone(),
            region: source.region.clone(),
        };
        Self::open(options, bucket, credentials)
    }

    /// Lists the objects whose keys begin with `prefix`, sorted by key, a thousand with each request. The ETag is
    /// the version. What editors make for folders, empty objects whose keys end with `/`, is left out.
    ///
    /// # Errors
    /// See [`S3Error`]; [`S3Error::TooManyObjects`] beyond [`S3Options::max_objects`].
    pub async fn list(&self, prefix: Option<&PathPrefix>) -> Result<Vec<Entry>, S3Error> {
        let mut entries = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut query = vec![("list-type", "2"), ("encoding-type", "url")];
            // In the order of their names, as signatures have them.
            if let Some(token) = &next {
                query.insert(0, ("continuation-token", token));
            }
            if let Some(prefix) = prefix {
                query.push(("prefix", prefix.as_str()));
            }
            let (objects, following) = self.page(&query).await?;
            let listed = objects
                .into_iter()
                .filter(|object| !is_folder(&object.key, object.size));
            entries.extend(listed.map(|object| self.entry(object)));
            if entries.len() > self.options.max_objects {
                return Err(S3Error::TooManyObjects {
                    bucket: self.client.bucket.name.clone(),
                    limit: self.options.max_objects,
                });
            }
            match following {
                None => break,
                Some(token) if next.as_ref() == Some(&token) => {
                    let problem = format!("{} lists the same page again and again", self.client.host());
                    return Err(self.client.unexpected(problem));
                }
                Some(token) => next = Some(token),
            }
        }
        entries.sort_unstable_by(|one, other| one.document_key.cmp(&other.document_key));
        entries.dedup_by(|one, other| one.document_key == other.document_key);
        Ok(entries)
    }

    async fn page(&self, query: &[(&str, &str)]) -> Result<(Vec<Listing>, Option<String>), S3Error> {
        let url = with_query(self.client.url().clone(), query);
        let response = self
            .client
            .request(Method::GET, &url, None, Subject::Bucket)
            .await?;
        let body = read_body(response, MAX_PAGE_BYTES)
            .await
            .map_err(|error| self.client.broken_connection(error))?;
        let host = self.client.host();
        let body = body.ok_or_else(|| {
            self.client
                .unexpected(format!("{host} lists more than {MAX_PAGE_BYTES} bytes at once"))
        })?;
        let page = Page::parse(&body).map_err(|error| S3Error::UnexpectedAnswer {
            bucket: self.client.bucket.name.clone(),
            problem: format!("{host} answers with something else than a listing; check s3.endpoint_url"),
            source: Some(error.into()),
        })?;
        page.into_parts().map_err(|wrong| {
            self.client.unexpected(match wrong {
                Some(key) => {
                    format!("{host} lists object {key:?} without an ETag, or with a key that is not UTF-8")
                }
                None => format!("{host} lists a part and does not say where the next one begins"),
            })
        })
    }

    /// Looks at one object.
    ///
    /// # Errors
    /// See [`S3Error`]. An object that is too large is none: the entry says so.
    pub async fn head(&self, key: &ObjectKey) -> Result<Entry, S3Error> {
        let key = key.as_str();
        let url = self.client.object_url(key)?;
        let response = self
            .client
            .request(Method::HEAD, &url, None, Subject::Object(key))
            .await?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let size = text(header::CONTENT_LENGTH).and_then(|size| size.parse().ok());
        let etag = text(header::ETAG).map(plain_etag).filter(|etag| !etag.is_empty());
        match (size, etag) {
            (Some(size), Some(etag)) => Ok(self.entry(Listing {
                key: key.to_owned(),
                etag,
                size,
            })),
            (None, _) | (_, None) => {
                let host = self.client.host();
                Err(self
                    .client
                    .unexpected(format!("{host} does not tell size and ETag of object {key:?}")))
            }
        }
    }

    fn entry(&self, object: Listing) -> Entry {
        let Listing { key, etag, size } = object;
        let (document_key, decision) = if key.contains('\0') {
            // No database takes such a text; the digest keeps apart what reads alike.
            let digest = sha256_hex(&key);
            let readable = key.replace('\0', "\u{fffd}");
            let suffix = digest.get(..16).unwrap_or(&digest);
            (format!("{readable}#{suffix}"), Listed::Skip(SkipRule::InvalidKey))
        } else if self.client.object_url(&key).is_err() {
            (key, Listed::Skip(SkipRule::InvalidKey))
        } else if size > self.options.max_object_bytes {
            (key, Listed::Skip(SkipRule::TooLarge))
        } else {
            (key, Listed::Load)
        };
        Entry {
            document_key,
            version_key: etag,
            size_bytes: Some(size),
            decision,
            memo: None,
        }
    }
}

fn is_folder(key: &str, size: u64) -> bool {
    size == 0 && key.ends_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn what_a_request_or_a_database_cannot_hold_is_left_out_and_keeps_a_name_of_its_own() {
        let bucket = Bucket {
            name: BucketName::parse("bucket", "docs").unwrap(),
            region: Region::parse("region", "us-east-1").unwrap(),
        };
        let credentials = AwsCredentials {
            access_key_id: "AKIA".to_owned(),
            secret_access_key: Secret::new("secret"),
            session_token: None,
        };
        let bucket = S3Bucket::open(&S3Options::new("/nowhere"), bucket, credentials).unwrap();
        let entry = |key: &str| {
            bucket.entry(Listing {
                key: key.to_owned(),
                etag: "e".to_owned(),
                size: 1,
            })
        };
        for key in ["a/../b", ".", "a/./b"] {
            let entry = entry(key);
            assert_eq!(entry.document_key, key);
            assert_eq!(entry.decision, Listed::Skip(SkipRule::InvalidKey), "{key}");
        }
        let (one, other) = (entry("a\0b"), entry("a\u{fffd}b"));
        assert_eq!(one.decision, Listed::Skip(SkipRule::InvalidKey));
        assert!(one.document_key.starts_with("a\u{fffd}b#"), "{one:?}");
        assert_eq!(other.decision, Listed::Load);
        assert_ne!(one.document_key, other.document_key);
    }
}
