//! XML as a stream of elements and text, with entities resolved and depth bounded.

use std::borrow::Cow;

use quick_xml::{
    Reader,
    escape::resolve_predefined_entity,
    events::{BytesStart, Event},
};

use crate::parse::answer::Failure;

/// How deep elements may lie within each other. Documents stay below 50; each level costs stack.
const MAX_DEPTH: usize = 300;

/// The next thing in a document.
pub(super) enum Piece<'a> {
    /// An element begins; its [`Piece::End`] follows even when it is empty.
    Start(BytesStart<'a>),
    /// The element that began last and has not ended ends.
    End,
    /// Text.
    Text(Cow<'a, str>),
}

/// Reads one document.
pub(super) struct XmlReader<'a> {
    reader: Reader<&'a [u8]>,
    depth: usize,
}

impl<'a> XmlReader<'a> {
    /// Begins at the start of `text`.
    pub(super) fn new(text: &'a str) -> Self {
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        Self { reader, depth: 0 }
    }

    /// The next piece; `None` at the end of the document.
    pub(super) fn next(&mut self) -> Result<Option<Piece<'a>>, Failure> {
        loop {
            return Ok(Some(
                match self.reader.read_event().map_err(Failure::damaged)? {
                    Event::Start(start) => {
                        self.depth += 1;
                        if self.depth > MAX_DEPTH {
                            return Err(Failure::damaged("its elements are nested too deeply"));
                        }
                        Piece::Start(start)
                    }
                    Event::End(_) => {
                        self.depth = self.depth.saturating_sub(1);
                        Piece::End
                    }
                    Event::Text(text) => Piece::Text(text.xml10_content()),
                    Event::CData(text) => Piece::Text(text.xml10_content()),
                    Event::GeneralRef(reference) => {
                        let character = reference.resolve_char_ref().map_err(Failure::damaged)?;
                        match character {
                            Some(character) => Piece::Text(Cow::Owned(character.to_string())),
                            // Others would be declared in the document, which none of our formats does.
                            None => match resolve_predefined_entity(&reference.xml10_content()) {
                                Some(text) => Piece::Text(Cow::Borrowed(text)),
                                None => continue,
                            },
                        }
                    }
                    Event::Eof => return Ok(None),
                    Event::Empty(_)
                    | Event::Comment(_)
                    | Event::Decl(_)
                    | Event::PI(_)
                    | Event::DocType(_) => continue,
                },
            ));
        }
    }

    /// Passes over the rest of the element that began last.
    pub(super) fn skip(&mut self) -> Result<(), Failure> {
        let outside = self.depth.saturating_sub(1);
        while self.depth > outside {
            if self.next()?.is_none() {
                return Err(ended_early());
            }
        }
        Ok(())
    }

    /// All text inside the element that began last, up to its end.
    pub(super) fn text(&mut self) -> Result<String, Failure> {
        let outside = self.depth.saturating_sub(1);
        let mut all = String::new();
        while self.depth > outside {
            match self.next()? {
                Some(Piece::Text(text)) => all.push_str(&text),
                Some(Piece::Start(_) | Piece::End) => {}
                None => return Err(ended_early()),
            }
        }
        Ok(all)
    }
}

/// The document stops inside an element.
pub(super) fn ended_early() -> Failure {
    Failure::damaged("it ends inside an element")
}

/// The value of an attribute, by its whole name such as `text:style-name`.
pub(super) fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    element
        .attributes()
        .with_checks(false)
        .flatten()
        .find(|attribute| attribute.key.as_ref() == name)
        .map(|attribute| unescape(&attribute.value))
}

fn unescape(value: &str) -> String {
    quick_xml::escape::unescape(value).map_or_else(|_| value.to_owned(), Cow::into_owned)
}

/// The same as a number.
pub(super) fn number(element: &BytesStart<'_>, name: &str) -> Option<u32> {
    attribute(element, name)?.trim().parse().ok()
}
