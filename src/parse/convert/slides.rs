//! PowerPoint presentations (`.pptx`): titles as headings, bullets also where the layout makes them, tables,
//! and the speaker's notes with the slide they belong to.
//!
//! They are read here and not by `undoc`, which makes paragraphs of bullets and takes the notes by the
//! number in the name of their part, so that they end up with another slide.

use std::collections::HashMap;

use quick_xml::events::BytesStart;
use undoc::{
    Block, Cell, Document, FormatType, ListInfo, ListType, Paragraph, Row, Section, Table, TextRun, TextStyle,
};

use super::{
    archive::{Archive, resolve},
    office,
    xml::{Piece, XmlReader, attribute, ended_early, number},
};
use crate::parse::answer::{Converted, Failure};

const PRESENTATION: &str = "ppt/presentation.xml";
/// The levels that a text may have.
const MAX_LEVEL: u32 = 8;

/// Converts a presentation.
pub(super) fn convert(content: &[u8]) -> Result<Converted, Failure> {
    let mut archive = Archive::open(content)?;
    let parts = relationships(&mut archive, PRESENTATION)?;
    let mut document = Document::new();
    document.format = FormatType::Pptx;
    document.metadata.title = title(&archive.optional_text("docProps/core.xml")?)?;
    for id in slide_ids(&archive.text(PRESENTATION)?)? {
        let Some(part) = parts.get(&id) else { continue };
        let slide = slide(&mut archive, &part.target, document.sections.len())?;
        document.sections.push(slide);
    }
    office::render(document)
}

/// Where a part refers to.
#[derive(Debug)]
struct Relationship {
    kind: String,
    target: String,
}

/// What `part` refers to, by id.
fn relationships(archive: &mut Archive<'_>, part: &str) -> Result<HashMap<String, Relationship>, Failure> {
    let (directory, name) = part.rsplit_once('/').unwrap_or(("", part));
    let text = archive.optional_text(&format!("{directory}/_rels/{name}.rels"))?;
    let mut reader = XmlReader::new(&text);
    let mut relationships = HashMap::new();
    while let Some(piece) = reader.next()? {
        let Piece::Start(element) = piece else { continue };
        let target = attribute(&element, "Target");
        if let (Some(id), Some(mut target)) = (attribute(&element, "Id"), target) {
            if attribute(&element, "TargetMode").as_deref() != Some("External") {
                target = match target.strip_prefix('/') {
                    Some(absolute) => absolute.to_owned(),
                    None => resolve(part, &target),
                };
            }
            let kind = attribute(&element, "Type").unwrap_or_default();
            relationships.insert(id, Relationship { kind, target });
        }
    }
    Ok(relationships)
}

/// The ids of the slides in the order in which they are shown.
fn slide_ids(presentation: &str) -> Result<Vec<String>, Failure> {
    let mut reader = XmlReader::new(presentation);
    let mut ids = Vec::new();
    while let Some(piece) = reader.next()? {
        if let Piece::Start(element) = piece
            && element.name().as_ref() == "p:sldId"
        {
            ids.extend(attribute(&element, "r:id"));
        }
    }
    Ok(ids)
}

/// The title among the properties of a document.
fn title(properties: &str) -> Result<Option<String>, Failure> {
    let mut reader = XmlReader::new(properties);
    while let Some(piece) = reader.next()? {
        if let Piece::Start(element) = piece
            && element.name().as_ref() == "dc:title"
        {
            return Ok(Some(reader.text()?));
        }
    }
    Ok(None)
}

fn slide(archive: &mut Archive<'_>, part: &str, index: usize) -> Result<Section, Failure> {
    let related = relationships(archive, part)?;
    let mut section = Section::new(index);
    let text = archive.text(part)?;
    let mut reader = SlideReader::new(&text, &related);
    reader.shapes()?;
    let title = reader.title.join(" ");
    section.name = Some(match title.trim() {
        "" => format!("Slide {}", index + 1),
        title => title.to_owned(),
    });
    section.content = reader.blocks;
    let notes = related
        .values()
        .find(|related| related.kind.ends_with("/notesSlide"));
    if let Some(notes) = notes {
        let related = relationships(archive, &notes.target)?;
        let text = archive.optional_text(&notes.target)?;
        let mut reader = SlideReader::new(&text, &related);
        reader.shapes()?;
        let notes: Vec<Paragraph> = reader
            .blocks
            .into_iter()
            .filter_map(|block| match block {
                Block::Paragraph(mut paragraph) => {
                    // Notes are not bullets, although they are in the body of their page.
                    paragraph.list_info = None;
                    Some(paragraph)
                }
                Block::Table(_)
                | Block::PageBreak
                | Block::SectionBreak
                | Block::Note { .. }
                | Block::Image { .. } => None,
            })
            .collect();
        section.notes = (!notes.is_empty()).then_some(notes);
    }
    Ok(section)
}

/// What a shape is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Title,
    /// Text with bullets unless it says otherwise.
    Body,
    /// Text without bullets unless it says otherwise.
    Text,
    /// Numbers, dates and lines at the edge of every slide.
    Edge,
}

impl Role {
    fn of(placeholder: &BytesStart<'_>) -> Self {
        match attribute(placeholder, "type").as_deref() {
            Some("title" | "ctrTitle") => Self::Title,
            None | Some("body" | "obj") => Self::Body,
            Some("dt" | "ftr" | "hdr" | "sldNum" | "sldImg") => Self::Edge,
            Some(_) => Self::Text,
        }
    }
}

struct SlideReader<'a> {
    reader: XmlReader<'a>,
    related: &'a HashMap<String, Relationship>,
    title: Vec<String>,
    blocks: Vec<Block>,
}

impl<'a> SlideReader<'a> {
    fn new(text: &'a str, related: &'a HashMap<String, Relationship>) -> Self {
        Self {
            reader: XmlReader::new(text),
            related,
            title: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Reads all shapes of a part, those in groups too.
    fn shapes(&mut self) -> Result<(), Failure> {
        while let Some(piece) = self.reader.next()? {
            let Piece::Start(element) = piece else { continue };
            match element.name().as_ref() {
                "p:sp" => self.shape()?,
                "a:tbl" => {
                    let table = self.table()?;
                    self.blocks.push(Block::Table(table));
                }
                // The same once more, for programs that do not know the first.
                "mc:Fallback" => self.reader.skip()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn shape(&mut self) -> Result<(), Failure> {
        let mut role = Role::Text;
        let mut numbers = Numbers::default();
        let mut inside = 0_usize;
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) => match element.name().as_ref() {
                    "a:p" => {
                        let paragraph = self.paragraph(role == Role::Body, &mut numbers)?;
                        match role {
                            _ if paragraph.is_empty() => {}
                            Role::Edge => {}
                            Role::Title => self.title.push(plain(&paragraph)),
                            Role::Body | Role::Text => self.blocks.push(Block::Paragraph(paragraph)),
                        }
                    }
                    "p:ph" => {
                        role = Role::of(&element);
                        inside += 1;
                    }
                    "mc:Fallback" => self.reader.skip()?,
                    _ => inside += 1,
                },
                Piece::End if inside == 0 => return Ok(()),
                Piece::End => inside -= 1,
                Piece::Text(_) => {}
            }
        }
    }

    fn paragraph(&mut self, bullets: bool, numbers: &mut Numbers) -> Result<Paragraph, Failure> {
        let mut paragraph = Paragraph::new();
        let mut level = 0;
        let mut list_type = if bullets { ListType::Bullet } else { ListType::None };
        let mut start = 1;
        let mut inside = 0_usize;
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) => match element.name().as_ref() {
                    "a:r" => self.run(&mut paragraph.runs)?,
                    "a:fld" if attribute(&element, "type").as_deref() == Some("slidenum") => {
                        self.reader.skip()?;
                    }
                    "a:fld" => self.run(&mut paragraph.runs)?,
                    "a:br" => {
                        let mut run = TextRun::plain("");
                        run.line_break = true;
                        paragraph.runs.push(run);
                        self.reader.skip()?;
                    }
                    // The text of a formula.
                    "m:t" => paragraph.runs.push(TextRun::plain(self.reader.text()?)),
                    "mc:Fallback" => self.reader.skip()?,
                    name => {
                        match name {
                            "a:pPr" => level = number(&element, "lvl").unwrap_or(0).min(MAX_LEVEL),
                            "a:buNone" => list_type = ListType::None,
                            "a:buChar" | "a:buBlip" => list_type = ListType::Bullet,
                            "a:buAutoNum" => {
                                list_type = ListType::Numbered;
                                start = number(&element, "startAt").unwrap_or(1);
                            }
                            _ => {}
                        }
                        inside += 1;
                    }
                },
                Piece::End if inside == 0 => break,
                Piece::End => inside -= 1,
                Piece::Text(_) => {}
            }
        }
        if paragraph.is_empty() {
            return Ok(paragraph);
        }
        let number = numbers.next(level as usize, list_type, start);
        if list_type != ListType::None {
            paragraph.list_info = Some(ListInfo {
                list_type,
                level: u8::try_from(level).unwrap_or(0),
                number,
                marker_image: None,
            });
        }
        Ok(paragraph)
    }

    fn run(&mut self, runs: &mut Vec<TextRun>) -> Result<(), Failure> {
        let mut run = TextRun::plain("");
        let mut inside = 0_usize;
        let is_set = |element: &BytesStart<'_>, name: &str| {
            attribute(element, name).is_some_and(|value| matches!(value.as_str(), "1" | "true"))
        };
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) => match element.name().as_ref() {
                    "a:t" => run.text.push_str(&self.reader.text()?),
                    name => {
                        match name {
                            "a:rPr" => {
                                run.style = TextStyle {
                                    bold: is_set(&element, "b"),
                                    italic: is_set(&element, "i"),
                                    ..TextStyle::default()
                                };
                            }
                            "a:hlinkClick" => {
                                let related = attribute(&element, "r:id");
                                let related = related.and_then(|id| self.related.get(&id));
                                run.hyperlink = related
                                    .filter(|related| related.kind.ends_with("/hyperlink"))
                                    .map(|related| related.target.clone());
                            }
                            _ => {}
                        }
                        inside += 1;
                    }
                },
                Piece::End if inside == 0 => break,
                Piece::End => inside -= 1,
                Piece::Text(_) => {}
            }
        }
        if !run.text.is_empty() {
            runs.push(run);
        }
        Ok(())
    }

    /// Reads the table that has just begun.
    fn table(&mut self) -> Result<Table, Failure> {
        let mut table = Table::new();
        let mut inside = 0_usize;
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) => match element.name().as_ref() {
                    "a:tr" => {
                        table.rows.push(Row::new());
                        inside += 1;
                    }
                    "a:tc" => {
                        let covered = ["hMerge", "vMerge"].iter().any(|name| {
                            attribute(&element, name)
                                .is_some_and(|value| matches!(value.as_str(), "1" | "true"))
                        });
                        let cell = self.cell(&element)?;
                        if let Some(row) = table.rows.last_mut().filter(|_| !covered) {
                            row.cells.push(cell);
                        }
                    }
                    _ => inside += 1,
                },
                Piece::End if inside == 0 => return Ok(table),
                Piece::End => inside -= 1,
                Piece::Text(_) => {}
            }
        }
    }

    fn cell(&mut self, element: &BytesStart<'_>) -> Result<Cell, Failure> {
        let span = |name: &str| number(element, name).unwrap_or(1).clamp(1, 1_000);
        let mut cell = Cell::new();
        cell.col_span = span("gridSpan");
        cell.row_span = span("rowSpan");
        let mut numbers = Numbers::default();
        let mut inside = 0_usize;
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) if element.name().as_ref() == "a:p" => {
                    let paragraph = self.paragraph(false, &mut numbers)?;
                    if !paragraph.is_empty() {
                        cell.content.push(paragraph);
                    }
                }
                Piece::Start(_) => inside += 1,
                Piece::End if inside == 0 => return Ok(cell),
                Piece::End => inside -= 1,
                Piece::Text(_) => {}
            }
        }
    }
}

/// The last number of each level of a shape's text.
#[derive(Debug, Default)]
struct Numbers([Option<u32>; MAX_LEVEL as usize + 1]);

impl Numbers {
    fn next(&mut self, level: usize, list_type: ListType, start: u32) -> Option<u32> {
        let (own, deeper) = self.0.get_mut(level..)?.split_first_mut()?;
        deeper.fill(None);
        *own = match list_type {
            ListType::Numbered => Some(own.map_or(start, |last| last.saturating_add(1))),
            ListType::Bullet | ListType::None => None,
        };
        *own
    }
}

fn plain(paragraph: &Paragraph) -> String {
    let text = paragraph.plain_text();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
