//! Paragraphs, headings, and what is inside a line of text.

use quick_xml::events::BytesStart;
use undoc::{Block, HeadingLevel, Paragraph, TextRun, TextStyle};

use super::BodyReader;
use crate::parse::{
    answer::Failure,
    convert::xml::{Piece, attribute, ended_early, number},
};

/// The most spaces in a row that one element may stand for.
const MAX_SPACES: u32 = 1_000;

/// A line of text as it grows.
struct Line {
    runs: Vec<TextRun>,
    /// White space in the source is one space, and none after another.
    after_space: bool,
}

impl Line {
    fn push(&mut self, text: &str, style: &TextStyle, link: Option<&String>) {
        let mut shown = String::with_capacity(text.len());
        for character in text.chars() {
            let space = matches!(character, ' ' | '\t' | '\r' | '\n');
            if !space {
                shown.push(character);
            } else if !self.after_space {
                shown.push(' ');
            }
            self.after_space = space;
        }
        self.push_run(shown, style, link);
    }

    fn push_run(&mut self, text: String, style: &TextStyle, link: Option<&String>) {
        if text.is_empty() {
            return;
        }
        match self.runs.last_mut() {
            Some(last)
                if last.style == *style
                    && last.hyperlink.as_ref() == link
                    && last.note.is_none()
                    && !last.line_break =>
            {
                last.text.push_str(&text);
            }
            Some(_) | None => {
                let mut run = TextRun::styled(text, style.clone());
                run.hyperlink = link.cloned();
                self.runs.push(run);
            }
        }
    }

    fn break_line(&mut self) {
        self.after_space = true;
        match self.runs.last_mut() {
            Some(last) if !last.line_break => last.line_break = true,
            Some(_) | None => {
                let mut run = TextRun::plain("");
                run.line_break = true;
                self.runs.push(run);
            }
        }
    }
}

impl BodyReader<'_> {
    /// Reads the paragraph or heading that has just begun.
    pub(super) fn paragraph(&mut self, element: &BytesStart<'_>) -> Result<Paragraph, Failure> {
        let style = attribute(element, "text:style-name").unwrap_or_default();
        let heading = if element.name().as_ref() == "text:h" {
            let level = number(element, "text:outline-level").unwrap_or(1).clamp(1, 6);
            HeadingLevel::from_number(u8::try_from(level).unwrap_or(6))
        } else if self.styles.comes_from(&style, "Title") {
            HeadingLevel::H1
        } else if self.styles.comes_from(&style, "Subtitle") {
            HeadingLevel::H2
        } else {
            HeadingLevel::None
        };
        let mut line = Line {
            runs: Vec::new(),
            after_space: true,
        };
        self.line(&mut line, &TextStyle::default(), None)?;
        let mut paragraph = Paragraph::new();
        paragraph.heading = heading;
        paragraph.runs = line.runs;
        Ok(paragraph)
    }

    /// Reads what is inside the element that began last, up to its end.
    fn line(&mut self, line: &mut Line, style: &TextStyle, link: Option<&String>) -> Result<(), Failure> {
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Text(text) => line.push(&text, style, link),
                Piece::Start(element) => self.inline(&element, line, style, link)?,
                Piece::End => return Ok(()),
            }
        }
    }

    fn inline(
        &mut self,
        element: &BytesStart<'_>,
        line: &mut Line,
        style: &TextStyle,
        link: Option<&String>,
    ) -> Result<(), Failure> {
        match element.name().as_ref() {
            "text:span" => {
                let name = attribute(element, "text:style-name").unwrap_or_default();
                let style = self.styles.text(&name, style);
                self.line(line, &style, link)
            }
            "text:a" => {
                let link = attribute(element, "xlink:href").filter(|link| !link.is_empty());
                self.line(line, style, link.as_ref())
            }
            "text:s" => {
                let count = number(element, "text:c").unwrap_or(1).min(MAX_SPACES);
                line.push_run(" ".repeat(count as usize), style, link);
                line.after_space = true;
                self.reader.skip()
            }
            "text:tab" => {
                line.push_run("\t".to_owned(), style, link);
                line.after_space = true;
                self.reader.skip()
            }
            "text:line-break" => {
                line.break_line();
                self.reader.skip()
            }
            "text:note" => self.note(element, line),
            "office:annotation" | "text:ruby-text" => self.reader.skip(),
            "draw:frame" | "draw:g" | "draw:custom-shape" | "draw:rect" | "draw:line" | "draw:a" => {
                let mut blocks = Vec::new();
                self.blocks(None, &mut blocks)?;
                self.anchored.append(&mut blocks);
                Ok(())
            }
            // Fields, bookmarks and marks: their text is the document's.
            _ => self.line(line, style, link),
        }
    }

    /// Reads a footnote or endnote and leaves a reference to it.
    fn note(&mut self, element: &BytesStart<'_>, line: &mut Line) -> Result<(), Failure> {
        let label = if attribute(element, "text:note-class").as_deref() == Some("endnote") {
            self.endnotes += 1;
            format!("e{}", self.endnotes)
        } else {
            self.footnotes += 1;
            self.footnotes.to_string()
        };
        let mut blocks = Vec::new();
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(part) if part.name().as_ref() == "text:note-body" => {
                    self.blocks(None, &mut blocks)?;
                }
                // Its number as it was printed.
                Piece::Start(_) => self.reader.skip()?,
                Piece::End => break,
                Piece::Text(_) => {}
            }
        }
        let content = blocks.into_iter().filter_map(|block| match block {
            Block::Paragraph(paragraph) => Some(paragraph),
            Block::Table(_)
            | Block::PageBreak
            | Block::SectionBreak
            | Block::Note { .. }
            | Block::Image { .. } => None,
        });
        self.notes.push(Block::Note {
            label: label.clone(),
            content: content.collect(),
        });
        line.runs.push(TextRun::note_reference(label));
        line.after_space = false;
        Ok(())
    }
}
