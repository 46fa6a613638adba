//! Forms (`multipart/form-data`) that are read as they come.
//!
//! The parser takes whatever is there before it hands anything out. So it is given one piece of the body at a
//! time, and for each step no more than [`STEP_BYTES`]: then neither a fast sender nor a part's head without an
//! end fills the memory.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use multer::{Field, Multipart};

use super::error::RestError;
use crate::error::{Error, FieldViolation, Reason};

/// The most bytes that are read until there is something to hand out.
const STEP_BYTES: usize = 2 << 20;

/// The parts of a form, one after the other.
pub(super) struct Form {
    parts: Multipart<'static>,
    allowance: Arc<AtomicUsize>,
}

/// One part of a form.
pub(super) struct Part {
    field: Field<'static>,
    allowance: Arc<AtomicUsize>,
}

impl Form {
    /// The form in a body whose headers are `headers`.
    pub(super) fn read(headers: &HeaderMap, body: Body) -> Result<Self, RestError> {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = multer::parse_boundary(content_type.unwrap_or_default()).map_err(|_| {
            RestError::Http(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UnsupportedMediaTypeError",
                "content-type must be multipart/form-data with a boundary".to_owned(),
            )
        })?;
        let allowance = Arc::new(AtomicUsize::new(STEP_BYTES));
        let paced = Paced {
            body: body.into_data_stream(),
            allowance: Arc::clone(&allowance),
            handed_out: false,
        };
        Ok(Self {
            parts: Multipart::new(paced, boundary),
            allowance,
        })
    }

    /// The next part; none at the end. What is left of the part before it is passed over.
    pub(super) async fn next(&mut self) -> Result<Option<Part>, Error> {
        self.allowance.store(STEP_BYTES, Ordering::Relaxed);
        let field = self.parts.next_field().await.map_err(malformed)?;
        Ok(field.map(|field| Part {
            field,
            allowance: Arc::clone(&self.allowance),
        }))
    }
}

impl Part {
    /// Name of the field.
    pub(super) fn name(&self) -> Option<&str> {
        self.field.name()
    }

    /// Name of the file, where it says one.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.field.file_name()
    }

    /// What it says that it is.
    pub(super) fn content_type(&self) -> Option<&str> {
        self.field.content_type().map(AsRef::as_ref)
    }

    /// The next bytes; none at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        self.allowance.store(STEP_BYTES, Ordering::Relaxed);
        self.field.chunk().await.map_err(malformed)
    }

    /// All of it, as text of at most `most` bytes; the violation names `field`.
    pub(super) async fn text(mut self, field: &str, most: usize) -> Result<String, Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > most {
                let problem = format!("must have at most {most} bytes");
                return Err(FieldViolation::new(field, problem).into());
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|_| FieldViolation::new(field, "must be UTF-8").into())
    }
}

fn malformed(error: multer::Error) -> Error {
    Error::new(
        Reason::MalformedRequest,
        format!("the form cannot be read: {error}"),
    )
    .with_cause(error)
}

/// A body that hands out one piece and then lets go of the processor, and ends with an error when the allowance
/// is used up.
struct Paced {
    body: BodyDataStream,
    allowance: Arc<AtomicUsize>,
    handed_out: bool,
}

impl Stream for Paced {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.handed_out {
            self.handed_out = false;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Poll::Ready(next) = self.body.poll_next_unpin(context) else {
            return Poll::Pending;
        };
        self.handed_out = true;
        Poll::Ready(match next {
            None => None,
            Some(Err(error)) => Some(Err(error.into())),
            Some(Ok(piece)) => {
                let left = self.allowance.load(Ordering::Relaxed).checked_sub(piece.len());
                match left {
                    Some(left) => {
                        self.allowance.store(left, Ordering::Relaxed);
                        Some(Ok(piece))
                    }
                    None => Some(Err("the head of a part has no end".into())),
                }
            }
        })
    }
}
