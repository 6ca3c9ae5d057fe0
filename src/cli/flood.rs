//! `edgecho flood`: its flags, and what its end means.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, IsTerminal, LineWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use clap::{ArgAction, Args, ValueEnum};
use edgecho::client::Target;
use edgecho::client::flood::report::{self, Assertion, Bar, HdrLog, HdrLogFile, Verdict};
use edgecho::client::flood::{self, Interval, Load, Observer, Options, Outcome, Progress, Sizes};
use edgecho::sys::signal::{self, Signal};

use super::ping::{Connecting, Wire};
use super::values::{rate, seconds, sources};
use super::{FAILURE, TROUBLE, stderr};

/// The status when an `--assert` does not hold.
const ASSERTION_FAILED: u8 = 3;

#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C and SIGHUP end early with the report; a second one ends at once. Ctrl-\\ and SIGUSR1 print interim figures \
    to stderr. Exit status: 0 when everything that was due was sent and came back unchanged, 1 when a byte was lost or changed, a \
    connection ended or failed, or a message was never sent, 2 for other trouble, 3 when an assertion does not hold. Assert \
    'ended<=N', 'failed<=N' or 'unsent<=N' to allow some."
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

    /// A message is late this long after it was due, and lost twice as long after it was sent. An open loop that is behind stops sending
    /// this long after the end, and ends twice as long after it
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

    /// Write the latencies, second by second, as a log that HdrHistogram's tools read, to a file, or with '-' to stdout instead of the table
    #[arg(long, value_name = "FILE|-")]
    hdr: Option<PathBuf>,

    /// Draw latency by percentile and rate over time, as SVG to a file, or with '-' to stdout instead of the table
    #[arg(long, value_name = "FILE.svg|-")]
    plot: Option<PathBuf>,

    /// Print only the summary: no progress bar, no drawn histogram
    #[arg(short, long, action = ArgAction::Count, env = "EDGECHO_QUIET")]
    quiet: u8,
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

/// A place for a report: a file, or stdout for `-`.
struct Output<'a> {
    path: &'a Path,
    out: Box<dyn Write>,
}

impl<'a> Output<'a> {
    fn create(path: &'a Path) -> Result<Self, String> {
        let is_stdout = path.as_os_str() == "-";
        let file = if is_stdout { None } else { Some(File::create(path).map_err(|error| cannot_write(path, &error))?) };
        Ok(Self { path, out: file.map_or_else(|| Box::new(std::io::stdout()) as Box<dyn Write>, |file| Box::new(file)) })
    }

    /// Has `write` write to it, in large pieces.
    fn write<E: std::fmt::Display>(&mut self, write: impl FnOnce(&mut dyn Write) -> Result<(), E>) -> Result<(), String> {
        write(&mut BufWriter::new(&mut self.out)).map_err(|error| cannot_write(self.path, &error))
    }
}

fn cannot_write(path: &Path, error: &dyn std::fmt::Display) -> String {
    let name = if path.as_os_str() == "-" { "stdout".into() } else { path.display().to_string() };
    format!("cannot write {name}: {error}")
}

impl ReportFlags {
    /// The outputs that are asked for, with their flags.
    fn outputs(&self) -> Vec<(&'static str, &Path)> {
        let all = [("--json", &self.json), ("--hdr", &self.hdr), ("--plot", &self.plot)];
        all.into_iter().filter_map(|(flag, path)| Some((flag, path.as_deref()?))).collect()
    }

    /// Makes sure that no two outputs go to the same place.
    fn check(&self) -> Result<(), String> {
        let outputs = self.outputs();
        for (index, &(flag, path)) in outputs.iter().enumerate() {
            if let Some((other, _)) = outputs[..index].iter().find(|&&(_, other)| other == path) {
                return Err(match path.as_os_str() == "-" {
                    true => format!("{other} and {flag} cannot both go to stdout; give one of them a file"),
                    false => {
                        format!("{other} and {flag} cannot both go to {}; give one of them another file", path.display())
                    }
                });
            }
        }
        Ok(())
    }

    /// Returns whether stdout is free for the table.
    fn has_table(&self) -> bool {
        self.outputs().iter().all(|(_, path)| path.as_os_str() != "-")
    }
}

/// Watches a flood: shows how far it has come, writes the log, and looks for signals.
struct Watcher<'a, 'b, 'c> {
    options: &'a Options,
    bar: Bar,
    log: Option<HdrLog<'b, 'b, LineWriter<&'c mut dyn Write>>>,
    log_error: Option<std::io::Error>,
    /// A signal has asked for the end.
    is_stopped: Arc<AtomicBool>,
    /// A signal has asked for interim figures.
    is_asked: Arc<AtomicBool>,
}

/// Has signals raise `is_stopped` to ask for the end, and `is_asked` to ask for interim figures.
fn listen(is_stopped: &Arc<AtomicBool>, is_asked: &Arc<AtomicBool>) -> std::io::Result<()> {
    let mut ends = vec![Signal::SIGINT, Signal::SIGTERM];
    if !signal::is_ignored(Signal::SIGHUP)? {
        ends.push(Signal::SIGHUP); // and under nohup(1) it stays ignored
    }
    signal::raise_flag(&ends, is_stopped)?;
    signal::raise_flag_always(&[Signal::SIGQUIT, Signal::SIGUSR1], is_asked)
}

impl Observer for Watcher<'_, '_, '_> {
    fn progress(&mut self, progress: &Progress<'_>) -> bool {
        if self.is_asked.swap(false, Ordering::Relaxed) {
            let mut line = Vec::new();
            if report::write_interim(&mut line, self.options, progress).is_ok() {
                self.bar.suspend(|| stderr::say(String::from_utf8_lossy(&line)));
            }
        }
        self.bar.show(progress);
        !self.is_stopped.load(Ordering::Relaxed)
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
        Ok(status) => ExitCode::from(status),
        Err(message) => {
            say("error", &message);
            ExitCode::from(TROUBLE)
        }
    }
}

fn say(kind: &str, message: &str) {
    stderr::say(format_args!("{kind}: {message}"));
}

fn run(flags: &Flood) -> Result<u8, String> {
    let options = flags.options();
    let ReportFlags { json, hdr, plot, quiet } = &flags.report;
    flags.report.check()?;
    // A file that cannot be written is better known before an hour of measuring than after.
    let mut json = json.as_deref().map(Output::create).transpose()?;
    let mut hdr = hdr.as_deref().map(Output::create).transpose()?;
    let mut plot = plot.as_deref().map(Output::create).transpose()?;

    let (outcome, log_error) = measure(&options, hdr.as_mut(), *quiet > 0)?;
    let verdicts: Vec<Verdict> = flags.checks.assertions.iter().map(|assertion| assertion.check(&outcome)).collect();

    // One that cannot be written does not keep the others from being written.
    let mut failures = Vec::new();
    if let (Some(error), Some(hdr)) = (log_error, &hdr) {
        failures.push(cannot_write(hdr.path, &error));
    }
    if let Some(json) = &mut json {
        failures.extend(json.write(|out| report::write_json(out, &options, &outcome, &verdicts)).err());
    }
    if let Some(plot) = &mut plot {
        failures.extend(plot.write(|out| report::write_plot(out, &options, &outcome)).err());
    }
    if flags.report.has_table() {
        let write = if *quiet > 0 { report::write_summary } else { report::write_text };
        match write(&mut BufWriter::new(std::io::stdout().lock()), &options, &outcome) {
            // Who closes the pipe has seen enough.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => failures.push(cannot_write(Path::new("-"), &error)),
            _ => {}
        }
    }
    for failure in &failures {
        say("error", failure);
    }
    let status = status(&outcome, &flags.checks.assertions, &verdicts);
    Ok(if failures.is_empty() { status } else { status.max(TROUBLE) })
}

/// Floods, and gives what came of it, and why the log could not be written, if so.
fn measure(
    options: &Options,
    hdr: Option<&mut Output<'_>>,
    is_quiet: bool,
) -> Result<(Outcome, Option<std::io::Error>), String> {
    let (is_stopped, is_asked) = (Arc::default(), Arc::default());
    listen(&is_stopped, &is_asked).map_err(|error| format!("cannot listen for signals (sigaction): {error}"))?;
    let path = hdr.as_ref().map(|hdr| hdr.path);
    // Each interval goes out by itself, so that the log can be followed, and a full disk is noticed at once.
    let mut file = hdr.map(|hdr| HdrLogFile::new(LineWriter::new(&mut *hdr.out as &mut dyn Write)));
    let log = file.as_mut().map(|file| file.begin(SystemTime::now())).transpose();
    let log = log.map_err(|error| cannot_write(path.unwrap_or(Path::new("-")), &error))?;
    let mut watcher = Watcher {
        options,
        bar: Bar::new(options, !is_quiet && std::io::stderr().is_terminal()),
        log,
        log_error: None,
        is_stopped,
        is_asked,
    };
    let outcome = flood::run(options, &mut watcher);
    watcher.bar.end();
    Ok((outcome.map_err(|error| error.to_string())?, watcher.log_error))
}

/// What the end means, said on stderr where it is not good.
fn status(outcome: &Outcome, assertions: &[Assertion], verdicts: &[Verdict]) -> u8 {
    let counts = &outcome.counts;
    if outcome.missing > 0 {
        say("warning", &format!("{} of the connections could not be opened", outcome.missing));
    }
    if let (true, Some(requested), Some(achieved)) = (outcome.is_too_slow(), outcome.requested_rate, outcome.achieved_rate())
    {
        let percent = achieved * 100.0 / requested;
        say("warning", &format!("only {achieved:.1} of the {requested} messages/s requested were sent ({percent:.1} %)"));
    }
    for verdict in verdicts.iter().filter(|verdict| !verdict.holds) {
        stderr::say(format_args!("assertion failed: {}: it was {}", verdict.text, verdict.value));
    }
    let mut is_failed = !outcome.is_clean();
    if is_failed {
        say("error", "not everything came back as it was sent");
    }
    // Messages that an early end kept from being sent do not fail the run.
    let unsent = if outcome.is_interrupted { 0 } else { counts.unsent };
    for (count, metric, what) in [
        (counts.ended_by_peer, "ended", "connections ended by the peer"),
        (counts.failed, "failed", "failed attempts to connect"),
        (unsent, "unsent", "messages due and never sent"),
    ] {
        if count > 0 && !assertions.iter().any(|assertion| assertion.bounds(metric)) {
            say("error", &format!("{what}: {count} (--assert '{metric}<=N' allows some)"));
            is_failed = true;
        }
    }
    // Who asserts that nothing is lost is to see that assertion fail.
    if verdicts.iter().any(|verdict| !verdict.holds) {
        ASSERTION_FAILED
    } else if is_failed {
        FAILURE
    } else {
        0
    }
}
