// SPDX-FileCopyrightText: The Stowage authors
// SPDX-License-Identifier: EUPL-1.2

//! Tables for people, and how figures are spelled in them.

/// A Markdown table whose columns line up in a terminal too.
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, mut row: Vec<String>) {
        row.resize_with(self.header.len(), dash);
        self.rows.push(row.into_iter().map(|cell| cell.replace(['|', '\n'], " ")).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.header]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |row: &[String]| {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:<width$} |"));
            format!("|{}\n", cells.collect::<String>())
        };
        let rule = line(&widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>());
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        line(&self.header) + &rule + &rows
    }
}

pub(crate) const MIB: f64 = 1_048_576.0;
pub(crate) const GIB: f64 = 1_073_741_824.0;

pub(crate) fn dash() -> String {
    "–".to_owned()
}

pub(crate) fn memory(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / MIB)
}

pub(crate) fn ratio(ours: f64, theirs: f64) -> String {
    format!("{:.2}x", ours / theirs)
}

pub(crate) fn number(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// Microseconds, in the unit that reads best.
pub(crate) fn time(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{} µs", number(micros)),
        1e3..1e6 => format!("{} ms", number(micros / 1e3)),
        _ => format!("{} s", number(micros / 1e6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_spelled_with_three_digits_and_a_fitting_unit() {
        let spelled =
            [time(7.126), time(43.21), time(999.0), time(4_321.0), time(1_300_000.0), number(1234.4)];
        assert_eq!(spelled, ["7.13 µs", "43.2 µs", "999 µs", "4.32 ms", "1.30 s", "1234"]);
        assert_eq!((memory(1_572_864.0), ratio(1.0, 3.0)), ("1.5 MiB".to_owned(), "0.33x".to_owned()));
    }

    #[test]
    fn columns_line_up_and_short_rows_are_filled() {
        let mut table = Table::new(&["a", "long"]);
        table.add(vec!["x|y".to_owned()]);
        assert_eq!(table.render(), "| a   | long |\n| --- | ---- |\n| x y | –    |\n");
    }
}
