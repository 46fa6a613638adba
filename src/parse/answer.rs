//! What the child says on its standard output: one line of JSON, then the Markdown.
//!
//! The parent trusts none of it: the line is bounded, the length is checked against the limit before
//! anything is allocated, and the Markdown must be UTF-8 and exactly as long as said.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest first line.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The longest title and the longest problem that are sent, in characters: well below the first line's
/// bound even where each is escaped.
const MAX_TEXT_CHARS: usize = 400;

/// What a converter made of a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Converted {
    /// Its text.
    pub markdown: String,
    /// How many pages it has, where it has pages.
    pub pages: Option<u32>,
    /// What it calls itself.
    pub title: Option<String>,
    /// Pages that have no text since they are pictures.
    pub unread_pages: u32,
}

/// Why a converter made nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// It wants a password.
    Encrypted,
    /// It is broken, or something else.
    Damaged(String),
    /// Its pages are pictures: which ones.
    NoText(String),
    /// More pages than allowed: how many.
    TooManyPages(u32),
    /// More text than allowed.
    OutputTooLong,
    /// The converter panicked.
    Crashed(String),
}

impl Failure {
    /// It is broken: what was found.
    pub fn damaged(problem: impl ToString) -> Self {
        Self::Damaged(problem.to_string())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Header {
    Converted {
        bytes: u64,
        pages: Option<u32>,
        title: Option<String>,
        unread_pages: u32,
    },
    Failed(Failure),
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not of the form above, or ends early.
    #[error("the answer of the converter is not whole")]
    Malformed,
    /// It is longer than allowed.
    #[error("the answer of the converter is too long")]
    TooLong,
}

/// The start of `text`, in one piece and without controls.
fn shorten(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable
        .take(MAX_TEXT_CHARS)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Writes the answer of the child.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, result: &Result<Converted, Failure>) -> io::Result<()> {
    let (header, markdown) = match result {
        Ok(converted) => {
            let header = Header::Converted {
                bytes: converted.markdown.len() as u64,
                pages: converted.pages,
                title: converted
                    .title
                    .as_deref()
                    .map(shorten)
                    .filter(|title| !title.is_empty()),
                unread_pages: converted.unread_pages,
            };
            (header, converted.markdown.as_str())
        }
        Err(failure) => (Header::Failed(shortened(failure)), ""),
    };
    serde_json::to_writer(&mut *out, &header)?;
    out.write_all(b"\n")?;
    out.write_all(markdown.as_bytes())?;
    out.flush()
}

fn shortened(failure: &Failure) -> Failure {
    match failure {
        Failure::Damaged(text) => Failure::Damaged(shorten(text)),
        Failure::NoText(text) => Failure::NoText(shorten(text)),
        Failure::Crashed(text) => Failure::Crashed(shorten(text)),
        Failure::Encrypted => Failure::Encrypted,
        Failure::TooManyPages(pages) => Failure::TooManyPages(*pages),
        Failure::OutputTooLong => Failure::OutputTooLong,
    }
}

/// Reads the answer of a child up to the end of `from`, with at most `max_bytes` of Markdown.
///
/// # Errors
/// [`AnswerError`]; nothing larger than the limits is allocated.
pub async fn read(
    from: &mut (impl AsyncRead + Unpin),
    max_bytes: u64,
) -> Result<Result<Converted, Failure>, AnswerError> {
    let mut line = Vec::new();
    let mut rest = Vec::new();
    let mut piece = [0; 4096];
    // A read may reach beyond the line.
    while line.len() <= MAX_HEADER_BYTES {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return Err(AnswerError::Malformed);
        }
        match memchr::memchr(b'\n', &piece[..read]) {
            Some(end) => {
                line.extend_from_slice(&piece[..end]);
                rest.extend_from_slice(&piece[end + 1..read]);
                break;
            }
            None => line.extend_from_slice(&piece[..read]),
        }
    }
    if line.len() > MAX_HEADER_BYTES {
        return Err(AnswerError::Malformed);
    }
    let header = serde_json::from_slice(&line).map_err(|_| AnswerError::Malformed)?;
    let (bytes, converted) = match header {
        Header::Failed(failure) => (0, Err(failure)),
        Header::Converted {
            bytes,
            pages,
            title,
            unread_pages,
        } => {
            let converted = Converted {
                markdown: String::new(),
                pages,
                title,
                unread_pages,
            };
            (bytes, Ok(converted))
        }
    };
    if bytes > max_bytes {
        return Err(AnswerError::TooLong);
    }
    let length = usize::try_from(bytes).map_err(|_| AnswerError::TooLong)?;
    rest.reserve_exact(length.saturating_sub(rest.len()));
    // One byte more tells a longer answer.
    let missing = (length + 1).saturating_sub(rest.len()) as u64;
    from.take(missing).read_to_end(&mut rest).await?;
    if rest.len() != length {
        return Err(AnswerError::Malformed);
    }
    let markdown = String::from_utf8(rest).map_err(|_| AnswerError::Malformed)?;
    Ok(converted.map(|converted| Converted {
        markdown,
        ..converted
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;

    fn written(result: &Result<Converted, Failure>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, result).unwrap();
        bytes
    }

    fn read_all(mut bytes: &[u8], limit: u64) -> Result<Result<Converted, Failure>, AnswerError> {
        {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(read(&mut bytes, limit))
        }
    }

    #[test]
    fn every_failure_arrives_as_it_was_sent() {
        for failure in [
            Failure::Encrypted,
            Failure::Damaged("what\u{a0}it is".to_owned()),
            Failure::NoText("1-3".to_owned()),
            Failure::TooManyPages(7001),
            Failure::OutputTooLong,
            Failure::Crashed("index out of bounds".to_owned()),
        ] {
            let sent = Err(failure);
            assert_eq!(read_all(&written(&sent), 0).unwrap(), sent);
        }
    }

    #[test]
    fn a_title_is_shortened_and_an_empty_one_is_none() {
        for (title, arrived) in [
            ("\u{0}\n".repeat(9_000), None),
            ("é\"".repeat(9_000), Some("é\"".repeat(200))),
        ] {
            let sent = Ok(Converted {
                title: Some(title),
                ..Converted::default()
            });
            assert_eq!(read_all(&written(&sent), 0).unwrap().unwrap().title, arrived);
        }
    }

    #[test]
    fn an_answer_above_the_limit_is_refused_before_it_is_read() {
        let header =
            br#"{"converted":{"bytes":18446744073709551615,"pages":null,"title":null,"unread_pages":0}}"#;
        let mut bytes = header.to_vec();
        bytes.push(b'\n');
        assert!(matches!(read_all(&bytes, 64), Err(AnswerError::TooLong)));
    }

    proptest! {
        #[test]
        fn what_was_converted_arrives_as_it_was_sent(markdown: String, pages: Option<u32>, unread_pages: u32) {
            let sent = Ok(Converted { markdown, pages, title: None, unread_pages });
            prop_assert_eq!(read_all(&written(&sent), 1 << 20).unwrap(), sent);
        }

        #[test]
        fn an_answer_that_is_cut_or_goes_on_is_refused(markdown: String, cut in 1_usize..40, more in 1_usize..9) {
            let bytes = written(&Ok(Converted { markdown, ..Converted::default() }));
            let cut = bytes.len().saturating_sub(cut);
            prop_assert!(read_all(&bytes[..cut], 1 << 20).is_err());
            let longer = [bytes, vec![b'x'; more]].concat();
            prop_assert!(read_all(&longer, 1 << 20).is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = read_all(&bytes, 100);
        }
    }
}
