//! Columns for people, JSON for programs: how every command prints. Called by the other files of [`commands`](super).

use std::io::{self, Write};

use serde::Serialize;

use crate::config::Output;

/// Prints rows in columns under a title each, or `json`.
///
/// # Errors
/// Standard output can't be written; a reader that went away is none.
pub(super) fn print<const N: usize>(
    output: Output,
    titles: [&str; N],
    rows: &[[String; N]],
    json: &impl Serialize,
) -> anyhow::Result<()> {
    match output {
        Output::Table => write(&columns(titles, rows)),
        Output::Json => print_json(json),
    }
}

/// Prints `json` with indentation.
///
/// # Errors
/// As [`print`].
pub(super) fn print_json(json: &impl Serialize) -> anyhow::Result<()> {
    write(&(serde_json::to_string_pretty(json)? + "\n"))
}

/// Prints text.
///
/// # Errors
/// As [`print`].
pub(super) fn write(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Rows under titles, every column as wide as its widest cell.
pub(super) fn columns<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([titles[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..N).map(width).collect();
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let head = if N > 0 { line(titles) } else { String::new() };
    rows.iter().fold(head, |text, row| {
        text + &line(std::array::from_fn(|column| row[column].as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".into(), "long cell".into()], ["longer".into(), "b".into()]];
        assert_eq!(columns(["X", "Y"], &rows), "X       Y\na       long cell\nlonger  b\n");
    }
}
