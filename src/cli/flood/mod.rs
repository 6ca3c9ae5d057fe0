//! `edgecho flood`: runs a load from the flags, writes the reports, and turns the outcome into an exit status.

mod errors;
mod flags;
mod output;
mod plot;
mod progress;
mod watcher;

use std::io::{self, BufWriter, IsTerminal, LineWriter};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use edgecho::client::flood::report::{self, Assertion, HdrLogFile, Verdict};
use edgecho::client::flood::{self, Options, Outcome};

use super::signals::Requests;
use super::status::{FAILURE, TROUBLE};
use super::stderr;
pub(super) use flags::Flood;
use output::{Output, Outputs};
use progress::Bar;
use watcher::Watcher;

/// The status when an `--assert` does not hold.
const ASSERTION_FAILED: u8 = 3;

/// Floods until the end, and returns the exit status.
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
    let outputs = Outputs::open(&flags.report)?;
    let (outcome, log_error) = measure(&options, outputs.hdr.as_ref(), flags.report.is_quiet())?;
    let verdicts: Vec<Verdict> = flags.assertions().iter().map(|assertion| assertion.check(&outcome)).collect();

    // The failure of one report must not prevent the others.
    let mut failures = Vec::new();
    if let (Some(error), Some(hdr)) = (log_error, &outputs.hdr) {
        failures.extend(hdr.failure(&error));
    }
    if let Some(json) = &outputs.json {
        failures.extend(json.write(|out| report::write_json(out, &options, &outcome, &verdicts)));
    }
    if let Some(plot) = &outputs.plot {
        failures.extend(plot.write(|out| plot::write(out, &options, &outcome)));
    }
    if outputs.has_table {
        let write = if flags.report.is_quiet() { report::write_summary } else { report::write_text };
        let written = write(&mut BufWriter::new(io::stdout().lock()), &options, &outcome);
        failures.extend(written.err().and_then(|error| output::failure(Path::new("-"), &error)));
    }
    for failure in &failures {
        say("error", failure);
    }
    let status = judge(&outcome, flags.assertions(), &verdicts);
    Ok(if failures.is_empty() { status } else { status.max(TROUBLE) })
}

/// Runs the flood. Returns the outcome, and the error that ended the HdrHistogram log, if any.
fn measure(options: &Options, hdr: Option<&Output<'_>>, is_quiet: bool) -> Result<(Outcome, Option<io::Error>), String> {
    let signals = Requests::listen().map_err(|error| format!("cannot handle signals (sigaction): {error}"))?;
    let mut log_file = hdr.map(|hdr| (hdr, HdrLogFile::new(LineWriter::new(hdr.file()))));
    let log = match log_file.as_mut().map(|(hdr, file)| (hdr, file.begin(SystemTime::now()))) {
        None => None,
        Some((_, Ok(log))) => Some(log),
        // A log that cannot be written is reported before the load begins.
        Some((hdr, Err(error))) => hdr.failure(&error).map_or(Ok(None), Err)?,
    };
    let bar = Bar::new(options, !is_quiet && io::stderr().is_terminal());
    let mut watcher = Watcher::new(options, signals, bar, log);
    let outcome = flood::run(options, &mut watcher);
    let log_error = watcher.end();
    Ok((outcome.map_err(|error| errors::describe(&error))?, log_error))
}

/// Returns the exit status of a run, and says on stderr why it is not 0.
fn judge(outcome: &Outcome, assertions: &[Assertion], verdicts: &[Verdict]) -> u8 {
    let counts = &outcome.counts;
    if outcome.missing > 0 {
        say("warning", &format!("{} connections could not be opened", outcome.missing));
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
    for (count, metric, what) in [
        (counts.ended_by_peer, "ended", "connections ended by the peer"),
        (counts.failed, "failed", "failed attempts to connect"),
        (outcome.failing_unsent(), "unsent", "messages due and never sent"),
    ] {
        if count > 0 && !assertions.iter().any(|assertion| assertion.bounds(metric)) {
            say("error", &format!("{what}: {count} (--assert '{metric}<=N' allows some)"));
            is_failed = true;
        }
    }
    // A failed assertion about the same loss takes precedence over status 1.
    if verdicts.iter().any(|verdict| !verdict.holds) {
        ASSERTION_FAILED
    } else if is_failed {
        FAILURE
    } else {
        0
    }
}
