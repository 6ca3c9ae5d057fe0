//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::Result;
use crate::peer::Peer;
use crate::work::{BEST_RATE_OF, WORKS, Work};

/// Compare edgecho with other servers that do the same work
#[derive(Debug, Parser)]
#[command(name = "bench.sh", bin_name = "scripts/bench.sh")]
pub struct Options {
    /// Measure the main rows once: less than 3 minutes. One round names no winner
    #[arg(long)]
    quick: bool,

    /// Measure these servers only: beginnings of names, separated by commas
    #[arg(long, value_name = "PEER,…", value_delimiter = ',')]
    only: Vec<String>,

    /// Measure this work only: small-1, small-50, small-1000, small-10000, driver, medium-50, bulk-1, bulk-8, bulk-64, churn, tail, latency,
    /// calls, idle-1000, idle-10000, start
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    work: Vec<String>,

    /// Number of rounds; each server takes one turn per round [default: 9, quick: 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// Length of each turn in seconds, at least 0.1 [default: 0.6, quick: 0.2]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,

    /// Skip the checks
    #[arg(long)]
    pub unchecked: bool,

    /// Write the results as JSON to this file (always written to target/bench/results.json)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Read results from this JSON file instead of measuring
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only", "work", "rounds", "seconds", "unchecked"])]
    pub from: Option<PathBuf>,

    /// Write a chart as SVG to this file
    #[arg(long, value_name = "FILE")]
    pub chart: Option<PathBuf>,

    /// Update the tables in docs/performance.md and README.md, docs/performance.svg and docs/performance.json
    #[arg(long)]
    pub update_docs: bool,
}

impl Options {
    /// Returns the work to be measured.
    pub fn works(&self) -> Result<Vec<&'static Work>> {
        if let Some(name) = self.work.iter().find(|&name| !WORKS.iter().any(|work| work.name == name)) {
            return Err(format!("unknown work '{name}'; --help lists the names").into());
        }
        let is_wanted = |work: &&Work| match &self.work[..] {
            [] => !self.quick || work.is_main,
            // The rates of the open loop are shares of the result of another work.
            names => names.iter().any(|name| work.name == name || (name == "latency" && work.name == BEST_RATE_OF)),
        };
        Ok(WORKS.iter().filter(is_wanted).collect())
    }

    /// Returns whether a server is to be measured.
    pub fn wants(&self, peer: &Peer) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| peer.name.starts_with(name.as_str()))
    }

    /// Returns the number of rounds.
    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 9 }).max(1)
    }

    /// Returns the length of a turn in seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 0.2 } else { 0.6 }).max(0.1)
    }
}
