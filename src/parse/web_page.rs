//! Whole web pages to Markdown, nothing left out but scripts, styles and pictures.

use html_to_markdown_rs::{ConversionOptions, convert};

use super::answer::Failure;

/// The Markdown of a page or of a part of one, and its title.
pub(super) fn to_markdown(html: &str) -> Result<(String, Option<String>), Failure> {
    let options = ConversionOptions {
        extract_metadata: false,
        skip_images: true,
        compact_tables: true,
        bullets: "-".to_owned(),
        ..ConversionOptions::default()
    };
    let result = convert(html, Some(options)).map_err(Failure::damaged)?;
    Ok((result.content.unwrap_or_default(), title(html)))
}

/// The text of the first `<title>`, as it stands in the source.
fn title(html: &str) -> Option<String> {
    let lower = html.to_ascii_lowercase();
    let start = lower.find("<title")?;
    let start = start + lower[start..].find('>')? + 1;
    let end = start + lower[start..].find("</title")?;
    let title = quick_xml::escape::unescape(&html[start..end])
        .map_or_else(|_| html[start..end].to_owned(), std::borrow::Cow::into_owned);
    let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
    (!title.is_empty()).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_title_is_that_of_the_page() {
        assert_eq!(
            title("<html><TITLE lang=en>A &amp;\n B</TITLE><title>C</title>").as_deref(),
            Some("A & B")
        );
        for html in ["", "<title>", "<title> </title>", "<title", "İ<title"] {
            assert_eq!(title(html), None, "{html}");
        }
    }
}
