//! Lines that a book repeats at the edge of its pages: the name of the chapter, of the book, its number.
//!
//! The reader of PDFs drops those that stand on most pages. Names of chapters stand on some only, are large
//! enough to pass for headings, and would cut a chapter into pieces, so they are found here: a line at the
//! edge of a page that is at the edge of others as well, or that repeats the number and name of a heading
//! that was there before.

use std::collections::{HashMap, HashSet};

/// On how many pages a line has to be at the edge.
const MIN_PAGES: usize = 3;
/// The longest line that is looked at, in bytes.
const MAX_LINE_BYTES: usize = 160;

/// How the reader writes where a page begins.
fn is_page_mark(line: &str) -> bool {
    line.strip_prefix("<!-- Page ")
        .and_then(|rest| rest.strip_suffix(" -->"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The text without the marks of pages and without the lines at their edges that repeat.
pub(super) fn drop_running_lines(marked: &str) -> String {
    let lines: Vec<&str> = marked.lines().collect();
    let mut edges = Vec::new();
    let mut begin = 0;
    for (end, _) in lines
        .iter()
        .enumerate()
        .filter(|(_, line)| is_page_mark(line))
        .chain([(lines.len(), &"")])
    {
        let page = begin..end;
        let first = page.clone().find(|line| !lines[*line].trim().is_empty());
        let last = page.rev().find(|line| !lines[*line].trim().is_empty());
        edges.extend(first.map(|line| (line, true)));
        edges.extend(last.filter(|last| first != Some(*last)).map(|line| (line, false)));
        begin = end + 1;
    }
    // On how many pages, and the least of its ranks.
    let mut found_at: HashMap<String, (usize, usize)> = HashMap::new();
    for (line, _) in &edges {
        if let Some(key) = key(lines[*line]) {
            let (pages, least) = found_at.entry(key).or_default();
            *pages += 1;
            *least = rank(lines[*line]).max(*least);
        }
    }
    let edges: HashMap<usize, bool> = edges.into_iter().collect();
    let mut headings = HashSet::new();
    let mut text = String::with_capacity(marked.len());
    let mut blank = 0;
    for (number, line) in lines.iter().enumerate() {
        if is_page_mark(line) {
            continue;
        }
        let found = key(line);
        let repeats = match (&found, edges.get(&number)) {
            (Some(key), Some(first)) => {
                let again = *first && is_heading(line) && headings.contains(key);
                // The title of a book is larger than its repetition above the pages.
                let runs = found_at
                    .get(key)
                    .is_some_and(|(pages, least)| *pages >= MIN_PAGES && rank(line) >= *least);
                runs || again
            }
            (None, _) | (_, None) => false,
        };
        if repeats {
            continue;
        }
        if let Some(key) =
            found.filter(|key| is_heading(line) && key.bytes().any(|byte| byte.is_ascii_digit()))
        {
            headings.insert(key);
        }
        // What was dropped leaves blank lines on both sides.
        blank = if line.trim().is_empty() { blank + 1 } else { 0 };
        if blank < 2 {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.trim().to_owned()
}

fn is_heading(line: &str) -> bool {
    line.starts_with('#')
}

/// The level of a heading, or what is below all of them.
fn rank(line: &str) -> usize {
    match line.bytes().take_while(|byte| *byte == b'#').count() {
        0 => usize::MAX,
        level => level,
    }
}

/// What makes two lines the same: letters and digits without the page's number at either end. `None` for
/// what is no running line: rows of tables, items of lists, long lines.
fn key(line: &str) -> Option<String> {
    let line = line.trim();
    if line.len() > MAX_LINE_BYTES || line.starts_with(['|', '-', '`', '>']) {
        return None;
    }
    let words: Vec<&str> = line
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let is_number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
    // A heading's number is a part of its name, not the page's.
    let words = match words.as_slice() {
        [rest @ .., last] if is_number(last) && rest.len() > 1 => rest,
        [first, rest @ ..] if is_number(first) && rest.len() > 1 && !is_heading(line) => rest,
        words => words,
    };
    let has_letters = words.iter().any(|word| !is_number(word));
    has_letters.then(|| words.join(" ").to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_chapters_at_the_top_of_pages_are_dropped() {
        let text = "<!-- Page 1 -->\n\n# 1 Birds\n\nBirds fly.\n\n<!-- Page 2 -->\n\n##### 1. Birds\n\nMore.\n\n\
            <!-- Page 3 -->\n\n# 2 Fish\n\nFish swim.\n\n- Fish\n\nA book 3\n<!-- Page 4 -->\n##### 2. Fish\n\n\
            Fish rest.\n\nA book 4\n<!-- Page 5 -->\nEnd.\n\n5 A book\n";
        assert_eq!(
            drop_running_lines(text),
            "# 1 Birds\n\nBirds fly.\n\nMore.\n\n# 2 Fish\n\nFish swim.\n\n- Fish\n\nFish rest.\n\nEnd."
        );
    }

    #[test]
    fn the_title_of_a_book_stays_where_it_is_larger_than_above_the_pages() {
        let text = "<!-- Page 1 -->\n# Birds\n\na\n<!-- Page 2 -->\n##### Birds\nb\n<!-- Page 3 -->\n##### Birds\nc\n";
        assert_eq!(drop_running_lines(text), "# Birds\n\na\nb\nc");
    }

    #[test]
    fn what_repeats_elsewhere_or_is_no_heading_with_a_number_stays() {
        let text = "<!-- Page 1 -->\n### Example\n\na\n\nsame\n\nb\n<!-- Page 2 -->\n### Example\n\nc\n\nsame\n\nd\n\
            <!-- Page 3 -->\n| a |\n<!-- Page 4 -->\n| a |\n<!-- Page 5 -->\n| a |";
        let kept = drop_running_lines(text);
        assert_eq!(kept.matches("### Example").count(), 2);
        assert_eq!(kept.matches("same").count(), 2);
        assert_eq!(kept.matches("| a |").count(), 3);
        assert!(!kept.contains("<!--"));
    }

    #[test]
    fn a_text_without_pages_stays() {
        assert_eq!(drop_running_lines(""), "");
        assert_eq!(drop_running_lines("a\n\n\nb\n"), "a\n\nb");
    }
}
