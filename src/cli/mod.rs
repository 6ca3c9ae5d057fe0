//! The command line: one file or folder per command. Each reads its flags, calls the library, and returns an exit status.
//!
//! `values` parses the values of flags, `connecting` holds the flags of `ping` and `flood`, and `log` those of the log. `stderr` and
//! `stdout` write without blocking the event loop, and `terminal` escapes what a peer sends.

mod completions;
mod connecting;
mod flood;
mod log;
mod man;
mod ping;
mod send;
mod serve;
mod signals;
mod status;
mod stderr;
mod stdout;
mod terminal;
mod values;

use std::process::ExitCode;

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};
use edgecho::sys::signal::{self, Signal};

use status::WRONG_FLAG;

const AFTER_HELP: &str = "\
'edgecho COMMAND -h' lists the options of a command, and 'edgecho COMMAND --help' explains them.

Exit status:
  0  The command did its work, and no byte was lost.
  1  A byte was lost or changed, or the server could not start.
  2  A flag is wrong. For ping, flood and send also other trouble, such as a refused connection.

Examples:
  edgecho serve
  edgecho ping 127.0.0.1
  edgecho flood 127.0.0.1 --rate 20k --assert 'p99<5ms'
  echo hello | edgecho send 127.0.0.1";

/// A TCP echo server on raw epoll, and tools that check any echo service
///
/// The server returns every byte in order, and makes no avoidable system call per message. 'ping' measures round trips, 'flood' puts a
/// service under load and accounts for every byte, and 'send' sends lines or frames.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    logging: log::Logging,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Echo every byte back to its sender
    ///
    /// Runs until SIGINT, SIGTERM or SIGHUP. Each option can be given in the environment: --idle-timeout as EDGECHO_IDLE_TIMEOUT.
    Serve(serve::Serve),

    /// Measure the round trips of an echo service
    ///
    /// Sends a message, waits for its echo, compares every byte, and prints the time. Each message begins after --interval.
    Ping(ping::Ping),

    /// Load an echo service with many connections, and account for every byte
    ///
    /// Sends a pattern in which any 16 bytes identify their connection and position. A wrong echo is reported with its place: dropped,
    /// duplicated, changed, reordered or foreign bytes, and late or lost messages.
    Flood(flood::Flood),

    /// Send stdin as lines or frames, and write the replies to stdout
    Send(send::Send),

    /// Print the completion file of a shell
    Completions(completions::Completions),

    /// Print a manual page, or write all of them
    Man(man::Man),
}

/// Reads the command line and runs the command.
pub(crate) fn run() -> ExitCode {
    // Without this, a file that reaches `ulimit -f` kills the process; ignored, it is an error of write(2) (setrlimit(2), RLIMIT_FSIZE).
    let _ = signal::ignore(Signal::SIGXFSZ);
    let status = match command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => {
            log::start(cli.logging);
            match cli.command {
                Command::Serve(options) => {
                    warn_of_unknown_variables("serve");
                    serve::serve(options)
                }
                Command::Ping(options) => ping::ping(options),
                Command::Flood(options) => flood::flood(options),
                Command::Send(options) => send::send(options),
                Command::Completions(options) => completions::completions(&options, &plain_command()),
                Command::Man(options) => man::man(&options, &plain_command()),
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

/// Warns of each variable with the prefix of our own that is no option of a command. A service is often configured by variables alone, and
/// a misspelt one would otherwise have no effect and no trace.
fn warn_of_unknown_variables(name: &str) {
    const PREFIX: &str = "EDGECHO_";
    let command = plain_command();
    let options = command.get_arguments().chain(command.find_subcommand(name).into_iter().flat_map(|it| it.get_arguments()));
    let known: Vec<_> = options.filter_map(|option| option.get_env()).collect();
    let variables = std::env::vars_os().map(|(variable, _)| variable);
    for variable in variables.filter(|variable| variable.to_string_lossy().starts_with(PREFIX)) {
        if !known.contains(&variable.as_os_str()) {
            tracing::warn!(
                "{} has no effect: 'edgecho {name}' has no such option",
                variable.to_string_lossy().escape_debug()
            );
        }
    }
}

/// Returns the command line. `-h` leaves out the environment variables, and `--help` names them.
fn command() -> clap::Command {
    let describe = |arg: Arg| match arg.get_env() {
        Some(variable) => {
            let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
            let help = format!("{help}\n\n[env: {}]", variable.display());
            arg.long_help(help).hide_env(true)
        }
        None => arg,
    };
    plain_command().mut_args(describe).mut_subcommands(|command| command.mut_args(describe))
}

/// Returns the command line without environment variables in the help of flags, for manual pages and completion files.
fn plain_command() -> clap::Command {
    let complete = |arg: Arg| {
        let arg = match arg.get_value_hint() {
            // A shell would offer the names of files.
            ValueHint::Unknown if arg.get_action().takes_values() => arg.value_hint(ValueHint::Other),
            _ => arg,
        };
        // '-1' in '-c -1' is a value of --count, whose parser names the bounds, and no flag of its own.
        let is_quantity = values::is_quantity(arg.get_value_parser());
        if is_quantity { arg.allow_hyphen_values(true) } else { arg }
    };
    Cli::command().mut_args(complete).mut_subcommands(|command| command.mut_args(complete))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgecho::server::Config;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    proptest::proptest! {
        /// Any value of a flag is read or refused, without a panic.
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
