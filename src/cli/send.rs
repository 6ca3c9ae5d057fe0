//! `edgecho send`: its flags, and what its end means.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use edgecho::client::Target;
use edgecho::client::send::{self, Error, Form, Options};
use edgecho::protocol::Frame;

use super::values::{piece_size, seconds};
use super::{FAILURE, TROUBLE};

#[derive(Debug, Args)]
#[command(
    after_help = "At the end of stdin a FIN is sent, and what still comes back is written. Exit status: 0 when the far end closed in \
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

    /// The largest frame that is taken back, up to 1GiB
    #[arg(long, value_name = "BYTES", value_parser = piece_size, default_value_t = Frame::MAX)]
    max_frame: usize,

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
    let options = Options {
        target: flags.target,
        is_framed: flags.protocol == Wire::Frame,
        form: if flags.raw { Form::Frames } else { Form::Lines },
        max_frame: flags.max_frame,
        connect_timeout: flags.connect_timeout.max(Duration::from_millis(1)),
    };
    match send::run(&options, std::io::stdin(), std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        // Who closes the pipe has seen enough.
        Err(Error::Local { error, .. }) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(if matches!(error, Error::Lost(_)) { FAILURE } else { TROUBLE })
        }
    }
}
