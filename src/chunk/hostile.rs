//! Documents made to crash, stall or bloat the chunker. What is tested is what becomes of them, not how
//! long it takes: a document that costs more than it may is cut by lines.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::{properties::check, *};

/// Chunks `text` by its syntax, checks every rule, and returns how it was cut.
fn strategy_of(key: &str, text: &str) -> ChunkStrategy {
    let chunking = Chunking::TreeSitter {
        max_size_bytes: 1_024,
    };
    let document = Chunker::new().chunk(key, text, &chunking);
    check(text, &chunking, &document);
    document.strategy
}

/// Pseudo-random bytes of `alphabet`, the same in every run.
fn random_of(alphabet: &[u8], length: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(alphabet[usize::try_from(state % u64::try_from(alphabet.len()).unwrap()).unwrap()])
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

#[test]
fn a_text_longer_than_the_limit_is_cut_by_lines() {
    let line = "fn f() {}\n";
    let text = line.repeat(MAX_PARSE_BYTES / line.len());
    assert_eq!(strategy_of("a.rs", &text), ChunkStrategy::TreeSitter);
    assert_eq!(
        strategy_of("a.rs", &format!("{text}{line}")),
        ChunkStrategy::Lines
    );
    let markdown = "# a\n".repeat(MAX_MARKDOWN_BYTES / 4 + 1);
    assert_eq!(strategy_of("a.md", &markdown), ChunkStrategy::Lines);
}

#[test]
fn deep_nesting_in_any_language_breaks_no_rule() {
    for key in properties::KEYS {
        for open in [
            "[", "(", "{", "- ", "<a>", "> ", "if x:\n", "\"#{", "#if a\n", "<<A\n",
        ] {
            strategy_of(key, &open.repeat(4_000 / open.len()));
        }
    }
}

#[test]
fn deep_indentation_in_any_language_breaks_no_rule() {
    let steps = |line: &str| {
        (0..300)
            .map(|depth| format!("{}{line}\n", " ".repeat(depth)))
            .collect::<String>()
    };
    for key in properties::KEYS {
        for line in ["a:", "if x:", "x = f\"{", "where", "- a"] {
            strategy_of(key, &steps(line));
        }
    }
}

#[test]
fn nested_yaml_that_overflows_its_scanner_is_chunked() {
    assert_eq!(
        strategy_of("a.yaml", &format!("{}x\n", "- ".repeat(400))),
        ChunkStrategy::TreeSitter
    );
}

#[test]
fn indented_python_that_overflows_its_scanner_is_chunked() {
    let mut text: String = (0..600)
        .map(|depth| format!("{}if x:\n", "\t".repeat(depth)))
        .collect();
    text.push_str(&format!("{}y = f\"{{a}}\"\n", "\t".repeat(600)));
    assert_eq!(strategy_of("a.py", &text), ChunkStrategy::TreeSitter);
}

#[test]
fn a_ruby_heredoc_that_its_scanner_cannot_read_back_is_cut_by_lines() {
    let heredoc = |quote: &str, length: usize| {
        let word = "A".repeat(length);
        format!("x = <<~{quote}{word}{quote}\n  hello\n{word}\n")
    };
    for quote in ["", "'", "\"", "`"] {
        assert_eq!(
            strategy_of("a.rb", &heredoc(quote, 255)),
            ChunkStrategy::TreeSitter
        );
        assert_eq!(strategy_of("a.rb", &heredoc(quote, 256)), ChunkStrategy::Lines);
    }
}

#[test]
fn ocaml_comments_that_could_overflow_the_stack_are_cut_by_lines() {
    for key in ["a.ml", "a.mli"] {
        assert_eq!(strategy_of(key, &"(*".repeat(4_096)), ChunkStrategy::TreeSitter);
        assert_eq!(strategy_of(key, &"(*".repeat(260_000)), ChunkStrategy::Lines);
    }
}

#[test]
fn long_haskell_is_cut_by_lines() {
    assert_eq!(
        strategy_of("a.hs", &"a = 1\n".repeat(1_000)),
        ChunkStrategy::TreeSitter
    );
    assert_eq!(
        strategy_of("a.hs", &"a = 1\n".repeat(20_000)),
        ChunkStrategy::Lines
    );
}

#[test]
fn html_of_very_many_open_tags_is_chunked() {
    strategy_of("a.html", &"<a>".repeat(20_000));
    strategy_of("a.html", &"<custom-name>".repeat(5_000));
}

#[test]
fn a_scanner_that_reads_to_the_end_at_each_token_is_given_up() {
    assert_eq!(strategy_of("a.sh", &"<a>".repeat(20_000)), ChunkStrategy::Lines);
}

#[test]
fn code_with_too_many_readings_is_given_up() {
    assert_eq!(
        strategy_of("a.swift", &"<a>".repeat(20_000)),
        ChunkStrategy::Lines
    );
}

#[test]
fn random_punctuation_is_given_up_before_it_takes_long() {
    let punctuation = random_of(b"{}()[]<>;:,.=+-*/&|!\"'`#@$%^~?\\ \n", 60_000);
    for key in ["a.cpp", "a.rs", "a.ts", "a.java"] {
        assert_eq!(strategy_of(key, &punctuation), ChunkStrategy::Lines, "{key}");
    }
}

#[test]
fn nested_json_is_given_up_before_it_takes_much_memory() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(strategy_of("a.json", &nested(1_000)), ChunkStrategy::TreeSitter);
    assert_eq!(strategy_of("a.json", &nested(100_000)), ChunkStrategy::Lines);
}

#[test]
fn an_expression_of_very_many_terms_is_cut_by_its_syntax() {
    let text = format!("x = (1{})\n", "\n + 1".repeat(50_000));
    assert_eq!(strategy_of("a.py", &text), ChunkStrategy::TreeSitter);
}

#[test]
fn one_giant_line_is_split_whatever_it_is() {
    for key in ["a.js", "a.json", "a.md", "a.txt", "a.html"] {
        for part in ["x", "word ", "f(1);", "é😀", "\t"] {
            strategy_of(key, &format!("{}x", part.repeat(200_000 / part.len())));
        }
    }
}

#[test]
fn code_with_nul_is_cut_by_lines() {
    assert_eq!(strategy_of("a.sh", &"\0".repeat(2_000)), ChunkStrategy::Lines);
    assert_eq!(strategy_of("a.c", "int a;\0\nint b;\n"), ChunkStrategy::Lines);
}

#[test]
fn hostile_markdown_breaks_no_rule() {
    for part in [
        "> ", "- ", "#", "# a\n", "*", "_a ", "`", "[", "![", "[a](", "<", "<!--", "\\", "|", "~~~\n", "&",
        "[^a]:",
    ] {
        assert_eq!(
            strategy_of("a.md", &format!("{}x\n", part.repeat(60_000 / part.len()))),
            ChunkStrategy::Markdown
        );
    }
}

#[test]
fn white_space_without_end_is_left_out_where_it_has_no_room() {
    for blank in [" ", "\n", "\t", "\r\n", "\u{3000}"] {
        let text = format!("a{}b{}", blank.repeat(100_000), blank.repeat(100_000));
        for key in ["a.rs", "a.py", "a.yaml", "a.md", "a.txt"] {
            strategy_of(key, &text);
        }
    }
}
