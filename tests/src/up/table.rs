//! Tables for the terminal.

use super::probe::Outcome;

/// A table with columns as wide as their widest cell.
pub(super) fn render(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut all = vec![heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let width = |column: usize| {
        all.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..heads.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &all {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Requests per backend, for each Service.
pub(super) fn outcomes(outcomes: &[Outcome]) -> String {
    let rows = outcomes.iter().map(|outcome| {
        let shares: Vec<String> = outcome
            .pods
            .iter()
            .map(|(name, _)| format!("{name} {}", outcome.report.from(name)))
            .collect();
        let failed = outcome.report.failed().to_string();
        vec![
            outcome.service.clone(),
            outcome.algorithm.clone(),
            outcome.report.ok.to_string(),
            failed,
            shares.join("  "),
        ]
    });
    render(&["SERVICE", "ALGORITHM", "ANSWERED", "FAILED", "BY"], rows.collect())
}
