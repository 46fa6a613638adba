//! Comma-separated values to one Markdown table, whose first row is its head.

use super::text;
use crate::parse::answer::{Converted, Failure};

/// What may stand between two values, the likeliest first.
const DELIMITERS: [u8; 4] = *b",;\t|";

/// Converts a table.
pub(super) fn convert(content: &[u8]) -> Result<Converted, Failure> {
    let text = text::decode(content);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter(&text))
        .from_reader(text.as_bytes());
    let mut rows: Vec<csv::StringRecord> = Vec::new();
    for row in reader.records() {
        let row = row.map_err(Failure::damaged)?;
        // A line of separators alone, as spreadsheets write below their data.
        if row.iter().any(|value| !value.trim().is_empty()) {
            rows.push(row);
        }
    }
    let columns = rows.iter().map(csv::StringRecord::len).max().unwrap_or(0);
    let mut markdown = String::with_capacity(text.len() + text.len() / 2);
    for (position, row) in rows.iter().enumerate() {
        for column in 0..columns {
            markdown.push_str(if column == 0 { "| " } else { " | " });
            push_value(&mut markdown, row.get(column).unwrap_or_default());
        }
        markdown.push_str(" |\n");
        if position == 0 {
            markdown.push_str(&"| --- ".repeat(columns));
            markdown.push_str("|\n");
        }
    }
    Ok(Converted {
        markdown,
        ..Converted::default()
    })
}

/// The one that the first line has most often; a comma where it has none.
fn delimiter(text: &str) -> u8 {
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    let mut quoted = false;
    let mut counts = [0_usize; DELIMITERS.len()];
    for byte in first.bytes() {
        if byte == b'"' {
            quoted = !quoted;
        } else if !quoted && let Some(found) = DELIMITERS.iter().position(|known| *known == byte) {
            counts[found] += 1;
        }
    }
    let mut best = 0;
    for (position, count) in counts.iter().enumerate() {
        if *count > counts[best] {
            best = position;
        }
    }
    DELIMITERS[best]
}

/// Writes one cell: a table's row is one line.
fn push_value(markdown: &mut String, value: &str) {
    let mut lines = value.trim().lines().map(str::trim);
    if let Some(first) = lines.next() {
        push_escaped(markdown, first);
    }
    for line in lines {
        markdown.push_str("<br>");
        push_escaped(markdown, line);
    }
}

fn push_escaped(markdown: &mut String, text: &str) {
    for character in text.chars() {
        if character == '|' {
            markdown.push('\\');
        }
        markdown.push(character);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn markdown(content: &[u8]) -> String {
        convert(content).unwrap().markdown
    }

    #[test]
    fn rows_become_a_table() {
        assert_eq!(
            markdown(b"name,note\r\n\"Bolt, M6\",\"a \"\"b\"\"\nc|d\"\r\nNut\r\n,,\r\n"),
            "| name | note |  |\n| --- | --- | --- |\n| Bolt, M6 | a \"b\"<br>c\\|d |  |\n| Nut |  |  |\n"
                .replace(" |  |\n", " |\n")
                .replace("| --- | --- | --- |", "| --- | --- |")
        );
    }

    #[test]
    fn the_delimiter_is_the_one_of_the_first_line() {
        for (content, row) in [
            ("a;b;c,d\n1;2;3\n", "| 1 | 2 | 3 |"),
            ("a\tb\n1\t2,5\n", "| 1 | 2,5 |"),
            ("\"a;b;c\",d\n1,2\n", "| 1 | 2 |"),
            ("one\n1\n", "| 1 |"),
        ] {
            assert!(markdown(content.as_bytes()).contains(row), "{content}");
        }
    }

    #[test]
    fn nothing_is_an_empty_text() {
        assert_eq!(markdown(b""), "");
        assert_eq!(markdown(b",,\n\n"), "");
    }
}
