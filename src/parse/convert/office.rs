//! Microsoft's formats by `undoc`, told apart by their content: a `.doc` may well be a `.docx`.

use undoc::{
    Document, Error, FormatType,
    doc::DocParser,
    docx::DocxParser,
    ppt::PptParser,
    pptx::PptxParser,
    render::{RenderOptions, to_markdown},
    xls::XlsParser,
    xlsx::XlsxParser,
};

use super::list_styles::ListStyles;
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
        FormatType::Pptx => PptxParser::from_bytes(content).and_then(|mut parser| parser.parse()),
    };
    render(document.map_err(failure)?)
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
