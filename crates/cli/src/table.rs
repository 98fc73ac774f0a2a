//! Columns for the terminal: aligned, the last one ragged, no lines.

use std::io::{self, Write};

use anstyle::Style;

use crate::show::{DIM, styled};

/// One cell: foreign text must have come through [`crate::show::one_line`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a style.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), style: Style::new() }
    }
}

/// A heading, and whether its column is aligned right (numbers).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column<'t> {
    title: &'t str,
    is_right: bool,
}

/// A column of text.
pub(crate) const fn left(title: &str) -> Column<'_> {
    Column { title, is_right: false }
}

/// A column of numbers.
pub(crate) const fn right(title: &str) -> Column<'_> {
    Column { title, is_right: true }
}

/// Writes a table with headings.
pub(crate) fn write(
    out: &mut impl Write,
    columns: &[Column<'_>],
    rows: Vec<Vec<Cell>>,
) -> io::Result<()> {
    let heading = columns.iter().map(|column| Cell::styled(column.title, DIM)).collect();
    let rows: Vec<Vec<Cell>> = std::iter::once(heading).chain(rows).collect();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(Cell::width).max();
    let widths: Vec<usize> = (0..columns.len()).map(|at| width(at).unwrap_or(0)).collect();
    for row in &rows {
        let mut line = String::new();
        for (at, (cell, column)) in row.iter().zip(columns).enumerate() {
            let pad = " ".repeat(widths[at] - cell.width());
            let text = styled(cell.style, &cell.text);
            line += &if column.is_right { format!("{pad}{text}") } else { format!("{text}{pad}") };
            line += "  ";
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

impl Cell {
    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        let rows = vec![
            vec!["fraud".into(), "12".into(), "a reason".into()],
            vec!["shop-order".into(), "1,204".into(), Cell::default()],
        ];
        write(&mut out, &[left("AGENT"), right("SPANS"), left("WHY")], rows).expect("written");
        let text = anstream::adapter::strip_bytes(&out).into_vec();
        insta::assert_snapshot!(String::from_utf8(text).expect("text"), @r"
        AGENT       SPANS  WHY
        fraud          12  a reason
        shop-order  1,204
        ");
    }
}
