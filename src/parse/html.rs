//! HTML to Markdown: what a page is about, without what surrounds it.
//!
//! A document is parsed once. From its tree come what a crawler asks for (title, canonical URL, links,
//! wishes for robots) and the Markdown of its main content: headings, paragraphs, lists, tables, code
//! blocks with their language, links and the alternative texts of images. Navigation, headers, footers,
//! forms and what is hidden are left out. Absent on purpose: scripts are not run, styles are not read.

mod block;
mod code;
mod content;
mod dom;
mod inline;
mod page;
mod table;
#[cfg(test)]
mod tests;

use url::Url;

use self::dom::{Document, ROOT};

/// Grows with every release that makes other Markdown of the same HTML, so that what was made before is
/// made anew.
pub const CONVERTER_VERSION: u32 = 1;

/// Why a document cannot be converted. Anything else that is called HTML can, broken or not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HtmlError {
    /// Its elements nest too deep.
    #[error("its elements nest deeper than {limit}")]
    TooDeep {
        /// The most that is parsed.
        limit: u32,
    },
    /// It has too many elements.
    #[error("it has more than {limit} elements and texts")]
    TooLarge {
        /// The most that are kept.
        limit: usize,
    },
    /// It is made of markup that takes the parser too long.
    #[error("it takes too long to parse")]
    TooSlow,
}

/// What a page asks of robots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RobotsWishes {
    /// It wants to be in no index.
    pub noindex: bool,
    /// Its links are not to be followed.
    pub nofollow: bool,
}

impl RobotsWishes {
    /// Reads a list of directives as in `<meta name=robots>` and `X-Robots-Tag`, such as
    /// `noindex, nofollow`. What is not known is ignored.
    pub fn parse(directives: &str) -> Self {
        let mut wishes = Self::default();
        for directive in directives.split(',') {
            let directive = directive.trim().to_ascii_lowercase();
            let none = directive == "none";
            wishes.noindex |= none || directive == "noindex";
            wishes.nofollow |= none || directive == "nofollow";
        }
        wishes
    }

    /// What either asks.
    pub fn or(self, other: Self) -> Self {
        Self {
            noindex: self.noindex || other.noindex,
            nofollow: self.nofollow || other.nofollow,
        }
    }
}

/// A page, as a crawler needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HtmlPage {
    /// From `<title>`, else the first heading.
    pub title: Option<String>,
    /// The main content; empty where there is none. Begins with the title as a heading when the content
    /// has none of the first level.
    pub markdown: String,
    /// Where the page says it belongs; http or https.
    pub canonical: Option<Url>,
    /// Where it leads, in the order of the page, each once, without fragments; http or https. Links with
    /// `rel=nofollow` are not among them. At most 10,000.
    pub links: Vec<Url>,
    /// What it asks of robots.
    pub robots: RobotsWishes,
}

/// Reads a page that came from `base`. `robot` is the product token under which a page may address this
/// crawler alone, with `<meta name=TOKEN>`.
///
/// Takes about a second for 10 MB.
///
/// # Errors
/// See [`HtmlError`].
pub fn page_to_markdown(html: &str, base: &Url, robot: &str) -> Result<HtmlPage, HtmlError> {
    let document = Document::parse(html)?;
    let facts = page::read(&document, Some(base), robot);
    let base = facts.base.as_ref().unwrap_or(base);
    let markdown = markdown_of(&document, Some(base), facts.title.as_deref());
    Ok(HtmlPage {
        title: facts.title,
        markdown,
        canonical: facts.canonical,
        links: facts.links,
        robots: facts.robots,
    })
}

/// A document that was uploaded or stored, whose address is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HtmlDocument {
    /// From `<title>`, else the first heading.
    pub title: Option<String>,
    /// As [`HtmlPage::markdown`]; links that are relative are kept as they are.
    pub markdown: String,
}

/// Reads a document that has no address.
///
/// # Errors
/// See [`HtmlError`].
pub fn document_to_markdown(html: &str) -> Result<HtmlDocument, HtmlError> {
    let document = Document::parse(html)?;
    let facts = page::read(&document, None, "");
    let markdown = markdown_of(&document, facts.base.as_ref(), facts.title.as_deref());
    Ok(HtmlDocument {
        title: facts.title,
        markdown,
    })
}

fn markdown_of(document: &Document, base: Option<&Url>, title: Option<&str>) -> String {
    let content = content::pick(document, ROOT);
    let markdown = block::convert(document, content, base);
    match title {
        Some(title) if !markdown.is_empty() && !has_top_heading(&markdown) => {
            format!("# {}\n\n{markdown}", inline::escape(title))
        }
        Some(_) | None => markdown,
    }
}

/// Whether a line outside of code is a heading of the first level.
fn has_top_heading(markdown: &str) -> bool {
    let mut fence: Option<&str> = None;
    for line in markdown.lines() {
        let ticks = line.trim_start_matches([' ', '>']);
        let length = ticks.len() - ticks.trim_start_matches('`').len();
        let run = ticks.get(..length).unwrap_or_default();
        match fence {
            Some(open) if length >= open.len() => fence = None,
            Some(_) => {}
            None if length >= 3 => fence = Some(run),
            None if line.starts_with("# ") => return true,
            None => {}
        }
    }
    false
}
