//! The log: its flags, and the format of its lines.

use std::fmt::Debug;
use std::io::{self, IsTerminal, Write};

use clap::{ArgAction, Args};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

use super::stderr;

/// The target of the statistics that SIGUSR1 requests. No log level hides them.
const STATISTICS: &str = "edgecho::statistics";

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging (to stderr)")]
pub(super) struct Logging {
    /// Log more: each connection (-v), each detail (-vv)
    #[arg(short, long, action = ArgAction::Count, env = "EDGECHO_VERBOSE", global = true)]
    verbose: u8,

    /// Log less: warnings and errors (-q), errors only (-qq)
    #[arg(short, long, action = ArgAction::Count, env = "EDGECHO_QUIET", global = true)]
    quiet: u8,

    /// Log filter by level or module, such as 'debug' or 'warn,edgecho::server=debug'
    ///
    /// Levels: off, error, warn, info, debug, trace. The filter replaces -v and -q.
    #[arg(long, value_name = "FILTER", env = "EDGECHO_LOG", global = true)]
    log: Option<Targets>,
}

/// Installs the log for the rest of the program.
pub(super) fn start(options: Logging) {
    let level = match i16::from(options.verbose) - i16::from(options.quiet) {
        ..=-2 => LevelFilter::ERROR,
        -1 => LevelFilter::WARN,
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        2.. => LevelFilter::TRACE,
    };
    let filter = options.log.unwrap_or_else(|| Targets::new().with_default(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| Lines)
        .with_ansi(has_colours())
        .with_target(false)
        .log_internal_errors(false)
        .with_filter(filter.with_target(STATISTICS, LevelFilter::OFF));
    let statistics = Plain.with_filter(Targets::new().with_target(STATISTICS, LevelFilter::INFO));
    tracing_subscriber::registry().with(lines).with(statistics).init();
}

/// Returns whether output to stderr is coloured: on a terminal, unless `NO_COLOR` is set.
pub(super) fn has_colours() -> bool {
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !is_plain
}

/// Queues log lines, each in one call.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stderr::log(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Queues the message of an event without time or level.
struct Plain;

impl<S: Subscriber> Layer<S> for Plain {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        event.record(&mut Message);
    }
}

struct Message;

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            stderr::log(&format!("{value:?}"));
        }
    }
}
