//! Markdown tables: the full one for docs/performance.md, and a small one for the README.

use std::fmt::Write;
use std::path::Path;

use super::{Cell, OWN, Outcome, digits};
use crate::Result;
use crate::check::{CHECKS, Verdict};
use crate::work::metric_named;

/// The marks around a table in a page.
const MARKS: (&str, &str) =
    ("<!-- scripts/bench.sh --update-docs: begin -->\n", "<!-- scripts/bench.sh --update-docs: end -->\n");

/// The servers of the small table and of the chart beside edgecho, with short names: the best one of each kind.
pub(super) const NAMES: [(&str, &str); 6] = [
    ("C reference", "C reference"),
    ("mio", "mio"),
    ("tokio, current thread", "tokio"),
    ("io_uring", "io_uring"),
    ("Go net", "Go"),
    ("std, thread per connection", "threads"),
];

/// The rows of the small table, with their captions.
const ROWS: [(&str, &str); 5] = [
    ("64 B, 50 connections: CPU per message", "CPU per message, 64 B, 50 connections"),
    ("64 B, 1,000 connections: CPU per message", "CPU per message, 64 B, 1,000 connections"),
    ("connect, echo, close: CPU per connection", "CPU per connection: connect, echo, close"),
    ("bulk, 8 connections", "bulk echo, 8 connections"),
    ("memory per idle connection, of 1,000", "memory per idle connection, of 1,000"),
];

/// Returns the full table: a row for each check and each metric, a column for each server.
pub fn markdown(outcome: &Outcome) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "Measured: {}\n", outcome.about());
    let heads: Vec<String> = outcome.peers.iter().enumerate().map(|(place, peer)| name(outcome, place, peer)).collect();
    let _ = writeln!(text, "| | {} |\n|---{}|", heads.join(" | "), "|--:".repeat(heads.len()));
    for (check, (name, _)) in CHECKS.iter().enumerate().take(if outcome.checks.is_empty() { 0 } else { CHECKS.len() }) {
        let marks: Vec<&str> = outcome.checks.iter().map(|results| mark(&results[check])).collect();
        let _ = writeln!(text, "| check: {name} | {} |", marks.join(" | "));
    }
    for (metric, cells) in outcome.listed() {
        let best = outcome.best(metric, cells);
        let values = cells.iter().enumerate().map(|(place, cell)| {
            let value = value_or_ratio(outcome, cells, place, cell);
            if best == Some(place) { format!("**{value}**") } else { value }
        });
        let _ = writeln!(text, "| {}, {} | {} |", metric.name, metric.unit, values.collect::<Vec<_>>().join(" | "));
    }
    text.push_str("\nThe column of edgecho has figures, the others ratios to them.");
    if outcome.names_winners() {
        text.push_str(
            " Bold: better than all others beyond the noise. No bold: the servers are too close, or the machine too noisy, to tell.",
        );
    }
    text.push_str(" † failed a check other than the orderly stop, and wins nothing.\n");
    for (metric, cells) in outcome.listed() {
        let ahead = outcome.ahead(metric, cells);
        if !ahead.is_empty() {
            let _ = write!(text, "\n- edgecho is behind in \"{}\": {}.", metric.name, ahead.join("; "));
        }
    }
    text.push('\n');
    for (peer, results) in outcome.peers.iter().zip(&outcome.checks) {
        for ((check, _), why) in CHECKS.iter().zip(results).filter_map(|(check, verdict)| Some((check, verdict.failure()?)))
        {
            let _ = write!(text, "\n- {peer} failed {check}: {why}.");
        }
    }
    for (peer, why) in &outcome.missing {
        let _ = write!(text, "\n- {peer} is missing: {why}.");
    }
    text.trim_end().to_owned() + "\n"
}

/// Returns edgecho's figure, another server's ratio to it, or that server's figure if edgecho has none.
fn value_or_ratio(outcome: &Outcome, cells: &[Cell], place: usize, cell: &Cell) -> String {
    let Some(median) = cell.median() else { return "–".to_owned() };
    match outcome.own().filter(|&own| own != place).and_then(|own| cell.ratio(&cells[own])) {
        Some(ratio) => format!("{ratio:.2}"),
        None => digits(median),
    }
}

/// Returns the small table for the README: edgecho, the C reference, and the best server of each kind.
///
/// # Errors
/// If the results lack edgecho or a row.
pub fn summary(outcome: &Outcome) -> Result<String> {
    let (own, others) = own_and_others(outcome)?;
    let heads: Vec<&str> = std::iter::once(OWN).chain(others.iter().map(|&(_, name)| name)).collect();
    let mut text = format!("| | {} |\n|---{}|\n", heads.join(" | "), "|--:".repeat(heads.len()));
    for (row, caption) in ROWS {
        let cells = outcome.row(row).ok_or_else(|| format!("the small table needs the row '{row}'"))?;
        let unit = metric_named(row).ok_or("the small table has an unknown row")?.unit;
        let figure = cells[own].median().map_or_else(|| "–".to_owned(), |median| format!("{} {unit}", digits(median)));
        let ratios = others.iter().map(|&(place, _)| value_or_ratio(outcome, cells, place, &cells[place]));
        let values: Vec<String> = std::iter::once(figure).chain(ratios).collect();
        writeln!(text, "| {caption} | {} |", values.join(" | "))?;
    }
    Ok(text)
}

/// Returns the place of edgecho, and the places and short names of the others that were measured.
pub(super) fn own_and_others(outcome: &Outcome) -> Result<(usize, Vec<(usize, &'static str)>)> {
    let own = outcome.own().ok_or("edgecho was not measured")?;
    let place = |name: &str| outcome.peers.iter().position(|peer| peer == name);
    Ok((own, NAMES.into_iter().filter_map(|(name, short)| Some((place(name)?, short))).collect()))
}

fn mark(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "yes",
        Verdict::NotAsked => "–",
        Verdict::Failed(_) => "**no**",
    }
}

fn name(outcome: &Outcome, place: usize, peer: &str) -> String {
    if outcome.is_sound(place) { peer.to_owned() } else { format!("{peer} †") }
}

/// Replaces the table between the marks of a page.
///
/// # Errors
/// If the page has no marks.
pub fn replace_table(path: &Path, table: &str) -> Result<()> {
    let page = std::fs::read_to_string(path)?;
    let page = replaced(&page, table).ok_or_else(|| format!("{} has no marks for a table", path.display()))?;
    std::fs::write(path, page)?;
    Ok(())
}

fn replaced(page: &str, table: &str) -> Option<String> {
    let begin = page.find(MARKS.0)? + MARKS.0.len();
    let end = begin + page[begin..].find(MARKS.1)?;
    Some(format!("{}\n{table}\n{}", &page[..begin], &page[end..]))
}

#[cfg(test)]
pub(super) fn summary_rows() -> Vec<&'static str> {
    ROWS.map(|(row, _)| row).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn the_small_table_has_a_figure_with_its_unit_and_ratios() {
        let text = summary(&outcome(3, &summary_rows())).expect("all rows");
        assert!(text.starts_with("| | edgecho | mio |\n|---|--:|--:|\n"), "{text}");
        assert!(text.contains("| CPU per message, 64 B, 50 connections | 4.00 µs | 0.50 |\n"), "{text}");
        assert!(text.contains("| bulk echo, 8 connections | 2.00 MB/s | 2.00 |\n"), "{text}");
    }

    #[test]
    fn a_table_replaces_the_old_one_between_the_marks() {
        let page = format!("before\n{}\nold\n{}after\n", MARKS.0, MARKS.1);
        assert_eq!(replaced(&page, "new\n"), Some(format!("before\n{}\nnew\n\n{}after\n", MARKS.0, MARKS.1)));
        assert_eq!(replaced("a page without marks", "new\n"), None);
    }
}
