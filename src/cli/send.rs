//! `edgecho send`: its flags, and its exit status.

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use edgecho::client::Target;
use edgecho::client::send::{self, Error, Form, Options};

use super::connecting::Proxy;
use super::status::{FAILURE, TROUBLE, WRONG_FLAG};
use super::stderr;
use super::terminal::Escaped;
use super::values::{HOUR, MILLISECOND, seconds, size};

const AFTER_HELP: &str = "\
At the end of stdin, send shuts down its side of the connection (FIN), and writes what still comes
back until the far end closes. A terminal shows control characters escaped, such as \\x1b; files and
pipes receive every byte unchanged.

Exit status:
  0  The far end closed the connection in order.
  1  The connection was lost.
  2  Other trouble, such as a refused connection or a wrong flag.

Examples:
  echo hello | edgecho send 127.0.0.1
      Send a line, and print its echo.
  printf 'one\\ntwo\\n' | edgecho send 127.0.0.1 --protocol frame
      Send two frames, and print each frame that comes back as a line.";

#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Send {
    /// Far end: HOST or HOST:PORT; the default port is 7777
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    target: Target,

    /// Protocol of the connection
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Wire::Line)]
    protocol: Wire,

    /// Read frames from stdin and write frames to stdout, each with its length
    ///
    /// For --protocol frame. Without --raw, each line of stdin is one frame, and each frame that comes back is one line.
    #[arg(long)]
    raw: bool,

    /// Largest frame to receive, for --protocol frame
    ///
    /// In bytes, such as 4KiB; at most 1GiB. The default is 64KiB.
    #[arg(long, value_name = "BYTES", value_parser = size::<usize>(0..=1 << 30))]
    max_frame: Option<usize>,

    /// Maximum time to connect
    ///
    /// In seconds, or with a unit such as 500ms; from 1ms to 1h.
    #[arg(long, value_name = "DURATION", value_parser = seconds(MILLISECOND..=HOUR), default_value = "3s")]
    connect_timeout: Duration,

    /// Begin the connection with a PROXY protocol header
    ///
    /// For a far end that accepts the PROXY protocol. The header holds the connection's own source and destination address.
    #[arg(long, value_name = "VERSION", env = "EDGECHO_SEND_PROXY", value_enum)]
    send_proxy: Option<Proxy>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wire {
    /// Lines, sent as they are
    Line,
    /// Frames: a length (4 bytes, big-endian), then a line without its end
    Frame,
}

/// Sends until both sides have closed, and returns the exit status.
pub(super) fn send(flags: Send) -> ExitCode {
    if flags.protocol != Wire::Frame {
        for (flag, is_given) in [("--raw", flags.raw), ("--max-frame", flags.max_frame.is_some())] {
            if is_given {
                stderr::say(format_args!("error: {flag} has no effect on lines: it belongs to --protocol frame"));
                return ExitCode::from(WRONG_FLAG);
            }
        }
    }
    let mut options = Options::new(flags.target);
    options.is_framed = flags.protocol == Wire::Frame;
    options.form = if flags.raw { Form::Frames } else { Form::Lines };
    options.max_frame = flags.max_frame.unwrap_or(options.max_frame);
    options.connect_timeout = flags.connect_timeout;
    options.send_proxy = flags.send_proxy.map(Into::into);
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
        // The reader of a pipe has seen enough: `edgecho send | head`.
        Err(Error::Local { error, .. }) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let advice = match error {
                Error::TooLong { .. } => "; raise --max-frame to receive it",
                Error::ProxyEchoed => " (leave out --send-proxy)",
                _ => "",
            };
            stderr::say(format_args!("error: {error}{advice}"));
            ExitCode::from(if matches!(error, Error::Lost(_)) { FAILURE } else { TROUBLE })
        }
    }
}
