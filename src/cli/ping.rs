//! `edgecho ping`: its flags, and what its end means.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use edgecho::client::ping::{self, Error, Format, Options};
use edgecho::client::{Framing, Target, Timeouts};

use super::values::{message_size, seconds};
use super::{FAILURE, TROUBLE, stderr, stdout};

#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C and SIGHUP end with the summary; Ctrl-\\ and SIGUSR1 show it and go on. An echo that is not back in time is reported as lost, \
    and counts as received, and late, when it comes all the same. Exit status, as ping's: 0 when every echo came back unchanged, 1 \
    when some did not, 2 for other trouble."
)]
pub(super) struct Ping {
    /// The echo service: HOST or HOST:PORT, where the port is 7777 if none is given
    #[arg(value_name = "HOST[:PORT]")]
    target: Target,

    /// How many echoes to ask for; 0 goes on until stopped
    #[arg(short, long, value_name = "COUNT", default_value_t = 0)]
    count: u64,

    /// How long from one to the next, in seconds or with a unit; 0 sends the next when the last has come back
    #[arg(short, long, value_name = "INTERVAL", value_parser = seconds, default_value = "1s")]
    interval: Duration,

    /// Bytes of each, from 1 to 16MiB
    #[arg(short, long, value_name = "SIZE", value_parser = message_size, default_value = "64")]
    size: usize,

    /// What the far end takes as one message, where that is not just bytes
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Wire::Bytes)]
    protocol: Wire,

    /// How long to wait for an echo, in seconds or with a unit
    #[arg(short = 'W', long, value_name = "TIMEOUT", value_parser = seconds, default_value = "3s")]
    timeout: Duration,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,

    /// Print the time of day in front of each line, in seconds since 1970
    #[arg(short = 'D', long, conflicts_with = "json")]
    timestamps: bool,

    /// Print only the header and the summary
    #[arg(short, long, action = ArgAction::Count, env = "EDGECHO_QUIET")]
    quiet: u8,

    /// Look for the echo again and again for so long before sleeping: shorter round trips, for a busy CPU
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "0s")]
    busy_poll: Duration,

    #[command(flatten)]
    connecting: Connecting,
}

/// What the far end takes as one message.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Wire {
    /// Bytes, however they are cut
    Bytes,
    /// Lines, which end with LF
    Line,
    /// Frames: a length in 4 bytes, the most significant first, and as many bytes
    Frame,
}

impl From<Wire> for Framing {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire::Bytes => Self::Bytes,
            Wire::Line => Self::Line,
            Wire::Frame => Self::Frame,
        }
    }
}

/// The flags that `ping` and `flood` share.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connecting")]
pub(super) struct Connecting {
    /// Do not ask for 16 random bytes back first, to make sure that this is an echo service
    #[arg(long)]
    pub(super) no_handshake: bool,

    /// How long connecting may take
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "3s")]
    connect_timeout: Duration,

    /// How long the handshake may take
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "3s")]
    handshake_timeout: Duration,

    /// Try again so often when a connection is refused, after pauses that double from 100 ms to 5 s
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) retry: u32,
}

impl Connecting {
    pub(super) fn timeouts(&self) -> Timeouts {
        Timeouts { connect: self.connect_timeout, handshake: self.handshake_timeout }
    }
}

impl From<Ping> for Options {
    fn from(flags: Ping) -> Self {
        Self {
            target: flags.target,
            count: (flags.count > 0).then_some(flags.count),
            interval: flags.interval,
            size: flags.size,
            framing: flags.protocol.into(),
            timeout: flags.timeout,
            busy_poll: flags.busy_poll,
            handshake: !flags.connecting.no_handshake,
            connect: flags.connecting.timeouts(),
            retry: flags.connecting.retry,
            is_quiet: flags.quiet > 0,
            format: if flags.json { Format::Json } else { Format::Text { timestamps: flags.timestamps } },
        }
    }
}

pub(super) fn ping(flags: Ping) -> ExitCode {
    match ping::run(&flags.into(), &mut stdout::lines()) {
        Ok(summary) if summary.lost() == 0 && summary.corrupt == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(FAILURE),
        // Who closes the pipe has seen enough: `edgecho ping | head`.
        Err(Error::Report(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            stderr::say(format_args!("error: {error}"));
            ExitCode::from(TROUBLE)
        }
    }
}
