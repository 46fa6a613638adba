//! Cuts a document's text into chunks that an embedding model can read.
//!
//! Code is cut where its syntax allows (`syntax.rs`), Markdown at its headings and blocks (`markdown.rs`),
//! everything else by lines (`lines.rs`). A strategy only proposes places to cut; `pack.rs` alone decides, so
//! these rules hold for all of them, whatever the text:
//!
//! 1. Chunks are in order, do not overlap and have at most `max_size_bytes` bytes (and `max_lines` lines,
//!    where lines are asked for).
//! 2. A chunk is made of whole lines. The line feed between two chunks belongs to neither. Only a line that
//!    is itself longer than the limit is split, at character boundaries; each of its pieces is a chunk of
//!    its own, and all but the first have `start_col > 0`.
//! 3. White space alone (Unicode `White_Space`) is never a chunk, and a document of nothing else has none.
//!    Blank lines go with the chunk before them, as many as fit. Those left over go with the chunk after
//!    them, if that has room for all of them and its own first line (its first character, if that line is
//!    split); if not, all of those left over are left out. Blanks inside a line that is split are treated
//!    likewise. White space at the end of the document goes with the last line (the last character, if that
//!    line is split); of its lines, those that do not fit there are left out.
//! 4. [`join`] gives the text back: byte for byte if no white space was left out, and else with every other
//!    byte on its line and in its column.
//! 5. Equal input gives equal chunks: nothing depends on time, load or what was chunked before.
//! 6. Time and memory are bounded by the text's length: no recursion over its structure, and a parse that
//!    costs too much is given up for lines (`parse_budget.rs`).
//!
//! Absent on purpose: overlap between chunks (it would break rule 4 and pay for the same text twice),
//! trimming, and errors. A text can always be chunked; what cannot be parsed is cut by lines.

pub mod languages;
mod lines;
mod markdown;
mod pack;
mod parse_budget;
mod scanner_guard;
mod syntax;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::languages::Language;
pub use self::syntax::MAX_PARSE_BYTES;
use crate::domain::chunking::Chunking;

/// Which chunks equal texts become. Raised by every change after which some text is cut at other places, so that
/// records that were cut before are not copied beside those cut now.
pub const CHUNKS_REVISION: u32 = 1;

/// The most bytes of Markdown that are cut by their structure; more is cut by lines. A parsed manual of
/// thousands of pages has a few of these MiB. The parser's tree takes up to ten times the text.
pub const MAX_MARKDOWN_BYTES: usize = 16 << 20;

/// A chunker for one worker thread. It keeps what it has learned about each grammar.
#[derive(Default)]
pub struct Chunker {
    syntax: syntax::SyntaxParser,
}

/// A document cut into chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkedDocument {
    /// How the text was cut in the end, after any fallback.
    pub strategy: ChunkStrategy,
    /// The language that the document's name says, see [`languages`]; whether or not it was parsed.
    pub language: Option<&'static str>,
    /// The chunks in the order of the text. Empty if the text is white space alone.
    pub chunks: Vec<Chunk>,
}

/// How a document was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkStrategy {
    /// By the syntax of its language.
    TreeSitter,
    /// By the headings and blocks of Markdown.
    Markdown,
    /// By lines.
    Lines,
}

impl ChunkStrategy {
    /// The name in a record's metadata.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TreeSitter => "tree_sitter",
            Self::Markdown => "markdown",
            Self::Lines => "lines",
        }
    }
}

/// A piece of a document's text.
///
/// Lines are separated by `"\n"`; a `"\r"` before it is part of the line. The line feed that ends the
/// document belongs to the line it ends, so a text of two lines ends on line 2 with or without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of the text. Both ends are character boundaries.
    pub range: Range<usize>,
    /// Line of the first byte, from 1.
    pub start_line: u32,
    /// Line on which the chunk ends, from 1, inclusive.
    pub end_line: u32,
    /// Bytes of `start_line` that precede the chunk. 0 unless a line was split or white space left out.
    pub start_col: u32,
    /// Bytes of `end_line` up to the chunk's end, its line feed included if the chunk has it.
    pub end_col: u32,
}

impl Chunker {
    /// A chunker that has not seen any language yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts `text`. Its language comes from `document_key` (a path, URL or file name); a C header is told
    /// from a C++ one by its text.
    pub fn chunk(&mut self, document_key: &str, text: &str, chunking: &Chunking) -> ChunkedDocument {
        let language = Language::of_document(document_key, text);
        self.chunk_in(language, text, chunking)
    }

    /// Cuts `text`, which is Markdown whatever its name says: what a document was converted to.
    pub fn chunk_markdown(&mut self, text: &str, chunking: &Chunking) -> ChunkedDocument {
        self.chunk_in(Some(Language::Markdown), text, chunking)
    }

    fn chunk_in(&mut self, language: Option<Language>, text: &str, chunking: &Chunking) -> ChunkedDocument {
        let (strategy, chunks) = match *chunking {
            Chunking::Lines {
                max_lines,
                max_size_bytes,
            } => (
                ChunkStrategy::Lines,
                lines::chunks(text, max_lines, max_size_bytes),
            ),
            Chunking::TreeSitter { max_size_bytes } => self.chunk_by_syntax(language, text, max_size_bytes),
        };
        ChunkedDocument {
            strategy,
            language: language.map(Language::name),
            chunks,
        }
    }

    fn chunk_by_syntax(
        &mut self,
        language: Option<Language>,
        text: &str,
        max_size_bytes: u32,
    ) -> (ChunkStrategy, Vec<Chunk>) {
        let limits = pack::Limits::bytes(max_size_bytes);
        let proposed = match language {
            None => None,
            Some(Language::Markdown) if text.len() <= MAX_MARKDOWN_BYTES => {
                Some((ChunkStrategy::Markdown, markdown::cuts(text)))
            }
            Some(_) if text.len() > MAX_PARSE_BYTES => None,
            Some(language) => self
                .syntax
                .cuts(language, text, limits.max_bytes)
                .map(|cuts| (ChunkStrategy::TreeSitter, cuts)),
        };
        match proposed {
            Some((strategy, cuts)) => (strategy, pack::pack(text, limits, &cuts)),
            None => {
                let max_lines = crate::domain::chunking::DEFAULT_LINES;
                (
                    ChunkStrategy::Lines,
                    lines::chunks(text, max_lines, max_size_bytes),
                )
            }
        }
    }
}

/// Puts a document back together from its chunks and their texts, in order.
///
/// Each text is placed at the line and column its chunk gives: one `"\n"` for every line passed, and a
/// space for every byte of a line that no chunk has. The result is the document itself unless white space
/// was left out; then every other byte is still on its line and in its column.
pub fn join<'a>(chunks: impl IntoIterator<Item = (&'a Chunk, &'a str)>) -> String {
    let mut document = String::new();
    let (mut line, mut col) = (1, 0);
    for (chunk, text) in chunks {
        while line < chunk.start_line {
            document.push('\n');
            (line, col) = (line + 1, 0);
        }
        while col < chunk.start_col {
            document.push(' ');
            col += 1;
        }
        document.push_str(text);
        (line, col) = (chunk.end_line, chunk.end_col);
    }
    document
}
