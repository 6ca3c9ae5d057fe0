//! The pieces of work, and the metrics of each.

mod load;
mod still;

use std::time::Duration;

use crate::Result;
use crate::peer::Peer;

/// The better direction of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// The places where a metric is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shown {
    /// In the table.
    Table,
    /// In the table and as bars.
    Bars,
    /// In the table, and as a point of the plot "rate by connections" at this number of connections.
    Rate(u32),
    /// As a point of the plot "latency by percentile", at a share of the best rate in percent and a percentile. The table has p50 and p99.
    Latency(u32, f64),
}

/// A metric, shown as a row of the table. Names are unique.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub unit: &'static str,
    pub better: Better,
    pub shown: Shown,
}

impl Metric {
    /// Returns whether the metric has a row in the table.
    pub fn is_listed(&self) -> bool {
        !matches!(self.shown, Shown::Latency(_, percentile) if percentile != 50.0 && percentile != 99.0)
    }
}

const fn metric(name: &'static str, unit: &'static str, better: Better, shown: Shown) -> Metric {
    Metric { name, unit, better, shown }
}

const fn cpu(name: &'static str) -> Metric {
    metric(name, "µs", Better::Less, Shown::Bars)
}

const fn rate(name: &'static str, connections: u32) -> Metric {
    metric(name, "messages/s", Better::More, Shown::Rate(connections))
}

const fn p99(name: &'static str) -> Metric {
    metric(name, "ms", Better::Less, Shown::Table)
}

/// Parameters of a turn.
pub struct Context {
    /// Length of the turn.
    pub duration: Duration,
    /// Best rate of all servers with small messages on 50 connections, in messages per second; 0 if not measured.
    pub best_rate: f64,
}

type Measure = fn(&Peer, &Context) -> Result<Vec<f64>>;

/// The number of times that a piece of work is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// In every round.
    Rounds,
    /// In at most three rounds, because one takes long.
    Few,
    /// Once, because the result does not depend on the load of the machine.
    Once,
}

impl Repeat {
    /// Returns the number of rounds in a run of `rounds` rounds.
    pub fn rounds(self, rounds: usize) -> usize {
        match self {
            Self::Rounds => rounds,
            Self::Few => rounds.min(3),
            Self::Once => 1,
        }
    }
}

/// A piece of work, and its metrics.
pub struct Work {
    pub name: &'static str,
    pub metrics: &'static [Metric],
    /// Number of connections that it opens.
    pub connections: usize,
    /// Part of a quick run.
    pub is_main: bool,
    pub repeat: Repeat,
    pub measure: Measure,
}

/// The work whose best rate the open loop takes shares of.
pub const BEST_RATE_OF: &str = "small-50";

use Better::{Less, More};

/// All work, in the order in which it is measured.
pub const WORKS: [Work; 16] = [
    timed("small-1", 1, &[cpu("64 B, 1 connection: CPU per message"), rate("64 B, 1 connection", 1)], |p, c| {
        load::messages(p, 1, 64, c)
    }),
    main(
        BEST_RATE_OF,
        50,
        &[cpu("64 B, 50 connections: CPU per message"), rate("64 B, 50 connections", 50), p99("64 B, 50 connections: p99")],
        |p, c| load::messages(p, 50, 64, c),
    ),
    timed(
        "small-1000",
        1_000,
        &[
            cpu("64 B, 1,000 connections: CPU per message"),
            rate("64 B, 1,000 connections", 1_000),
            p99("64 B, 1,000 connections: p99"),
        ],
        |p, c| load::messages(p, 1_000, 64, c),
    ),
    timed(
        "small-10000",
        10_000,
        &[
            cpu("64 B, 10,000 connections: CPU per message"),
            rate("64 B, 10,000 connections", 10_000),
            p99("64 B, 10,000 connections: p99"),
        ],
        |p, c| load::messages(p, 10_000, 64, c),
    ),
    timed(
        "driver",
        50,
        &[metric("64 B, 50 connections, driven by a minimal C driver", "messages/s", More, Shown::Table)],
        load::c_driver,
    ),
    timed(
        "medium-50",
        50,
        &[cpu("4 KiB, 50 connections: CPU per message"), metric("4 KiB, 50 connections", "messages/s", More, Shown::Table)],
        |p, c| load::messages(p, 50, 4_096, c),
    ),
    timed("bulk-1", 1, &BULK_1, |p, c| load::bulk(p, 1, c)),
    main("bulk-8", 8, &BULK_8, |p, c| load::bulk(p, 8, c)),
    timed("bulk-64", 64, &BULK_64, |p, c| load::bulk(p, 64, c)),
    main(
        "churn",
        100,
        &[
            cpu("connect, echo, close: CPU per connection"),
            metric("connect, echo, close", "connections/s", More, Shown::Table),
        ],
        load::churn,
    ),
    main("tail", 9, &[metric("p99 of a ping beside 8 firehoses", "ms", Less, Shown::Bars)], load::tail),
    Work { repeat: Repeat::Few, ..timed("latency", 50, &LATENCY, load::open_loop) },
    steady("calls", 50, &[metric("system calls per message, 50 connections", "calls", Less, Shown::Table)], still::calls),
    steady("idle-1000", 1_000, &[metric("memory per idle connection, of 1,000", "B", Less, Shown::Bars)], |p, _| {
        still::idle(p, 1_000)
    }),
    steady("idle-10000", 10_000, &[metric("memory per idle connection, of 10,000", "B", Less, Shown::Bars)], |p, _| {
        still::idle(p, 10_000)
    }),
    Work {
        repeat: Repeat::Rounds,
        ..steady(
            "start",
            1,
            &[
                metric("start to first accept", "ms", Less, Shown::Table),
                metric("program, stripped", "MB", Less, Shown::Table),
                metric("crates, or shared libraries other than libc", "count", Less, Shown::Table),
            ],
            still::start,
        )
    },
];

const BULK_1: [Metric; 2] = [
    metric("bulk, 1 connection", "MB/s", More, Shown::Bars),
    metric("bulk, 1 connection: CPU per megabyte", "µs", Less, Shown::Table),
];
const BULK_8: [Metric; 2] = [
    metric("bulk, 8 connections", "MB/s", More, Shown::Bars),
    metric("bulk, 8 connections: CPU per megabyte", "µs", Less, Shown::Table),
];
const BULK_64: [Metric; 2] = [
    metric("bulk, 64 connections", "MB/s", More, Shown::Bars),
    metric("bulk, 64 connections: CPU per megabyte", "µs", Less, Shown::Table),
];

/// Shares of the best rate at which the open loop sends, in percent.
pub const SHARES: [u32; 3] = [25, 50, 75];

/// Percentiles in the report of `flood`, in its order.
pub const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99];

/// In the order of [`SHARES`] and [`PERCENTILES`].
const LATENCY: [Metric; SHARES.len() * PERCENTILES.len()] = [
    latency("open loop at 25 % of the best rate: p50", 25, 50.0),
    latency("open loop at 25 % of the best rate: p75", 25, 75.0),
    latency("open loop at 25 % of the best rate: p90", 25, 90.0),
    latency("open loop at 25 % of the best rate: p99", 25, 99.0),
    latency("open loop at 25 % of the best rate: p99.9", 25, 99.9),
    latency("open loop at 25 % of the best rate: p99.99", 25, 99.99),
    latency("open loop at 50 % of the best rate: p50", 50, 50.0),
    latency("open loop at 50 % of the best rate: p75", 50, 75.0),
    latency("open loop at 50 % of the best rate: p90", 50, 90.0),
    latency("open loop at 50 % of the best rate: p99", 50, 99.0),
    latency("open loop at 50 % of the best rate: p99.9", 50, 99.9),
    latency("open loop at 50 % of the best rate: p99.99", 50, 99.99),
    latency("open loop at 75 % of the best rate: p50", 75, 50.0),
    latency("open loop at 75 % of the best rate: p75", 75, 75.0),
    latency("open loop at 75 % of the best rate: p90", 75, 90.0),
    latency("open loop at 75 % of the best rate: p99", 75, 99.0),
    latency("open loop at 75 % of the best rate: p99.9", 75, 99.9),
    latency("open loop at 75 % of the best rate: p99.99", 75, 99.99),
];

const fn latency(name: &'static str, share_percent: u32, percentile: f64) -> Metric {
    metric(name, "ms", Better::Less, Shown::Latency(share_percent, percentile))
}

const fn timed(name: &'static str, connections: usize, metrics: &'static [Metric], measure: Measure) -> Work {
    Work { name, metrics, connections, is_main: false, repeat: Repeat::Rounds, measure }
}

const fn main(name: &'static str, connections: usize, metrics: &'static [Metric], measure: Measure) -> Work {
    Work { is_main: true, ..timed(name, connections, metrics, measure) }
}

const fn steady(name: &'static str, connections: usize, metrics: &'static [Metric], measure: Measure) -> Work {
    Work { repeat: Repeat::Once, ..timed(name, connections, metrics, measure) }
}

/// Returns the metric with this name.
pub fn metric_named(name: &str) -> Option<Metric> {
    WORKS.iter().flat_map(|work| work.metrics).find(|metric| metric.name == name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_names_of_metrics_are_unique() {
        let names: Vec<&str> = WORKS.iter().flat_map(|work| work.metrics).map(|metric| metric.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn the_open_loop_has_a_metric_for_each_share_and_percentile() {
        let expected = SHARES.into_iter().flat_map(|share| PERCENTILES.map(|percentile| Shown::Latency(share, percentile)));
        assert!(LATENCY.iter().map(|metric| metric.shown).eq(expected));
    }
}
