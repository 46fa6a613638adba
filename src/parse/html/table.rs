//! Tables of data; those that only arrange a page are read as what is in them.

use super::{
    block::Writer,
    content::is_surrounding,
    dom::{Document, NodeId},
    inline::collapse,
};

/// The most columns of a table.
const MAX_COLUMNS: usize = 64;
/// The most cells of a table, those that spread over several counted as often.
const MAX_CELLS: usize = 200_000;
/// The longest text that is repeated in every row that its cell spans, in bytes.
const MAX_REPEATED_BYTES: usize = 256;

/// One cell where it begins.
struct Cell {
    id: NodeId,
    is_header: bool,
    columns: usize,
    rows: usize,
}

/// The table at `id` in GitHub's form, with the caption before it; none where it is no table of data.
///
/// A cell that spans rows is repeated in each, so that every line can be read alone.
pub(super) fn convert(writer: &Writer<'_>, id: NodeId) -> Option<String> {
    let document = writer.document;
    if !is_data(document, id) {
        return None;
    }
    let rows = rows_of(document, id);
    let lines = grid(writer, &rows)?;
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let (header, body) = lines.split_first()?;
    // One column is a list and one row a line, whatever they are written as.
    if columns < 2 || body.is_empty() {
        return None;
    }
    let mut text = String::new();
    if let Some(caption) = caption(writer, id) {
        text.push_str(&caption);
        text.push_str("\n\n");
    }
    push_row(&mut text, header, columns);
    text.push('\n');
    text.push('|');
    text.push_str(&" --- |".repeat(columns));
    for row in body {
        text.push('\n');
        push_row(&mut text, row, columns);
    }
    Some(text)
}

fn is_data(document: &Document, id: NodeId) -> bool {
    let table = document.element(id);
    let role = table.and_then(|table| table.attribute("role"));
    let inside = document.walk(id, |node, element| {
        node != id && is_surrounding(document, node, element)
    });
    let has_blocks = inside
        .filter(|node| *node != id)
        .filter_map(|node| document.element(node))
        .any(|element| {
            matches!(
                &*element.name,
                "table" | "pre" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "dl" | "blockquote" | "article"
            )
        });
    !matches!(role, Some("presentation" | "none")) && !has_blocks
}

fn rows_of(document: &Document, id: NodeId) -> Vec<Vec<Cell>> {
    let sections = document
        .child_elements(id)
        .flat_map(|(child, element)| match &*element.name {
            "thead" | "tbody" | "tfoot" => document.child_elements(child).map(|(row, _)| row).collect(),
            "tr" => vec![child],
            _ => Vec::new(),
        });
    sections
        .map(|row| cells_of(document, row))
        .filter(|row| !row.is_empty())
        .collect()
}

fn cells_of(document: &Document, row: NodeId) -> Vec<Cell> {
    let span = |value: Option<&str>, most: usize| {
        value
            .and_then(|value| value.trim().parse::<usize>().ok())
            .unwrap_or(1)
            .clamp(1, most)
    };
    let cells = document
        .child_elements(row)
        .filter(|(id, element)| {
            matches!(&*element.name, "td" | "th") && !is_surrounding(document, *id, element)
        })
        .map(|(id, element)| Cell {
            id,
            is_header: &*element.name == "th",
            columns: span(element.attribute("colspan"), MAX_COLUMNS),
            rows: span(element.attribute("rowspan"), 1_000),
        });
    cells.collect()
}

/// The text of every cell by row and column.
fn grid(writer: &Writer<'_>, rows: &[Vec<Cell>]) -> Option<Vec<Vec<String>>> {
    let mut lines: Vec<Vec<String>> = Vec::with_capacity(rows.len());
    // Text that reaches down from the rows above, with the number of rows left, by column.
    let mut reaching: Vec<Option<(String, usize)>> = Vec::new();
    let mut count = 0;
    for row in rows {
        let mut line = Vec::with_capacity(row.len());
        let mut cells = row.iter();
        loop {
            let column = line.len();
            let from_above = reaching.get_mut(column).and_then(Option::take);
            if let Some((text, left)) = from_above {
                if left > 1 {
                    set(&mut reaching, column, (text.clone(), left - 1));
                }
                line.push(text);
            } else if let Some(cell) = cells.next() {
                let text = text_of(writer, cell);
                for offset in 0..cell.columns {
                    // The same text in each column would only be noise.
                    let text = if offset == 0 { text.clone() } else { String::new() };
                    if cell.rows > 1 {
                        let is_short = text.len() <= MAX_REPEATED_BYTES;
                        let repeated = if is_short { text.clone() } else { String::new() };
                        set(&mut reaching, line.len(), (repeated, cell.rows - 1));
                    }
                    line.push(text);
                }
            } else if reaching.iter().skip(column).any(Option::is_some) {
                line.push(String::new());
            } else {
                break;
            }
            count += 1;
            if line.len() > MAX_COLUMNS || count > MAX_CELLS {
                return None;
            }
        }
        if line.iter().any(|text| !text.is_empty()) {
            lines.push(line);
        }
    }
    Some(lines)
}

fn set(reaching: &mut Vec<Option<(String, usize)>>, column: usize, value: (String, usize)) {
    if reaching.len() <= column {
        reaching.resize(column + 1, None);
    }
    reaching[column] = Some(value);
}

fn text_of(writer: &Writer<'_>, cell: &Cell) -> String {
    let inner = Writer::new(writer.document, writer.base, writer.depth + 3);
    let mut inner = if cell.is_header { inner.plain() } else { inner };
    inner.children(cell.id);
    collapse(&inner.finish()).replace('|', "\\|")
}

fn caption(writer: &Writer<'_>, id: NodeId) -> Option<String> {
    let (caption, _) = writer
        .document
        .child_elements(id)
        .find(|(_, element)| &*element.name == "caption")?;
    let mut inner = Writer::new(writer.document, writer.base, writer.depth + 1);
    inner.children(caption);
    let text = collapse(&inner.finish());
    (!text.is_empty()).then_some(text)
}

fn push_row(text: &mut String, row: &[String], columns: usize) {
    text.push('|');
    for column in 0..columns {
        let cell = row.get(column).map_or("", String::as_str);
        text.push(' ');
        text.push_str(cell);
        if !cell.is_empty() {
            text.push(' ');
        }
        text.push('|');
    }
}
