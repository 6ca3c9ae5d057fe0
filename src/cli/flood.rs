//! `edgecho flood`: its flags, and what its end means.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use edgecho::client::Target;
use edgecho::client::flood::report::{self, Assertion, Bar, HdrLog, HdrLogFile, Verdict};
use edgecho::client::flood::{self, Interval, Load, Observer, Options, Outcome, Progress, Sizes};
use edgecho::sys::signal;

use super::ping::{Connecting, Wire};
use super::values::{rate, seconds, sources};
use super::{FAILURE, TROUBLE};

/// The status when an `--assert` does not hold.
const ASSERTION_FAILED: u8 = 3;

#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C ends early, with the report of what there was; a second one ends at once. Exit status: 0 when every byte \
    came back as it was sent, 1 when one was lost or changed, 2 for other trouble, 3 when an assertion does not hold."
)]
pub(super) struct Flood {
    /// The echo service: HOST or HOST:PORT, where the port is 7777 if none is given
    #[arg(value_name = "HOST[:PORT]")]
    target: Target,

    #[command(flatten)]
    work: WorkFlags,

    #[command(flatten)]
    checks: CheckFlags,

    #[command(flatten)]
    report: ReportFlags,

    #[command(flatten)]
    connecting: Connecting,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct WorkFlags {
    /// Connections that are open at the same time
    #[arg(short, long, value_name = "N", default_value_t = 50)]
    connections: usize,

    /// How long to measure, such as 10s [default: 10s, unless --messages is given]
    #[arg(short, long, value_name = "DURATION", value_parser = seconds)]
    duration: Option<Duration>,

    /// How many messages to send, over all connections
    #[arg(short = 'n', long, value_name = "N")]
    messages: Option<u64>,

    /// Bytes of a message: one size, several to be used in turn, or a range to choose from at random; from 1 to 16MiB
    #[arg(short, long, value_name = "SIZE[,SIZE…]|MIN-MAX", default_value = "64")]
    size: Sizes,

    /// What the far end takes as one message, where that is not just bytes; all are of one size then
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Wire::Bytes)]
    protocol: Wire,

    /// Messages that may be on their way on each connection
    #[arg(long, value_name = "DEPTH", default_value_t = 1, conflicts_with_all = ["bulk", "churn"])]
    pipeline: usize,

    /// Open loop: send so many messages a second over all connections, by a schedule that a late answer does not slow; latency counts
    /// from when a message was due [default: closed loop, each connection sends when an answer has come back]
    #[arg(long, value_name = "MSGS/S", value_parser = rate, conflicts_with_all = ["bulk", "churn"])]
    rate: Option<f64>,

    /// Stream without waiting for what comes back
    #[arg(long, conflicts_with_all = ["churn", "messages", "size"])]
    bulk: bool,

    /// Connect, have one message come back, close, over and over
    #[arg(long)]
    churn: bool,

    /// Go on for so long before anything counts
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "0s")]
    warmup: Duration,

    /// Spread the opening of the connections over so long
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "0s")]
    ramp_up: Duration,

    /// End each connection with a FIN of ours, and have everything come back before the peer's
    #[arg(long)]
    half_close: bool,

    /// Threads that share the connections, each with its own limit on descriptors
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,

    /// Source addresses for the connections, in turn: one has ports for about 28,000
    #[arg(long, value_name = "ADDR[-ADDR]", value_parser = sources)]
    source: Option<Sources>,

    /// What the pattern of the bytes and the sizes are made from [default: another each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Look for events again and again for so long before sleeping
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "0s")]
    busy_poll: Duration,
}

/// The addresses of a range.
pub(super) type Sources = Arc<[IpAddr]>;

#[derive(Debug, Args)]
#[command(next_help_heading = "Checks")]
struct CheckFlags {
    /// What of the bytes that come back is compared: all; the ends of each read; nothing, so that a stream need not even be copied
    /// from the kernel
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Verify::Full)]
    verify: Verify,

    /// When a message is late; after twice that, it is lost
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "5s")]
    timeout: Duration,

    /// Exit with status 3 unless this holds, such as 'p99<5ms', 'loss==0' or 'rate>=100000'. May be given several times
    #[arg(long = "assert", value_name = "METRIC OP VALUE")]
    assertions: Vec<Assertion>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Verify {
    Full,
    Sample,
    Off,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Report")]
struct ReportFlags {
    /// Write everything as JSON to a file, or with '-' to stdout instead of the table
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,

    /// Write the latencies, second by second, as a log that HdrHistogram's tools read
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,

    /// Draw latency by percentile and rate over time
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

impl Flood {
    fn options(&self) -> Options {
        let Self { target, work, checks, connecting, .. } = self;
        Options {
            target: target.clone(),
            connections: work.connections,
            threads: work.threads,
            load: match work.rate {
                _ if work.bulk => Load::Bulk,
                _ if work.churn => Load::Churn,
                Some(rate) => Load::Open { rate, pipeline: work.pipeline },
                None => Load::Closed { pipeline: work.pipeline },
            },
            duration: work.duration.or(work.messages.is_none().then_some(Duration::from_secs(10))),
            messages: work.messages,
            sizes: work.size.clone(),
            framing: work.protocol.into(),
            warmup: work.warmup,
            ramp_up: work.ramp_up,
            sources: work.source.as_deref().unwrap_or_default().to_vec(),
            half_close: work.half_close,
            seed: work.seed.unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64),
            verify: match checks.verify {
                Verify::Full => flood::Verify::Full,
                Verify::Sample => flood::Verify::Sample,
                Verify::Off => flood::Verify::Off,
            },
            timeout: checks.timeout,
            busy_poll: work.busy_poll,
            handshake: !connecting.no_handshake,
            connect: connecting.timeouts(),
            retry: connecting.retry,
        }
    }
}

/// Watches a flood: shows how far it has come, writes the log, and hears Ctrl-C.
struct Watcher<'a, 'b, 'c> {
    bar: Bar,
    log: Option<HdrLog<'a, 'b, &'c mut dyn Write>>,
    log_error: Option<std::io::Error>,
    interrupted: Arc<AtomicBool>,
}

impl Observer for Watcher<'_, '_, '_> {
    fn progress(&mut self, progress: &Progress<'_>) -> bool {
        self.bar.show(progress);
        !self.interrupted.load(Ordering::Relaxed)
    }

    fn interval(&mut self, interval: &Interval<'_>) {
        if let Some(Err(error)) = self.log.as_mut().map(|log| log.write(interval)) {
            self.log = None;
            self.log_error = Some(error);
        }
    }
}

pub(super) fn flood(flags: Flood) -> ExitCode {
    match run(&flags) {
        Ok(status) => status,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "error: {message}");
            ExitCode::from(TROUBLE)
        }
    }
}

fn run(flags: &Flood) -> Result<ExitCode, String> {
    let options = flags.options();
    let ReportFlags { json, hdr, plot } = &flags.report;
    // A file that cannot be written is better known before an hour of measuring than after.
    let mut json = json.as_deref().map(create).transpose()?;
    let mut hdr_out = hdr.as_deref().map(create).transpose()?;
    if let Some(plot) = plot {
        File::create(plot).map_err(|error| cannot_write(plot, &error))?;
    }

    let interrupted = Arc::new(AtomicBool::new(false));
    signal::raise_flag(&interrupted).map_err(|error| format!("cannot listen for Ctrl-C (sigaction): {error}"))?;
    let mut hdr_file = hdr_out.as_mut().map(|out| HdrLogFile::new(&mut **out as &mut dyn Write));
    let hdr_failed = |error: std::io::Error| cannot_write(hdr.as_deref().unwrap_or(Path::new("-")), &error);
    let log = hdr_file.as_mut().map(|file| file.begin(SystemTime::now())).transpose().map_err(hdr_failed)?;
    let bar = Bar::new(&options, std::io::stderr().is_terminal());
    let mut watcher = Watcher { bar, log, log_error: None, interrupted };
    let outcome = flood::run(&options, &mut watcher);
    watcher.bar.end();
    let log_error = watcher.log_error.take();
    drop(watcher);
    let outcome = outcome.map_err(|error| error.to_string())?;
    drop(hdr_file);
    if let Some(error) = log_error.or_else(|| hdr_out.as_mut().and_then(|out| out.flush().err())) {
        return Err(hdr_failed(error));
    }

    let verdicts: Vec<Verdict> = flags.checks.assertions.iter().map(|assertion| assertion.check(&outcome)).collect();
    if let (Some(out), Some(path)) = (&mut json, &flags.report.json) {
        report::write_json(out, &options, &outcome, &verdicts).map_err(|error| cannot_write(path, &error))?;
    }
    if !flags.report.json.as_deref().is_some_and(is_stdout) {
        let out = &mut BufWriter::new(std::io::stdout().lock());
        match report::write_text(out, &options, &outcome) {
            // Who closes the pipe has seen enough.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(cannot_write(Path::new("-"), &error));
            }
            _ => {}
        }
    }
    if let Some(plot) = plot {
        report::write_plot(plot, &options, &outcome).map_err(|error| cannot_write(plot, &error))?;
    }
    Ok(status(&outcome, &verdicts))
}

/// What the end means, said on stderr where it is not good.
fn status(outcome: &Outcome, verdicts: &[Verdict]) -> ExitCode {
    let mut stderr = std::io::stderr();
    if outcome.missing > 0 {
        let _ = writeln!(stderr, "warning: {} of the connections could not be opened", outcome.missing);
    }
    for verdict in verdicts.iter().filter(|verdict| !verdict.holds) {
        let _ = writeln!(stderr, "assertion failed: {}: it was {}", verdict.text, verdict.value);
    }
    if !outcome.is_clean() {
        let _ = writeln!(stderr, "error: not everything came back as it was sent");
    }
    // Who asserts that nothing is lost is to see that assertion fail.
    if verdicts.iter().any(|verdict| !verdict.holds) {
        return ExitCode::from(ASSERTION_FAILED);
    }
    if !outcome.is_clean() {
        return ExitCode::from(FAILURE);
    }
    if outcome.missing > 0 { ExitCode::from(TROUBLE) } else { ExitCode::SUCCESS }
}

fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A file, or stdout for `-`.
fn create(path: &Path) -> Result<Box<dyn Write>, String> {
    if is_stdout(path) {
        return Ok(Box::new(std::io::stdout()));
    }
    let file = File::create(path).map_err(|error| cannot_write(path, &error))?;
    Ok(Box::new(BufWriter::new(file)))
}

fn cannot_write(path: &Path, error: &dyn std::fmt::Display) -> String {
    let name = if is_stdout(path) { "stdout".into() } else { path.display().to_string() };
    format!("cannot write {name}: {error}")
}
