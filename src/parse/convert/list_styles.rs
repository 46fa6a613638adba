//! Lists of a Word document that are made by a paragraph style, such as "List Bullet": the reader of the
//! document sees only those that the paragraph itself asks for.

use std::collections::HashMap;

use undoc::{Block, Document, HeadingLevel, ListInfo, ListType, Paragraph, Table};

use super::{
    archive::Archive,
    xml::{Piece, XmlReader, attribute, number},
};
use crate::parse::answer::Failure;

/// How far a style is followed to those it is based on.
const MAX_BASES: usize = 20;

/// A list and a level in it, as a style names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    list: String,
    level: u8,
}

#[derive(Debug, Default)]
struct Style {
    name: String,
    based_on: Option<String>,
    list: Option<String>,
    level: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    list_type: ListType,
    start: u32,
}

/// Which styles make a paragraph an item of which list.
#[derive(Debug, Default)]
pub(super) struct ListStyles {
    places: HashMap<String, Place>,
    /// How deep the items of a style are shown, where its name says so.
    shown: HashMap<String, u8>,
    levels: HashMap<Place, Level>,
}

impl ListStyles {
    /// Reads the styles of a document.
    pub(super) fn read(content: &[u8]) -> Result<Self, Failure> {
        let mut archive = Archive::open(content)?;
        let styles = styles(&archive.optional_text("word/styles.xml")?)?;
        let levels = levels(&archive.optional_text("word/numbering.xml")?)?;
        let mut places = HashMap::new();
        let mut shown = HashMap::new();
        for id in styles.keys() {
            if let Some(place) = place(&styles, id).filter(|place| levels.contains_key(place)) {
                shown.extend(level_of_name(&styles[id].name).map(|level| (id.clone(), level)));
                places.insert(id.clone(), place);
            }
        }
        Ok(Self {
            places,
            shown,
            levels,
        })
    }

    /// Makes items of the paragraphs whose style says so.
    pub(super) fn apply(&self, document: &mut Document) {
        if self.places.is_empty() {
            return;
        }
        let mut counts = HashMap::new();
        for section in &mut document.sections {
            for block in &mut section.content {
                match block {
                    Block::Paragraph(paragraph) => self.mark(paragraph, &mut counts),
                    Block::Table(table) => self.mark_table(table, &mut counts),
                    Block::Note { content, .. } => {
                        for paragraph in content {
                            self.mark(paragraph, &mut counts);
                        }
                    }
                    Block::PageBreak | Block::SectionBreak | Block::Image { .. } => {}
                }
            }
        }
    }

    fn mark_table(&self, table: &mut Table, counts: &mut HashMap<Place, u32>) {
        for cell in table.rows.iter_mut().flat_map(|row| &mut row.cells) {
            for paragraph in &mut cell.content {
                self.mark(paragraph, counts);
            }
            for nested in &mut cell.nested_tables {
                self.mark_table(nested, counts);
            }
        }
    }

    fn mark(&self, paragraph: &mut Paragraph, counts: &mut HashMap<Place, u32>) {
        // A heading with a number stays a heading.
        if paragraph.list_info.is_some() || paragraph.heading != HeadingLevel::None || paragraph.is_empty() {
            return;
        }
        let Some(style) = &paragraph.style_id else { return };
        let Some(place) = self.places.get(style) else {
            return;
        };
        let Some(level) = self.levels.get(place) else {
            return;
        };
        let numbered = level.list_type == ListType::Numbered;
        if numbered {
            counts.retain(|known, _| known.list != place.list || known.level <= place.level);
        }
        let number = numbered.then(|| {
            let next = counts
                .get(place)
                .map_or(level.start, |last| last.saturating_add(1));
            counts.insert(place.clone(), next);
            next
        });
        paragraph.list_info = Some(ListInfo {
            list_type: level.list_type,
            level: self.shown.get(style).copied().unwrap_or(place.level),
            number,
            marker_image: None,
        });
    }
}

/// Where the items of a style belong, by itself or by what it is based on.
fn place(styles: &HashMap<String, Style>, id: &str) -> Option<Place> {
    let mut level = None;
    let mut style = styles.get(id)?;
    for _ in 0..MAX_BASES {
        level = level.or(style.level);
        if let Some(list) = &style.list {
            // The list 0 takes a style out of the list of its base.
            return (list != "0").then(|| Place {
                list: list.clone(),
                level: level.unwrap_or(0),
            });
        }
        style = styles.get(style.based_on.as_deref()?)?;
    }
    None
}

/// "List Bullet 3" is the third level, although its list has one only.
fn level_of_name(name: &str) -> Option<u8> {
    let name = name.to_ascii_lowercase();
    let digit = ["list bullet ", "list number "]
        .iter()
        .find_map(|start| name.strip_prefix(start))?;
    digit.trim().parse::<u8>().ok()?.checked_sub(1)
}

fn styles(text: &str) -> Result<HashMap<String, Style>, Failure> {
    let mut reader = XmlReader::new(text);
    let mut styles: HashMap<String, Style> = HashMap::new();
    let mut current: Option<String> = None;
    while let Some(piece) = reader.next()? {
        let Piece::Start(element) = piece else { continue };
        let value = || attribute(&element, "w:val");
        if element.name().as_ref() == "w:style" {
            current = attribute(&element, "w:styleId");
            if let Some(id) = &current {
                styles.entry(id.clone()).or_default();
            }
            continue;
        }
        let Some(style) = current.as_ref().and_then(|id| styles.get_mut(id)) else {
            continue;
        };
        match element.name().as_ref() {
            "w:name" => style.name = value().unwrap_or_default(),
            "w:basedOn" => style.based_on = value(),
            "w:numId" => style.list = value(),
            "w:ilvl" => style.level = value().and_then(|level| level.parse().ok()),
            _ => {}
        }
    }
    Ok(styles)
}

fn levels(text: &str) -> Result<HashMap<Place, Level>, Failure> {
    let mut reader = XmlReader::new(text);
    // Of the abstract lists first, which the lists refer to.
    let mut kinds: HashMap<String, HashMap<u8, Level>> = HashMap::new();
    let mut levels = HashMap::new();
    let (mut kind, mut list, mut level) = (String::new(), None::<String>, 0_u8);
    while let Some(piece) = reader.next()? {
        let Piece::Start(element) = piece else { continue };
        let value = || attribute(&element, "w:val");
        match element.name().as_ref() {
            "w:abstractNum" => {
                kind = attribute(&element, "w:abstractNumId").unwrap_or_default();
                list = None;
            }
            "w:num" => list = attribute(&element, "w:numId"),
            "w:lvl" | "w:lvlOverride" => {
                level = number(&element, "w:ilvl")
                    .and_then(|level| u8::try_from(level).ok())
                    .unwrap_or(0);
            }
            "w:numFmt" if list.is_none() => {
                let list_type = match value().as_deref() {
                    Some("bullet") => ListType::Bullet,
                    None | Some("none") => continue,
                    Some(_) => ListType::Numbered,
                };
                let entry = kinds.entry(kind.clone()).or_default().entry(level);
                entry.or_insert(Level { list_type, start: 1 }).list_type = list_type;
            }
            "w:abstractNumId" => {
                let (Some(list), Some(kind)) = (&list, value()) else {
                    continue;
                };
                for (level, kind) in kinds.get(&kind).into_iter().flatten() {
                    let place = Place {
                        list: list.clone(),
                        level: *level,
                    };
                    levels.insert(place, *kind);
                }
            }
            "w:startOverride" => {
                let place = list.clone().map(|list| Place { list, level });
                let start = number(&element, "w:val");
                if let (Some(level), Some(start)) = (place.and_then(|place| levels.get_mut(&place)), start) {
                    level.start = start;
                }
            }
            _ => {}
        }
    }
    Ok(levels)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const NUMBERING: &str = r#"<w:numbering>
        <w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="bullet"/></w:lvl></w:abstractNum>
        <w:abstractNum w:abstractNumId="2"><w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/></w:lvl></w:abstractNum>
        <w:num w:numId="5"><w:abstractNumId w:val="1"/></w:num>
        <w:num w:numId="6"><w:abstractNumId w:val="2"/><w:lvlOverride w:ilvl="0"><w:startOverride w:val="4"/></w:lvlOverride></w:num>
        </w:numbering>"#;

    #[test]
    fn a_style_takes_its_list_from_the_one_it_is_based_on() {
        let styles = styles(
            r#"<w:styles>
            <w:style w:styleId="A"><w:name w:val="List Bullet"/><w:pPr><w:numPr><w:numId w:val="5"/></w:numPr></w:pPr></w:style>
            <w:style w:styleId="B"><w:basedOn w:val="A"/></w:style>
            <w:style w:styleId="C"><w:basedOn w:val="B"/><w:pPr><w:numPr><w:numId w:val="0"/></w:numPr></w:pPr></w:style>
            <w:style w:styleId="D"><w:basedOn w:val="D"/></w:style>
            </w:styles>"#,
        )
        .unwrap();
        assert_eq!(place(&styles, "B").unwrap().list, "5");
        assert_eq!(place(&styles, "C"), None);
        assert_eq!(place(&styles, "D"), None);
    }

    #[test]
    fn a_list_has_the_levels_of_its_kind() {
        let levels = levels(NUMBERING).unwrap();
        let level = |list: &str| {
            levels[&Place {
                list: list.to_owned(),
                level: 0,
            }]
        };
        assert_eq!(level("5").list_type, ListType::Bullet);
        let numbered = Level {
            list_type: ListType::Numbered,
            start: 4,
        };
        assert_eq!(level("6"), numbered);
    }

    #[test]
    fn the_name_of_a_style_tells_its_level() {
        assert_eq!(level_of_name("List Bullet 3"), Some(2));
        assert_eq!(level_of_name("list number 2"), Some(1));
        assert_eq!(level_of_name("List Bullet"), None);
        assert_eq!(level_of_name("List Bullet 0"), None);
    }
}
