//! The command line: what can be asked for, and what is said when it cannot be done. A file a command; `values` reads what is given
//! for flags, `log` and `stderr` say what happens, and `terminal` guards a terminal.

mod flood;
mod log;
mod ping;
mod send;
mod serve;
mod stderr;
mod stdout;
mod terminal;
mod values;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use edgecho::sys::signal::{self, Signal};

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
    logging: log::Logging,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Echo every byte back to each client, until SIGINT, SIGTERM or SIGHUP
    Serve(serve::Serve),

    /// Ask an echo service for one echo after the other, and show how long each takes
    Ping(ping::Ping),

    /// Load an echo service with many connections, and account for every byte
    Flood(flood::Flood),

    /// Send stdin by lines or frames, and write what comes back
    Send(send::Send),
}

/// Reads the command line and does what it asks for.
pub(crate) fn run() -> ExitCode {
    // A file that is as large as `ulimit -f` allows is then an error like any other (setrlimit(2), RLIMIT_FSIZE).
    let _ = signal::ignore(Signal::SIGXFSZ);
    let status = match Cli::try_parse() {
        Ok(cli) => {
            log::start(cli.logging);
            match cli.command {
                Command::Serve(options) => serve::serve(options),
                Command::Ping(options) => ping::ping(options),
                Command::Flood(options) => flood::flood(options),
                Command::Send(options) => send::send(options),
            }
        }
        Err(error) if error.use_stderr() => {
            let text = error.render();
            stderr::say(if log::has_colours() { text.ansi().to_string() } else { text.to_string() });
            ExitCode::from(WRONG_FLAG)
        }
        // Help, or the version.
        Err(help) => help.exit(),
    };
    stderr::finish();
    status
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
