//! E-books: the pages in the order of the spine, each as a web page, without the table of contents.

use std::collections::HashMap;

use super::{
    archive::{Archive, resolve},
    xml::{Piece, XmlReader, attribute},
};
use crate::parse::{
    answer::{Converted, Failure},
    html::{HtmlDocument, document_to_markdown},
};

const CONTAINER: &str = "META-INF/container.xml";
/// Which parts are encrypted. Fonts alone may be, and often are.
const ENCRYPTION: &str = "META-INF/encryption.xml";

/// What the package document says.
#[derive(Debug, Default, PartialEq)]
struct Package {
    title: Option<String>,
    /// Paths of the pages in reading order, relative to the package document.
    pages: Vec<String>,
}

/// Converts an e-book.
pub(super) fn convert(content: &[u8]) -> Result<Converted, Failure> {
    let mut archive = Archive::open(content)?;
    let package_path = package_path(&archive.text(CONTAINER)?)?;
    let package = package(&archive.text(&package_path)?)?;
    let encrypted = encrypted_parts(&archive.optional_text(ENCRYPTION)?)?;
    let mut markdown = String::new();
    for page in &package.pages {
        let path = resolve(&package_path, page);
        if encrypted.contains(&path) {
            return Err(Failure::Encrypted);
        }
        // Books name pages that they do not have; the rest is worth reading.
        let html = archive.optional_text(&path)?;
        let HtmlDocument { markdown: page, .. } = document_to_markdown(&html).map_err(Failure::damaged)?;
        let page = page.trim();
        if !page.is_empty() {
            markdown.push_str(page);
            markdown.push_str("\n\n");
        }
    }
    Ok(Converted {
        markdown,
        title: package.title,
        ..Converted::default()
    })
}

/// The path of the package document.
fn package_path(container: &str) -> Result<String, Failure> {
    let mut reader = XmlReader::new(container);
    while let Some(piece) = reader.next()? {
        if let Piece::Start(element) = piece
            && element.local_name().as_ref() == "rootfile"
            && let Some(path) = attribute(&element, "full-path")
        {
            return Ok(path);
        }
    }
    Err(Failure::damaged("its container names no package document"))
}

fn package(text: &str) -> Result<Package, Failure> {
    let mut reader = XmlReader::new(text);
    let mut package = Package::default();
    // Pages by the id that the spine names.
    let mut manifest: HashMap<String, String> = HashMap::new();
    while let Some(piece) = reader.next()? {
        let Piece::Start(element) = piece else { continue };
        match element.local_name().as_ref() {
            "title" if package.title.is_none() => package.title = Some(reader.text()?),
            "item" => {
                let properties = attribute(&element, "properties").unwrap_or_default();
                let is_page = attribute(&element, "media-type").is_some_and(|media_type| {
                    matches!(media_type.as_str(), "application/xhtml+xml" | "text/html")
                });
                if is_page
                    && !properties.split_whitespace().any(|property| property == "nav")
                    && let (Some(id), Some(href)) = (attribute(&element, "id"), attribute(&element, "href"))
                {
                    manifest.insert(id, href);
                }
            }
            "itemref" => {
                let page = attribute(&element, "idref").and_then(|id| manifest.remove(&id));
                package.pages.extend(page);
            }
            _ => {}
        }
    }
    Ok(package)
}

/// The paths of the parts that only a reader with a key can open.
fn encrypted_parts(text: &str) -> Result<Vec<String>, Failure> {
    let mut reader = XmlReader::new(text);
    let mut parts = Vec::new();
    while let Some(piece) = reader.next()? {
        if let Piece::Start(element) = piece
            && element.local_name().as_ref() == "CipherReference"
        {
            parts.extend(attribute(&element, "URI"));
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pages_come_in_the_order_of_the_spine_without_the_contents() {
        let text = r#"<package xmlns:dc="d"><metadata><dc:title>A &amp; B</dc:title><dc:title>C</dc:title></metadata>
            <manifest>
              <item id="b" href="b.xhtml" media-type="application/xhtml+xml"/>
              <item id="toc" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
              <item id="img" href="i.png" media-type="image/png"/>
              <item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>
            </manifest>
            <spine><itemref idref="toc"/><itemref idref="a"/><itemref idref="b"/><itemref idref="img"/><itemref idref="a"/></spine>
            </package>"#;
        let package = package(text).unwrap();
        assert_eq!(package.title.as_deref(), Some("A & B"));
        assert_eq!(package.pages, ["a.xhtml", "b.xhtml"]);
    }
}
