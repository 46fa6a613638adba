//! Loads objects: small ones into memory, others into a file, never more than a piece of them at once.

use std::sync::Arc;

use reqwest::{
    Method, Response,
    header::{self, HeaderValue},
};
use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufWriter},
};
use uuid::Uuid;

use super::{
    S3Bucket, S3Error,
    answer::plain_etag,
    client::{Subject, internal},
};
use crate::fetch::{
    content::{Content, LoadedDocument, ScratchFile},
    scratch::ScratchDirectory,
};

/// Objects of more bytes go into a file.
pub const MAX_BYTES_IN_MEMORY: u64 = 8 << 20;
/// How much is gathered before it is written.
const WRITE_BUFFER_BYTES: usize = 1 << 20;
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
        let small = declared.is_some_and(|size| size <= MAX_BYTES_IN_MEMORY);
        let mut sink = if small {
            Sink::memory(declared)
        } else {
            self.file().await?
        };
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
            sink.write(&chunk).await?;
        }
        sink.finish(received).await
    }

    async fn file(&self) -> Result<Sink, S3Error> {
        let directory = self
            .scratch
            .get_or_try_init(async || {
                let root = self.options.directory.clone();
                let made = tokio::task::spawn_blocking(move || ScratchDirectory::create(&root)).await;
                made.map_err(internal)?.map(Arc::new).map_err(storage)
            })
            .await?;
        let path = directory.path().join(Uuid::now_v7().simple().to_string());
        let file = File::create_new(&path).await.map_err(storage)?;
        Ok(Sink::File {
            file: BufWriter::with_capacity(WRITE_BUFFER_BYTES, file),
            guard: ScratchFile::new(path, 0, Arc::clone(directory)),
        })
    }
}

/// Where the bytes of an object go.
enum Sink {
    Memory(Vec<u8>),
    File {
        file: BufWriter<File>,
        /// Removes the file if it is not finished.
        guard: ScratchFile,
    },
}

impl Sink {
    fn memory(declared: Option<u64>) -> Self {
        let capacity = declared.and_then(|size| usize::try_from(size).ok());
        Self::Memory(Vec::with_capacity(capacity.unwrap_or_default()))
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), S3Error> {
        match self {
            Self::Memory(content) => content.extend_from_slice(bytes),
            Self::File { file, .. } => file.write_all(bytes).await.map_err(storage)?,
        }
        Ok(())
    }

    async fn finish(self, received: u64) -> Result<Content, S3Error> {
        match self {
            Self::Memory(content) => Ok(Content::Memory(content)),
            Self::File { mut file, mut guard } => {
                file.flush().await.map_err(storage)?;
                guard.set_size(received);
                Ok(Content::File(guard))
            }
        }
    }
}

fn storage(source: std::io::Error) -> S3Error {
    S3Error::Storage {
        source: source.into(),
    }
}
