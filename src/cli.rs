//! The command line: what can be asked for, and what is said when it cannot be done.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use edgecho::protocol::Echo;
use edgecho::server::{Config, ListenAddress, Server, Summary};
use edgecho::sys::signal;
use tracing::warn;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// The status of a run that ended in other than good order: something could not be done, or somebody was cut off.
const FAILURE: u8 = 1;

/// A TCP echo service on raw epoll, to be used as ground truth
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    logging: Logging,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Echo every byte back to whoever connects, until SIGINT or SIGTERM
    Serve(Serve),
}

#[derive(Debug, Args)]
#[command(
    after_help = "At SIGINT or SIGTERM whoever is connected is served until they leave or the drain's time is up; a second \
    signal ends at once. Exit status: 0 when everybody was sent all that they were owed, 1 otherwise, 2 for a wrong flag."
)]
struct Serve {
    /// Address to listen on: IPV4:PORT, [IPV6]:PORT or NAME:PORT; port 0 lets the kernel choose. May be given several times, in
    /// the environment separated by commas
    #[arg(long, value_name = "ADDR", env = "EDGECHO_LISTEN", value_delimiter = ',', default_value = "127.0.0.1:7777")]
    listen: Vec<ListenAddress>,

    /// How long to serve on after the first signal, from 0s to 1day
    #[arg(long, value_name = "DURATION", env = "EDGECHO_DRAIN_TIMEOUT", value_parser = drain_timeout, default_value = "5s")]
    drain_timeout: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging (to stderr)")]
struct Logging {
    /// Say more: each connection (-v), each detail (-vv)
    #[arg(short, long, action = ArgAction::Count, env = "EDGECHO_VERBOSE", global = true)]
    verbose: u8,

    /// Say less: trouble only (-q), failures only (-qq)
    #[arg(short, long, action = ArgAction::Count, env = "EDGECHO_QUIET", global = true)]
    quiet: u8,

    /// What to say, by level or by module, such as 'debug' or 'warn,edgecho::server=debug'; -v and -q no longer count
    #[arg(long, value_name = "FILTER", env = "EDGECHO_LOG", global = true)]
    log: Option<Targets>,
}

/// Reads the command line and does what it asks for.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.logging);
    match cli.command {
        Command::Serve(options) => serve(options),
    }
}

fn serve(options: Serve) -> ExitCode {
    let config = Config { listen: options.listen, drain_timeout: options.drain_timeout };
    let summary = Server::bind(Echo, &config).and_then(|server| {
        announce(&server);
        server.run()
    });
    match summary {
        Ok(Summary { interrupted_by: Some(number), .. }) => {
            // The parent is to see which signal it was; if that should fail, that it was not good.
            let _ = signal::default_action(number);
            ExitCode::from(FAILURE)
        }
        Ok(Summary { aborted: 0, .. }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(FAILURE),
        Err(failure) => {
            // Not a log line: no flag that quiets the log may hide why the program is not running.
            let _ = writeln!(std::io::stderr(), "error: {failure}");
            ExitCode::from(FAILURE)
        }
    }
}

/// Says on stdout where the server listens, a line an address: whoever has started it waits for that.
fn announce(server: &Server<Echo>) {
    let mut stdout = std::io::stdout().lock();
    for address in server.local_addresses() {
        if let Err(failure) = writeln!(stdout, "listening on {address}").and_then(|()| stdout.flush()) {
            warn!("listening on {address}, but cannot say so on stdout: {failure}");
        }
    }
}

fn start_logging(options: Logging) {
    let level = match i16::from(options.verbose) - i16::from(options.quiet) {
        ..=-2 => LevelFilter::ERROR,
        -1 => LevelFilter::WARN,
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        2.. => LevelFilter::TRACE,
    };
    let filter = options.log.unwrap_or_else(|| Targets::new().with_default(level));
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !is_plain)
        .with_target(false)
        // A reader of the log that goes away must not take the server with it.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

fn drain_timeout(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; expected a duration such as 5s or 500ms"))?;
    if duration > Config::MAX_DRAIN_TIMEOUT {
        return Err("expected at most 1day".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
