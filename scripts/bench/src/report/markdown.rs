//! The table for the README.

use std::fmt::Write;
use std::path::Path;

use super::{Outcome, digits};
use crate::Result;
use crate::check::{CHECKS, Verdict};

/// Between these the README has the table.
const MARKS: (&str, &str) =
    ("<!-- scripts/bench.sh --update-readme: begin -->\n", "<!-- scripts/bench.sh --update-readme: end -->\n");

/// What was checked, and what was measured: a row for each metric, a column for each server.
pub fn markdown(outcome: &Outcome) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "Measured: {}\n", outcome.about());
    let heads: Vec<String> = outcome.peers.iter().enumerate().map(|(place, peer)| name(outcome, place, peer)).collect();
    let _ = writeln!(text, "| | {} |\n|---{}|", heads.join(" | "), "|--:".repeat(heads.len()));
    for (check, (name, _)) in CHECKS.iter().enumerate().take(if outcome.checks.is_empty() { 0 } else { CHECKS.len() }) {
        let marks: Vec<&str> = outcome.checks.iter().map(|results| mark(&results[check])).collect();
        let _ = writeln!(text, "| check: {name} | {} |", marks.join(" | "));
    }
    let own = outcome.own();
    for (metric, cells) in outcome.listed() {
        let best = outcome.best(metric, cells);
        let shown = cells.iter().enumerate().map(|(place, cell)| {
            let Some(median) = cell.median() else { return "–".to_owned() };
            let value = match own.filter(|&own| own != place).and_then(|own| cell.ratio(&cells[own])) {
                Some(ratio) => format!("{ratio:.2}"),
                None => digits(median),
            };
            if best == Some(place) { format!("**{value}**") } else { value }
        });
        let _ = writeln!(text, "| {}, {} | {} |", metric.name, metric.unit, shown.collect::<Vec<_>>().join(" | "));
    }
    text.push_str(
        "\nOf edgecho the figures, of the others the ratios to them; bold is who is better than all others beyond the noise (no bold: too \
         close, or too noisy, to tell). † has failed a check other than the last, and wins nothing.\n",
    );
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

/// Puts the table into the README, in place of the one that it has.
pub fn update_readme(path: &Path, table: &str) -> Result<()> {
    let readme = std::fs::read_to_string(path)?;
    let begin = readme.find(MARKS.0).ok_or("the README has no mark where the table begins")? + MARKS.0.len();
    let end = begin + readme[begin..].find(MARKS.1).ok_or("the README has no mark where the table ends")?;
    std::fs::write(path, format!("{}\n{table}\n{}", &readme[..begin], &readme[end..]))?;
    Ok(())
}
