//! The table for the README.

use std::fmt::Write;

use super::{Outcome, digits};
use crate::check::CHECKS;

/// Servers as rows, so that the table stays narrow enough to be read.
pub fn markdown(outcome: &Outcome) -> String {
    let mut text = String::new();
    let about: Vec<String> = outcome.machine.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let _ = writeln!(
        text,
        "Measured: {}. Server on CPU 0, driver on CPU 1, in turns; medians, and in brackets the ratio to edgecho.\n",
        about.join("; ")
    );
    if !outcome.checks.is_empty() {
        let _ = writeln!(text, "| | {} |", CHECKS.map(|(name, _)| name).join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(CHECKS.len()));
        for (peer, results) in outcome.peers.iter().zip(&outcome.checks) {
            let marks: Vec<&str> = results.iter().map(|failure| if failure.is_none() { "yes" } else { "**no**" }).collect();
            let _ = writeln!(text, "| {peer} | {} |", marks.join(" | "));
        }
        text.push('\n');
    }
    for (metric, cells) in &outcome.rows {
        let best = outcome.best(metric, cells);
        let own = outcome.peers.iter().position(|&peer| peer == "edgecho");
        let shown: Vec<String> = outcome
            .peers
            .iter()
            .zip(cells)
            .enumerate()
            .map(|(place, (peer, cell))| {
                let mark = if outcome.is_sound(place) { "" } else { "†" };
                let Some(median) = cell.median() else { return format!("{peer}{mark} –") };
                let value = digits(median);
                let value = if best == Some(place) { format!("**{value}**") } else { value };
                match own.filter(|&own| own != place).and_then(|own| cell.ratio(&cells[own])) {
                    Some(ratio) => format!("{peer}{mark} {value} ({ratio:.2})"),
                    None => format!("{peer}{mark} {value}"),
                }
            })
            .collect();
        let verdict = if best.is_some() { "" } else { " *Too close, or too noisy, to name a winner.*" };
        let _ = writeln!(text, "- {}, {}: {}.{verdict}", metric.name, metric.unit, shown.join("; "));
    }
    if outcome.checks.iter().flatten().any(Option::is_some) {
        let _ = writeln!(text, "\n† failed a check other than that of the end, and wins nothing. What failed:");
        for (peer, results) in outcome.peers.iter().zip(&outcome.checks) {
            for ((name, _), failure) in CHECKS.iter().zip(results) {
                if let Some(failure) = failure {
                    let _ = writeln!(text, "- {peer}, {name}: {failure}");
                }
            }
        }
    }
    for (peer, why) in &outcome.missing {
        let _ = writeln!(text, "\n{peer} is missing: {why}");
    }
    text
}
