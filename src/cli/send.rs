//! `edgecho send`: its flags, and what its end means.

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use edgecho::client::Target;
use edgecho::client::send::{self, Error, Form, Options};
use edgecho::protocol::Frame;

use super::terminal::Escaped;
use super::values::{piece_size, seconds};
use super::{FAILURE, TROUBLE, WRONG_FLAG, stderr};

#[derive(Debug, Args)]
#[command(
    after_help = "At the end of stdin a FIN is sent, and what still comes back is written. A terminal is shown control characters as \
    \\x1b; files and pipes get every byte as it came. Exit status: 0 when the far end closed in \
    order, 1 when the connection was lost, 2 for other trouble."
)]
pub(super) struct Send {
    /// The far end: HOST or HOST:PORT, where the port is 7777 if none is given
    #[arg(value_name = "HOST[:PORT]")]
    target: Target,

    /// What goes over the wire: each line as it is, or each as a frame, without its line end
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Wire::Line)]
    protocol: Wire,

    /// Stdin holds frames already, with their lengths, and stdout is to
    #[arg(long)]
    raw: bool,

    /// The largest frame that is taken back, up to 1GiB [default: 64KiB]
    #[arg(long, value_name = "BYTES", value_parser = piece_size)]
    max_frame: Option<usize>,

    /// How long connecting may take
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "3s")]
    connect_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wire {
    Line,
    Frame,
}

pub(super) fn send(flags: Send) -> ExitCode {
    if flags.protocol != Wire::Frame {
        for (flag, is_given) in [("--raw", flags.raw), ("--max-frame", flags.max_frame.is_some())] {
            if is_given {
                stderr::say(format_args!("error: {flag} has no effect on lines: it belongs to --protocol frame"));
                return ExitCode::from(WRONG_FLAG);
            }
        }
    }
    let options = Options {
        target: flags.target,
        is_framed: flags.protocol == Wire::Frame,
        form: if flags.raw { Form::Frames } else { Form::Lines },
        max_frame: flags.max_frame.unwrap_or(Frame::MAX),
        connect_timeout: flags.connect_timeout.max(Duration::from_millis(1)),
    };
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let result = if output.is_terminal() {
        let mut shown = Escaped::new(output);
        let result = send::run(&options, input, &mut shown);
        let finished = shown.finish().map_err(|error| Error::Local { what: "write to stdout", error });
        result.and(finished)
    } else {
        send::run(&options, input, output)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Who closes the pipe has seen enough.
        Err(Error::Local { error, .. }) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            stderr::say(format_args!("error: {error}"));
            ExitCode::from(if matches!(error, Error::Lost(_)) { FAILURE } else { TROUBLE })
        }
    }
}
