// SPDX-License-Identifier: Apache-2.0
//! Tables: a heading, then a line for each thing, in columns as wide as their widest cell.
//!
//! Cells come from the runtime and from images. They are escaped, so that none can end its line or command the
//! terminal (see [`hull_escape`]).

/// Spaces between two columns.
const GAP: usize = 3;

/// Widest column: one huge cell must not be paid for in spaces by all others.
const WIDEST: usize = 120;

use hull_escape::escape;

/// A table in the making.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<'a>(headings: impl IntoIterator<Item = &'a str>) -> Self {
        Self { rows: vec![headings.into_iter().map(str::to_owned).collect()] }
    }

    /// Adds a line.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| escape(&cell).into_owned()).collect());
    }

    /// The text. Every line but an empty one ends in its last cell, not in spaces.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .min(WIDEST)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + GAP));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["ID", "NAME", "STATE"]);
        table.row(["0123456789abc".into(), "a".into(), "Running".into()]);
        table.row(["0".into(), "längst".into(), String::new()]);
        assert_eq!(
            table.render(),
            "ID              NAME     STATE\n0123456789abc   a        Running\n0               längst\n"
        );
    }

    proptest! {
        #[test]
        fn a_row_is_a_line_whatever_its_cells(cells in prop::collection::vec(any::<String>(), 1..5)) {
            let mut table = Table::new(["A", "B"]);
            table.row(cells);
            let text = table.render();
            prop_assert_eq!(text.lines().count(), 2);
            prop_assert!(!text.trim_end_matches('\n').contains(|c: char| hull_escape::is_unsafe(c) && c != '\n'));
        }
    }
}
