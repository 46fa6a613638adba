#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn by_syntax(key: &str, text: &str, max_size_bytes: u32) -> ChunkedDocument {
    Chunker::new().chunk(key, text, &Chunking::TreeSitter { max_size_bytes })
}

fn by_lines(text: &str, max_lines: u32, max_size_bytes: u32) -> ChunkedDocument {
    Chunker::new().chunk(
        "a.txt",
        text,
        &Chunking::Lines {
            max_lines,
            max_size_bytes,
        },
    )
}

fn texts<'t>(text: &'t str, document: &ChunkedDocument) -> Vec<&'t str> {
    document
        .chunks
        .iter()
        .map(|chunk| &text[chunk.range.clone()])
        .collect()
}

fn lines(document: &ChunkedDocument) -> Vec<(u32, u32)> {
    document
        .chunks
        .iter()
        .map(|chunk| (chunk.start_line, chunk.end_line))
        .collect()
}

#[test]
fn the_strategies_have_the_documented_names() {
    let names = [
        ChunkStrategy::TreeSitter,
        ChunkStrategy::Markdown,
        ChunkStrategy::Lines,
    ]
    .map(ChunkStrategy::as_str);
    assert_eq!(names, ["tree_sitter", "markdown", "lines"]);
}

#[test]
fn a_small_document_is_one_chunk_with_its_final_line_feed() {
    let text = "fn main() {\n    run();\n}\n";
    let document = by_syntax("src/main.rs", text, 4_096);
    assert_eq!(
        (document.strategy, document.language),
        (ChunkStrategy::TreeSitter, Some("rust"))
    );
    let whole = Chunk {
        range: 0..text.len(),
        start_line: 1,
        end_line: 3,
        start_col: 0,
        end_col: 2,
    };
    assert_eq!(document.chunks, [whole]);
}

#[test]
fn functions_are_kept_whole_with_their_comments_and_attributes() {
    let text = concat!(
        "/// Adds one to a number.\n/// Twice.\n#[inline]\nfn one() -> u32 {\n    1\n}\n\n",
        "// About two.\nfn two() -> u32 {\n    2 // two\n}\n\n",
        "/// Three.\nfn three() -> u32 {\n    3\n}\n",
    );
    let document = by_syntax("a.rs", text, 80);
    assert_eq!(
        texts(text, &document),
        [
            "/// Adds one to a number.\n/// Twice.\n#[inline]\nfn one() -> u32 {\n    1\n}\n",
            "// About two.\nfn two() -> u32 {\n    2 // two\n}\n",
            "/// Three.\nfn three() -> u32 {\n    3\n}\n"
        ]
    );
    assert_eq!(lines(&document), [(1, 7), (8, 12), (13, 16)]);
}

#[test]
fn a_comment_with_a_blank_line_below_it_may_part_from_what_follows() {
    let text = "// A note on the whole file, which is set apart.\n\nfn one() -> u32 {\n    let one = 1;\n    one\n}\n";
    let document = by_syntax("a.rs", text, 80);
    assert_eq!(lines(&document), [(1, 2), (3, 6)]);
}

#[test]
fn a_comment_behind_code_stays_with_that_code() {
    let text =
        "int first_of_the_numbers = 1; // the first of them\nint second_of_the_numbers = 2; // the second\n";
    let document = by_syntax("a.c", text, 64);
    assert_eq!(lines(&document), [(1, 1), (2, 2)]);
}

#[test]
fn a_decorator_stays_with_its_function_and_a_body_with_its_head() {
    let text = "import os\nimport sys\n\n@first\n@second\ndef run(a, b):\n    x = a + b\n    return x\n\n\
                def stop():\n    y = 1\n    z = 2\n    return y + z\n";
    let document = by_syntax("a.py", text, 70);
    assert_eq!(lines(&document), [(1, 3), (4, 9), (10, 13)]);
}

#[test]
fn a_function_that_is_too_long_is_cut_between_its_statements() {
    let body: String = (0..8).map(|n| format!("    let name_{n} = {n};\n")).collect();
    let text = format!("fn run() {{\n{body}}}\n");
    let document = by_syntax("a.rs", &text, 100);
    assert_eq!(lines(&document), [(1, 5), (6, 10)]);
}

#[test]
fn markdown_is_cut_at_its_headings() {
    let text = "# Title\n\nIntroduction of some words.\n\n## First\n\nText of the first.\n\n## Second\n\nText of the second.\n";
    let document = by_syntax("README.md", text, 66);
    assert_eq!(
        (document.strategy, document.language),
        (ChunkStrategy::Markdown, Some("markdown"))
    );
    assert_eq!(
        texts(text, &document),
        [
            "# Title\n\nIntroduction of some words.\n",
            "## First\n\nText of the first.\n\n## Second\n\nText of the second.\n"
        ]
    );
}

#[test]
fn a_higher_heading_is_preferred_to_a_later_one() {
    let text =
        "## A\n\nSome words of A.\n\n# B\n\nSome words of B.\n\n## C\n\nSome words of C, and of it more.\n";
    let document = by_syntax("a.md", text, 64);
    assert_eq!(lines(&document), [(1, 4), (5, 11)]);
}

#[test]
fn a_heading_stays_with_the_block_it_introduces() {
    let first = "Words of the first paragraph, which are enough for most of a chunk.";
    let text = format!("{first}\n\n# Heading\n\nWords below.\n\nMore words that do not fit there.\n");
    let document = by_syntax("a.markdown", &text, 100);
    assert_eq!(lines(&document), [(1, 2), (3, 7)]);
}

#[test]
fn front_matter_is_not_a_heading() {
    let text = format!(
        "---\ntitle: {}\n---\n\n# One\n\n{}\n",
        "x".repeat(40),
        "word ".repeat(14)
    );
    let document = by_syntax("a.md", &text, 100);
    assert_eq!(lines(&document), [(1, 4), (5, 7)]);
}

#[test]
fn line_chunks_have_ten_lines_or_what_is_left() {
    let text: String = (1..=25).map(|n| format!("line {n}\n")).collect();
    let document = by_lines(&text, 10, 4_096);
    assert_eq!(document.strategy, ChunkStrategy::Lines);
    assert_eq!(lines(&document), [(1, 10), (11, 20), (21, 25)]);
    let columns: Vec<_> = document
        .chunks
        .iter()
        .map(|chunk| (chunk.start_col, chunk.end_col))
        .collect();
    assert_eq!(columns, [(0, 7), (0, 7), (0, 8)]);
}

#[test]
fn a_document_without_a_grammar_falls_back_to_ten_lines() {
    let text = "some words\n".repeat(12);
    for key in ["notes.txt", "Makefile", "LICENSE", "a.unknown"] {
        let document = by_syntax(key, &text, 4_096);
        assert_eq!(
            (document.strategy, document.language),
            (ChunkStrategy::Lines, None)
        );
        assert_eq!(lines(&document), [(1, 10), (11, 12)]);
    }
}

#[test]
fn the_language_is_known_even_where_lines_are_asked_for() {
    let chunking = Chunking::Lines {
        max_lines: 10,
        max_size_bytes: 4_096,
    };
    let document = Chunker::new().chunk("a.go", "package a\n", &chunking);
    assert_eq!(
        (document.strategy, document.language),
        (ChunkStrategy::Lines, Some("go"))
    );
}

#[test]
fn white_space_alone_is_no_chunk() {
    for text in ["", "\n", " \t\r\n\n", "\u{3000}\u{85}\u{2028}"] {
        for key in ["a.rs", "a.md", "a.txt"] {
            assert_eq!(by_syntax(key, text, 64).chunks, []);
            assert_eq!(by_lines(text, 1, 64).chunks, []);
        }
    }
}

#[test]
fn blank_lines_stay_with_the_chunk_before_them_as_far_as_they_fit() {
    let text = "one\n\n\n\ntwo\n";
    let document = by_lines(text, 3, 64);
    assert_eq!(texts(text, &document), ["one\n\n", "\ntwo\n"]);
    assert_eq!(lines(&document), [(1, 3), (4, 5)]);
}

#[test]
fn blank_lines_at_the_end_go_with_the_last_line() {
    let text = "one\ntwo\nthree\n\n\n";
    let document = by_lines(text, 3, 64);
    assert_eq!(texts(text, &document), ["one\ntwo", "three\n\n\n"]);
    assert_eq!(lines(&document), [(1, 2), (3, 5)]);
}

#[test]
fn blank_lines_without_room_are_left_out_and_the_lines_still_tell_where() {
    let text = format!("one\n{}two\n", "\n".repeat(100));
    let document = by_lines(&text, 20, 64);
    assert_eq!(
        texts(&text, &document),
        ["one\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n", "two\n"]
    );
    assert_eq!(lines(&document), [(1, 20), (102, 102)]);
    let joined = join(document.chunks.iter().zip(texts(&text, &document)));
    assert_eq!(joined, text);
}

#[test]
fn a_line_that_is_too_long_is_split_at_blanks_into_pieces_of_like_size() {
    let text = format!("short\n{}\nshort\n", "word ".repeat(30).trim_end());
    let document = by_lines(&text, 10, 64);
    let sizes: Vec<usize> = document.chunks.iter().map(|chunk| chunk.range.len()).collect();
    assert_eq!(sizes, [5, 50, 50, 49, 6]);
    let positions: Vec<_> = document
        .chunks
        .iter()
        .map(|chunk| (chunk.start_line, chunk.start_col, chunk.end_col))
        .collect();
    assert_eq!(
        positions,
        [(1, 0, 5), (2, 0, 50), (2, 50, 100), (2, 100, 149), (3, 0, 6)]
    );
    assert_eq!(join(document.chunks.iter().zip(texts(&text, &document))), text);
}

#[test]
fn a_long_line_is_split_at_character_boundaries() {
    let text = "😀".repeat(50);
    let document = by_lines(&text, 10, 65);
    let sizes: Vec<usize> = document.chunks.iter().map(|chunk| chunk.range.len()).collect();
    assert_eq!(sizes, [48, 48, 52, 52]);
}

#[test]
fn minified_code_is_split_between_its_statements() {
    let text: String = (0..12)
        .map(|n| format!("function f{n}(){{return {n}}}"))
        .collect();
    let document = by_syntax("a.min.js", &text, 64);
    assert_eq!(document.strategy, ChunkStrategy::TreeSitter);
    for chunk in texts(&text, &document) {
        assert!(
            chunk.starts_with("function f") && chunk.ends_with('}'),
            "{chunk:?}"
        );
    }
}

#[test]
fn carriage_returns_and_byte_order_marks_stay_in_the_text() {
    let text = "\u{feff}one\r\ntwo\rthree\r\nfour\r\n";
    let document = by_lines(text, 2, 64);
    assert_eq!(
        texts(text, &document),
        ["\u{feff}one\r\ntwo\rthree\r", "four\r\n"]
    );
}

#[test]
fn broken_code_is_still_cut_by_its_syntax_and_loses_nothing() {
    let text = "fn one( {{{ ]] let = ;\n\nfn two() { 2 }\n\n@@@ ??? fn fn fn\n\nfn three() { 3 }\n";
    let document = by_syntax("a.rs", text, 64);
    assert_eq!(document.strategy, ChunkStrategy::TreeSitter);
    assert_eq!(join(document.chunks.iter().zip(texts(text, &document))), text);
}

#[test]
fn chunks_do_not_depend_on_what_was_chunked_before() {
    let text = "def f():\n    return [1, 2, 3]\n".repeat(20);
    let fresh = by_syntax("a.py", &text, 128);
    let mut used = Chunker::new();
    let chunking = Chunking::TreeSitter { max_size_bytes: 128 };
    used.chunk("a.rs", "fn main() {}\n", &chunking);
    used.chunk("a.sh", &"<a>".repeat(20_000), &chunking);
    assert_eq!(used.chunk("a.py", &text, &chunking), fresh);
}
