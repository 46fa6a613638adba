//! Slides: the title as heading, the rest in the order of the file, the speaker's notes.

use quick_xml::events::BytesStart;
use undoc::{Block, Paragraph, Section};

use super::BodyReader;
use crate::parse::{
    answer::Failure,
    convert::xml::{Piece, attribute, ended_early},
};

impl BodyReader<'_> {
    /// Reads the slides of a presentation up to its end.
    pub(super) fn slides(&mut self) -> Result<Vec<Section>, Failure> {
        let mut slides = Vec::new();
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) if element.name().as_ref() == "draw:page" => {
                    slides.push(self.slide(slides.len())?);
                }
                Piece::Start(_) => self.reader.skip()?,
                Piece::End => return Ok(slides),
                Piece::Text(_) => {}
            }
        }
    }

    fn slide(&mut self, index: usize) -> Result<Section, Failure> {
        let mut slide = Section::new(index);
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) => match element.name().as_ref() {
                    "presentation:notes" => {
                        let notes = self.notes_of_slide()?;
                        slide.notes = (!notes.is_empty()).then_some(notes);
                    }
                    "office:forms" | "anim:par" | "svg:title" | "svg:desc" => self.reader.skip()?,
                    _ => {
                        let is_title = class(&element).as_deref() == Some("title");
                        let mut blocks = Vec::new();
                        self.block(&element, None, &mut blocks)?;
                        if is_title && slide.name.is_none() {
                            slide.name = title(&blocks);
                        } else {
                            slide.content.append(&mut blocks);
                        }
                    }
                },
                Piece::End => return Ok(slide),
                Piece::Text(_) => {}
            }
        }
    }

    /// The text that the speaker wrote; the page with it has a picture of the slide and numbers, too.
    fn notes_of_slide(&mut self) -> Result<Vec<Paragraph>, Failure> {
        let mut notes = Vec::new();
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) if class(&element).as_deref() == Some("notes") => {
                    let mut blocks = Vec::new();
                    self.blocks(None, &mut blocks)?;
                    notes.extend(paragraphs(blocks));
                }
                Piece::Start(_) => self.reader.skip()?,
                Piece::End => return Ok(notes),
                Piece::Text(_) => {}
            }
        }
    }
}

/// What a frame is for.
fn class(element: &BytesStart<'_>) -> Option<String> {
    attribute(element, "presentation:class")
}

fn title(blocks: &[Block]) -> Option<String> {
    let lines = blocks.iter().filter_map(|block| match block {
        Block::Paragraph(paragraph) => Some(paragraph.plain_text()),
        Block::Table(_)
        | Block::PageBreak
        | Block::SectionBreak
        | Block::Note { .. }
        | Block::Image { .. } => None,
    });
    let title = lines.collect::<Vec<_>>().join(" ");
    let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
    (!title.is_empty()).then_some(title)
}

fn paragraphs(blocks: Vec<Block>) -> impl Iterator<Item = Paragraph> {
    blocks.into_iter().filter_map(|block| match block {
        Block::Paragraph(paragraph) => Some(paragraph),
        Block::Table(_)
        | Block::PageBreak
        | Block::SectionBreak
        | Block::Note { .. }
        | Block::Image { .. } => None,
    })
}
