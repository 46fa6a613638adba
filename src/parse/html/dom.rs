//! A document as a tree in one vector, and the sink that the HTML parser builds it with.
//!
//! The parser's work grows with the square of how deep elements nest, and anybody may send 100,000 open
//! tags. So it is fed in pieces, and after each piece the depth and the time spent are looked at.
//! Invariant: ids are positions in the vector, nothing is ever taken out of it, and no walk recurses.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use html5ever::{
    Attribute, LocalName, ParseOpts, QualName,
    interface::{ElementFlags, ExpandedName, NodeOrText, QuirksMode, TreeSink},
    parse_document,
    tendril::{StrTendril, TendrilSink},
};

use super::HtmlError;

/// Elements nested deeper than this are no page. Parsing that many takes milliseconds.
const MAX_DEPTH: u32 = 1_024;
/// Elements and texts, which take up to 200 bytes each. A page of 10 MB that is nothing but highlighted
/// code has 700,000.
const MAX_NODES: usize = 1_000_000;
/// Bytes given to the parser at once. They cannot open more than a third as many elements.
const PIECE_BYTES: usize = 4_096;
/// What is made of markup to keep the parser busy is given up after this time. A page of 10 MB takes a
/// twentieth of it.
const MAX_PARSE: Duration = Duration::from_secs(20);

/// Position of a node.
pub(super) type NodeId = usize;

/// The document itself, root of the tree.
pub(super) const ROOT: NodeId = 0;

/// What a node is.
#[derive(Debug)]
pub(super) enum NodeData {
    /// The document, the content of a template, a comment: nothing that is shown.
    Other,
    /// Text between tags.
    Text(String),
    /// An element.
    Element(Element),
}

/// An element.
#[derive(Debug)]
pub(super) struct Element {
    /// Its name, lowercase.
    pub(super) name: LocalName,
    attributes: Vec<Attribute>,
}

impl Element {
    /// The value of an attribute.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        let found = self
            .attributes
            .iter()
            .find(|attribute| &*attribute.name.local == name);
        found.map(|attribute| &*attribute.value)
    }

    /// The words of an attribute that is a list of them, such as `class`.
    pub(super) fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        self.attribute(name).unwrap_or_default().split_ascii_whitespace()
    }
}

/// One node and its neighbours.
#[derive(Debug)]
struct Node {
    data: NodeData,
    parent: Option<NodeId>,
    previous: Option<NodeId>,
    next: Option<NodeId>,
    first_child: Option<NodeId>,
    last_child: Option<NodeId>,
    /// Ancestors when it was put into the tree.
    depth: u32,
}

/// A parsed document.
#[derive(Debug)]
pub(super) struct Document {
    nodes: Vec<Node>,
}

impl Document {
    /// Parses a document as browsers do, which takes any text.
    ///
    /// # Errors
    /// See [`HtmlError`].
    pub(super) fn parse(html: &str) -> Result<Self, HtmlError> {
        let started = Instant::now();
        let mut parser = parse_document(Sink::default(), ParseOpts::default());
        let mut rest = html;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
            parser.process(StrTendril::from_slice(piece));
            rest = after;
            if parser.tokenizer.sink.sink.deepest.get() > MAX_DEPTH {
                return Err(HtmlError::TooDeep { limit: MAX_DEPTH });
            }
            if parser.tokenizer.sink.sink.document.borrow().len() > MAX_NODES {
                return Err(HtmlError::TooLarge { limit: MAX_NODES });
            }
            if started.elapsed() > MAX_PARSE {
                return Err(HtmlError::TooSlow);
            }
        }
        Ok(parser.finish())
    }

    /// Number of nodes; all ids are less.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// What the node is, where it is an element.
    pub(super) fn element(&self, id: NodeId) -> Option<&Element> {
        match &self.nodes[id].data {
            NodeData::Element(element) => Some(element),
            NodeData::Text(_) | NodeData::Other => None,
        }
    }

    /// What the node is.
    pub(super) fn data(&self, id: NodeId) -> &NodeData {
        &self.nodes[id].data
    }

    /// The node it is in.
    pub(super) fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.nodes[id].parent
    }

    /// The nodes directly in it, in order.
    pub(super) fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(self.nodes[id].first_child, |child| self.nodes[*child].next)
    }

    /// The elements directly in it, in order.
    pub(super) fn child_elements(&self, id: NodeId) -> impl Iterator<Item = (NodeId, &Element)> {
        self.children(id)
            .filter_map(|child| Some((child, self.element(child)?)))
    }

    /// The node and all below it, in the order of the text, without what is below those that `skip` names.
    pub(super) fn walk(
        &self,
        id: NodeId,
        mut skip: impl FnMut(NodeId, &Element) -> bool,
    ) -> impl Iterator<Item = NodeId> {
        let mut next = Some(id);
        std::iter::from_fn(move || {
            let current = next?;
            let skipped = self
                .element(current)
                .is_some_and(|element| skip(current, element));
            let below = self.nodes[current].first_child.filter(|_| !skipped);
            next = below.or_else(|| self.after(current, id));
            Some(current)
        })
    }

    /// The node that follows `id` and all below it, inside of `root`.
    fn after(&self, mut id: NodeId, root: NodeId) -> Option<NodeId> {
        while id != root {
            let node = &self.nodes[id];
            if let Some(next) = node.next {
                return Some(next);
            }
            id = node.parent?;
        }
        None
    }

    /// All text below the node as it stands in the source, with `\n` for `<br>`.
    pub(super) fn raw_text(&self, id: NodeId, skip: impl FnMut(NodeId, &Element) -> bool) -> String {
        let mut text = String::new();
        for node in self.walk(id, skip) {
            match &self.nodes[node].data {
                NodeData::Text(part) => text.push_str(part),
                NodeData::Element(element) if &*element.name == "br" => text.push('\n'),
                NodeData::Element(_) | NodeData::Other => {}
            }
        }
        text
    }

    fn add(&mut self, data: NodeData) -> NodeId {
        self.nodes.push(Node {
            data,
            parent: None,
            previous: None,
            next: None,
            first_child: None,
            last_child: None,
            depth: 0,
        });
        self.nodes.len() - 1
    }

    fn detach(&mut self, id: NodeId) {
        let Node {
            parent,
            previous,
            next,
            ..
        } = self.nodes[id];
        match previous {
            Some(previous) => self.nodes[previous].next = next,
            None => {
                if let Some(parent) = parent {
                    self.nodes[parent].first_child = next;
                }
            }
        }
        match next {
            Some(next) => self.nodes[next].previous = previous,
            None => {
                if let Some(parent) = parent {
                    self.nodes[parent].last_child = previous;
                }
            }
        }
        let node = &mut self.nodes[id];
        (node.parent, node.previous, node.next) = (None, None, None);
    }

    /// Puts a node that is nowhere into `parent`, before `next` or last, and returns its depth.
    fn attach(&mut self, id: NodeId, parent: NodeId, next: Option<NodeId>) -> u32 {
        let previous = match next {
            Some(next) => self.nodes[next].previous.replace(id),
            None => self.nodes[parent].last_child.replace(id),
        };
        match previous {
            Some(previous) => self.nodes[previous].next = Some(id),
            None => self.nodes[parent].first_child = Some(id),
        }
        let depth = self.nodes[parent].depth + 1;
        let node = &mut self.nodes[id];
        (node.parent, node.previous, node.next) = (Some(parent), previous, next);
        node.depth = depth;
        depth
    }

    /// Puts a node or text into `parent`, before `next` or last. Text next to text becomes one.
    fn insert(&mut self, child: NodeOrText<Handle>, parent: NodeId, next: Option<NodeId>) -> u32 {
        let id = match child {
            NodeOrText::AppendNode(handle) => {
                self.detach(handle.id);
                handle.id
            }
            NodeOrText::AppendText(text) => {
                let before = match next {
                    Some(next) => self.nodes[next].previous,
                    None => self.nodes[parent].last_child,
                };
                if let Some(NodeData::Text(before)) = before.map(|before| &mut self.nodes[before].data) {
                    before.push_str(&text);
                    return 0;
                }
                self.add(NodeData::Text(String::from(text)))
            }
        };
        self.attach(id, parent, next)
    }
}

/// What the parser holds of a node. The name is beside it, since the parser borrows it for longer than
/// the tree may be borrowed.
#[derive(Debug, Clone)]
struct Handle {
    id: NodeId,
    name: Rc<QualName>,
}

/// Builds the tree.
#[derive(Debug)]
struct Sink {
    document: RefCell<Document>,
    /// Contents of templates, which are in no tree.
    templates: RefCell<Vec<(NodeId, NodeId)>>,
    deepest: Cell<u32>,
    nameless: Rc<QualName>,
}

impl Default for Sink {
    fn default() -> Self {
        let mut document = Document { nodes: Vec::new() };
        document.add(NodeData::Other);
        Self {
            document: RefCell::new(document),
            templates: RefCell::default(),
            deepest: Cell::new(0),
            nameless: Rc::new(QualName::new(None, html5ever::ns!(), LocalName::from(""))),
        }
    }
}

impl Sink {
    fn handle(&self, id: NodeId) -> Handle {
        Handle {
            id,
            name: Rc::clone(&self.nameless),
        }
    }

    fn insert(&self, child: NodeOrText<Handle>, parent: NodeId, next: Option<NodeId>) {
        let depth = self.document.borrow_mut().insert(child, parent, next);
        self.deepest.set(self.deepest.get().max(depth));
    }
}

impl TreeSink for Sink {
    type Handle = Handle;
    type Output = Document;
    type ElemName<'a> = ExpandedName<'a>;

    fn finish(self) -> Document {
        self.document.into_inner()
    }

    fn parse_error(&self, _message: Cow<'static, str>) {}

    fn get_document(&self) -> Handle {
        self.handle(ROOT)
    }

    fn elem_name<'a>(&'a self, target: &'a Handle) -> ExpandedName<'a> {
        target.name.expanded()
    }

    fn create_element(&self, name: QualName, attributes: Vec<Attribute>, flags: ElementFlags) -> Handle {
        let mut document = self.document.borrow_mut();
        let element = Element {
            name: name.local.clone(),
            attributes,
        };
        let id = document.add(NodeData::Element(element));
        if flags.template {
            let content = document.add(NodeData::Other);
            self.templates.borrow_mut().push((id, content));
        }
        Handle {
            id,
            name: Rc::new(name),
        }
    }

    fn create_comment(&self, _text: StrTendril) -> Handle {
        self.handle(self.document.borrow_mut().add(NodeData::Other))
    }

    fn create_pi(&self, _target: StrTendril, _data: StrTendril) -> Handle {
        self.handle(self.document.borrow_mut().add(NodeData::Other))
    }

    fn append(&self, parent: &Handle, child: NodeOrText<Handle>) {
        self.insert(child, parent.id, None);
    }

    fn append_based_on_parent_node(&self, element: &Handle, previous: &Handle, child: NodeOrText<Handle>) {
        let parent = self.document.borrow().parent(element.id);
        match parent {
            Some(parent) => self.insert(child, parent, Some(element.id)),
            None => self.insert(child, previous.id, None),
        }
    }

    fn append_doctype_to_document(&self, _name: StrTendril, _public: StrTendril, _system: StrTendril) {}

    fn get_template_contents(&self, target: &Handle) -> Handle {
        let templates = self.templates.borrow();
        let content = templates
            .iter()
            .rev()
            .find(|(template, _)| *template == target.id);
        self.handle(content.map_or(target.id, |(_, content)| *content))
    }

    fn same_node(&self, one: &Handle, other: &Handle) -> bool {
        one.id == other.id
    }

    fn set_quirks_mode(&self, _mode: QuirksMode) {}

    fn append_before_sibling(&self, sibling: &Handle, child: NodeOrText<Handle>) {
        let parent = self.document.borrow().parent(sibling.id);
        if let Some(parent) = parent {
            self.insert(child, parent, Some(sibling.id));
        }
    }

    fn add_attrs_if_missing(&self, target: &Handle, attributes: Vec<Attribute>) {
        let mut document = self.document.borrow_mut();
        if let NodeData::Element(element) = &mut document.nodes[target.id].data {
            for attribute in attributes {
                if !element
                    .attributes
                    .iter()
                    .any(|known| known.name == attribute.name)
                {
                    element.attributes.push(attribute);
                }
            }
        }
    }

    fn remove_from_parent(&self, target: &Handle) {
        self.document.borrow_mut().detach(target.id);
    }

    fn reparent_children(&self, node: &Handle, new_parent: &Handle) {
        let mut document = self.document.borrow_mut();
        while let Some(child) = document.nodes[node.id].first_child {
            document.detach(child);
            let depth = document.attach(child, new_parent.id, None);
            self.deepest.set(self.deepest.get().max(depth));
        }
    }
}
