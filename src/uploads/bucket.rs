//! Uploads as objects of a bucket: `chroma-sync-uploads/{upload}/{piece}`.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use url::Url;

use super::{UploadError, name, piece_name};
use crate::{domain::ids::UploadId, secret::Secret};

/// What the keys of all uploads begin with, so that the bucket may hold other things.
const PREFIX: &str = "chroma-sync-uploads";
/// How long one request may take; a piece has 4 MiB.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that fail in passing are sent again this often, until so much time has passed.
const MAX_RETRIES: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_secs(40);

/// How the bucket is reached; meanings in `config/default.toml`.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct BucketOptions {
    pub bucket: String,
    pub region: String,
    pub endpoint_url: Option<Url>,
    /// Id and secret of an access key; none for that of the environment or of the machine.
    pub access_key: Option<(String, Secret)>,
    pub path_style: bool,
}

pub(super) struct PieceBucket(AmazonS3);

/// Prints nothing of it: it holds a secret.
impl fmt::Debug for PieceBucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PieceBucket")
    }
}

impl PieceBucket {
    pub(super) fn open(options: BucketOptions) -> Result<Self, UploadError> {
        let BucketOptions {
            bucket,
            region,
            endpoint_url,
            access_key,
            path_style,
        } = options;
        let plain = endpoint_url.as_ref().is_some_and(|url| url.scheme() == "http");
        let builder = match access_key {
            Some((id, secret)) => AmazonS3Builder::new()
                .with_access_key_id(id)
                .with_secret_access_key(secret.expose()),
            None => AmazonS3Builder::from_env(),
        };
        let client = ClientOptions::new()
            .with_allow_http(plain)
            .with_timeout(REQUEST_TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT);
        let builder = builder
            .with_bucket_name(bucket)
            .with_region(region)
            .with_virtual_hosted_style_request(!path_style)
            .with_client_options(client)
            // Not every service with this API takes deletions of many objects.
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig {
                max_retries: MAX_RETRIES,
                retry_timeout: RETRY_TIMEOUT,
                ..RetryConfig::default()
            });
        let builder = match endpoint_url {
            Some(url) => builder.with_endpoint(url.as_str().trim_end_matches('/')),
            None => builder,
        };
        let bucket = builder
            .build()
            .map_err(|error| UploadError::Bucket { source: error.into() })?;
        Ok(Self(bucket))
    }

    pub(super) async fn holds(&self, id: UploadId) -> Result<bool, UploadError> {
        match self.0.head(&piece_path(id, 0)).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(UploadError::storage("read", error)),
        }
    }

    pub(super) async fn put(&self, id: UploadId, number: u64, piece: Bytes) -> Result<(), UploadError> {
        let put = self.0.put(&piece_path(id, number), piece.into()).await;
        put.map(drop)
            .map_err(|error| UploadError::storage("written", error))
    }

    pub(super) async fn get(
        &self,
        id: UploadId,
        number: u64,
    ) -> Result<BoxStream<'static, Result<Bytes, UploadError>>, UploadError> {
        match self.0.get(&piece_path(id, number)).await {
            Ok(piece) => Ok(piece
                .into_stream()
                .map_err(|error| UploadError::storage("read", error))
                .boxed()),
            Err(Error::NotFound { .. }) => Err(UploadError::Missing { id }),
            Err(error) => Err(UploadError::storage("read", error)),
        }
    }

    pub(super) async fn remove(&self, id: UploadId) -> Result<(), UploadError> {
        let pieces = self.0.list(Some(&upload_path(id))).map_ok(|piece| piece.location);
        let mut removed = self.0.delete_stream(pieces.boxed());
        while let Some(removed) = removed.next().await {
            match removed {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(UploadError::storage("removed", error)),
            }
        }
        Ok(())
    }
}

fn upload_path(id: UploadId) -> Path {
    Path::from_iter([PREFIX, &name(id)])
}

fn piece_path(id: UploadId, number: u64) -> Path {
    Path::from_iter([PREFIX, &name(id), &piece_name(number)])
}
