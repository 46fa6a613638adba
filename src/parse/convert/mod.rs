//! The conversions themselves, as they run in the child: bytes in, Markdown out, no IO.
//!
//! What each keeps and loses is in `docs/documents.md`.

mod archive;
mod comma_separated;
mod epub;
mod list_styles;
mod office;
mod open_document;
mod pdf;
mod running_lines;
mod slides;
mod text;
mod xml;

use super::{
    Format,
    answer::{Converted, Failure},
    html::{HtmlDocument, document_to_markdown},
};

/// Converts one document. May panic, overflow the stack or never return: the process around it is made
/// for that.
pub(super) fn convert(format: Format, content: Vec<u8>, max_pages: u32) -> Result<Converted, Failure> {
    match format {
        Format::Pdf => pdf::convert(&content, max_pages),
        Format::Doc | Format::Docx | Format::Xls | Format::Xlsx | Format::Ppt | Format::Pptx => {
            office::convert(content)
        }
        Format::Odt | Format::Ods | Format::Odp => open_document::convert(&content),
        Format::Csv => comma_separated::convert(&content),
        Format::Html => {
            let html = text::decode_html(&content);
            let HtmlDocument { title, markdown } = document_to_markdown(&html).map_err(Failure::damaged)?;
            Ok(Converted {
                markdown,
                title,
                ..Converted::default()
            })
        }
        Format::Epub => epub::convert(&content),
        Format::Image => Err(Failure::damaged("pictures have no text")),
    }
}
