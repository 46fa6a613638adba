//! Loads objects: small ones into memory, others into a file, never more than a piece of them at once.

use reqwest::{
    Method, Response,
    header::{self, HeaderValue},
};

use super::{
    S3Bucket, S3Error,
    answer::plain_etag,
    client::{Subject, internal},
};
use crate::fetch::{
    content::{Content, LoadedDocument},
    sink::Sink,
};

/// Media types that say nothing.
const UNKNOWN_TYPES: [&str; 2] = ["application/octet-stream", "binary/octet-stream"];

impl S3Bucket {
    /// Loads the object with this key, if its ETag is still `version_key`, as [`S3Bucket::list`] and
    /// [`S3Bucket::head`] give it. Its size is checked before anything is read and while it is.
    ///
    /// # Errors
    /// See [`S3Error`]; [`S3Error::ObjectChanged`] where the object has another version by now.
    pub async fn load(&self, key: &str, version_key: &str) -> Result<LoadedDocument, S3Error> {
        let url = self.client.object_url(key)?;
        let condition = HeaderValue::from_str(&format!("\"{version_key}\"")).map_err(internal)?;
        let response = self
            .client
            .request(
                Method::GET,
                &url,
                Some((header::IF_MATCH, condition)),
                Subject::Object(key),
            )
            .await?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        // Not every server that speaks the protocol knows the condition.
        if text(header::ETAG).is_some_and(|etag| plain_etag(etag) != version_key) {
            return Err(S3Error::ObjectChanged { key: key.to_owned() });
        }
        let media_type = text(header::CONTENT_TYPE)
            .filter(|media_type| !UNKNOWN_TYPES.contains(media_type))
            .map(str::to_owned);
        Ok(LoadedDocument {
            content: self.receive(key, response).await?,
            media_type,
            metadata: serde_json::Map::new(),
        })
    }

    async fn receive(&self, key: &str, response: Response) -> Result<Content, S3Error> {
        let limit = self.options.max_object_bytes;
        let too_large = || S3Error::ObjectTooLarge {
            key: key.to_owned(),
            limit,
        };
        let declared = response.content_length();
        if declared.is_some_and(|size| size > limit) {
            return Err(too_large());
        }
        let mut sink = Sink::open(&self.scratch, declared).await.map_err(storage)?;
        let (mut response, mut received) = (response, 0);
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.client.broken_connection(error))?
        {
            received += chunk.len() as u64;
            if received > limit {
                return Err(too_large());
            }
            sink.write(&chunk).await.map_err(storage)?;
        }
        sink.finish().await.map_err(storage)
    }
}

fn storage(source: std::io::Error) -> S3Error {
    S3Error::Storage {
        source: source.into(),
    }
}
