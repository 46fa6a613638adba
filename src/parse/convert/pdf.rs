//! PDF by `pdf-inspector`: headings by size of type, lists, tables by ruling and alignment, links. Lines
//! that repeat over pages are dropped (`running_lines`).

use pdf_inspector::{PdfError, PdfOptions, markdown::MarkdownOptions};

use super::running_lines::drop_running_lines;
use crate::parse::answer::{Converted, Failure};

/// Converts a PDF of at most `max_pages`.
pub(super) fn convert(content: &[u8], max_pages: u32) -> Result<Converted, Failure> {
    // Reads the page tree's count alone, so that a document that is refused costs nothing. It says
    // nothing about a damaged file that the converter repairs, hence the check after.
    if let Ok(metadata) = lopdf::Document::load_metadata_mem(content) {
        check_pages(metadata.page_count, max_pages)?;
    }
    let markdown = MarkdownOptions {
        // Lines under text are not emphasis worth a tag in the index.
        detect_underline: false,
        include_page_numbers: true,
        ..MarkdownOptions::default()
    };
    let result = pdf_inspector::process_pdf_mem_with_options(content, PdfOptions::new().markdown(markdown))
        .map_err(failure)?;
    check_pages(result.page_count, max_pages)?;
    let markdown = drop_running_lines(&result.markdown.unwrap_or_default());
    if markdown.trim().is_empty() && !result.pages_needing_ocr.is_empty() {
        return Err(Failure::NoText(ranges(&result.pages_needing_ocr)));
    }
    Ok(Converted {
        markdown,
        pages: Some(result.page_count),
        title: result.title,
        unread_pages: u32::try_from(result.pages_needing_ocr.len()).unwrap_or(u32::MAX),
    })
}

fn check_pages(pages: u32, max_pages: u32) -> Result<(), Failure> {
    if pages > max_pages {
        return Err(Failure::TooManyPages(pages));
    }
    Ok(())
}

fn failure(error: PdfError) -> Failure {
    match error {
        PdfError::Encrypted => Failure::Encrypted,
        PdfError::Io(_) | PdfError::Parse(_) | PdfError::InvalidStructure | PdfError::NotAPdf(_) => {
            Failure::damaged(error)
        }
    }
}

/// Numbers in ascending order as `1-3, 7`.
fn ranges(numbers: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers.iter().copied() {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let texts = ranges.into_iter().map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_are_one_range() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[4]), "4");
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), "1-3, 7, 9-10");
    }
}
