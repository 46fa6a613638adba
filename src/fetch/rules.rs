//! Which bytes are a text document.
//!
//! The rules cost nothing next to chunking and embedding, so they are checked on every document, in an
//! order that names the most useful cause: a pointer to large file storage is text, too, but not the
//! document that its name promises. Nothing is converted or trimmed: what passes is the text as stored.

use crate::domain::document::SkipRule;

/// How far git looks for a NUL byte when it decides whether a file is binary (`xdiff-interface.c`).
const BINARY_WINDOW_BYTES: usize = 8_000;
/// No pointer file is longer, by the Git LFS specification.
const LFS_POINTER_BYTES: usize = 1_024;
/// How pointer files begin; the second form predates the first release.
const LFS_SIGNATURES: [&[u8]; 2] = [
    b"version https://git-lfs.github.com/spec/",
    b"version https://hawser.github.com/spec/",
];

/// The content of a document, or the rule that leaves it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Examined {
    /// Its text, with at least one character that is not white space.
    Text(String),
    /// Left out.
    Skipped(SkipRule),
}

/// Applies the rules for content: Git LFS pointers, binary data, encoding, emptiness.
pub fn examine(content: Vec<u8>) -> Examined {
    if is_lfs_pointer(&content) {
        return Examined::Skipped(SkipRule::LfsPointer);
    }
    let window = content.get(..BINARY_WINDOW_BYTES).unwrap_or(&content);
    if memchr::memchr(0, window).is_some() {
        return Examined::Skipped(SkipRule::Binary);
    }
    match String::from_utf8(content) {
        Err(_) => Examined::Skipped(SkipRule::NotUtf8),
        Ok(text) if text.trim().is_empty() => Examined::Skipped(SkipRule::Empty),
        Ok(text) => Examined::Text(text),
    }
}

/// Whether this is a Git LFS pointer rather than a text about them: signature, hash and size are all
/// there, and nothing else fits into its length.
fn is_lfs_pointer(content: &[u8]) -> bool {
    let has_line = |start: &[u8]| {
        content
            .split(|byte| *byte == b'\n')
            .any(|line| line.starts_with(start))
    };
    content.len() < LFS_POINTER_BYTES
        && LFS_SIGNATURES
            .iter()
            .any(|signature| content.starts_with(signature))
        && has_line(b"oid sha256:")
        && has_line(b"size ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
        oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";

    #[test]
    fn text_is_kept_byte_for_byte() {
        for text in ["a", "\u{feff}a\r\n", "  \n\tx \n\n", "grüße \u{1f600}"] {
            assert_eq!(examine(text.into()), Examined::Text(text.to_owned()));
        }
    }

    #[test]
    fn a_nul_byte_makes_a_file_binary_where_git_looks_for_it_alone() {
        let mut content = vec![b'a'; 9_000];
        content[7_999] = 0;
        assert_eq!(examine(content.clone()), Examined::Skipped(SkipRule::Binary));
        content[7_999] = b'a';
        content[8_000] = 0;
        assert!(matches!(examine(content), Examined::Text(_)));
    }

    #[test]
    fn other_encodings_and_broken_utf8_are_left_out() {
        for content in [
            &b"gr\xfc\xdfe"[..],
            b"\xff\xfea",
            b"\xed\xa0\x80",
            b"cut \xe2\x82",
        ] {
            assert_eq!(examine(content.to_vec()), Examined::Skipped(SkipRule::NotUtf8));
        }
    }

    #[test]
    fn nothing_and_white_space_alone_are_left_out() {
        for content in ["", " ", "\n\n", "\r\n\t \u{3000}"] {
            assert_eq!(
                examine(content.into()),
                Examined::Skipped(SkipRule::Empty),
                "{content:?}"
            );
        }
    }

    #[test]
    fn a_pointer_to_large_file_storage_is_left_out_and_a_text_about_one_is_not() {
        assert_eq!(examine(POINTER.into()), Examined::Skipped(SkipRule::LfsPointer));
        let older = POINTER.replace("git-lfs", "hawser");
        assert_eq!(examine(older.into()), Examined::Skipped(SkipRule::LfsPointer));
        for text in [
            format!("A pointer looks like this:\n{POINTER}"),
            "version https://git-lfs.github.com/spec/v1 is the only one\n".to_owned(),
            format!("{POINTER}{}", "x".repeat(1_024)),
        ] {
            assert_eq!(examine(text.clone().into()), Examined::Text(text));
        }
    }

    proptest! {
        #[test]
        fn every_content_is_its_own_text_or_left_out(content: Vec<u8>) {
            match examine(content.clone()) {
                Examined::Text(text) => {
                    prop_assert!(text.chars().any(|character| !character.is_whitespace()));
                    prop_assert_eq!(text.into_bytes(), content);
                }
                Examined::Skipped(rule) => prop_assert!(matches!(
                    rule,
                    SkipRule::Binary | SkipRule::NotUtf8 | SkipRule::Empty | SkipRule::LfsPointer
                )),
            }
        }
    }
}
