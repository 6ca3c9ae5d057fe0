//! What a ping says, as text for people or as JSON Lines for programs.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::Serialize;

/// How to say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines as ping(8) has them, with the time of day in front if so asked.
    Text {
        /// Seconds since 1970, to the microsecond.
        timestamps: bool,
    },
    /// One JSON object a line, the last of which is the summary.
    Json,
}

/// What a run of ping came to.
#[derive(Debug, Clone)]
pub struct Summary {
    /// How many payloads were sent, or were to be sent when there was no connection.
    pub sent: u64,
    /// How many of them came back unchanged.
    pub received: u64,
    /// How many of those came after their time was up.
    pub late: u64,
    /// How many came back changed.
    pub corrupt: u64,
    /// How long it all took.
    pub elapsed: Duration,
    /// Round trips, in nanoseconds.
    pub round_trips: Histogram<u64>,
    /// Their mean.
    pub mean: Duration,
    /// The mean deviation of the round trips, as ping(8) has it: the standard deviation.
    pub mdev: Duration,
}

impl Summary {
    /// How many did not come back, or came back changed.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
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
    target: String,
    sent: u64,
    received: u64,
    lost: u64,
    late: u64,
    corrupt: u64,
    elapsed_ms: f64,
    /// Null when nothing came back.
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

/// Says what happens, line by line.
pub(super) struct Reporter<'a> {
    pub(super) format: Format,
    /// Only the header and the summary are reported.
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
        let connected = connect_time.map(|time| format!(" (connected in {} ms)", Millis(time))).unwrap_or_default();
        let late = if late { " (late)" } else { "" };
        self.text(format_args!("{bytes} bytes from {from}: seq={seq} time={} ms{connected}{late}", Millis(time)))
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

    pub(super) fn summary(&mut self, target: &dyn fmt::Display, summary: &Summary) -> io::Result<()> {
        let times = RoundTrips::of(summary);
        if self.format == Format::Json {
            return self.json(&Line::Summary(SummaryLine {
                at_s: now_s(),
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
    ns_to_ms(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

fn ns_to_ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

/// Milliseconds in three digits, as ping(8) has them.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = ms(self.0);
        let decimals = match millis {
            ..1.0 => 3,
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        write!(f, "{millis:.decimals$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let text = |micros| Millis(Duration::from_micros(micros)).to_string();
        assert_eq!([81, 1_234, 12_345, 123_456].map(text), ["0.081", "1.23", "12.3", "123"]);
    }

    #[test]
    fn a_run_without_an_answer_has_no_round_trips_and_no_nan() {
        let mut out = Vec::new();
        let round_trips = crate::client::latency::latencies();
        let summary = Summary {
            sent: 3,
            received: 0,
            late: 0,
            corrupt: 1,
            elapsed: Duration::from_secs(2),
            round_trips,
            mean: Duration::ZERO,
            mdev: Duration::ZERO,
        };
        let format = Format::Text { timestamps: false };
        Reporter { format, is_quiet: false, out: &mut out }.summary(&"host:1", &summary).expect("memory");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text, "\n--- host:1 ping statistics ---\n3 sent, 0 received, 1 corrupt, 3 lost (100 %), time 2000 ms\n");
        let mut out = Vec::new();
        Reporter { format: Format::Json, is_quiet: false, out: &mut out }.summary(&"host:1", &summary).expect("memory");
        assert!(String::from_utf8(out).expect("text").contains("\"round_trip_ms\":null"));
    }
}
