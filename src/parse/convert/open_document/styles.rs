//! The styles of an OpenDocument file, as far as Markdown has a mark for them.

use std::collections::HashMap;

use quick_xml::events::BytesStart;
use undoc::TextStyle;

use crate::parse::{
    answer::Failure,
    convert::xml::{Piece, XmlReader, attribute, number},
};

/// How far a style is followed to its parents.
const MAX_PARENTS: usize = 20;

/// What marks the items of one level of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LevelKind {
    /// A bullet.
    Bullet,
    /// Numbers from this one.
    Numbered(u32),
    /// Nothing.
    Plain,
}

/// Emphasis as a style asks for it; `None` leaves it to the parent.
#[derive(Debug, Clone, Default)]
struct Emphasis {
    parent: Option<String>,
    bold: Option<bool>,
    italic: Option<bool>,
    strikethrough: Option<bool>,
}

/// The styles of a document.
#[derive(Debug, Default)]
pub(super) struct Styles {
    /// Of pieces of text, by name.
    emphasis: HashMap<String, Emphasis>,
    /// The parents of the styles of paragraphs.
    parents: HashMap<String, String>,
    /// Levels of lists, the first at 0, by the name of the list's style.
    lists: HashMap<String, HashMap<u8, LevelKind>>,
}

impl Styles {
    /// Reads the styles of one part; those of a later part win.
    pub(super) fn read(&mut self, part: &str) -> Result<(), Failure> {
        let mut reader = XmlReader::new(part);
        let (mut text_style, mut list) = (None::<String>, None::<String>);
        while let Some(piece) = reader.next()? {
            let Piece::Start(element) = piece else { continue };
            match element.name().as_ref() {
                // The styles of a part stand before its text.
                "office:body" => break,
                "style:style" => text_style = self.begin_style(&element),
                "style:text-properties" => {
                    if let Some(emphasis) = text_style.as_ref().and_then(|name| self.emphasis.get_mut(name)) {
                        read_emphasis(&element, emphasis);
                    }
                }
                "text:list-style" => list = attribute(&element, "style:name"),
                "text:list-level-style-bullet" => self.add_level(list.as_ref(), &element, LevelKind::Bullet),
                "text:list-level-style-number" => {
                    let format = attribute(&element, "style:num-format").unwrap_or_default();
                    let kind = if format.is_empty() {
                        LevelKind::Plain
                    } else {
                        LevelKind::Numbered(number(&element, "text:start-value").unwrap_or(1))
                    };
                    self.add_level(list.as_ref(), &element, kind);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes a style; the name of one for pieces of text.
    fn begin_style(&mut self, element: &BytesStart<'_>) -> Option<String> {
        let name = attribute(element, "style:name")?;
        let parent = attribute(element, "style:parent-style-name");
        match attribute(element, "style:family").as_deref() {
            Some("text") => {
                let emphasis = Emphasis {
                    parent,
                    ..Emphasis::default()
                };
                self.emphasis.insert(name.clone(), emphasis);
                Some(name)
            }
            Some("paragraph") => {
                self.parents.extend(parent.map(|parent| (name, parent)));
                None
            }
            Some(_) | None => None,
        }
    }

    fn add_level(&mut self, list: Option<&String>, element: &BytesStart<'_>, kind: LevelKind) {
        let level = number(element, "text:level").and_then(|level| u8::try_from(level).ok());
        if let (Some(list), Some(level)) = (list, level.and_then(|level| level.checked_sub(1))) {
            self.lists.entry(list.clone()).or_default().insert(level, kind);
        }
    }

    /// What marks the items of a level, the first being 0.
    pub(super) fn level(&self, list: Option<&str>, level: u8) -> LevelKind {
        let levels = list.and_then(|list| self.lists.get(list));
        let kind = levels.and_then(|levels| levels.get(&level));
        kind.copied().unwrap_or(LevelKind::Bullet)
    }

    /// The style of a piece of text inside one that looks like `outer`.
    pub(super) fn text(&self, name: &str, outer: &TextStyle) -> TextStyle {
        let mut all = Emphasis::default();
        let mut next = self.emphasis.get(name);
        for _ in 0..MAX_PARENTS {
            let Some(style) = next else { break };
            all.bold = all.bold.or(style.bold);
            all.italic = all.italic.or(style.italic);
            all.strikethrough = all.strikethrough.or(style.strikethrough);
            next = style.parent.as_ref().and_then(|parent| self.emphasis.get(parent));
        }
        TextStyle {
            bold: all.bold.unwrap_or(outer.bold),
            italic: all.italic.unwrap_or(outer.italic),
            strikethrough: all.strikethrough.unwrap_or(outer.strikethrough),
            code: outer.code || matches!(name, "Source_20_Text"),
            ..TextStyle::default()
        }
    }

    /// Whether a style of paragraphs is this one or comes from it.
    pub(super) fn comes_from(&self, name: &str, wanted: &str) -> bool {
        let mut name = name;
        for _ in 0..MAX_PARENTS {
            if name == wanted {
                return true;
            }
            let Some(parent) = self.parents.get(name) else {
                return false;
            };
            name = parent;
        }
        false
    }
}

fn read_emphasis(element: &BytesStart<'_>, emphasis: &mut Emphasis) {
    if let Some(weight) = attribute(element, "fo:font-weight") {
        emphasis.bold = Some(weight == "bold" || weight.parse().is_ok_and(|weight: u32| weight >= 600));
    }
    if let Some(style) = attribute(element, "fo:font-style") {
        emphasis.italic = Some(style != "normal");
    }
    if let Some(line) = attribute(element, "style:text-line-through-style") {
        emphasis.strikethrough = Some(line != "none");
    }
}
