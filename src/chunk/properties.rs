//! The rules of [`super`], checked on real sources and on random texts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// Checks one chunking of `text` against every rule.
pub(super) fn check(text: &str, chunking: &Chunking, document: &ChunkedDocument) {
    let max_bytes = usize::try_from(chunking.max_size_bytes()).unwrap();
    let max_lines = match (chunking, document.strategy) {
        (Chunking::Lines { max_lines, .. }, _) => usize::try_from(*max_lines).unwrap(),
        (Chunking::TreeSitter { .. }, ChunkStrategy::Lines) => 10,
        (Chunking::TreeSitter { .. }, ChunkStrategy::TreeSitter | ChunkStrategy::Markdown) => usize::MAX,
    };
    assert_eq!(document.chunks.is_empty(), text.trim().is_empty());
    let mut position = LineByLine::new(text);
    let mut previous_end = 0;
    let mut is_whole = true;
    for (n, chunk) in document.chunks.iter().enumerate() {
        let piece = &text[chunk.range.clone()];
        assert!(
            chunk.range.start >= previous_end,
            "chunk {n} overlaps or is out of order"
        );
        assert!(piece.len() <= max_bytes, "chunk {n} has {} bytes", piece.len());
        assert!(!piece.trim().is_empty(), "chunk {n} is white space alone");
        let lines = usize::try_from(chunk.end_line - chunk.start_line).unwrap() + 1;
        assert!(lines <= max_lines, "chunk {n} has {lines} lines");

        let (line, col) = position.of(chunk.range.start);
        assert_eq!(
            (chunk.start_line, chunk.start_col),
            (line, col),
            "start of chunk {n}"
        );
        let (line, col) = position.of_end(chunk.range.end);
        assert_eq!((chunk.end_line, chunk.end_col), (line, col), "end of chunk {n}");

        is_whole &= check_gap(text, previous_end..chunk.range.start, piece, max_bytes, max_lines);
        check_line_boundaries(text, &chunk.range, max_bytes);
        if let Some(before) = n.checked_sub(1).map(|before| &document.chunks[before])
            && before.range.end + 1 == chunk.range.start
            && let Some(blank) = piece.split('\n').next().filter(|line| line.trim().is_empty())
        {
            let has_bytes = before.range.len() + 1 + blank.len() <= max_bytes;
            let has_lines = usize::try_from(before.end_line - before.start_line).unwrap() + 2 <= max_lines;
            assert!(
                !has_bytes || !has_lines,
                "chunk {n} begins with a blank line that fits before it"
            );
        }
        previous_end = chunk.range.end;
    }
    let tail = &text[previous_end..];
    assert!(tail.trim().is_empty(), "text is missing at the end");
    if let Some(last) = document.chunks.last()
        && !tail.is_empty()
    {
        is_whole = false;
        // The first of the blank lines left out had no room even in a chunk of the last line alone.
        let line = text[..last.range.end]
            .trim_end()
            .rfind('\n')
            .map_or(0, |at| at + 1);
        let least =
            last.range.end - line.max(last.range.start) + tail.find('\n').map_or(tail.len(), |at| at + 1);
        let lines = text[line..last.range.end].matches('\n').count() + 1;
        assert!(least > max_bytes || lines > max_lines || text[line..].trim_end().len() > max_bytes);
    }
    check_join(text, document, is_whole);
}

/// Checks the text between two chunks; whether nothing but a separator was left out.
fn check_gap(text: &str, gap: Range<usize>, after: &str, max_bytes: usize, max_lines: usize) -> bool {
    let left_out = &text[gap.clone()];
    assert!(left_out.trim().is_empty(), "text is missing: {left_out:?}");
    let is_first = gap.start == 0;
    if left_out.is_empty() || (left_out == "\n" && !is_first) {
        return true;
    }
    // What was left out and the first line after it (or, of a line to be split, its first character) are
    // too much for one chunk.
    let separator = usize::from(!is_first && left_out.starts_with('\n'));
    let line = &text[gap.end..].split('\n').next().unwrap();
    let line_start = text[..gap.end].rfind('\n').map_or(0, |at| at + 1);
    let is_long = gap.end - line_start + line.len() > max_bytes;
    let indent = line.len() - line.trim_start().len();
    let first = if is_long {
        indent + after.trim_start().chars().next().unwrap().len_utf8()
    } else {
        line.len()
    };
    let lines = left_out[separator..].matches('\n').count() + 1;
    let is_last_line = text[gap.end + line.len()..].trim().is_empty();
    assert!(
        left_out.len() - separator + first > max_bytes || lines > max_lines || is_last_line,
        "white space was left out that had room: {left_out:?}"
    );
    false
}

/// A chunk begins and ends with whole lines, but in lines too long for a chunk.
fn check_line_boundaries(text: &str, range: &Range<usize>, max_bytes: usize) {
    let length_of_line = |offset: usize| {
        let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
        text[start..].split('\n').next().unwrap().len()
    };
    let begins_line = range.start == 0 || text.as_bytes()[range.start - 1] == b'\n';
    assert!(
        begins_line || length_of_line(range.start) > max_bytes,
        "a short line was split"
    );
    let ends_line = text[range.end..].starts_with('\n') || text[range.end..].trim().is_empty();
    assert!(
        ends_line || length_of_line(range.end) > max_bytes,
        "a short line was split"
    );
    let piece = &text[range.clone()];
    let body = range.start + (piece.len() - piece.trim_start().len());
    let line_end = text[body..].find('\n').map_or(text.len(), |at| body + at);
    if length_of_line(body) > max_bytes && line_end < range.end {
        let rest = &text[line_end..range.end];
        assert!(rest.trim().is_empty(), "a piece of a split line has other lines");
    }
}

fn check_join(text: &str, document: &ChunkedDocument, is_whole: bool) {
    let joined = join(
        document
            .chunks
            .iter()
            .map(|chunk| (chunk, &text[chunk.range.clone()])),
    );
    if is_whole && !document.chunks.is_empty() {
        assert_eq!(joined, text);
    } else {
        assert_eq!(visible(&joined), visible(text));
    }
}

/// Each line and column that holds anything but white space.
fn visible(text: &str) -> Vec<(usize, usize, char)> {
    let lines = text.split('\n').enumerate();
    let characters = lines.flat_map(|(n, line)| line.char_indices().map(move |(col, c)| (n, col, c)));
    characters
        .filter(|(_, _, character)| !character.is_whitespace())
        .collect()
}

/// Lines and columns, told apart from the module's own by counting one character after the other.
struct LineByLine<'t> {
    text: &'t str,
    offset: usize,
    line: u32,
    col: u32,
}

impl<'t> LineByLine<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            offset: 0,
            line: 1,
            col: 0,
        }
    }

    fn of(&mut self, offset: usize) -> (u32, u32) {
        for byte in &self.text.as_bytes()[self.offset..offset] {
            (self.line, self.col) = if *byte == b'\n' {
                (self.line + 1, 0)
            } else {
                (self.line, self.col + 1)
            };
        }
        self.offset = offset;
        (self.line, self.col)
    }

    /// A line feed at the end belongs to its line if no other chunk follows.
    fn of_end(&mut self, offset: usize) -> (u32, u32) {
        let rest = &self.text[offset..];
        if self.text[..offset].ends_with('\n') && rest.trim().is_empty() {
            let (line, col) = self.of(offset - 1);
            return (line, col + 1);
        }
        self.of(offset)
    }
}

pub(super) const KEYS: [&str; 34] = [
    "a.sh", "a.c", "a.cpp", "a.cs", "a.css", "a.dart", "a.ex", "a.go", "a.hs", "a.html", "a.java", "a.js",
    "a.json", "a.kt", "a.lua", "a.md", "a.ml", "a.mli", "a.php", "a.py", "a.rb", "a.rs", "a.scala", "a.sql",
    "a.swift", "a.toml", "a.tsx", "a.ts", "a.yaml", "a.zig", "a.txt", "a.h", "Makefile", "",
];

fn any_chunking() -> impl Strategy<Value = Chunking> {
    let size = prop_oneof![Just(64u32), 64u32..200, 64u32..=16_384];
    (size, proptest::option::of(1u32..20)).prop_map(|(max_size_bytes, max_lines)| match max_lines {
        Some(max_lines) => Chunking::Lines {
            max_lines,
            max_size_bytes,
        },
        None => Chunking::TreeSitter { max_size_bytes },
    })
}

/// Texts of what is hard to cut: long runs of blanks and of text, characters of every width, odd line ends.
fn any_text() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        4 => prop::sample::select(vec![
            "x", "word ", "{", "}", "(", ")", "fn f() {\n", "def f():\n", "    return 1\n", "# head\n", "- item\n",
            "// note\n", "/* ", " */", "\"", "'", ";", "<a>", "</a>", "key: value\n", "```\n", "@a\n", "#[a]\n", "==\n",
        ]).prop_map(str::to_owned),
        2 => prop::sample::select(vec![
            "\n", "\r\n", "\r", "\t", " ", "\0", "\u{feff}", "😀", "é", "漢", "\u{3000}", "\u{85}", "\u{2028}", "\u{b}",
        ]).prop_map(str::to_owned),
        1 => (prop::sample::select(vec![" ", "\n", "\t\n", "a", "é", "😀", "\u{3000}", "ab ", "[", "x\n"]), 1usize..300)
            .prop_map(|(part, times)| part.repeat(times)),
        1 => any::<String>(),
    ];
    prop::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_rule_holds_for_random_texts(
        text in any_text(),
        key in prop::sample::select(KEYS.as_slice()),
        chunking in any_chunking(),
    ) {
        let mut chunker = Chunker::new();
        let document = chunker.chunk(key, &text, &chunking);
        check(&text, &chunking, &document);
        prop_assert_eq!(&chunker.chunk(key, &text, &chunking), &document);
    }

    #[test]
    fn every_rule_holds_for_random_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..2_000),
        key in prop::sample::select(KEYS.as_slice()),
        chunking in any_chunking(),
    ) {
        let text = String::from_utf8_lossy(&bytes);
        let document = Chunker::new().chunk(key, &text, &chunking);
        check(&text, &chunking, &document);
    }
}

/// Files below `directory`, in an order that does not depend on the file system.
fn files_below(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            files_below(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// Real sources: this project's, and of each directory of the dependencies' sources what the budget allows.
fn real_sources() -> Vec<(String, String)> {
    const BYTES_PER_LANGUAGE: usize = 160_000;
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let mut files = Vec::new();
    for directory in ["src", "docs", "proto"] {
        files_below(&project.join(directory), &mut files);
    }
    if let Some(cargo_home) = cargo_home.or_else(home) {
        files_below(&cargo_home.join("registry/src"), &mut files);
    }
    let mut bytes_of = std::collections::HashMap::new();
    let mut sources = Vec::new();
    for path in files {
        let key = path.to_string_lossy().into_owned();
        let language = Language::of_document(&key, "");
        let bytes = bytes_of.entry(language).or_insert(0);
        if *bytes < BYTES_PER_LANGUAGE
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            *bytes += text.len();
            sources.push((key, text));
        }
    }
    sources
}

#[test]
fn every_rule_holds_for_real_sources() {
    let mut chunker = Chunker::new();
    let mut strategies = std::collections::HashSet::new();
    let sources = real_sources();
    for (n, (key, text)) in sources.iter().enumerate() {
        let max_size_bytes = [64, 256, 1_024, 4_096][n % 4];
        for chunking in [
            Chunking::TreeSitter { max_size_bytes },
            Chunking::Lines {
                max_lines: 10,
                max_size_bytes,
            },
        ] {
            let document = chunker.chunk(key, text, &chunking);
            check(text, &chunking, &document);
            assert_eq!(
                Chunker::new().chunk(key, text, &chunking),
                document,
                "{key} is cut differently again"
            );
            strategies.insert(document.strategy);
        }
    }
    assert!(
        sources.len() >= 10,
        "too few sources were found: {}",
        sources.len()
    );
    assert!(strategies.contains(&ChunkStrategy::TreeSitter) && strategies.contains(&ChunkStrategy::Lines));
}
