//! OpenDocument: text, spreadsheets and presentations, which have one content part with the same elements.
//!
//! The document is read into the model of `undoc` and written by it, so that a table or a list looks the
//! same whatever program it comes from.

mod paragraph;
mod presentation;
mod styles;
mod table;

use std::collections::HashMap;

use quick_xml::events::BytesStart;
use undoc::{Block, Document, FormatType, ListInfo, ListType, Paragraph, Section};

use self::styles::{LevelKind, Styles};
use super::{
    archive::Archive,
    office,
    xml::{Piece, XmlReader, attribute, ended_early, number},
};
use crate::parse::answer::{Converted, Failure};

const CONTENT: &str = "content.xml";
const MANIFEST: &str = "META-INF/manifest.xml";

/// Converts a document.
pub(super) fn convert(content: &[u8]) -> Result<Converted, Failure> {
    let mut archive = Archive::open(content)?;
    if archive.optional_text(MANIFEST)?.contains("encryption-data") {
        return Err(Failure::Encrypted);
    }
    let content = archive.text(CONTENT)?;
    let mut styles = Styles::default();
    styles.read(&archive.optional_text("styles.xml")?)?;
    styles.read(&content)?;
    let mut document = Document::new();
    document.metadata.title = title(&archive.optional_text("meta.xml")?)?;
    let mut body = BodyReader {
        reader: XmlReader::new(&content),
        styles,
        notes: Vec::new(),
        anchored: Vec::new(),
        footnotes: 0,
        endnotes: 0,
        counts: HashMap::new(),
    };
    while let Some(piece) = body.reader.next()? {
        let Piece::Start(element) = piece else { continue };
        match element.name().as_ref() {
            "office:text" => {
                document.format = FormatType::Docx;
                let mut section = Section::new(0);
                body.blocks(None, &mut section.content)?;
                section.content.append(&mut body.notes);
                document.sections.push(section);
            }
            "office:spreadsheet" => {
                document.format = FormatType::Xlsx;
                document.sections = body.sheets()?;
            }
            "office:presentation" => {
                document.format = FormatType::Pptx;
                document.sections = body.slides()?;
            }
            "office:drawing" | "office:chart" | "office:image" => {
                return Err(Failure::damaged("it is a drawing or a chart"));
            }
            _ => {}
        }
    }
    office::render(document)
}

/// What the document calls itself.
fn title(meta: &str) -> Result<Option<String>, Failure> {
    let mut reader = XmlReader::new(meta);
    while let Some(piece) = reader.next()? {
        if let Piece::Start(element) = piece
            && element.name().as_ref() == "dc:title"
        {
            return Ok(Some(reader.text()?));
        }
    }
    Ok(None)
}

/// A list that is being read.
#[derive(Debug, Clone)]
struct List {
    style: Option<String>,
    level: u8,
}

struct BodyReader<'a> {
    reader: XmlReader<'a>,
    styles: Styles,
    /// Footnotes and endnotes whose references were read.
    notes: Vec<Block>,
    /// Text boxes that hang on the paragraph that is being read; they follow it.
    anchored: Vec<Block>,
    footnotes: u32,
    endnotes: u32,
    /// The last number of each level of each style of lists, for those that go on.
    counts: HashMap<(Option<String>, u8), u32>,
}

impl BodyReader<'_> {
    /// Reads what is inside the element that began last, up to its end.
    fn blocks(&mut self, list: Option<&List>, out: &mut Vec<Block>) -> Result<(), Failure> {
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) => self.block(&element, list, out)?,
                Piece::End => return Ok(()),
                Piece::Text(_) => {}
            }
        }
    }

    /// Reads the element that has just begun.
    fn block(
        &mut self,
        element: &BytesStart<'_>,
        list: Option<&List>,
        out: &mut Vec<Block>,
    ) -> Result<(), Failure> {
        match element.name().as_ref() {
            "text:h" | "text:p" => {
                let paragraph = self.paragraph(element)?;
                if !paragraph.is_empty() {
                    out.push(Block::Paragraph(paragraph));
                }
                out.append(&mut self.anchored);
                Ok(())
            }
            "text:list" => self.list(element, list, out),
            "table:table" => {
                let table = self.table()?;
                if !table.is_empty() {
                    out.push(Block::Table(table));
                }
                Ok(())
            }
            // Deleted text, generated lists of headings, remarks, forms, and what is not text.
            "text:tracked-changes"
            | "text:table-of-content"
            | "office:annotation"
            | "office:forms"
            | "presentation:notes"
            | "office:event-listeners"
            | "svg:title"
            | "svg:desc"
            | "office:binary-data" => self.reader.skip(),
            // Sections, frames, text boxes, groups, shapes and indexes hold the same again.
            _ => self.blocks(list, out),
        }
    }

    fn list(
        &mut self,
        element: &BytesStart<'_>,
        outer: Option<&List>,
        out: &mut Vec<Block>,
    ) -> Result<(), Failure> {
        let list = List {
            style: attribute(element, "text:style-name")
                .or_else(|| outer.and_then(|outer| outer.style.clone())),
            level: outer.map_or(0, |outer| outer.level.saturating_add(1)),
        };
        let key = (list.style.clone(), list.level);
        let goes_on = attribute(element, "text:continue-numbering").as_deref() == Some("true")
            || attribute(element, "text:continue-list").is_some();
        let kind = self.styles.level(list.style.as_deref(), list.level);
        let mut last = match (goes_on, kind) {
            (true, _) => self.counts.get(&key).copied(),
            (false, _) => None,
        };
        loop {
            let item = match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(item) => item,
                Piece::End => break,
                Piece::Text(_) => continue,
            };
            let mut blocks = Vec::new();
            let start = number(&item, "text:start-value");
            self.blocks(Some(&list), &mut blocks)?;
            // The first paragraph has the marker; a heading with a number stays a heading.
            let first = match blocks.first_mut() {
                Some(Block::Paragraph(paragraph)) if !paragraph.is_heading() && !paragraph.is_list_item() => {
                    (item.name().as_ref() == "text:list-item").then_some(paragraph)
                }
                Some(_) | None => None,
            };
            if let Some(paragraph) = first {
                last = mark(paragraph, list.level, kind, start, last);
            }
            out.append(&mut blocks);
        }
        self.counts.extend(last.map(|last| (key, last)));
        Ok(())
    }
}

/// Makes an item of a paragraph and returns its number.
fn mark(
    paragraph: &mut Paragraph,
    level: u8,
    kind: LevelKind,
    start: Option<u32>,
    last: Option<u32>,
) -> Option<u32> {
    let (list_type, number) = match kind {
        LevelKind::Plain => return last,
        LevelKind::Bullet => (ListType::Bullet, None),
        LevelKind::Numbered(first) => {
            let next = last.map_or(first, |last| last.saturating_add(1));
            (ListType::Numbered, Some(start.unwrap_or(next)))
        }
    };
    paragraph.list_info = Some(ListInfo {
        list_type,
        level,
        number,
        marker_image: None,
    });
    number.or(last)
}
