//! Where code may be cut: between the parts of its syntax tree.
//!
//! The walk goes down only into nodes that are too long for one chunk, with a cursor and without recursion,
//! because the depth of the tree is the text's choice. A child is a place to cut unless it belongs to what
//! precedes it:
//!
//! - a comment stays with the sibling below it (no blank line between them), an attribute, annotation or type
//!   signature with its declaration;
//! - a part with a role of its own in its parent (a body, a value, an `else` branch: what grammars call a
//!   field) stays with the part before it, so a body is not cut from its head;
//! - closing tags stay with what they close.
//!
//! Broken code still has a tree (with error nodes), so it is cut like any other.

use std::{collections::HashMap, num::NonZeroU16};

use memchr::{memchr, memchr_iter};
use tree_sitter::{Node, Tree};

use super::{
    languages::Language,
    pack::{Cut, CutCollector},
    parse_budget,
};

/// The longest text that is parsed, in bytes; a longer one is cut by lines. Since a parse may take 256
/// bytes for each byte of text and 1 MiB more (`parse_budget.rs`), it holds at most 129 MiB.
pub const MAX_PARSE_BYTES: usize = 512 * 1024;

/// What may stand between the start of a line and its first node.
const BLANKS: &[u8] = b" \t\r\x0c";

/// Proposes cuts for code. Keeps what it has learned about each grammar.
#[derive(Default)]
pub(super) struct SyntaxParser {
    roles: HashMap<Language, Box<[Role]>>,
}

/// What a kind of node is to its siblings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Stands for itself.
    Ordinary,
    /// Belongs to the next sibling if that begins on the next line.
    Comment,
    /// Belongs to the next sibling.
    Prefix,
    /// Belongs to the next sibling if it begins with `@`: Elixir writes module attributes as operators.
    PrefixIfAt,
    /// Belongs to the siblings before it.
    Closing,
}

impl Role {
    fn of_kind(kind: &str) -> Self {
        match kind {
            "attribute_item"
            | "attribute_list"
            | "attribute_declaration"
            | "decorator"
            | "annotation"
            | "marker_annotation"
            | "signature"
            | "access_specifier"
            | "pragma" => Self::Prefix,
            "unary_operator" => Self::PrefixIfAt,
            "end_tag" | "jsx_closing_element" => Self::Closing,
            kind if kind.contains("comment") || kind == "haddock" => Self::Comment,
            _ => Self::Ordinary,
        }
    }
}

impl SyntaxParser {
    /// The cuts of a text of at most [`MAX_PARSE_BYTES`], in order. None if it has no grammar, holds NUL
    /// (which many scanners take for the end of the text, some without end), or costs too much to parse.
    pub(super) fn cuts(&mut self, language: Language, text: &str, max_bytes: usize) -> Option<Vec<Cut>> {
        if memchr(0, text.as_bytes()).is_some() {
            return None;
        }
        let grammar = language.grammar_for(text)?;
        let tree = parse_budget::parse(&grammar, text)?;
        let roles = self.roles.entry(language).or_insert_with(|| {
            let kinds = 0..u16::try_from(grammar.node_kind_count()).unwrap_or(u16::MAX);
            kinds
                .map(|kind| {
                    grammar
                        .node_kind_for_id(kind)
                        .map_or(Role::Ordinary, Role::of_kind)
                })
                .collect()
        });
        Some(Walk::new(text, roles, max_bytes).cuts(&tree))
    }
}

/// The named sibling before a node.
#[derive(Clone, Copy, Default)]
struct Previous {
    field: Option<NonZeroU16>,
    holds: Holds,
}

/// Which next sibling a node holds to itself.
#[derive(Clone, Copy, Default)]
enum Holds {
    #[default]
    Nothing,
    /// The next, if no blank line lies between it and this offset.
    NextLineAfter(usize),
    Next,
}

struct Walk<'t> {
    text: &'t str,
    roles: &'t [Role],
    max_bytes: usize,
    cuts: CutCollector<'t>,
}

impl<'t> Walk<'t> {
    fn new(text: &'t str, roles: &'t [Role], max_bytes: usize) -> Self {
        Self {
            text,
            roles,
            max_bytes,
            cuts: CutCollector::new(text, BLANKS),
        }
    }

    fn cuts(mut self, tree: &Tree) -> Vec<Cut> {
        let mut cursor = tree.walk();
        // One entry for each level below the root.
        let mut previous: Vec<Previous> = Vec::new();
        loop {
            let node = cursor.node();
            let depth = previous.len();
            if let Some(before) = previous.last_mut()
                && node.is_named()
            {
                *before = self.visit(node, cursor.field_id(), *before, depth);
            }
            let is_too_long = node.end_byte() - node.start_byte() > self.max_bytes;
            if is_too_long && cursor.goto_first_child() {
                previous.push(Previous::default());
                continue;
            }
            while !cursor.goto_next_sibling() {
                previous.pop();
                if !cursor.goto_parent() {
                    return self.cuts.into_cuts();
                }
            }
        }
    }

    /// Proposes a cut before a named node unless it belongs to what precedes it.
    fn visit(
        &mut self,
        node: Node<'_>,
        field: Option<NonZeroU16>,
        before: Previous,
        depth: usize,
    ) -> Previous {
        let role = self
            .roles
            .get(usize::from(node.kind_id()))
            .copied()
            .unwrap_or(Role::Ordinary);
        let start = node.start_byte().min(self.text.len());
        let end = node.end_byte().min(self.text.len());
        let holds = match role {
            Role::Ordinary | Role::Closing => Holds::Nothing,
            Role::Prefix => Holds::Next,
            Role::PrefixIfAt if self.text.as_bytes().get(start) == Some(&b'@') => Holds::Next,
            Role::PrefixIfAt => Holds::Nothing,
            // A comment behind code on its line is about that code.
            Role::Comment if self.cuts.line_start(start).is_some() => Holds::NextLineAfter(end),
            Role::Comment => Holds::Nothing,
        };
        let is_held = match before.holds {
            Holds::Nothing => false,
            Holds::NextLineAfter(end) => !self.has_blank_line(end, start),
            Holds::Next => true,
        };
        if !is_held && role != Role::Closing && field == before.field {
            self.cuts.propose(start, u32::try_from(depth).unwrap_or(u32::MAX));
        }
        Previous { field, holds }
    }

    /// Whether a blank line lies between a comment's end and the node after it. Some grammars count the
    /// line feed as part of the comment.
    fn has_blank_line(&self, comment_end: usize, start: usize) -> bool {
        let bytes = self.text.as_bytes();
        let end = comment_end - usize::from(comment_end > 0 && bytes.get(comment_end - 1) == Some(&b'\n'));
        bytes
            .get(end..start)
            .is_some_and(|between| memchr_iter(b'\n', between).nth(1).is_some())
    }
}
