//! The table that people read.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::{QUANTILES, describe, short};
use crate::client::flood::{Counts, Load, Options, Outcome, Progress};

/// How many rows the drawn histogram has, and how wide its bars are.
const ROWS: u32 = 16;
const WIDTH: f64 = 48.0;

/// How many connections a second one source address has ports for: each rests for a minute after use (TIME_WAIT), and is taken
/// again earlier only on loopback.
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

/// Writes the figures of a flood that still goes on, in one line.
///
/// # Errors
/// The errors of `out`.
pub fn write_interim(out: &mut dyn Write, options: &Options, progress: &Progress<'_>) -> io::Result<()> {
    let (counts, latency) = (progress.counts(), progress.latency_so_far());
    let seconds = progress.elapsed.as_secs_f64();
    let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let mut line = format!("{seconds:.1} s: ");
    line += &match options.load {
        Load::Bulk => {
            let bytes = counts.measured_bytes;
            format!("{bytes} bytes returned, {} corrupt; {:.3} MB/s each way", counts.corrupt, rate(bytes) / 1e6)
        }
        load => {
            let (count, unit) = match load {
                Load::Churn => (counts.cycles, "connections/s"),
                _ => (counts.returned_in_time, "messages/s"),
            };
            let Counts { sent, returned, lost, corrupt, late, .. } = counts;
            format!(
                "{sent} sent, {returned} returned, {lost} lost, {corrupt} corrupt, {late} late; {:.1} {unit}",
                rate(count)
            )
        }
    };
    if !latency.is_empty() {
        let [p50, p99] = [0.5, 0.99].map(|quantile| millis(latency.value_at_quantile(quantile) as f64));
        line += &format!("; p50 {p50} ms, p99 {p99} ms, max {} ms", millis(latency.max() as f64));
    }
    let Counts { opened, failed, ended_by_peer, .. } = counts;
    writeln!(out, "{line}; connections: {opened} opened, {failed} failed, {ended_by_peer} ended by the peer")?;
    out.flush()
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
        write!(out, "{:12} {} of flood's own on a connection, ", "pauses", counts.pauses)?;
        write!(out, "{:.3} s in all", Duration::from_nanos(counts.paused_ns).as_secs_f64())?;
        match options.load {
            Load::Open { .. } => writeln!(out, "; not in the latency of {} messages", counts.paused_messages)?,
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
            "\nOne source address has about {PORTS_OF_AN_ADDRESS} ports, and each rests after use: more addresses may give more \
             connections a second (--source 127.0.0.1-127.0.0.8)."
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

/// Formats a time in nanoseconds as milliseconds, with four digits where they fit: `0.081`, `12.35`, `123.5`.
#[must_use]
pub fn millis(nanoseconds: f64) -> String {
    let millis = nanoseconds / 1e6;
    let decimals = match millis {
        ..10.0 => 3,
        ..100.0 => 2,
        ..1_000.0 => 1,
        _ => 0,
    };
    format!("{millis:.decimals$}")
}

/// Draws a histogram: rows of equal ratio between the shortest and the longest.
fn draw(out: &mut dyn Write, times: &Histogram<u64>) -> io::Result<()> {
    let (least, most) = (times.min().max(1) as f64, times.max().max(2) as f64);
    // The row of a value is where it stands between the two, on a scale of ratios.
    let row = |value: u64| {
        let share = (value.max(1) as f64 / least).ln() / (most / least).ln();
        ((share * f64::from(ROWS)).ceil() as usize).clamp(1, ROWS as usize) - 1
    };
    let bound = |row: usize| least * (most / least).powf((row + 1) as f64 / f64::from(ROWS));
    let mut counts = [0; ROWS as usize];
    for step in times.iter_recorded() {
        counts[row(step.value_iterated_to())] += step.count_since_last_iteration();
    }
    let highest = counts.iter().max().copied().unwrap_or(1).max(1);
    for (row, count) in counts.into_iter().enumerate() {
        let length = (count as f64 * WIDTH / highest as f64).round() as usize;
        let bar = if length == 0 && count > 0 { "▏".to_owned() } else { "█".repeat(length) };
        writeln!(out, "{:>9} ms |{bar:width$}| {count}", format!("≤ {}", millis(bound(row))), width = WIDTH as usize)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::latency::latencies;

    fn drawn(values: impl IntoIterator<Item = u64>) -> Vec<(String, u64)> {
        let mut times = latencies();
        values.into_iter().for_each(|value| times.saturating_record(value));
        let mut out = Vec::new();
        draw(&mut out, &times).expect("memory");
        let text = String::from_utf8(out).expect("text");
        let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count");
        text.lines().map(|line| (line.to_owned(), count(line))).collect()
    }

    #[test]
    fn each_value_is_in_one_row() {
        for values in [vec![1_000], vec![0, 1, 2], (1..50_000).map(|n| n * 700).collect(), vec![5, 90_000_000_000]] {
            let expected = values.len() as u64;
            let rows = drawn(values.clone());
            assert_eq!(rows.iter().map(|(_, count)| count).sum::<u64>(), expected, "{rows:?}");
            assert!(rows.iter().all(|(line, _)| line.chars().count() < 100), "{rows:?}");
        }
    }

    #[test]
    fn milliseconds_keep_their_column() {
        for (nanoseconds, text) in [(81_000.0, "0.081"), (12_345_678.0, "12.35"), (123_456_789.0, "123.5"), (6e10, "60000")]
        {
            assert_eq!(millis(nanoseconds), text);
        }
    }
}
