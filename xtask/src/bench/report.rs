//! The throughput table as text.

use std::fmt::Write as _;

use super::{measure::Cell, rows::Row};

/// The table: a line for each row, a column for each peer. Microseconds of the proxy's CPU time
/// for each request (thousands of requests per second).
pub(super) fn table(rows: &[Row], peers: &[String], cells: &[Cell]) -> String {
    let mut text = format!("{:<22}", "us CPU per request");
    for peer in peers {
        let _ = write!(text, " {peer:>16}");
    }
    text.push('\n');
    for row in rows {
        let _ = write!(text, "{:<22}", row.name);
        for peer in peers {
            let cell = cells.iter().find(|cell| cell.row == row.name && cell.peer == *peer);
            let _ = write!(text, " {:>16}", cell.map_or("-".to_owned(), figure));
        }
        text.push('\n');
    }
    text + &notes(cells)
}

/// A cell as it is printed while the bench runs.
pub(super) fn line(cell: &Cell) -> String {
    let share = cell.share().map_or(String::new(), |share| format!("  copies {share:.3}"));
    format!("{:<22} {:<16} {}{share}", cell.row, cell.peer, figure(cell))
}

fn figure(cell: &Cell) -> String {
    let rate = cell.median(|sample| Some(sample.rate / 1e3));
    let mark = if cell.void().is_some() { "*" } else { "" };
    match (cell.median(|sample| sample.cpu_us), rate) {
        (Some(cpu), Some(rate)) => format!("{cpu:.1} ({rate:.1}k){mark}"),
        (None, Some(rate)) => format!("({rate:.1}k)"),
        _ if cell.failures.is_empty() => "-".to_owned(),
        _ => "failed".to_owned(),
    }
}

/// Shares of copies, and what failed.
fn notes(cells: &[Cell]) -> String {
    let mut text = "\ncopies logged by the shadow / copies selected, the worst run:\n".to_owned();
    for cell in cells {
        if let Some(share) = cell.share() {
            let _ = writeln!(text, "  {:<22} {:<16} {share:.3}", cell.row, cell.peer);
        }
    }
    for cell in cells {
        if let Some(reason) = cell.void() {
            let _ = writeln!(text, "* VOID: {}, {}: {reason}", cell.row, cell.peer);
        }
        for failure in &cell.failures {
            let _ = writeln!(text, "FAILED: {}, {}: {failure}", cell.row, cell.peer);
        }
    }
    text
}
