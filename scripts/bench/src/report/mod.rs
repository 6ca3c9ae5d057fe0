//! What came of it: as a table for the README, as a page, and as JSON.

mod html;
mod json;
mod markdown;
mod plot;

use std::process::Command;

pub use html::html;
pub use json::json;
pub use markdown::{markdown, update_readme};

use crate::check::{CHECKS, Verdict};
use crate::work::{Better, Metric, Shown};

/// Two servers that are closer than this are alike, however much alike their rounds are.
const LEAST_NOISE: f64 = 0.01;

/// What takes the place of the spread of rounds where there are too few to know it.
const NOISE_OF_FEW: f64 = 0.05;

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
    /// By server, and in the order of [`CHECKS`].
    pub checks: Vec<Vec<Verdict>>,
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
        CHECKS.iter().zip(checks).all(|((name, _), verdict)| verdict.failure().is_none() || *name == "orderly stop")
    }

    /// How one server compares with another in a row: the median of the ratios, round by round, for what slows the machine down for a while
    /// slows both; and how far the rounds are apart in that.
    fn compare(cells: &[Cell], one: usize, other: usize) -> Option<(f64, f64)> {
        let ratios = Cell { values: cells[one].ratios(&cells[other]), failure: None };
        cells[one].median()?;
        cells[other].median()?;
        let noise = if ratios.values.len() < 3 { NOISE_OF_FEW } else { ratios.spread().max(LEAST_NOISE) };
        Some((ratios.median()?, noise))
    }

    /// Whether one server is better than another in a row, beyond the noise.
    fn beats(metric: &Metric, cells: &[Cell], one: usize, other: usize) -> bool {
        Self::compare(cells, one, other).is_some_and(|(ratio, noise)| match metric.better {
            Better::Less => ratio < 1.0 - noise,
            Better::More => ratio > 1.0 + noise,
        })
    }

    /// The best of the sound servers in a row; none where nobody is better than all others beyond the noise.
    pub fn best(&self, metric: &Metric, cells: &[Cell]) -> Option<usize> {
        let sound: Vec<usize> =
            (0..cells.len()).filter(|&place| self.is_sound(place) && cells[place].median().is_some()).collect();
        let is_best = |one: usize| {
            sound.iter().all(|&other| other == one || Self::beats(metric, cells, one, other)) && sound.len() > 1
        };
        sound.iter().copied().find(|&one| is_best(one))
    }

    /// The place of edgecho.
    pub fn own(&self) -> Option<usize> {
        self.peers.iter().position(|&peer| peer == "edgecho")
    }

    /// Those sound servers than which edgecho is worse in a row, beyond the noise.
    pub fn ahead(&self, metric: &Metric, cells: &[Cell]) -> Vec<&'static str> {
        let Some(own) = self.own() else { return Vec::new() };
        let is_ahead = |&place: &usize| place != own && self.is_sound(place) && Self::beats(metric, cells, place, own);
        (0..cells.len()).filter(is_ahead).map(|place| self.peers[place]).collect()
    }

    /// The rows of the table.
    pub fn listed(&self) -> impl Iterator<Item = &(Metric, Vec<Cell>)> {
        self.rows.iter().filter(|(metric, _)| metric.is_listed())
    }

    /// The rate of the best sound server with small messages on 50 connections, in messages a second; 0 where that was not measured.
    pub fn best_rate(&self) -> f64 {
        let row = self.rows.iter().find(|(metric, _)| metric.shown == Shown::Rate(50));
        let cells = row.map_or(&[][..], |(_, cells)| cells);
        let sound = cells.iter().enumerate().filter(|&(place, _)| self.is_sound(place));
        sound.filter_map(|(_, cell)| cell.median()).fold(0.0, f64::max)
    }

    /// What the figures are figures of, in a sentence.
    pub fn about(&self) -> String {
        let machine: Vec<&str> = self.machine.iter().map(|(_, value)| value.as_str()).collect();
        let rounds = self.rows.iter().flat_map(|(_, cells)| cells).map(|cell| cell.values.len()).max().unwrap_or(0);
        let mut text = format!(
            "{}. Server on CPU 0, driver on CPU 1, in turns; medians of up to {rounds} rounds, and ratios to edgecho, round by round.",
            machine.join("; ")
        );
        let best_rate = self.best_rate();
        if best_rate > 0.0 && self.rows.iter().any(|(metric, _)| matches!(metric.shown, Shown::Latency(..))) {
            text += &format!(" The best rate, of which the open loop sends shares, was {} messages/s.", digits(best_rate));
        }
        text
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
        ("kernel", read("uname", &["-sr"])),
        ("rustc", read("rustc", &["--version"])),
        ("C compiler", read("cc", &["--version"])),
        ("Go", read("go", &["version"])),
    ];
    found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
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
