//! Which part of a page is its content, and what in it is not.

use super::dom::{Document, Element, NodeData, NodeId};

/// Elements that hold nothing to read.
const UNREAD: &[&str] = &[
    "script", "style", "noscript", "template", "svg", "iframe", "frame", "object", "embed", "canvas",
    "audio", "video", "dialog", "head", "nav", "select", "input", "textarea", "datalist", "map",
];
/// Roles of what surrounds the content.
const SURROUNDING_ROLES: &[&str] = &[
    "navigation",
    "search",
    "complementary",
    "contentinfo",
    "dialog",
    "alertdialog",
    "menu",
    "menubar",
    "toolbar",
    "tooltip",
];
/// Classes that generators of documentation and sites give to what surrounds the content, each the whole
/// word: Sphinx and its themes, DocBook, Docusaurus, MediaWiki, Doxygen, GitHub.
const SURROUNDING_CLASSES: &[&str] = &[
    "headerlink",
    "sphinxsidebar",
    "related",
    "breadcrumb",
    "breadcrumbs",
    "wy-breadcrumbs",
    "navheader",
    "navfooter",
    "hash-link",
    "anchor-link",
    "skip-link",
    "skiplink",
    "skip-to-content",
    "pagination",
    "prev-next-area",
    "prev-next-footer",
    "theme-doc-footer",
    "theme-doc-breadcrumbs",
    "mw-editsection",
    "navbox",
    "noprint",
    "cookie-banner",
    "cookie-consent",
    "rst-footer-buttons",
    "md-source-file",
    "visually-hidden",
    "sr-only",
    "linenos",
    "lineno",
    "line-numbers",
    "screen-reader-text",
    "hideme",
];
/// What generators write as the text of a link to the heading that it stands in.
const PERMALINK_TEXTS: &[&str] = &["", "#", "¶", "§", "🔗", "\u{f0c1}", "link", "permalink"];

/// Where content is looked for, best first, with the share of the page's text in percent that it has to
/// hold: a name that many things have may be given to a small part.
type Candidate = (fn(&Element) -> bool, usize);
const CANDIDATES: &[Candidate] = &[
    (
        |element| &*element.name == "main" || element.attribute("role") == Some("main"),
        20,
    ),
    (|element| &*element.name == "article", 50),
    (
        |element| {
            matches!(
                element.attribute("id"),
                Some("content" | "main-content" | "main" | "bodyContent")
            )
        },
        40,
    ),
    (
        |element| {
            has_class(
                element,
                &[
                    "main-content",
                    "content",
                    "document",
                    "post-content",
                    "entry-content",
                ],
            )
        },
        50,
    ),
];

/// The element that holds the content: the one with most text of the first kind that holds enough, else
/// the body, else `root`.
pub(super) fn pick(document: &Document, root: NodeId) -> NodeId {
    let body = document
        .walk(root, |_, _| false)
        .find(|id| {
            document
                .element(*id)
                .is_some_and(|element| &*element.name == "body")
        })
        .unwrap_or(root);
    let lengths = text_lengths(document, body);
    let length_of = |id: NodeId| lengths.get(id).copied().unwrap_or(0);
    let elements = || {
        document
            .walk(body, |_, _| false)
            .filter_map(|id| Some((id, document.element(id)?)))
    };
    for (is_candidate, share) in CANDIDATES {
        let mut best = (body, 0);
        for (id, _) in elements().filter(|(_, element)| is_candidate(element)) {
            // Of two that hold the same, the outer one comes first and is taken.
            if length_of(id) > best.1 {
                best = (id, length_of(id));
            }
        }
        if best.1 > 0 && best.1 * 100 >= length_of(body) * share {
            return best.0;
        }
    }
    body
}

/// Bytes of text below each node that is not left out, by id.
fn text_lengths(document: &Document, root: NodeId) -> Vec<usize> {
    let order: Vec<NodeId> = document
        .walk(root, |id, element| {
            id != root && is_surrounding(document, id, element)
        })
        .collect();
    let mut lengths = vec![0; document.len()];
    // What is below a node comes after it, so backwards every length is whole when it is added.
    for id in order.into_iter().rev() {
        if let NodeData::Text(text) = document.data(id) {
            lengths[id] += text.split_ascii_whitespace().map(str::len).sum::<usize>();
        }
        if let Some(parent) = document.parent(id).filter(|_| id != root) {
            lengths[parent] += lengths[id];
        }
    }
    lengths
}

fn has_class(element: &Element, classes: &[&str]) -> bool {
    element.words("class").any(|class| classes.contains(&class))
}

/// Whether the element is no part of the content, wherever it stands.
pub(super) fn is_surrounding(document: &Document, id: NodeId, element: &Element) -> bool {
    let name = &*element.name;
    if UNREAD.contains(&name)
        || element
            .attribute("hidden")
            .is_some_and(|value| value != "until-found")
    {
        return true;
    }
    let left_out = match name {
        // Those of an article have its heading and its author, those of the page a menu.
        "header" | "footer" => !stands_in_content(document, id),
        "aside" => !is_note(element),
        // A heading that unfolds what is below it is a heading.
        "button" => !is_heading(document, id),
        "a" => is_permalink(document, id, element),
        // Formulas are hidden from readers that get a picture instead.
        "math" => return false,
        _ => false,
    };
    left_out
        || element.attribute("aria-hidden") == Some("true")
        || element
            .attribute("role")
            .is_some_and(|role| SURROUNDING_ROLES.contains(&role))
        || element.attribute("role") == Some("banner") && !stands_in_content(document, id)
        || has_class(element, SURROUNDING_CLASSES)
        || element.attribute("style").is_some_and(hides)
}

fn is_note(element: &Element) -> bool {
    const NOTES: &[&str] = &[
        "admonition",
        "note",
        "callout",
        "warning",
        "tip",
        "starlight-aside",
    ];
    element.attribute("role") == Some("note")
        || element
            .words("class")
            .any(|class| NOTES.iter().any(|note| class.contains(note)))
}

/// Whether the element is all that a heading around it says.
fn is_heading(document: &Document, id: NodeId) -> bool {
    let heading = std::iter::successors(document.parent(id), |id| document.parent(*id))
        .take(2)
        .find(|ancestor| document.element(*ancestor).is_some_and(is_heading_element));
    heading.is_some_and(|heading| document.raw_text(heading, |node, _| node == id).trim().is_empty())
}

/// Whether the element is a heading.
pub(super) fn is_heading_element(element: &Element) -> bool {
    matches!(&*element.name, "h1" | "h2" | "h3" | "h4" | "h5" | "h6")
}

fn stands_in_content(document: &Document, id: NodeId) -> bool {
    std::iter::successors(document.parent(id), |id| document.parent(*id))
        .filter_map(|ancestor| document.element(ancestor))
        .any(|element| {
            matches!(&*element.name, "article" | "main" | "section")
                || element.attribute("role") == Some("main")
        })
}

fn hides(style: &str) -> bool {
    let style: String = style
        .chars()
        .filter(|character| !character.is_whitespace())
        .collect();
    let style = style.to_ascii_lowercase();
    style.contains("display:none") || style.contains("visibility:hidden")
}

/// Whether the element is a link into its own page that generators put beside headings.
pub(super) fn is_permalink(document: &Document, id: NodeId, element: &Element) -> bool {
    if &*element.name != "a"
        || !element
            .attribute("href")
            .is_some_and(|href| href.starts_with('#'))
    {
        return false;
    }
    let text = document.raw_text(id, |_, element| matches!(&*element.name, "svg" | "script"));
    let text = text.trim();
    // Anything longer is not one of them, whatever its case.
    text.len() < 16 && PERMALINK_TEXTS.contains(&text.to_lowercase().as_str()) && !has_image(document, id)
}

fn has_image(document: &Document, id: NodeId) -> bool {
    document
        .walk(id, |_, _| false)
        .filter_map(|id| document.element(id))
        .any(|element| {
            &*element.name == "img" && element.attribute("alt").is_some_and(|alt| !alt.trim().is_empty())
        })
}
