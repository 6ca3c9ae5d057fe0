//! The work that servers are given, and what is measured of it.

mod load;
mod still;

use std::time::Duration;

use crate::Result;
use crate::peer::Peer;

/// Whether more of it is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// How a row is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shown {
    /// In the table alone.
    Table,
    /// In the table, and as bars.
    Bars,
    /// In the table, and as the point of the line "rate by connections" at so many.
    Rate(u32),
    /// As the point of the line "latency by percentile" at a share of the best rate, in percent, and a percentile; in the table, too,
    /// if it is one of those that are listed.
    Latency(u32, f64),
}

/// Something that is measured: a row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub unit: &'static str,
    pub better: Better,
    pub shown: Shown,
}

impl Metric {
    /// Whether it has a row in the table.
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

/// What a turn may know.
pub struct Context {
    /// How long it is to take.
    pub duration: Duration,
    /// The rate of the best server with small messages on 50 connections, where that has been measured.
    pub best_rate: f64,
}

type Measure = fn(&Peer, &Context) -> Result<Vec<f64>>;

/// How often a piece of work is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Round by round.
    Rounds,
    /// Round by round, but three times at the most: it takes long.
    Few,
    /// Once is enough: it does not depend on how busy the machine is.
    Once,
}

/// A piece of work, and the rows that come of it.
pub struct Work {
    pub name: &'static str,
    pub metrics: &'static [Metric],
    /// How many connections it needs.
    pub connections: usize,
    /// Part of a quick run.
    pub is_main: bool,
    pub repeat: Repeat,
    pub measure: Measure,
}

/// The row that the open loop's rates are shares of.
pub const BEST_RATE_OF: &str = "small-50";

use Better::{Less, More};

/// All of it, in the order in which it is done.
pub const WORKS: [Work; 16] = [
    timed("small-1", 1, &[cpu("64 B, 1 connection: CPU a message"), rate("64 B, 1 connection", 1)], |p, c| {
        load::messages(p, 1, 64, c)
    }),
    main(
        BEST_RATE_OF,
        50,
        &[cpu("64 B, 50 connections: CPU a message"), rate("64 B, 50 connections", 50), p99("64 B, 50 connections: p99")],
        |p, c| load::messages(p, 50, 64, c),
    ),
    timed(
        "small-1000",
        1_000,
        &[
            cpu("64 B, 1,000 connections: CPU a message"),
            rate("64 B, 1,000 connections", 1_000),
            p99("64 B, 1,000 connections: p99"),
        ],
        |p, c| load::messages(p, 1_000, 64, c),
    ),
    timed(
        "small-10000",
        10_000,
        &[
            cpu("64 B, 10,000 connections: CPU a message"),
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
        &[cpu("4 KiB, 50 connections: CPU a message"), metric("4 KiB, 50 connections", "messages/s", More, Shown::Table)],
        |p, c| load::messages(p, 50, 4_096, c),
    ),
    timed("bulk-1", 1, &BULK_1, |p, c| load::bulk(p, 1, c)),
    main("bulk-8", 8, &BULK_8, |p, c| load::bulk(p, 8, c)),
    timed("bulk-64", 64, &BULK_64, |p, c| load::bulk(p, 64, c)),
    main(
        "churn",
        100,
        &[
            cpu("connect, echo, close: CPU a connection"),
            metric("connect, echo, close", "connections/s", More, Shown::Table),
        ],
        load::churn,
    ),
    main("tail", 9, &[metric("p99 of a ping beside 8 firehoses", "ms", Less, Shown::Bars)], load::tail),
    Work { repeat: Repeat::Few, ..timed("latency", 50, &LATENCY, load::open_loop) },
    steady("calls", 50, &[metric("system calls a message, 50 connections", "calls", Less, Shown::Table)], still::calls),
    steady("idle-1000", 1_000, &[metric("memory of an idle connection, of 1,000", "B", Less, Shown::Bars)], |p, _| {
        still::idle(p, 1_000)
    }),
    steady("idle-10000", 10_000, &[metric("memory of an idle connection, of 10,000", "B", Less, Shown::Bars)], |p, _| {
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
                metric("crates, or shared libraries beside libc", "count", Less, Shown::Table),
            ],
            still::start,
        )
    },
];

const BULK_1: [Metric; 2] = [
    metric("bulk, 1 connection", "MB/s", More, Shown::Bars),
    metric("bulk, 1 connection: CPU a megabyte", "µs", Less, Shown::Table),
];
const BULK_8: [Metric; 2] = [
    metric("bulk, 8 connections", "MB/s", More, Shown::Bars),
    metric("bulk, 8 connections: CPU a megabyte", "µs", Less, Shown::Table),
];
const BULK_64: [Metric; 2] = [
    metric("bulk, 64 connections", "MB/s", More, Shown::Bars),
    metric("bulk, 64 connections: CPU a megabyte", "µs", Less, Shown::Table),
];

/// The shares of the best rate, in percent, at which an open loop sends.
pub const SHARES: [u32; 3] = [25, 50, 75];

/// What flood gives, in its order.
pub const PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99];

const LATENCY: [Metric; SHARES.len() * PERCENTILES.len()] = {
    let names = [
        ["open loop at 25 % of the best rate: p50", "open loop at 25 % of the best rate: p99"],
        ["open loop at 50 % of the best rate: p50", "open loop at 50 % of the best rate: p99"],
        ["open loop at 75 % of the best rate: p50", "open loop at 75 % of the best rate: p99"],
    ];
    let mut metrics = [p99(""); SHARES.len() * PERCENTILES.len()];
    let mut place = 0;
    while place < metrics.len() {
        let (share, percentile) = (place / PERCENTILES.len(), place % PERCENTILES.len());
        // Only the first and the fourth are listed.
        let name = names[share][if percentile == 0 { 0 } else { 1 }];
        metrics[place] = metric(name, "ms", Better::Less, Shown::Latency(SHARES[share], PERCENTILES[percentile]));
        place += 1;
    }
    metrics
};

const fn timed(name: &'static str, connections: usize, metrics: &'static [Metric], measure: Measure) -> Work {
    Work { name, metrics, connections, is_main: false, repeat: Repeat::Rounds, measure }
}

const fn main(name: &'static str, connections: usize, metrics: &'static [Metric], measure: Measure) -> Work {
    Work { is_main: true, ..timed(name, connections, metrics, measure) }
}

const fn steady(name: &'static str, connections: usize, metrics: &'static [Metric], measure: Measure) -> Work {
    Work { repeat: Repeat::Once, ..timed(name, connections, metrics, measure) }
}
