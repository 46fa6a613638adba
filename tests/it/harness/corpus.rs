//! Documents made by other people's programs, and the parser as the service runs it.

use std::path::PathBuf;

use chroma_sync::parse::{Format, Input, ParseError, Parsed, Parser, ParserOptions};

use super::service::{binary, project_file};

/// A document of tests/corpus, which scripts/corpus.sh makes.
pub fn document(name: &str) -> PathBuf {
    project_file("tests/corpus").join(name)
}

/// A document of a Debian package: of `CHROMA_SYNC_TEST_DOCUMENTS`, else what `make peers` provides.
pub fn debian_document(name: &str) -> PathBuf {
    let directory = std::env::var_os("CHROMA_SYNC_TEST_DOCUMENTS")
        .map_or_else(|| project_file(".peers/documents"), PathBuf::from);
    let path = directory.join(name);
    assert!(path.exists(), "{} is missing; run `make peers`", path.display());
    path
}

/// The limits of the default configuration with the binary under test.
pub fn options() -> ParserOptions {
    ParserOptions {
        program: Some(binary()),
        ..ParserOptions::default()
    }
}

pub fn parser() -> Parser {
    Parser::new(options(), None)
}

/// Converts a document of tests/corpus by its suffix.
pub async fn convert(name: &str) -> Result<Parsed, ParseError> {
    let format = Format::of(name, None).unwrap();
    parser().parse(format, Input::File(&document(name))).await
}
