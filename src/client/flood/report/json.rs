//! The report of a flood as one JSON document. The name of each number ends in its unit, unless it is a count. The schema is
//! docs/schema/flood.json.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::assertion::Verdict;
use super::describe::QUANTILES;
use crate::client::connect::ProxyVersion;
use crate::client::flood::options::{Load, Options};
use crate::client::flood::outcome::Outcome;
use crate::client::flood::sizes::Sizes;
use crate::client::flood::{samples, troubles};

#[derive(Debug, Serialize)]
struct Document<'a> {
    tool: &'static str,
    version: &'static str,
    target: String,
    address: String,
    started_at_s: f64,
    measured_at_s: f64,
    elapsed_s: f64,
    interrupted: bool,
    options: Settings,
    messages: Messages,
    bytes: Bytes,
    rate: Rate,
    connections: Connections,
    client: Option<Client>,
    pauses: Pauses,
    latency_ms: Option<Times>,
    latency_uncorrected_ms: Option<Times>,
    connect_ms: Option<Times>,
    troubles: Vec<Trouble<'a>>,
    samples: Vec<Sample>,
    assertions: Vec<Assertion<'a>>,
}

#[derive(Debug, Serialize)]
struct Settings {
    load: &'static str,
    connections: usize,
    threads: usize,
    pipeline: Option<usize>,
    rate_per_s: Option<f64>,
    duration_s: Option<f64>,
    messages: Option<u64>,
    sizes_bytes: Vec<u32>,
    sizes_are: &'static str,
    protocol: &'static str,
    warmup_s: f64,
    ramp_up_s: f64,
    timeout_s: f64,
    half_close: bool,
    handshake: bool,
    send_proxy: Option<&'static str>,
    verify: &'static str,
    seed: u64,
}

#[derive(Debug, Serialize)]
struct Messages {
    sent: u64,
    returned: u64,
    lost: u64,
    corrupt: u64,
    late: u64,
    unsent: u64,
}

#[derive(Debug, Serialize)]
struct Bytes {
    sent: u64,
    received: u64,
    handshakes: u64,
    proxy_headers: u64,
}

#[derive(Debug, Serialize)]
struct Rate {
    messages_per_s: f64,
    bytes_per_s: f64,
    connections_per_s: f64,
    requested_messages_per_s: Option<f64>,
    achieved_messages_per_s: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Connections {
    opened: u64,
    failed: u64,
    ended_by_peer: u64,
}

#[derive(Debug, Serialize)]
struct Client {
    cpu_user_s: f64,
    cpu_system_s: f64,
    cpu_percent: f64,
}

#[derive(Debug, Serialize)]
struct Pauses {
    count: u64,
    total_s: f64,
    messages: u64,
}

#[derive(Debug, Serialize)]
struct Times {
    count: u64,
    min: f64,
    mean: f64,
    stdev: f64,
    max: f64,
    percentiles: Vec<Percentile>,
}

#[derive(Debug, Serialize)]
struct Percentile {
    percentile: f64,
    value: f64,
}

#[derive(Debug, Serialize)]
struct Trouble<'a> {
    name: &'a str,
    count: u64,
    at_s: f64,
    last_at_s: f64,
    examples: Vec<Example<'a>>,
}

#[derive(Debug, Serialize)]
struct Example<'a> {
    at_s: f64,
    text: &'a str,
}

#[derive(Debug, Serialize)]
struct Sample {
    at_s: f64,
    length_s: f64,
    messages: u64,
    bytes: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Assertion<'a> {
    text: &'a str,
    holds: bool,
    value: &'a str,
}

/// Writes the document and a line end.
///
/// # Errors
/// The errors of `out`.
pub fn write(out: &mut dyn Write, options: &Options, outcome: &Outcome, verdicts: &[Verdict]) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &document(options, outcome, verdicts))?;
    writeln!(out)?;
    out.flush()
}

fn document<'a>(options: &'a Options, outcome: &'a Outcome, verdicts: &'a [Verdict]) -> Document<'a> {
    let counts = &outcome.counts;
    Document {
        tool: "edgecho flood",
        version: env!("CARGO_PKG_VERSION"),
        target: options.target.to_string(),
        address: outcome.address.to_string(),
        started_at_s: seconds(outcome.started_at.duration_since(UNIX_EPOCH).unwrap_or_default()),
        measured_at_s: seconds(outcome.measured_at.duration_since(UNIX_EPOCH).unwrap_or_default()),
        elapsed_s: seconds(outcome.elapsed),
        interrupted: outcome.is_interrupted,
        options: settings(options),
        messages: Messages {
            sent: counts.sent,
            returned: counts.returned,
            lost: counts.lost,
            corrupt: counts.corrupt,
            late: counts.late,
            unsent: counts.unsent,
        },
        bytes: Bytes {
            sent: counts.sent_bytes,
            received: counts.received_bytes,
            handshakes: counts.handshake_bytes,
            proxy_headers: counts.proxy_header_bytes,
        },
        rate: Rate {
            messages_per_s: thousandths(outcome.messages_per_second()),
            bytes_per_s: thousandths(outcome.bytes_per_second()),
            connections_per_s: thousandths(outcome.connections_per_second()),
            requested_messages_per_s: outcome.requested_rate,
            achieved_messages_per_s: outcome.achieved_rate().map(thousandths),
        },
        connections: Connections { opened: counts.opened, failed: counts.failed, ended_by_peer: counts.ended_by_peer },
        client: outcome.cpu.as_ref().map(|cpu| Client {
            cpu_user_s: seconds(cpu.user),
            cpu_system_s: seconds(cpu.system),
            cpu_percent: thousandths(cpu.percent(cpu.user + cpu.system)),
        }),
        pauses: Pauses {
            count: counts.pauses,
            total_s: seconds(Duration::from_nanos(counts.paused_ns)),
            messages: counts.paused_messages,
        },
        latency_ms: times(&outcome.latency),
        latency_uncorrected_ms: outcome.uncorrected.as_ref().and_then(times),
        connect_ms: times(&outcome.connect),
        troubles: outcome
            .troubles
            .iter()
            .map(|(name, trouble)| Trouble {
                name,
                count: trouble.count,
                at_s: micros(trouble.at_s),
                last_at_s: micros(trouble.last_at_s),
                examples: trouble.examples.iter().map(example).collect(),
            })
            .collect(),
        samples: outcome.samples.iter().map(sample).collect(),
        assertions: verdicts
            .iter()
            .map(|verdict| Assertion { text: &verdict.text, holds: verdict.holds, value: &verdict.value })
            .collect(),
    }
}

fn settings(options: &Options) -> Settings {
    let (load, pipeline, rate_per_s) = match options.load {
        Load::Closed { pipeline } => ("closed", Some(pipeline), None),
        Load::Open { rate, pipeline } => ("open", Some(pipeline), Some(rate)),
        Load::Bulk => ("bulk", None, None),
        Load::Churn => ("churn", None, None),
    };
    let (sizes_bytes, sizes_are) = match &options.sizes {
        Sizes::List(sizes) => (sizes.clone(), "in turn"),
        Sizes::Range(least, most) => (vec![*least, *most], "bounds"),
    };
    Settings {
        load,
        connections: options.connections,
        threads: options.threads,
        pipeline,
        rate_per_s,
        duration_s: options.duration.map(seconds),
        messages: options.messages,
        sizes_bytes,
        sizes_are,
        protocol: options.framing.name(),
        warmup_s: seconds(options.warmup),
        ramp_up_s: seconds(options.ramp_up),
        timeout_s: seconds(options.timeout),
        half_close: options.half_close,
        handshake: options.handshake,
        send_proxy: options.send_proxy.map(ProxyVersion::name),
        verify: options.verify.name(),
        seed: options.seed,
    }
}

fn times(times: &Histogram<u64>) -> Option<Times> {
    let percentiles = QUANTILES.map(|(quantile, _)| Percentile {
        percentile: thousandths(quantile * 100.0),
        value: millis(times.value_at_quantile(quantile) as f64),
    });
    (!times.is_empty()).then(|| Times {
        count: times.len(),
        min: millis(times.min() as f64),
        mean: millis(times.mean()),
        stdev: millis(times.stdev()),
        max: millis(times.max() as f64),
        percentiles: percentiles.into(),
    })
}

fn sample(sample: &samples::Sample) -> Sample {
    Sample {
        at_s: seconds(sample.at),
        length_s: seconds(sample.length),
        messages: sample.messages,
        bytes: sample.bytes,
        p50_ms: sample.p50_ns.map(|time| millis(time as f64)),
        p99_ms: sample.p99_ns.map(|time| millis(time as f64)),
    }
}

fn example(example: &troubles::Example) -> Example<'_> {
    Example { at_s: micros(example.at_s), text: &example.text }
}

/// Converts nanoseconds to milliseconds.
fn millis(nanoseconds: f64) -> f64 {
    nanoseconds.round() / 1e6
}

/// Converts a duration to seconds, rounded to a microsecond.
fn seconds(duration: Duration) -> f64 {
    micros(duration.as_secs_f64())
}

/// Rounds seconds to a microsecond.
fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
