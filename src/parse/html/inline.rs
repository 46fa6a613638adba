//! The text of one paragraph while it is put together, and what has to be escaped in it.
//!
//! Only what would read as markup is escaped: an embedding of `snake\_case` is not that of the name.

/// A paragraph under construction. White space is kept back until something follows it, so none stands
/// at the edges, and markers of emphasis close up with the words inside.
#[derive(Debug, Default)]
pub(super) struct Inline {
    text: String,
    space: bool,
    /// Paragraphs taken so far; tells whether a [`Mark`] still means a place in this one.
    taken: u32,
}

/// A place in a paragraph.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    position: usize,
    taken: u32,
}

impl Inline {
    /// Adds text of the page.
    pub(super) fn text(&mut self, text: &str) {
        let mut characters = text.chars().peekable();
        let mut previous = self.text.chars().next_back().filter(|_| !self.space);
        while let Some(character) = characters.next() {
            if is_invisible(character) {
                continue;
            }
            if character.is_whitespace() {
                self.space = true;
                previous = None;
                continue;
            }
            self.emit_space();
            if needs_escape(character, previous, &mut characters) {
                self.text.push('\\');
            }
            self.text.push(character);
            previous = Some(character);
        }
    }

    /// Adds Markdown as it is.
    pub(super) fn markup(&mut self, markup: &str) {
        self.emit_space();
        self.text.push_str(markup);
    }

    /// Adds white space.
    pub(super) fn space(&mut self) {
        self.space = true;
    }

    /// Ends the line.
    pub(super) fn break_line(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.space = false;
    }

    /// The place reached.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            position: self.text.len(),
            taken: self.taken,
        }
    }

    /// Cuts off what was added since `mark`, without white space at its edges. Nothing when that is
    /// nothing, or when a paragraph ended in between.
    pub(super) fn cut(&mut self, mark: Mark) -> Option<String> {
        if mark.taken != self.taken || self.text.len() <= mark.position {
            return None;
        }
        let added = self.text.split_off(mark.position);
        let content = added.trim();
        if content.is_empty() {
            self.text.push_str(&added);
            return None;
        }
        if added.starts_with(char::is_whitespace) {
            self.space = true;
        }
        Some(content.to_owned())
    }

    /// Puts `marker` around what was added since `mark`.
    pub(super) fn wrap(&mut self, mark: Mark, marker: &str) {
        let trailing = self.space;
        let Some(content) = self.cut(mark) else {
            return;
        };
        let marked = content.starts_with(marker) && content.ends_with(marker);
        if marked || content.contains('\n') {
            self.markup(&content);
        } else if !self.space && self.text.ends_with(marker) {
            // Two that touch are one.
            self.text.truncate(self.text.len() - marker.len());
            self.markup(&format!("{content}{marker}"));
        } else {
            self.markup(&format!("{marker}{content}{marker}"));
        }
        self.space = trailing;
    }

    /// Adds a link around what was added since `mark`.
    pub(super) fn link(&mut self, mark: Mark, url: &str) {
        let trailing = self.space;
        if let Some(content) = self.cut(mark) {
            let content = content.replace('\n', " ");
            self.markup(&format!("[{content}]({})", destination(url)));
            self.space = trailing;
        }
    }

    /// Adds code.
    pub(super) fn code(&mut self, code: &str) {
        let code = collapse(code);
        let code = code.trim();
        if code.is_empty() {
            return;
        }
        let fence = "`".repeat(longest_run(code, '`') + 1);
        let pad = if code.starts_with('`') || code.ends_with('`') {
            " "
        } else {
            ""
        };
        self.markup(&format!("{fence}{pad}{code}{pad}{fence}"));
    }

    /// The paragraph, which is begun anew.
    pub(super) fn take(&mut self) -> String {
        self.taken += 1;
        self.space = false;
        let text = std::mem::take(&mut self.text);
        text.trim().to_owned()
    }

    fn emit_space(&mut self) {
        if std::mem::take(&mut self.space) && !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push(' ');
        }
    }
}

/// Soft hyphens, zero-width characters and marks of byte order.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{200b}' | '\u{200c}' | '\u{2060}' | '\u{feff}'
    )
}

/// Whether `character` would read as markup where it stands.
fn needs_escape(
    character: char,
    previous: Option<char>,
    rest: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> bool {
    let next = rest.peek().copied();
    let is_word = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    let is_open = |character: Option<char>| character.is_none_or(char::is_whitespace);
    match character {
        '`' => true,
        '*' => !(is_open(previous) && is_open(next)),
        '_' => !(is_word(previous) && is_word(next) || is_open(previous) && is_open(next)),
        // One that cannot end anything struck out leaves none that could begin it.
        '~' => !is_open(previous) || next == Some('~'),
        '\\' => next.is_none_or(|next| next.is_ascii_punctuation()),
        '<' => next.is_none_or(|next| next.is_ascii_alphabetic() || matches!(next, '/' | '!' | '?')),
        '&' => {
            next.is_none_or(|next| next.is_ascii_alphabetic() || next == '#') && begins_entity(rest.clone())
        }
        ']' => matches!(next, Some('(' | '[')),
        _ => false,
    }
}

fn begins_entity(rest: impl Iterator<Item = char>) -> bool {
    rest.take(33)
        .find(|character| !character.is_ascii_alphanumeric() && *character != '#')
        == Some(';')
}

/// Text with everything escaped that would read as markup within a line.
pub(super) fn escape(text: &str) -> String {
    let mut inline = Inline::default();
    inline.text(text);
    inline.take()
}

/// A line of a paragraph with what would make it another block escaped.
pub(super) fn escape_line_start(line: &str) -> String {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let (number, after) = line.split_at(digits);
    let mark = after.chars().next();
    let spaced = after.chars().nth(1).is_none_or(char::is_whitespace);
    let hashes = line.len() - line.trim_start_matches('#').len();
    let is_rule = |mark: char| {
        let only_marks = line
            .chars()
            .all(|character| character == mark || character == ' ');
        only_marks && line.contains(mark)
    };
    let escaped_at = if (1..=9).contains(&digits) && matches!(mark, Some('.' | ')')) && spaced {
        Some(number.len())
    } else if digits == 0 && matches!(mark, Some('-' | '+' | '*')) && spaced
        || line.starts_with('>')
        || (1..=6).contains(&hashes) && line.chars().nth(hashes).is_none_or(char::is_whitespace)
        || line.starts_with("~~~")
        || is_rule('-')
        || is_rule('=')
    {
        Some(0)
    } else {
        None
    };
    match escaped_at.map(|at| line.split_at(at)) {
        Some((before, after)) => format!("{before}\\{after}"),
        None => line.to_owned(),
    }
}

/// A URL as it stands in a link.
pub(super) fn destination(url: &str) -> String {
    let mut destination = String::with_capacity(url.len());
    for character in url.chars() {
        match character {
            '(' => destination.push_str("%28"),
            ')' => destination.push_str("%29"),
            '<' => destination.push_str("%3C"),
            '>' => destination.push_str("%3E"),
            character if character.is_whitespace() => destination.push_str("%20"),
            character => destination.push(character),
        }
    }
    destination
}

/// Text with every run of white space as one blank.
pub(super) fn collapse(text: &str) -> String {
    let mut collapsed = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !collapsed.is_empty() {
            collapsed.push(' ');
        }
        collapsed.extend(word.chars().filter(|character| !is_invisible(*character)));
    }
    collapsed
}

/// The longest run of `character`.
pub(super) fn longest_run(text: &str, character: char) -> usize {
    let (mut longest, mut run) = (0, 0);
    for found in text.chars() {
        run = if found == character { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}
