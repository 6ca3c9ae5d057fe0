//! The flags of `edgecho flood`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{ArgAction, Args, ValueEnum, ValueHint};
use edgecho::client::Target;
use edgecho::client::flood::report::Assertion;
use edgecho::client::flood::{self, Load, Options, Sizes};

use crate::cli::connecting::{Connecting, Wire};
use crate::cli::values::{DAY, HOUR, MILLISECOND, SECOND, Sources, number, rate, seconds, sources};

const AFTER_HELP: &str = "\
Signals:
  SIGINT, SIGTERM, SIGHUP  End early with the report. A second signal ends flood at once.
  SIGQUIT, SIGUSR1         Print interim figures to stderr and continue.

Exit status:
  0  Every message that was due was sent and came back unchanged.
  1  A byte was lost or changed, a connection ended or failed, or a message was never sent.
     --assert 'ended<=N', 'failed<=N' and 'unsent<=N' allow some.
  2  Other trouble, such as a wrong flag or a report that cannot be written.
  3  An assertion does not hold.

Examples:
  edgecho flood 192.0.2.1
      50 connections in a closed loop for 10 seconds: the rate that the far end can keep.
  edgecho flood 192.0.2.1 --rate 20k -d 60 --assert 'p99<5ms' --assert 'loss==0'
      20,000 messages per second on schedule; fails if a latency or a loss exceeds the limits.
  edgecho flood 192.0.2.1 -c 8 --bulk --json report.json --plot report.svg
      Stream over 8 connections, and keep the report as JSON and as a picture.";

#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(in crate::cli) struct Flood {
    /// Echo service: HOST or HOST:PORT; the default port is 7777
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    target: Target,

    #[command(flatten)]
    load: LoadFlags,

    #[command(flatten)]
    checks: CheckFlags,

    #[command(flatten)]
    pub(super) report: ReportFlags,

    #[command(flatten)]
    connecting: Connecting,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct LoadFlags {
    /// Number of connections, open at the same time
    ///
    /// From 1 to 1000000.
    #[arg(short, long, value_name = "N", value_parser = number::<usize>(1..=Options::MAX_CONNECTIONS as u64), default_value_t = 50)]
    connections: usize,

    /// Time to measure
    ///
    /// In seconds, or with a unit such as 500ms; from 1ms to 1day. The default is 10s, unless --messages is given.
    #[arg(short, long, value_name = "DURATION", value_parser = seconds(MILLISECOND..=DAY))]
    duration: Option<Duration>,

    /// Number of messages to send over all connections
    #[arg(short = 'n', long, value_name = "N", value_parser = number::<u64>(1..=u64::MAX))]
    messages: Option<u64>,

    /// Bytes per message
    ///
    /// One size, several sizes to use in turn (64,1KiB), or a range to choose from at random (1-4KiB). From 1 to 16MiB.
    #[arg(short, long, value_name = "SIZES", default_value = "64")]
    size: Sizes,

    /// Protocol of the far end
    ///
    /// Lines and frames take a single --size.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Wire::Bytes)]
    protocol: Wire,

    /// Maximum number of messages in flight per connection
    ///
    /// From 1 to 4096.
    #[arg(long, value_name = "DEPTH", value_parser = number::<usize>(1..=Options::MAX_PIPELINE as u64), default_value_t = 1, conflicts_with_all = ["bulk", "churn"])]
    pipeline: usize,

    /// Send this many messages per second over all connections (open loop)
    ///
    /// Such as 50000 or 50k. Messages are due on a schedule that a late echo does not delay, and latency counts from when a message was
    /// due. Without --rate the loop is closed: a connection sends the next message when an echo has come back.
    #[arg(long, value_name = "MSGS/S", value_parser = rate, conflicts_with_all = ["bulk", "churn"])]
    rate: Option<f64>,

    /// Stream without waiting for the echo
    #[arg(long, conflicts_with_all = ["churn", "messages", "size"])]
    bulk: bool,

    /// Connect, echo one message, close; over and over
    #[arg(long)]
    churn: bool,

    /// Run this long before measuring
    ///
    /// In seconds, or with a unit; at most 1day.
    #[arg(long, value_name = "DURATION", value_parser = seconds(Duration::ZERO..=DAY), default_value = "0s")]
    warmup: Duration,

    /// Spread the opening of the connections over this time
    ///
    /// In seconds, or with a unit; at most 1day.
    #[arg(long, value_name = "DURATION", value_parser = seconds(Duration::ZERO..=DAY), default_value = "0s")]
    ramp_up: Duration,

    /// End each connection with a FIN, and expect every byte before the peer's FIN
    #[arg(long)]
    half_close: bool,

    /// Number of threads that share the connections
    ///
    /// From 1 to 256. Each thread has its own limit on open descriptors.
    #[arg(long, value_name = "N", value_parser = number::<usize>(1..=Options::MAX_THREADS as u64), default_value_t = 1)]
    threads: usize,

    /// Source addresses to use in turn
    ///
    /// One address, or all from one to another: 127.0.0.1-127.0.0.8. One source address has ports for about 28,000 connections.
    #[arg(long, value_name = "ADDR[-ADDR]", value_parser = sources)]
    source: Option<Sources>,

    /// Seed of the byte pattern and of the random sizes
    ///
    /// By default each run has another one, which --json reports.
    #[arg(long, value_name = "N", value_parser = number::<u64>(0..=u64::MAX))]
    seed: Option<u64>,

    /// Busy-poll for this long before blocking
    ///
    /// At most 1s. Round trips become shorter, and a CPU stays busy.
    #[arg(long, value_name = "DURATION", value_parser = seconds(Duration::ZERO..=SECOND), default_value = "0s")]
    busy_poll: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Checks")]
struct CheckFlags {
    /// Bytes of the echo to compare
    ///
    /// Use 'off' to measure speed, 'full' to check correctness.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Verify::Full)]
    verify: Verify,

    /// Time after which a message is late
    ///
    /// It counts from when the message was due, in seconds or with a unit; from 1ms to 1h. A message is lost twice as long after it was
    /// sent. An open loop that is behind schedule stops sending this long after the end, and ends twice as long after it.
    #[arg(long, value_name = "DURATION", value_parser = seconds(MILLISECOND..=HOUR), default_value = "5s")]
    timeout: Duration,

    /// Exit with status 3 unless this holds, such as 'p99<5ms'
    ///
    /// Other examples: 'loss==0', 'rate>=100000'. May be given several times. Metrics: p50, p99.9 and the like, min, mean, max, connect-p99, loss, corrupt, late, failed, ended,
    /// unsent, errors, rate, churn, throughput. Operators: < <= == != >= >. Latencies take a unit, such as 5ms; throughput takes bytes per
    /// second, such as 100MB.
    #[arg(long = "assert", value_name = "ASSERTION")]
    assertions: Vec<Assertion>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Verify {
    /// Every byte
    Full,
    /// The ends of each read: finds lost, added and moved bytes
    Sample,
    /// None: a stream is not even copied from the kernel
    Off,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Report")]
pub(super) struct ReportFlags {
    /// Write the report to a file, as JSON
    ///
    /// '-' is stdout, instead of the table.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,

    /// Write the latencies of each second to a file, as an HdrHistogram log
    ///
    /// '-' is stdout, instead of the table. HdrHistogram's tools read the log.
    #[arg(long, value_name = "FILE")]
    pub(super) hdr: Option<PathBuf>,

    /// Draw latency by percentile and rate over time to an SVG file
    ///
    /// '-' is stdout, instead of the table.
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,

    /// Print only the summary: no progress bar, no histogram
    #[arg(short, long, action = ArgAction::Count, env = "EDGECHO_QUIET")]
    quiet: u8,
}

impl ReportFlags {
    /// Returns whether the progress bar and the histogram are off.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet > 0
    }
}

impl Flood {
    pub(super) fn assertions(&self) -> &[Assertion] {
        &self.checks.assertions
    }

    pub(super) fn options(&self) -> Options {
        let Self { target, load, checks, connecting, .. } = self;
        let mut options = Options::new(target.clone());
        options.connections = load.connections;
        options.threads = load.threads;
        options.load = match load.rate {
            _ if load.bulk => Load::Bulk,
            _ if load.churn => Load::Churn,
            Some(rate) => Load::Open { rate, pipeline: load.pipeline },
            None => Load::Closed { pipeline: load.pipeline },
        };
        options.duration = load.duration.or(load.messages.is_none().then_some(Duration::from_secs(10)));
        options.messages = load.messages;
        options.sizes = load.size.clone();
        options.framing = load.protocol.into();
        options.warmup = load.warmup;
        options.ramp_up = load.ramp_up;
        options.sources = load.source.as_deref().unwrap_or_default().to_vec();
        options.half_close = load.half_close;
        options.seed = load.seed.unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64);
        options.verify = match checks.verify {
            Verify::Full => flood::Verify::Full,
            Verify::Sample => flood::Verify::Sample,
            Verify::Off => flood::Verify::Off,
        };
        options.timeout = checks.timeout;
        options.busy_poll = load.busy_poll;
        options.handshake = !connecting.no_handshake;
        options.send_proxy = connecting.send_proxy.map(Into::into);
        options.connect = connecting.timeouts();
        options.retry = connecting.retry;
        options
    }
}
