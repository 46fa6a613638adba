//! Keeps five grammars from ending or holding up the process on hostile documents.
//!
//! A grammar with a hand-written scanner saves the scanner's state after each of its tokens into a buffer
//! of 1,024 bytes inside the parser. Three of the scanners here can write more: YAML's with more than 253
//! levels of nesting (800 bytes of `- - - …` suffice), Python's with more than 510 levels inside a format
//! string, and Ruby's with many open heredocs. That overwrites the parser, whose assertion then aborts the
//! process. Ruby's aborts as well when it reads back a heredoc whose delimiter has more than 255
//! characters.
//!
//! HTML's stays within bounds, but restores up to 65,535 open tags for each token, so that a text of `<a>`
//! takes quadratic time that the parser's progress callback does not see.
//!
//! So these four are used through a copy of their table in which saving goes through a larger buffer
//! first. A state that does not fit (of HTML: that has too many open tags) is saved as the empty state,
//! which is what the scanners of other grammars do themselves. The code of that document is then understood
//! less well, and nothing else changes. The Ruby delimiters are looked for in the text beforehand: see
//! [`has_oversized_heredoc`].
//!
//! OCaml's scanner calls itself for each comment inside a comment, so that deep nesting overflows the
//! stack: see [`has_very_many_comments`].
//!
//! The other grammars' scanners check their bounds (read in the versions that `Cargo.lock` names); deeply
//! nested documents in every language are among the tests. To be removed when the grammars do the same.

use std::{
    ffi::{c_char, c_uint, c_void},
    sync::OnceLock,
};

use memchr::{memchr, memmem};
use tree_sitter::{Language, ffi};

/// Size of the parser's buffer (`TREE_SITTER_SERIALIZATION_BUFFER_SIZE`).
const STATE_BYTES: usize = 1024;
/// The most characters of a heredoc delimiter that Ruby's scanner reads back.
const MAX_HEREDOC_DELIMITER: usize = 255;

/// The most OCaml comments in one text; the scanner needs some 50 bytes of stack (200 if compiled without
/// optimisation) for each level, and a thread has 2 MiB.
const MAX_OCAML_COMMENTS: usize = 4_096;
/// The most open tags of an HTML text that are kept in mind; real pages have some tens.
const MAX_OPEN_TAGS: u16 = 256;

/// Writes a scanner's state to a buffer and returns its length.
type Serialize = unsafe extern "C" fn(*mut c_void, *mut c_char) -> c_uint;

unsafe extern "C" {
    fn tree_sitter_html_external_scanner_serialize(scanner: *mut c_void, buffer: *mut c_char) -> c_uint;
    fn tree_sitter_python_external_scanner_serialize(scanner: *mut c_void, buffer: *mut c_char) -> c_uint;
    fn tree_sitter_ruby_external_scanner_serialize(scanner: *mut c_void, buffer: *mut c_char) -> c_uint;
    fn tree_sitter_yaml_external_scanner_serialize(scanner: *mut c_void, buffer: *mut c_char) -> c_uint;
}

/// Defines a function that returns the guarded grammar, or None if its table is not of the shape known here.
macro_rules! guarded {
    ($(#[$doc:meta])* $name:ident, $grammar:path, $serialize:ident, $keeps:expr) => {
        $(#[$doc])*
        pub(super) fn $name() -> Option<Language> {
            unsafe extern "C" fn serialize(scanner: *mut c_void, buffer: *mut c_char) -> c_uint {
                // SAFETY: the parser calls this in place of the scanner's own function, with the same
                // arguments.
                unsafe { serialize_within_bounds($serialize, scanner, buffer, $keeps) }
            }
            static TABLE: OnceLock<Option<Table>> = OnceLock::new();
            let table = TABLE.get_or_init(|| {
                let original = $grammar.into_raw();
                // SAFETY: the function is generated with the grammar; it takes nothing and returns its
                // constant table.
                let original = unsafe { original() };
                // SAFETY: `original` is the table of a grammar.
                unsafe { Table::with_serialize(original.cast(), $serialize, serialize) }
            });
            let table: *const Table = table.as_ref()?;
            // SAFETY: the table is a valid grammar table (a copy of one) and lives as long as the process.
            Some(unsafe { Language::from_raw(table.cast::<ffi::TSLanguage>()) })
        }
    };
}

guarded!(
    /// The HTML grammar.
    html, tree_sitter_html::LANGUAGE, tree_sitter_html_external_scanner_serialize, has_few_open_tags
);
guarded!(
    /// The Python grammar.
    python, tree_sitter_python::LANGUAGE, tree_sitter_python_external_scanner_serialize, |_| true
);
guarded!(
    /// The Ruby grammar; safe for texts without an oversized heredoc delimiter.
    ruby, tree_sitter_ruby::LANGUAGE, tree_sitter_ruby_external_scanner_serialize, |_| true
);
guarded!(
    /// The YAML grammar.
    yaml, tree_sitter_yaml::LANGUAGE, tree_sitter_yaml_external_scanner_serialize, |_| true
);

/// Whether OCaml's scanner might see comments in `text` nested so deep that it overflows the stack. Where
/// strings and comments begin and end is the scanner's to say, so all that looks like the start of a
/// comment counts.
pub(super) fn has_very_many_comments(text: &str) -> bool {
    memmem::find_iter(text.as_bytes(), b"(*")
        .nth(MAX_OCAML_COMMENTS)
        .is_some()
}

/// Whether Ruby's scanner may see a heredoc delimiter in `text` that it cannot read back.
pub(super) fn has_oversized_heredoc(text: &str) -> bool {
    let bytes = text.as_bytes();
    memmem::find_iter(bytes, b"<<").any(|at| {
        let after = &bytes[at + 2..];
        let delimiter = after
            .strip_prefix(b"-")
            .or(after.strip_prefix(b"~"))
            .unwrap_or(after);
        let length = match delimiter.split_first() {
            Some((quote @ (b'\'' | b'"' | b'`'), quoted)) => {
                let window = &quoted[..quoted.len().min(MAX_HEREDOC_DELIMITER + 1)];
                memchr(*quote, window).unwrap_or(window.len())
            }
            Some(_) | None => delimiter
                .iter()
                .take(MAX_HEREDOC_DELIMITER + 1)
                .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_' || !byte.is_ascii())
                .count(),
        };
        length > MAX_HEREDOC_DELIMITER
    })
}

/// Whether the saved state of HTML's scanner has few open tags; their number is its second item.
fn has_few_open_tags(state: &[u8]) -> bool {
    match state {
        [_, _, first, second, ..] => u16::from_ne_bytes([*first, *second]) <= MAX_OPEN_TAGS,
        _ => true,
    }
}

/// A buffer that is aligned like the parser's.
#[repr(align(16))]
struct Room([u8; 2 * STATE_BYTES]);

/// Saves a scanner's state, or the empty state if it is larger than `buffer` or not to be kept.
///
/// # Safety
/// `serialize` must be the function of `scanner`'s grammar and write at most a few bytes more than
/// `STATE_BYTES`; `buffer` must have `STATE_BYTES` bytes.
unsafe fn serialize_within_bounds(
    serialize: Serialize,
    scanner: *mut c_void,
    buffer: *mut c_char,
    keeps: fn(&[u8]) -> bool,
) -> c_uint {
    let mut room = Room([0; 2 * STATE_BYTES]);
    // SAFETY: the scanners check before each item they write that less than `STATE_BYTES` are used, and the
    // longest item (a Ruby heredoc, checked with its length) passes the end by 2 bytes.
    let length = unsafe { serialize(scanner, room.0.as_mut_ptr().cast()) };
    let state = usize::try_from(length)
        .ok()
        .and_then(|length| room.0[..STATE_BYTES].get(..length));
    match state {
        Some(state) if keeps(state) => {
            // SAFETY: `buffer` has `STATE_BYTES` bytes and is not part of `room`.
            unsafe { std::ptr::copy_nonoverlapping(state.as_ptr(), buffer.cast(), state.len()) };
            length
        }
        Some(_) | None => 0,
    }
}

/// A grammar's table, `TSLanguage` of tree-sitter's `parser.h`, as ABI 14 has it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    abi_version: u32,
    counts: [u32; 8],
    max_alias_sequence_length: u16,
    tables: [*const c_void; 13],
    lexers: [*const c_void; 2],
    keyword_capture_token: u16,
    scanner_tables: [*const c_void; 2],
    scanner_functions: [*const c_void; 3],
    serialize: Option<Serialize>,
    deserialize: *const c_void,
    primary_state_ids: *const c_void,
}

/// What ABI 15 adds.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tail {
    name: *const c_char,
    reserved_words: *const c_void,
    max_reserved_word_set_size: u16,
    supertype_count: u32,
    supertype_tables: [*const c_void; 3],
    version: [u8; 3],
}

impl Tail {
    const EMPTY: Self = Self {
        name: std::ptr::null(),
        reserved_words: std::ptr::null(),
        max_reserved_word_set_size: 0,
        supertype_count: 0,
        supertype_tables: [std::ptr::null(); 3],
        version: [0; 3],
    };
}

#[repr(C)]
struct Table {
    head: Head,
    tail: Tail,
}

// SAFETY: a table is never written once it is made, and what it points to is constant.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    /// A copy of `original` that saves states by `replacement`. None if `original` is of another ABI, or
    /// does not have `serialize` where this layout has it.
    ///
    /// # Safety
    /// `original` must be the table of a grammar.
    unsafe fn with_serialize(
        original: *const Head,
        serialize: Serialize,
        replacement: Serialize,
    ) -> Option<Self> {
        // SAFETY: in every ABI the table begins with its version.
        let abi_version = unsafe { original.cast::<u32>().read() };
        let tail = match abi_version {
            14 => Tail::EMPTY,
            // SAFETY: a table of ABI 15 has the whole of `Table`'s layout.
            15 => unsafe { original.cast::<Self>().read() }.tail,
            _ => return None,
        };
        // SAFETY: a table of ABI 14 or 15 begins with `Head`'s layout.
        let mut head = unsafe { original.read() };
        if head.serialize.map(|function| function as usize) != Some(serialize as usize) {
            return None;
        }
        head.serialize = Some(replacement);
        Some(Self { head, tail })
    }
}
