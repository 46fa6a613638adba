//! Blocks of Markdown from the elements of the content.
//!
//! One walk writes the text from front to back. What quotes and lists put before each line is kept as a
//! prefix, so nothing is written twice. Input is hostile: how deep elements nest bounds the recursion,
//! how deep lists and quotes nest bounds the prefix, and the output has an end.

use url::Url;

use super::{
    code,
    content::{is_heading_element, is_surrounding},
    dom::{Document, Element, NodeData, NodeId},
    inline::{Inline, collapse, escape_line_start},
    table,
};

/// Below this many elements text is taken as it comes, without its markup.
const MAX_DEPTH: usize = 160;
/// Lists and quotes nested deeper than this are not indented further.
const MAX_PREFIX_BYTES: usize = 48;
/// Where the text ends, in bytes.
const MAX_MARKDOWN_BYTES: usize = 64 << 20;

/// The content of `root` as Markdown, ending with a line break unless it is empty.
pub(super) fn convert(document: &Document, root: NodeId, base: Option<&Url>) -> String {
    let mut writer = Writer::new(document, base, 0);
    writer.children(root);
    writer.finish()
}

/// What stands between two blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// A line break.
    Line,
    /// An empty line.
    Blank,
}

/// The text so far, and where in the document it is.
pub(super) struct Writer<'a> {
    pub(super) document: &'a Document,
    pub(super) base: Option<&'a Url>,
    pub(super) depth: usize,
    out: String,
    /// What every line begins with.
    prefix: String,
    /// What the next line begins with instead: the marker of a list item that has no line yet.
    marker: Option<String>,
    /// The prefix of the last line.
    last_prefix: String,
    gap: Gap,
    inline: Inline,
    /// In a heading, a term or a cell of a header, where everything stands out already.
    plain: bool,
}

impl<'a> Writer<'a> {
    /// Begins a text `depth` elements below the root.
    pub(super) fn new(document: &'a Document, base: Option<&'a Url>, depth: usize) -> Self {
        Self {
            document,
            base,
            depth,
            out: String::new(),
            prefix: String::new(),
            marker: None,
            last_prefix: String::new(),
            gap: Gap::Blank,
            inline: Inline::default(),
            plain: false,
        }
    }

    /// The same, with no emphasis.
    pub(super) fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        self.flush();
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out
    }

    /// Writes all that is in a node.
    pub(super) fn children(&mut self, id: NodeId) {
        self.depth += 1;
        for child in self.document.children(id) {
            self.node(child);
        }
        self.depth -= 1;
    }

    fn node(&mut self, id: NodeId) {
        if self.out.len() > MAX_MARKDOWN_BYTES {
            return;
        }
        match self.document.data(id) {
            NodeData::Other => {}
            NodeData::Text(text) => self.inline.text(text),
            NodeData::Element(element) if is_surrounding(self.document, id, element) => {}
            NodeData::Element(_) if self.depth > MAX_DEPTH => self.flat(id),
            NodeData::Element(element) => self.element(id, element),
        }
    }

    /// The text below a node alone.
    fn flat(&mut self, id: NodeId) {
        let document = self.document;
        for node in document.walk(id, |node, element| is_surrounding(document, node, element)) {
            if let NodeData::Text(text) = document.data(node) {
                self.inline.text(text);
            }
        }
    }

    fn element(&mut self, id: NodeId, element: &Element) {
        match &*element.name {
            "h1" => self.heading(id, 1),
            "h2" => self.heading(id, 2),
            "h3" => self.heading(id, 3),
            "h4" => self.heading(id, 4),
            "h5" => self.heading(id, 5),
            "h6" => self.heading(id, 6),
            "br" => self.inline.break_line(),
            "strong" | "b" => self.emphasised(id, "**"),
            "em" | "i" | "cite" | "dfn" | "var" => self.emphasised(id, "*"),
            "del" | "s" | "strike" => self.emphasised(id, "~~"),
            "code" | "kbd" | "samp" | "tt" => self.inline_code(id),
            "a" => self.link(id, element),
            "img" => self.image(element),
            "math" => self.formula(id, element),
            "q" => {
                self.inline.text("\u{201c}");
                self.children(id);
                self.inline.text("\u{201d}");
            }
            "pre" | "listing" | "xmp" | "plaintext" => {
                self.flush();
                if let Some(block) = code::fenced(self.document, id) {
                    self.block(&block);
                }
            }
            "ul" | "menu" | "dir" => self.list(id, None),
            "ol" => {
                let start = element
                    .attribute("start")
                    .and_then(|start| start.trim().parse().ok());
                self.list(id, Some(start.unwrap_or(1)));
            }
            "li" => {
                self.flush();
                self.item(id, "- ");
            }
            "dt" => self.term(id, element),
            "summary" => self.emphasised_block(id),
            "p" if element.words("class").any(|class| class == "admonition-title") => {
                self.emphasised_block(id)
            }
            "blockquote" => {
                self.flush();
                self.indented(id, "> ", None);
            }
            "table" => {
                self.flush();
                match table::convert(self, id) {
                    Some(table) => self.block(&table),
                    None => self.children(id),
                }
                self.flush();
            }
            "td" | "th" | "tr" | "caption" | "address" | "article" | "aside" | "body" | "center" | "dd"
            | "details" | "div" | "dl" | "fieldset" | "figcaption" | "figure" | "footer" | "form"
            | "header" | "hgroup" | "hr" | "html" | "legend" | "main" | "optgroup" | "option" | "p"
            | "section" | "search" | "tbody" | "tfoot" | "thead" => {
                self.flush();
                self.children(id);
                self.flush();
            }
            _ => self.children(id),
        }
    }

    fn heading(&mut self, id: NodeId, level: usize) {
        self.flush();
        let text = self.line_of(id);
        if !text.is_empty() {
            self.block(&format!("{} {text}", "#".repeat(level)));
        }
    }

    /// What is in a node as one line without emphasis.
    fn line_of(&self, id: NodeId) -> String {
        let mut line = Self::new(self.document, self.base, self.depth).plain();
        line.children(id);
        collapse(&line.finish())
    }

    fn emphasised(&mut self, id: NodeId, marker: &str) {
        if self.plain {
            return self.children(id);
        }
        let mark = self.inline.mark();
        self.children(id);
        self.inline.wrap(mark, marker);
    }

    fn emphasised_block(&mut self, id: NodeId) {
        self.flush();
        let document = self.document;
        let elements = document
            .walk(id, |_, _| false)
            .filter_map(|node| document.element(node));
        // rustdoc unfolds below headings.
        if elements
            .into_iter()
            .any(|element| is_heading_element(element) || &*element.name == "pre")
        {
            self.children(id);
            return self.flush();
        }
        let text = self.line_of(id);
        if !text.is_empty() {
            self.block(&format!("**{text}**"));
        }
    }

    /// The term of a definition; Sphinx gives the signatures of functions this way.
    fn term(&mut self, id: NodeId, element: &Element) {
        if !element.words("class").any(|class| class == "sig") {
            return self.emphasised_block(id);
        }
        self.flush();
        let document = self.document;
        let text = document.raw_text(id, |node, element| is_signature_link(document, node, element));
        self.inline.code(text.trim());
        self.flush();
    }

    fn inline_code(&mut self, id: NodeId) {
        let document = self.document;
        let holds_block = document
            .walk(id, |_, _| false)
            .filter_map(|node| document.element(node))
            .any(|element| matches!(&*element.name, "pre" | "table" | "p" | "ul"));
        if holds_block {
            return self.children(id);
        }
        let text = document.raw_text(id, |node, element| is_surrounding(document, node, element));
        if text.starts_with(char::is_whitespace) {
            self.inline.space();
        }
        self.inline.code(&text);
        if text.ends_with(char::is_whitespace) {
            self.inline.space();
        }
    }

    fn link(&mut self, id: NodeId, element: &Element) {
        let mark = self.inline.mark();
        self.children(id);
        if let Some(url) = element.attribute("href").and_then(|href| self.resolve(href)) {
            self.inline.link(mark, &url);
        }
    }

    fn image(&mut self, element: &Element) {
        let alt = collapse(element.attribute("alt").unwrap_or_default());
        if alt.is_empty() {
            return;
        }
        let source = element.attribute("src").and_then(|source| self.resolve(source));
        match source {
            Some(url) => {
                self.inline.markup("!");
                let mark = self.inline.mark();
                self.inline.text(&alt);
                self.inline.link(mark, &url);
            }
            None => self.inline.text(&alt),
        }
    }

    /// Where a link leads; none for those that lead into the page itself or nowhere.
    fn resolve(&self, href: &str) -> Option<String> {
        let href = href.trim();
        if href.is_empty() || href.starts_with('#') {
            return None;
        }
        match Url::options().base_url(self.base).parse(href) {
            Ok(url) if matches!(url.scheme(), "http" | "https" | "mailto" | "ftp") => Some(url.into()),
            Ok(_) => None,
            Err(url::ParseError::RelativeUrlWithoutBase) => Some(href.to_owned()),
            Err(_) => None,
        }
    }

    /// The source of a formula where the page has it, else its parts as text.
    fn formula(&mut self, id: NodeId, element: &Element) {
        let document = self.document;
        let annotation = || {
            let found = document.walk(id, |_, _| false).find(|node| {
                document.element(*node).is_some_and(|element| {
                    &*element.name == "annotation"
                        && element.attribute("encoding") == Some("application/x-tex")
                })
            });
            found.map(|node| document.raw_text(node, |_, _| false))
        };
        let source = element
            .attribute("alttext")
            .map(str::to_owned)
            .or_else(annotation);
        match source
            .map(|source| collapse(&source))
            .filter(|source| !source.is_empty())
        {
            Some(source) => self.inline.markup(&format!("${source}$")),
            None => self.flat(id),
        }
    }

    fn list(&mut self, id: NodeId, first: Option<i64>) {
        self.flush();
        let in_item = self.marker.is_none() && !self.prefix.is_empty() && !self.prefix.ends_with("> ");
        if in_item {
            self.gap = Gap::Line;
        }
        self.depth += 1;
        let mut number = first;
        for child in self.document.children(id) {
            let item = self
                .document
                .element(child)
                .filter(|element| &*element.name == "li");
            if item.is_some_and(|element| !is_surrounding(self.document, child, element)) {
                self.flush();
                let marker = number.map_or_else(|| "- ".to_owned(), |number| format!("{number}. "));
                self.item(child, &marker);
                number = number.map(|number| number.saturating_add(1));
            } else {
                self.node(child);
            }
        }
        self.flush();
        self.depth -= 1;
        if !in_item {
            self.gap = Gap::Blank;
        }
    }

    fn item(&mut self, id: NodeId, marker: &str) {
        let before = self.out.len();
        self.indented(id, &" ".repeat(marker.len()), Some(marker));
        let written = self
            .out
            .get(before..)
            .unwrap_or_default()
            .trim_start_matches('\n');
        // Items of one block each stand together.
        if !written.is_empty() {
            self.gap = if written.contains("\n\n") {
                Gap::Blank
            } else {
                Gap::Line
            };
        }
    }

    /// Writes all that is in a node with `indent` before every line, or `marker` before the first.
    fn indented(&mut self, id: NodeId, indent: &str, marker: Option<&str>) {
        if self.prefix.len() + indent.len() > MAX_PREFIX_BYTES {
            self.children(id);
            return self.flush();
        }
        let outer = self.marker.clone();
        let length = self.prefix.len();
        let before = self.out.len();
        if marker.is_some() || outer.is_some() {
            let start = outer.as_ref().unwrap_or(&self.prefix);
            self.marker = Some(format!("{start}{}", marker.unwrap_or(indent)));
        }
        self.prefix.push_str(indent);
        self.children(id);
        self.flush();
        self.prefix.truncate(length);
        if self.out.len() == before {
            self.marker = outer;
        }
        self.gap = Gap::Blank;
    }

    /// Ends the paragraph.
    fn flush(&mut self) {
        let paragraph = self.inline.take();
        if paragraph.is_empty() {
            return;
        }
        let mut lines = paragraph
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .peekable();
        let mut text = String::with_capacity(paragraph.len() + 8);
        while let Some(line) = lines.next() {
            text.push_str(&escape_line_start(line));
            if lines.peek().is_some() {
                text.push_str("  \n");
            }
        }
        self.block(&text);
    }

    /// Writes lines as a block of their own.
    fn block(&mut self, text: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
            if self.gap == Gap::Blank {
                let shared = shared_prefix(&self.last_prefix, &self.prefix);
                self.out.push_str(shared.trim_end());
                self.out.push('\n');
            }
        }
        let marker = self.marker.take();
        for (index, line) in text.split('\n').enumerate() {
            let start = match &marker {
                Some(marker) if index == 0 => marker,
                Some(_) | None => &self.prefix,
            };
            if index > 0 {
                self.out.push('\n');
            }
            self.out
                .push_str(if line.is_empty() { start.trim_end() } else { start });
            self.out.push_str(line);
        }
        self.last_prefix.clone_from(&self.prefix);
        self.gap = Gap::Blank;
    }
}

/// What two prefixes begin with, so that the empty line between two quotes belongs to neither.
fn shared_prefix<'a>(one: &'a str, other: &str) -> &'a str {
    let length = one
        .bytes()
        .zip(other.bytes())
        .take_while(|(one, other)| one == other)
        .count();
    one.get(..length).unwrap_or_default()
}

/// The links that Sphinx puts behind a signature: to itself and to the source.
fn is_signature_link(document: &Document, id: NodeId, element: &Element) -> bool {
    is_surrounding(document, id, element) || element.words("class").any(|class| class == "viewcode-link")
}
