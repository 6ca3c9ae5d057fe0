//! The command line: what can be asked for, and what is said when it cannot be done. A file a command; `values` reads what is given
//! for flags.

mod flood;
mod ping;
mod send;
mod serve;
mod values;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{ArgAction, Args, Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// The status of a run that ended in other than good order: something could not be done, or somebody was cut off.
const FAILURE: u8 = 1;

/// The status for flags that make no sense, as clap has it for those that it cannot read.
const WRONG_FLAG: u8 = 2;

/// The status of `ping` and `flood` for trouble other than what the far end did to the bytes, as ping(8) has it.
const TROUBLE: u8 = 2;

/// A TCP echo service on raw epoll, to be used as ground truth, and the tools to use it with
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
    Serve(serve::Serve),

    /// Ask an echo service for one echo after the other, and show how long each takes
    Ping(ping::Ping),

    /// Load an echo service with many connections, and account for every byte
    Flood(flood::Flood),

    /// Send stdin by lines or frames, and write what comes back
    Send(send::Send),
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
        Command::Serve(options) => serve::serve(options),
        Command::Ping(options) => ping::ping(options),
        Command::Flood(options) => flood::flood(options),
        Command::Send(options) => send::send(options),
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use edgecho::server::Config;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    proptest::proptest! {
        /// Whatever is given for a flag, it is read or refused: never a panic.
        #[test]
        fn no_argument_makes_it_panic(flag in 0_usize..9, value in "[-+0-9a-zA-Z.,:%\\[\\] ]{0,24}|\\PC{0,12}") {
            const FLAGS: [&str; 9] = [
                "--max-connections", "--max-per-ip", "--rate-limit", "--memory-limit", "--backlog", "--write-timeout",
                "--keepalive", "--linger", "--recv-buffer",
            ];
            if let Ok(cli) = Cli::try_parse_from(["edgecho", "serve", &format!("{}={value}", FLAGS[flag])]) {
                let Command::Serve(flags) = cli.command else { unreachable!("it was serve") };
                let _ = Config::from(flags).check();
            }
        }
    }

    #[test]
    fn the_flags_default_to_what_the_library_does() {
        let cli = Cli::parse_from(["edgecho", "serve"]);
        let Command::Serve(flags) = cli.command else { unreachable!("it was serve") };
        assert_eq!(format!("{:?}", Config::from(flags)), format!("{:?}", Config::default()));
    }
}
