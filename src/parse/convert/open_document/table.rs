//! Tables, in text and as the sheets of a spreadsheet.

use quick_xml::events::BytesStart;
use undoc::{Block, Cell, Row, Section, Table};

use super::BodyReader;
use crate::parse::{
    answer::Failure,
    convert::xml::{Piece, attribute, ended_early, number},
};

/// The most columns of a sheet that its formats know.
const MAX_COLUMNS: u32 = 16_384;

impl BodyReader<'_> {
    /// Reads the table that has just begun, without the empty rows and columns around its values.
    pub(super) fn table(&mut self) -> Result<Table, Failure> {
        let mut table = Table::new();
        self.rows(&mut table)?;
        while table.rows.last().is_some_and(|row| row.is_empty()) {
            table.rows.pop();
        }
        Ok(table)
    }

    /// Reads the sheets of a spreadsheet up to its end.
    pub(super) fn sheets(&mut self) -> Result<Vec<Section>, Failure> {
        let mut sheets = Vec::new();
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) if element.name().as_ref() == "table:table" => {
                    let name = attribute(&element, "table:name").unwrap_or_default();
                    let mut sheet = Section::with_name(sheets.len(), name);
                    let table = self.table()?;
                    if !table.is_empty() {
                        sheet.content.push(Block::Table(table));
                    }
                    sheet.content.append(&mut self.anchored);
                    sheets.push(sheet);
                }
                Piece::Start(_) => self.reader.skip()?,
                Piece::End => return Ok(sheets),
                Piece::Text(_) => {}
            }
        }
    }

    fn rows(&mut self, table: &mut Table) -> Result<(), Failure> {
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) => match element.name().as_ref() {
                    "table:table-row" => {
                        let repeated = number(&element, "table:number-rows-repeated").unwrap_or(1);
                        let row = self.row()?;
                        // Sheets end with a million empty rows; between values one is enough.
                        let repeated = if row.is_empty() { repeated.min(1) } else { repeated };
                        table.rows.extend(std::iter::repeat_n(row, repeated as usize));
                    }
                    "table:table-header-rows" | "table:table-rows" | "table:table-row-group" => {
                        self.rows(table)?;
                    }
                    "table:shapes" => {
                        let mut blocks = Vec::new();
                        self.blocks(None, &mut blocks)?;
                        self.anchored.append(&mut blocks);
                    }
                    _ => self.reader.skip()?,
                },
                Piece::End => return Ok(()),
                Piece::Text(_) => {}
            }
        }
    }

    fn row(&mut self) -> Result<Row, Failure> {
        let mut row = Row::new();
        // Written once a value follows.
        let mut empty = 0_u32;
        loop {
            match self.reader.next()?.ok_or_else(ended_early)? {
                Piece::Start(element) => match element.name().as_ref() {
                    "table:table-cell" => {
                        let repeated = number(&element, "table:number-columns-repeated").unwrap_or(1);
                        let cell = self.cell(&element)?;
                        if cell.is_empty() && cell.nested_tables.is_empty() && !cell.has_spans() {
                            empty = empty.saturating_add(repeated);
                            continue;
                        }
                        let width = row.cells.len() as u64 + u64::from(empty) + u64::from(repeated);
                        if width > u64::from(MAX_COLUMNS) {
                            return Err(Failure::damaged("a table has too many columns"));
                        }
                        let gap = std::iter::repeat_n(Cell::new(), empty as usize);
                        row.cells.extend(gap);
                        row.cells.extend(std::iter::repeat_n(cell, repeated as usize));
                        empty = 0;
                    }
                    // Cells under a merged one.
                    _ => self.reader.skip()?,
                },
                Piece::End => return Ok(row),
                Piece::Text(_) => {}
            }
        }
    }

    fn cell(&mut self, element: &BytesStart<'_>) -> Result<Cell, Failure> {
        let span = |name: &str| number(element, name).unwrap_or(1).clamp(1, MAX_COLUMNS);
        let mut cell = Cell::new();
        cell.col_span = span("table:number-columns-spanned");
        cell.row_span = span("table:number-rows-spanned");
        let mut blocks = Vec::new();
        self.blocks(None, &mut blocks)?;
        for block in blocks {
            match block {
                Block::Paragraph(paragraph) => cell.content.push(paragraph),
                Block::Table(table) => cell.nested_tables.push(table),
                Block::PageBreak | Block::SectionBreak | Block::Note { .. } | Block::Image { .. } => {}
            }
        }
        Ok(cell)
    }
}
