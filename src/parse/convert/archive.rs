//! Zip archives whose every part is bounded before it is unpacked.

use std::io::{Cursor, Read};

use zip::{ZipArchive, result::ZipError};

use crate::parse::answer::Failure;

/// The most that one part may unpack to. The text of a document of 200 MB, the largest there is, is far
/// below; the memory of the process is the limit of all of them together.
const MAX_PART_BYTES: u64 = 512 * 1024 * 1024;
/// How many times its size a part may unpack to, once it is larger than the grace. Office and e-book
/// programs stay below 50.
const MAX_RATIO: u64 = 200;
const RATIO_GRACE_BYTES: u64 = 4 * 1024 * 1024;

/// An archive in memory.
pub(super) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
}

impl<'a> Archive<'a> {
    /// Opens the archive.
    pub(super) fn open(content: &'a [u8]) -> Result<Self, Failure> {
        let zip = ZipArchive::new(Cursor::new(content)).map_err(Failure::damaged)?;
        Ok(Self { zip })
    }

    /// The part with this name; `None` where there is none.
    pub(super) fn part(&mut self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let part = match self.zip.by_name(name) {
            Ok(part) => part,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED)) => return Err(Failure::Encrypted),
            Err(error) => return Err(Failure::damaged(error)),
        };
        let by_ratio = part.compressed_size().saturating_mul(MAX_RATIO);
        let limit = by_ratio.clamp(RATIO_GRACE_BYTES, MAX_PART_BYTES);
        let mut bytes = Vec::new();
        // What the archive says about its sizes need not be true.
        part.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(Failure::damaged)?;
        if bytes.len() as u64 > limit {
            return Err(Failure::Damaged(format!(
                "its part {name} unpacks to more than {limit} bytes"
            )));
        }
        Ok(Some(bytes))
    }

    /// The text of a part that has to be there.
    pub(super) fn text(&mut self, name: &str) -> Result<String, Failure> {
        let bytes = self
            .part(name)?
            .ok_or_else(|| Failure::Damaged(format!("it has no part {name}")))?;
        Ok(super::text::decode_html(&bytes))
    }

    /// The text of a part, empty where there is none.
    pub(super) fn optional_text(&mut self, name: &str) -> Result<String, Failure> {
        let bytes = self.part(name)?;
        Ok(bytes
            .map(|bytes| super::text::decode_html(&bytes))
            .unwrap_or_default())
    }
}

/// The path in the archive of `href`, which stands in the part `base`.
pub(super) fn resolve(base: &str, href: &str) -> String {
    let href = href.split('#').next().unwrap_or_default();
    let directory = base.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut path: Vec<String> = Vec::new();
    for segment in directory.split('/').chain(href.split('/')) {
        match segment {
            "" | "." => {}
            ".." => {
                path.pop();
            }
            segment => path.push(unescape(segment)),
        }
    }
    path.join("/")
}

/// Resolves `%20` and the like.
fn unescape(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| *first == b'%');
        let escaped = escaped.and_then(|digits| hex::decode(digits).ok());
        match escaped {
            Some(byte) => {
                bytes.extend(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_relative_to_the_part_it_stands_in() {
        assert_eq!(
            resolve("OEBPS/content.opf", "text/a%20b.xhtml#x"),
            "OEBPS/text/a b.xhtml"
        );
        assert_eq!(resolve("content.opf", "./a%zz.xhtml"), "a%zz.xhtml");
        assert_eq!(resolve("a/b/c.opf", "../../../d.xhtml"), "d.xhtml");
    }
}
