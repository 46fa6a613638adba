//! Microsoft's formats by `undoc`, told apart by their content: a `.doc` may well be a `.docx`.

use std::borrow::Cow;

use undoc::{
    Block, Document, Error, FormatType, Paragraph, Table,
    doc::DocParser,
    docx::DocxParser,
    ppt::PptParser,
    render::{RenderOptions, to_markdown},
    xls::XlsParser,
    xlsx::XlsxParser,
};

use super::{list_styles::ListStyles, slides};
use crate::parse::answer::{Converted, Failure};

/// Converts a document of Word, Excel or PowerPoint.
pub(super) fn convert(content: Vec<u8>) -> Result<Converted, Failure> {
    let document = match undoc::detect_format_from_bytes(&content).map_err(failure)? {
        FormatType::Doc => DocParser::from_bytes(content).and_then(|mut parser| parser.parse()),
        FormatType::Docx => {
            let lists = ListStyles::read(&content)?;
            let document = DocxParser::from_bytes(content).and_then(|mut parser| parser.parse());
            document.map(|mut document| {
                lists.apply(&mut document);
                document
            })
        }
        FormatType::Xls => XlsParser::from_bytes(content).and_then(|mut parser| parser.parse()),
        FormatType::Xlsx => XlsxParser::from_bytes(content).and_then(|mut parser| parser.parse()),
        FormatType::Ppt => PptParser::from_bytes(content).and_then(|mut parser| parser.parse()),
        FormatType::Pptx => return slides::convert(&content),
    };
    let mut document = document.map_err(failure)?;
    if matches!(document.format, FormatType::Docx | FormatType::Xlsx) {
        unescape(&mut document);
    }
    render(document)
}

/// `undoc` leaves the entities in what stands in attributes: links, and names of sheets.
fn unescape(document: &mut Document) {
    for section in &mut document.sections {
        if let Some(name) = &mut section.name {
            unescape_text(name);
        }
        for block in &mut section.content {
            match block {
                Block::Paragraph(paragraph) => unescape_links(paragraph),
                Block::Table(table) => unescape_table(table),
                Block::Note { content, .. } => content.iter_mut().for_each(unescape_links),
                Block::PageBreak | Block::SectionBreak | Block::Image { .. } => {}
            }
        }
    }
}

fn unescape_table(table: &mut Table) {
    for cell in table.rows.iter_mut().flat_map(|row| &mut row.cells) {
        cell.content.iter_mut().for_each(unescape_links);
        cell.nested_tables.iter_mut().for_each(unescape_table);
    }
}

fn unescape_links(paragraph: &mut Paragraph) {
    for link in paragraph.runs.iter_mut().filter_map(|run| run.hyperlink.as_mut()) {
        unescape_text(link);
    }
}

fn unescape_text(text: &mut String) {
    if let Ok(Cow::Owned(unescaped)) = quick_xml::escape::unescape(text) {
        *text = unescaped;
    }
}

/// Writes a document as Markdown, as all of ours look.
pub(super) fn render(mut document: Document) -> Result<Converted, Failure> {
    // Pictures are not written, so they need not be kept.
    document.resources.clear();
    let options = RenderOptions {
        max_heading_level: 6,
        include_images: false,
        preserve_line_breaks: true,
        ..RenderOptions::default()
    };
    let markdown = to_markdown(&document, &options).map_err(failure)?;
    Ok(Converted {
        markdown,
        title: document.metadata.title,
        ..Converted::default()
    })
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Encrypted => Failure::Encrypted,
        error => Failure::damaged(error),
    }
}
