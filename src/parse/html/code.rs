//! Blocks of code: their text as it is shown, and the language that it is marked with.

use super::{
    content::is_surrounding,
    dom::{Document, Element, NodeData, NodeId},
    inline::longest_run,
};

/// How far above a block its language may be noted: Sphinx wraps it twice.
const MAX_ANCESTORS: usize = 3;
/// The longest name of a language, in bytes.
const MAX_LANGUAGE_BYTES: usize = 24;

/// A fenced block for the `<pre>` at `id`; none where it is empty.
pub(super) fn fenced(document: &Document, id: NodeId) -> Option<String> {
    let text = text_of(document, id);
    let text = text.trim_end();
    let first = text.find(|character: char| !matches!(character, '\n' | '\r'))?;
    let text = text.get(first..)?;
    let fence = "`".repeat(longest_run(text, '`').max(2) + 1);
    let language = language(document, id).unwrap_or_default();
    Some(format!("{fence}{language}\n{text}\n{fence}"))
}

fn text_of(document: &Document, id: NodeId) -> String {
    let mut text = String::new();
    for node in document.walk(id, |node, element| {
        node != id && is_surrounding(document, node, element)
    }) {
        match document.data(node) {
            NodeData::Element(element) if is_surrounding(document, node, element) => {}
            NodeData::Text(part) => text.push_str(part),
            NodeData::Element(element) if &*element.name == "br" => text.push('\n'),
            // Some highlighters put every line into an element of its own.
            NodeData::Element(element) if matches!(&*element.name, "div" | "p" | "li" | "tr") => {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
            }
            NodeData::Element(_) | NodeData::Other => {}
        }
    }
    text.replace("\r\n", "\n").replace('\u{a0}', " ")
}

/// From the classes of the block, of the code in it and of what is around it.
fn language(document: &Document, id: NodeId) -> Option<String> {
    let own = document.element(id);
    let inside = document
        .child_elements(id)
        .map(|(_, element)| element)
        .find(|element| &*element.name == "code");
    let around = std::iter::successors(document.parent(id), |id| document.parent(*id))
        .take(MAX_ANCESTORS)
        .filter_map(|ancestor| document.element(ancestor));
    let found = own
        .into_iter()
        .chain(inside)
        .find_map(|element| marked(element, true));
    found
        .or_else(|| {
            around
                .filter(|element| &*element.name == "div")
                .find_map(|element| marked(element, false))
        })
        .and_then(plain)
}

fn marked(element: &Element, is_code: bool) -> Option<&str> {
    let attribute = element
        .attribute("data-lang")
        .or_else(|| element.attribute("data-language"));
    let by_prefix = || {
        element.words("class").find_map(|class| {
            ["language-", "lang-", "highlight-source-", "highlight-"]
                .into_iter()
                .find_map(|prefix| class.strip_prefix(prefix))
        })
    };
    // Pandoc writes `sourceCode python`, rustdoc `rust rust-example-rendered`.
    let by_neighbour = || {
        let mut classes = element.words("class");
        let first = classes.next()?;
        let second = classes.next()?;
        match (first, second) {
            ("sourceCode", language) => Some(language),
            ("rust", _) => Some("rust"),
            _ => None,
        }
    };
    attribute
        .or_else(by_prefix)
        .or_else(|| is_code.then(by_neighbour).flatten())
}

/// The name as chunkers and readers know it; none for names that mean no language.
fn plain(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'#' | b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > MAX_LANGUAGE_BYTES || !name.bytes().all(is_name) {
        return None;
    }
    match name.as_str() {
        "default" | "none" | "text" | "txt" | "plain" | "plaintext" | "guess" | "notranslate"
        | "nohighlight" => None,
        "py" | "python3" | "py3" | "ipython3" | "pycon" | "pycon3" => Some("python".to_owned()),
        _ => Some(name),
    }
}
