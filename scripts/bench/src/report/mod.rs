//! What came of it: as a table for the README, as a page, and as JSON.

mod html;
mod markdown;

use std::process::Command;

use serde::Serialize;

pub use html::html;
pub use markdown::markdown;

use crate::Result;
use crate::check::CHECKS;
use crate::work::{Better, Metric};

/// What one server has come to in one row.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Round by round.
    pub values: Vec<f64>,
    /// Why there is none.
    pub failure: Option<String>,
}

impl Cell {
    /// The median; none where a round failed.
    pub fn median(&self) -> Option<f64> {
        if self.failure.is_some() || self.values.is_empty() {
            return None;
        }
        Some(median(self.values.clone()))
    }

    /// How far the rounds are apart: half of them are within so much of the median, as a share of it.
    pub fn spread(&self) -> f64 {
        let Some(middle) = self.median().filter(|&middle| middle != 0.0) else { return 0.0 };
        median(self.values.iter().map(|value| (value - middle).abs() / middle).collect())
    }

    /// The median of the ratios to another, round by round.
    pub fn ratio(&self, other: &Self) -> Option<f64> {
        self.median()?;
        other.median()?;
        Some(median(self.ratios(other)))
    }

    fn ratios(&self, other: &Self) -> Vec<f64> {
        self.values.iter().zip(&other.values).map(|(one, other)| one / other).collect()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Everything.
pub struct Outcome {
    pub peers: Vec<&'static str>,
    /// Who could not be built, and why.
    pub missing: Vec<(&'static str, String)>,
    /// By server, and in the order of [`CHECKS`]: why it failed.
    pub checks: Vec<Vec<Option<String>>>,
    pub rows: Vec<(Metric, Vec<Cell>)>,
    pub machine: Vec<(&'static str, String)>,
}

impl Outcome {
    pub fn new() -> Self {
        Self { peers: Vec::new(), missing: Vec::new(), checks: Vec::new(), rows: Vec::new(), machine: machine() }
    }

    /// Whether a server can be used: whether it has passed all checks but that of its end, which takes a signal handler that few have.
    /// One that was not checked can.
    pub fn is_sound(&self, place: usize) -> bool {
        let Some(checks) = self.checks.get(place) else { return true };
        CHECKS.iter().zip(checks).all(|((name, _), failure)| failure.is_none() || *name == "orderly stop")
    }

    /// The best of the sound servers in a row; none where the best two are closer to each other than their rounds are. They are told apart
    /// by their ratios to the first server, round by round: what slows the machine down for a while slows both.
    pub fn best(&self, metric: &Metric, cells: &[Cell]) -> Option<usize> {
        let first = cells.iter().position(|cell| cell.median().is_some())?;
        let ratios =
            |place: usize| Cell { values: cells[place].ratios(&cells[first]), failure: cells[place].failure.clone() };
        let sound = (0..cells.len()).filter(|&place| self.is_sound(place));
        let mut ranked: Vec<(f64, f64, usize)> =
            sound.filter_map(|place| Some((ratios(place).median()?, ratios(place).spread(), place))).collect();
        ranked.sort_by(|one, other| {
            let order = one.0.total_cmp(&other.0);
            if metric.better == Better::Less { order } else { order.reverse() }
        });
        match ranked[..] {
            [] => None,
            [(_, _, only)] => Some(only),
            [(one, noise, best), (other, other_noise, _), ..] => {
                ((one - other).abs() / one.max(other) > noise.max(other_noise)).then_some(best)
            }
        }
    }
}

/// What it ran on.
fn machine() -> Vec<(&'static str, String)> {
    let read = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name.to_owned());
    let found = [
        ("date", read("date", &["-u", "+%Y-%m-%d"])),
        ("CPU", cpu),
        ("kernel", read("uname", &["-r"])),
        ("rustc", read("rustc", &["--version"])),
        ("C compiler", read("cc", &["--version"])),
        ("Go", read("go", &["version"])),
    ];
    found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[derive(Serialize)]
struct JsonRow<'a> {
    name: &'a str,
    unit: &'a str,
    better: &'a str,
    peers: Vec<JsonCell<'a>>,
}

#[derive(Serialize)]
struct JsonCell<'a> {
    peer: &'a str,
    median: Option<f64>,
    rounds: &'a [f64],
    failure: Option<&'a str>,
}

/// Everything, as JSON.
pub fn json(outcome: &Outcome) -> Result<String> {
    let rows: Vec<JsonRow> = outcome
        .rows
        .iter()
        .map(|(metric, cells)| JsonRow {
            name: metric.name,
            unit: metric.unit,
            better: if metric.better == Better::Less { "less" } else { "more" },
            peers: outcome
                .peers
                .iter()
                .zip(cells)
                .map(|(&peer, cell)| JsonCell {
                    peer,
                    median: cell.median(),
                    rounds: &cell.values,
                    failure: cell.failure.as_deref(),
                })
                .collect(),
        })
        .collect();
    let checks: Vec<_> = outcome
        .peers
        .iter()
        .zip(&outcome.checks)
        .map(|(peer, results)| {
            let named: Vec<_> = CHECKS
                .iter()
                .zip(results)
                .map(|((name, _), failure)| serde_json::json!({ "name": name, "failure": failure }))
                .collect();
            serde_json::json!({ "peer": peer, "checks": named })
        })
        .collect();
    let missing: Vec<_> =
        outcome.missing.iter().map(|(peer, why)| serde_json::json!({ "peer": peer, "why": why })).collect();
    let machine: serde_json::Map<_, _> =
        outcome.machine.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
    let document = serde_json::json!({ "machine": machine, "rows": rows, "checks": checks, "missing": missing });
    Ok(serde_json::to_string_pretty(&document)?)
}

/// A number in three digits or so.
pub fn digits(value: f64) -> String {
    match value.abs() {
        1_000.0.. => {
            let text = format!("{value:.0}");
            let mut grouped = String::new();
            for (place, digit) in text.chars().enumerate() {
                if place > 0 && (text.len() - place) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
