//! The results, and their reports: Markdown tables, an HTML page, JSON, and a chart.

mod chart;
mod html;
mod json;
mod machine;
mod markdown;
mod plot;

pub use chart::chart;
pub use html::html;
pub use json::{from_json, json};
#[cfg(test)]
use markdown::summary_rows;
pub use markdown::{markdown, replace_table, summary};

use machine::Machine;

use crate::check::{CHECKS, Verdict};
use crate::work::{Better, Metric, Shown};

/// The name of the server that the others are compared with.
const OWN: &str = "edgecho";

/// Minimum difference between two servers, as a share, to count as a difference.
const LEAST_NOISE: f64 = 0.01;

/// Assumed noise where there are too few rounds to measure it, as a share.
const NOISE_OF_FEW: f64 = 0.05;

/// The figures of one server in one row.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// One figure per round.
    pub values: Vec<f64>,
    /// The reason why there is no figure.
    pub failure: Option<String>,
}

impl Cell {
    /// Returns the median, unless a round failed.
    pub fn median(&self) -> Option<f64> {
        if self.failure.is_some() || self.values.is_empty() {
            return None;
        }
        Some(median(self.values.clone()))
    }

    /// Returns the spread of the rounds: half of them are within this share of the median.
    fn spread(&self) -> f64 {
        let Some(middle) = self.median().filter(|&middle| middle != 0.0) else { return 0.0 };
        median(self.values.iter().map(|value| (value - middle).abs() / middle).collect())
    }

    /// Returns the median of the ratios to another server, round by round.
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

/// The results of a run.
pub struct Outcome {
    /// The number of rounds that were asked for.
    pub rounds: usize,
    /// The names of the servers.
    pub peers: Vec<String>,
    /// Servers that could not be built, and why.
    pub missing: Vec<(String, String)>,
    /// By server, and in the order of [`CHECKS`]. Empty if the checks were skipped.
    pub checks: Vec<Vec<Verdict>>,
    /// A row per metric, with a cell per server.
    pub rows: Vec<(Metric, Vec<Cell>)>,
    machine: Machine,
}

impl Outcome {
    pub fn new(rounds: usize) -> Self {
        let machine = Machine::this();
        Self { rounds, peers: Vec::new(), missing: Vec::new(), checks: Vec::new(), rows: Vec::new(), machine }
    }

    /// Returns whether the run can tell a better server from noise. One round cannot.
    pub fn names_winners(&self) -> bool {
        self.rounds > 1
    }

    /// Returns whether a server has passed all checks except the orderly stop, which needs a signal handler that few have. A server that was
    /// not checked counts as sound.
    pub fn is_sound(&self, place: usize) -> bool {
        let Some(checks) = self.checks.get(place) else { return true };
        CHECKS.iter().zip(checks).all(|((name, _), verdict)| verdict.failure().is_none() || *name == "orderly stop")
    }

    /// Compares two servers in a row. Returns the median of the ratios, round by round, because a disturbance of the machine affects both;
    /// and the noise of those ratios.
    fn compare(cells: &[Cell], one: usize, other: usize) -> Option<(f64, f64)> {
        let ratios = Cell { values: cells[one].ratios(&cells[other]), failure: None };
        cells[one].median()?;
        cells[other].median()?;
        let noise = if ratios.values.len() < 3 { NOISE_OF_FEW } else { ratios.spread().max(LEAST_NOISE) };
        Some((ratios.median()?, noise))
    }

    /// Returns whether one server is better than another in a row, beyond the noise.
    fn beats(&self, metric: &Metric, cells: &[Cell], one: usize, other: usize) -> bool {
        let comparison = if self.names_winners() { Self::compare(cells, one, other) } else { None };
        comparison.is_some_and(|(ratio, noise)| match metric.better {
            Better::Less => ratio < 1.0 - noise,
            Better::More => ratio > 1.0 + noise,
        })
    }

    /// Returns the sound server that is better than all other sound servers in a row, beyond the noise.
    pub fn best(&self, metric: &Metric, cells: &[Cell]) -> Option<usize> {
        let sound: Vec<usize> =
            (0..cells.len()).filter(|&place| self.is_sound(place) && cells[place].median().is_some()).collect();
        let is_best =
            |one: usize| sound.iter().all(|&other| other == one || self.beats(metric, cells, one, other)) && sound.len() > 1;
        sound.iter().copied().find(|&one| is_best(one))
    }

    /// Returns the place of edgecho.
    pub fn own(&self) -> Option<usize> {
        self.peers.iter().position(|peer| peer == OWN)
    }

    /// Returns the sound servers that are better than edgecho in a row, beyond the noise.
    pub fn ahead(&self, metric: &Metric, cells: &[Cell]) -> Vec<&str> {
        let Some(own) = self.own() else { return Vec::new() };
        let is_ahead = |&place: &usize| place != own && self.is_sound(place) && self.beats(metric, cells, place, own);
        (0..cells.len()).filter(is_ahead).map(|place| self.peers[place].as_str()).collect()
    }

    /// Returns the rows of the table.
    pub fn listed(&self) -> impl Iterator<Item = &(Metric, Vec<Cell>)> {
        self.rows.iter().filter(|(metric, _)| metric.is_listed())
    }

    /// Returns the cells of the row with this name.
    fn row(&self, name: &str) -> Option<&[Cell]> {
        self.rows.iter().find(|(metric, _)| metric.name == name).map(|(_, cells)| &cells[..])
    }

    /// Returns the rate of the best sound server with small messages on 50 connections, in messages per second; 0 if not measured.
    pub fn best_rate(&self) -> f64 {
        let row = self.rows.iter().find(|(metric, _)| metric.shown == Shown::Rate(50));
        let cells = row.map_or(&[][..], |(_, cells)| cells);
        let sound = cells.iter().enumerate().filter(|&(place, _)| self.is_sound(place));
        sound.filter_map(|(_, cell)| cell.median()).fold(0.0, f64::max)
    }

    /// Describes the machine and the method.
    fn about(&self) -> String {
        let mut text = format!("{}. Server on CPU 0, driver on CPU 1; the servers take turns. ", self.machine.describe());
        text += &if self.names_winners() {
            format!("Medians of up to {} rounds; ratios to edgecho, round by round.", self.rounds)
        } else {
            "One round, which is too few to name a winner.".to_owned()
        };
        let best_rate = self.best_rate();
        if best_rate > 0.0 && self.rows.iter().any(|(metric, _)| matches!(metric.shown, Shown::Latency(..))) {
            text += &format!(" The open loop sends at shares of the best rate, {} messages/s.", digits(best_rate));
        }
        text
    }
}

/// Formats a number with about three digits.
fn digits(value: f64) -> String {
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

/// Escapes text for HTML and SVG.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::metric_named;

    /// Results of edgecho and mio in which mio is twice as good, with a row for each name.
    pub(super) fn outcome(rounds: usize, names: &[&str]) -> Outcome {
        let mut outcome = Outcome::new(rounds);
        outcome.peers = vec!["edgecho".to_owned(), "mio".to_owned()];
        for name in names {
            let metric = metric_named(name).expect("a metric");
            let (own, other) = if metric.better == Better::Less { (4.0, 2.0) } else { (2.0, 4.0) };
            let cell = |value: f64| Cell { values: vec![value; rounds], failure: None };
            outcome.rows.push((metric, vec![cell(own), cell(other)]));
        }
        outcome
    }

    const ROW: &str = "64 B, 50 connections: CPU per message";

    #[test]
    fn one_round_names_no_winner() {
        let outcome = outcome(1, &[ROW]);
        let (metric, cells) = &outcome.rows[0];
        assert_eq!(outcome.best(metric, cells), None);
        assert!(outcome.ahead(metric, cells).is_empty());
        let table = markdown(&outcome);
        assert!(!table.contains("**"), "{table}");
        assert!(table.contains("| 4.00 | 0.50 |") && table.contains("too few to name a winner"), "{table}");
    }

    #[test]
    fn several_rounds_name_a_winner_beyond_the_noise() {
        let mut outcome = outcome(3, &[ROW]);
        let (metric, cells) = &outcome.rows[0];
        assert_eq!((outcome.best(metric, cells), outcome.ahead(metric, cells)), (Some(1), vec!["mio"]));
        assert!(markdown(&outcome).contains("| 4.00 | **0.50** |"));
        outcome.rows[0].1[1].values = vec![3.98; 3];
        let (metric, cells) = &outcome.rows[0];
        assert_eq!(outcome.best(metric, cells), None, "within 1 %");
    }

    #[test]
    fn a_server_that_fails_a_check_wins_nothing() {
        let mut outcome = outcome(3, &[ROW]);
        let passed = || CHECKS.iter().map(|_| Verdict::Passed).collect::<Vec<_>>();
        let mut failed = passed();
        failed[0] = Verdict::Failed("bytes are missing".to_owned());
        outcome.checks = vec![passed(), failed];
        let (metric, cells) = &outcome.rows[0];
        assert_eq!(outcome.best(metric, cells), None);
    }

    #[test]
    fn numbers_have_three_digits_and_groups() {
        assert_eq!([0.5, 12.34, 123.4, 1_234_567.0].map(digits), ["0.50", "12.3", "123", "1,234,567"]);
    }
}
