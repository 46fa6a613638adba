//! Where Markdown may be cut: before headings, the higher the better, then before blocks.
//!
//! A block that follows a heading directly is no place to cut, because the heading introduces it. Inline
//! structure is ignored; a paragraph that is one long line is split at its blanks by [`super::pack`].

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::pack::{Cut, CutCollector};

/// Depth of a block that is in no other; headings have their level, 1 to 6.
const BLOCK_DEPTH: u32 = 7;

/// What may stand between the start of a line and its first block.
const BLANKS: &[u8] = b" \t\r>";

/// The cuts of a Markdown text, in order.
pub(super) fn cuts(text: &str) -> Vec<Cut> {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS;
    let mut cuts = CutCollector::new(text, BLANKS);
    let mut nesting = 0;
    let mut follows_heading = false;
    for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
        let depth = match &event {
            Event::Start(Tag::Heading { level, .. }) => Some(*level as u32),
            Event::Start(tag) if is_block(tag.to_end()) => Some(BLOCK_DEPTH + nesting),
            Event::Rule => Some(BLOCK_DEPTH + nesting),
            _ => None,
        };
        if let Some(depth) = depth.filter(|_| !follows_heading) {
            cuts.propose(range.start, depth);
        }
        match event {
            Event::Start(Tag::Heading { .. }) => follows_heading = false,
            Event::Start(tag) if is_block(tag.to_end()) => (nesting, follows_heading) = (nesting + 1, false),
            Event::End(end) if is_block(end) => nesting -= 1,
            Event::End(TagEnd::Heading(_)) => follows_heading = true,
            _ => {}
        }
    }
    cuts.into_cuts()
}

fn is_block(tag: TagEnd) -> bool {
    matches!(
        tag,
        TagEnd::Paragraph
            | TagEnd::BlockQuote(_)
            | TagEnd::CodeBlock
            | TagEnd::HtmlBlock
            | TagEnd::List(_)
            | TagEnd::Item
            | TagEnd::FootnoteDefinition
            | TagEnd::Table
            | TagEnd::TableRow
            | TagEnd::MetadataBlock(_)
    )
}
