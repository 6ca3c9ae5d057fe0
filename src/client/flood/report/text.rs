//! The report of a flood as a table.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::describe::{QUANTILES, describe, millis, short};
use super::histogram::draw;
use crate::client::flood::options::{Load, Options};
use crate::client::flood::outcome::Outcome;

/// The number of ports of one source address (ip(7), `ip_local_port_range`). A port rests for a minute after use (`TIME_WAIT`); only
/// on loopback it is reused earlier.
const PORTS_OF_AN_ADDRESS: u64 = 28_000;

/// Writes the table.
///
/// # Errors
/// The errors of `out`.
pub fn write(out: &mut dyn Write, options: &Options, outcome: &Outcome) -> io::Result<()> {
    write_table(out, options, outcome, true)
}

/// Writes the table without the drawn histogram.
///
/// # Errors
/// The errors of `out`.
pub fn write_summary(out: &mut dyn Write, options: &Options, outcome: &Outcome) -> io::Result<()> {
    write_table(out, options, outcome, false)
}

fn write_table(out: &mut dyn Write, options: &Options, outcome: &Outcome, is_drawn: bool) -> io::Result<()> {
    let counts = &outcome.counts;
    let early = if outcome.is_interrupted { ", ended early" } else { "" };
    let elapsed = short(Duration::from_millis(outcome.elapsed.as_millis() as u64));
    writeln!(out, "{}: {}, measured for {elapsed}{early}\n", outcome.address, describe(options))?;
    if options.load == Load::Bulk {
        let missing = counts.sent_bytes - counts.received_bytes;
        writeln!(
            out,
            "{:12} {} sent, {} returned, {missing} missing, {} corrupt",
            "bytes", counts.sent_bytes, counts.received_bytes, counts.corrupt
        )?;
    } else {
        write!(out, "{:12} {} sent, {} returned, {} lost", "messages", counts.sent, counts.returned, counts.lost)?;
        writeln!(out, ", {} corrupt, {} late, {} unsent", counts.corrupt, counts.late, counts.unsent)?;
    }
    write!(out, "{:12} ", "rate")?;
    match options.load {
        Load::Bulk => {}
        Load::Churn => write!(out, "{:.1} connections/s, ", outcome.connections_per_second())?,
        _ => write!(out, "{:.1} messages/s, ", outcome.messages_per_second())?,
    }
    if let (Some(requested), Some(achieved)) = (outcome.requested_rate, outcome.achieved_rate()) {
        let percent = achieved * 100.0 / requested;
        write!(out, "{achieved:.1} sent of {requested} requested ({percent:.1} %), ")?;
    }
    writeln!(out, "{:.3} MB/s each way", outcome.bytes_per_second() / 1e6)?;
    write!(out, "{:12} {} opened, {} failed", "connections", counts.opened, counts.failed)?;
    writeln!(out, ", {} ended by the peer", counts.ended_by_peer)?;
    if let Some(cpu) = &outcome.cpu {
        let [all, user, system] = [cpu.user + cpu.system, cpu.user, cpu.system].map(|time| cpu.percent(time));
        writeln!(out, "{:12} {all:.1} % of a CPU ({user:.1} % user, {system:.1} % system)", "client")?;
    }
    if counts.pauses > 0 {
        write!(out, "{:12} {} by flood itself on a connection, ", "pauses", counts.pauses)?;
        write!(out, "{:.3} s in total", Duration::from_nanos(counts.paused_ns).as_secs_f64())?;
        match options.load {
            Load::Open { .. } => writeln!(out, "; excluded from the latency of {} messages", counts.paused_messages)?,
            _ => writeln!(out)?,
        }
    }

    if !outcome.connect.is_empty() || !outcome.latency.is_empty() {
        write!(out, "\n{:20}{:>9}{:>9}", "milliseconds", "min", "mean")?;
        for (_, name) in QUANTILES {
            write!(out, "{name:>9}")?;
        }
        writeln!(out, "{:>9}", "max")?;
        row(out, "connect", Some(&outcome.connect))?;
        match options.load {
            Load::Open { .. } => {
                row(out, "latency, from due", Some(&outcome.latency))?;
                row(out, "latency, from sent", outcome.uncorrected.as_ref())?;
            }
            Load::Churn => row(out, "connect and echo", Some(&outcome.latency))?,
            Load::Closed { .. } | Load::Bulk => row(out, "latency", Some(&outcome.latency))?,
        }
    }
    if is_drawn && !outcome.latency.is_empty() {
        writeln!(out)?;
        draw(out, &outcome.latency)?;
    }
    if !outcome.troubles.is_empty() {
        writeln!(out, "\ntrouble")?;
        for (name, trouble) in &outcome.troubles {
            let (count, at_s, last_at_s) = (trouble.count, trouble.at_s, trouble.last_at_s);
            writeln!(out, "  {count} times {name}, from {at_s:.3} s to {last_at_s:.3} s")?;
            for example in &trouble.examples {
                writeln!(out, "    at {:.3} s: {}", example.at_s, example.text)?;
            }
        }
    }
    if options.load == Load::Churn && options.sources.is_empty() && counts.cycles > PORTS_OF_AN_ADDRESS / 2 {
        writeln!(
            out,
            "\nOne source address has about {PORTS_OF_AN_ADDRESS} ports, and each rests after use. More source addresses may allow more \
             connections per second."
        )?;
    }
    out.flush()
}

fn row(out: &mut dyn Write, name: &str, times: Option<&Histogram<u64>>) -> io::Result<()> {
    let Some(times) = times.filter(|times| !times.is_empty()) else { return Ok(()) };
    write!(out, "{name:20}{:>9}{:>9}", millis(times.min() as f64), millis(times.mean()))?;
    for (quantile, _) in QUANTILES {
        write!(out, "{:>9}", millis(times.value_at_quantile(quantile) as f64))?;
    }
    writeln!(out, "{:>9}", millis(times.max() as f64))
}
