//! The report of a ping: text for people, or JSON Lines for programs.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::summary::Summary;
use crate::client::latency::{milliseconds, ns};

/// The format of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Lines like those of ping(8).
    Text {
        /// Start each line with the time of day, in seconds since 1970 with microseconds.
        timestamps: bool,
    },
    /// One JSON object per line. The last one is the summary.
    Json,
}

/// One line of JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Echo { at_s: f64, seq: u64, bytes: usize, from: SocketAddr, time_ms: f64, connect_ms: Option<f64>, late: bool },
    Lost { at_s: f64, seq: u64, reason: &'a str },
    Corrupt { at_s: f64, seq: u64, offset: u64, cause: &'a str, reason: &'a str },
    Notice { at_s: f64, text: &'a str },
    Summary(SummaryLine),
}

#[derive(Debug, Serialize)]
struct SummaryLine {
    at_s: f64,
    /// More lines follow.
    interim: bool,
    target: String,
    sent: u64,
    received: u64,
    lost: u64,
    late: u64,
    corrupt: u64,
    elapsed_ms: f64,
    /// `null` if nothing came back.
    round_trip_ms: Option<RoundTrips>,
}

#[derive(Debug, Serialize)]
struct RoundTrips {
    min: f64,
    avg: f64,
    max: f64,
    mdev: f64,
    p50: f64,
    p90: f64,
    p99: f64,
}

impl RoundTrips {
    fn of(summary: &Summary) -> Option<Self> {
        let times = &summary.round_trips;
        let quantile = |quantile| ns_to_ms(times.value_at_quantile(quantile));
        (!times.is_empty()).then(|| Self {
            min: ns_to_ms(times.min()),
            avg: ms(summary.mean),
            max: ns_to_ms(times.max()),
            mdev: ms(summary.mdev),
            p50: quantile(0.50),
            p90: quantile(0.90),
            p99: quantile(0.99),
        })
    }
}

/// Writes the report line by line.
pub(super) struct Reporter<'a> {
    pub(super) format: Format,
    /// Write only the header and summaries.
    pub(super) is_quiet: bool,
    pub(super) out: &'a mut dyn Write,
}

impl Reporter<'_> {
    pub(super) fn header(&mut self, target: &dyn fmt::Display, size: usize) -> io::Result<()> {
        match self.format {
            Format::Text { .. } => self.text(format_args!("PING {target}: {size} bytes over TCP")),
            Format::Json => Ok(()),
        }
    }

    pub(super) fn echo(
        &mut self,
        from: SocketAddr,
        bytes: usize,
        seq: u64,
        time: Duration,
        connect_time: Option<Duration>,
        late: bool,
    ) -> io::Result<()> {
        if self.is_quiet {
            return Ok(());
        }
        if self.format == Format::Json {
            let connect_ms = connect_time.map(ms);
            return self.json(&Line::Echo { at_s: now_s(), seq, bytes, from, time_ms: ms(time), connect_ms, late });
        }
        let connected = connect_time.map(|time| format!(" (connected in {} ms)", millis(time))).unwrap_or_default();
        let late = if late { " (late)" } else { "" };
        self.text(format_args!("{bytes} bytes from {from}: seq={seq} time={} ms{connected}{late}", millis(time)))
    }

    pub(super) fn lost(&mut self, seq: u64, reason: &str) -> io::Result<()> {
        match self.format {
            _ if self.is_quiet => Ok(()),
            Format::Json => self.json(&Line::Lost { at_s: now_s(), seq, reason }),
            Format::Text { .. } => self.text(format_args!("seq={seq} lost: {reason}")),
        }
    }

    pub(super) fn corrupt(&mut self, seq: u64, offset: u64, cause: &str, reason: &str) -> io::Result<()> {
        match self.format {
            _ if self.is_quiet => Ok(()),
            Format::Json => self.json(&Line::Corrupt { at_s: now_s(), seq, offset, cause, reason }),
            Format::Text { .. } => self.text(format_args!("seq={seq} corrupt at byte {offset}: {reason}")),
        }
    }

    pub(super) fn notice(&mut self, text: &str) -> io::Result<()> {
        match self.format {
            _ if self.is_quiet => Ok(()),
            Format::Json => self.json(&Line::Notice { at_s: now_s(), text }),
            Format::Text { .. } => self.text(format_args!("{text}")),
        }
    }

    /// Writes a summary: the last line, or with `is_interim` the figures so far.
    pub(super) fn summary(&mut self, target: &dyn fmt::Display, summary: &Summary, is_interim: bool) -> io::Result<()> {
        let times = RoundTrips::of(summary);
        if self.format == Format::Json {
            return self.json(&Line::Summary(SummaryLine {
                at_s: now_s(),
                interim: is_interim,
                target: target.to_string(),
                sent: summary.sent,
                received: summary.received,
                lost: summary.lost(),
                late: summary.late,
                corrupt: summary.corrupt,
                elapsed_ms: ms(summary.elapsed),
                round_trip_ms: times,
            }));
        }
        let percent = if summary.sent == 0 { 0.0 } else { summary.lost() as f64 * 100.0 / summary.sent as f64 };
        write!(self.out, "\n--- {target} ping statistics ---\n{} sent, {} received, ", summary.sent, summary.received)?;
        for (count, name) in [(summary.late, "late"), (summary.corrupt, "corrupt")] {
            if count > 0 {
                write!(self.out, "{count} {name}, ")?;
            }
        }
        let percent = format!("{percent:.3}");
        let percent = percent.trim_end_matches('0').trim_end_matches('.');
        writeln!(self.out, "{} lost ({percent} %), time {:.0} ms", summary.lost(), ms(summary.elapsed))?;
        if let Some(RoundTrips { min, avg, max, mdev, p50, p90, p99 }) = times {
            writeln!(self.out, "rtt min/avg/max/mdev = {min:.3}/{avg:.3}/{max:.3}/{mdev:.3} ms")?;
            writeln!(self.out, "rtt p50/p90/p99 = {p50:.3}/{p90:.3}/{p99:.3} ms")?;
        }
        self.out.flush()
    }

    fn text(&mut self, line: fmt::Arguments<'_>) -> io::Result<()> {
        if self.format == (Format::Text { timestamps: true }) {
            write!(self.out, "[{:.6}] ", now_s())?;
        }
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    fn json(&mut self, line: &Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut *self.out, line)?;
        writeln!(self.out)?;
        self.out.flush()
    }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn ms(duration: Duration) -> f64 {
    ns_to_ms(ns(duration))
}

fn ns_to_ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

/// Formats a duration as milliseconds with three digits, as ping(8) does.
fn millis(duration: Duration) -> String {
    milliseconds(ns(duration) as f64, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ping::summary::Tally;
    use std::time::Instant;

    #[test]
    fn a_run_without_an_answer_has_no_round_trips_and_no_nan() {
        let mut out = Vec::new();
        let mut tally = Tally::new(Instant::now());
        (0..3).for_each(|_| tally.sent());
        tally.corrupt();
        let mut summary = tally.summary();
        summary.elapsed = Duration::from_secs(2);
        let format = Format::Text { timestamps: false };
        Reporter { format, is_quiet: false, out: &mut out }.summary(&"host:1", &summary, false).expect("memory");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text, "\n--- host:1 ping statistics ---\n3 sent, 0 received, 1 corrupt, 3 lost (100 %), time 2000 ms\n");
        let mut out = Vec::new();
        Reporter { format: Format::Json, is_quiet: false, out: &mut out }
            .summary(&"host:1", &summary, false)
            .expect("memory");
        assert!(String::from_utf8(out).expect("text").contains("\"round_trip_ms\":null"));
    }
}
