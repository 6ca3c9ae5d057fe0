//! `edgecho ping`: its flags, and its exit status.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Args, ValueHint};
use edgecho::client::Target;
use edgecho::client::ping::{self, Error, Format, Options};

use super::connecting::{self, Connecting, Wire};
use super::status::{FAILURE, TROUBLE};
use super::values::{DAY, HOUR, MILLISECOND, SECOND, number, seconds, size};
use super::{stderr, stdout};

const AFTER_HELP: &str = "\
Signals:
  SIGINT, SIGTERM, SIGHUP  End with the summary.
  SIGQUIT, SIGUSR1         Print the summary so far, and continue.

An echo that exceeds --timeout is reported as lost. If it arrives later, it counts as received and
late.

Exit status:
  0  Every echo came back unchanged.
  1  An echo was lost or changed.
  2  Other trouble, such as a refused connection or a wrong flag.

Examples:
  edgecho ping 192.0.2.1
      Measure one round trip per second to port 7777 until Ctrl-C.
  edgecho ping -c 1000 -i 0 -q example.org:7
      Measure 1,000 round trips back to back, and print only the summary.
  edgecho ping --json 192.0.2.1 | jq .
      Write one JSON object per line.";

#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Ping {
    /// Echo service: HOST or HOST:PORT; the default port is 7777
    #[arg(value_name = "HOST[:PORT]", value_hint = ValueHint::Hostname)]
    target: Target,

    /// Number of echoes to request; 0 continues until stopped
    #[arg(short, long, value_name = "COUNT", value_parser = number::<u64>(0..=u64::MAX), default_value_t = 0)]
    count: u64,

    /// Time from one request to the next
    ///
    /// In seconds, or with a unit such as 200ms; at most 1day. 0 sends the next request when the echo has come back.
    #[arg(short, long, value_name = "INTERVAL", value_parser = seconds(Duration::ZERO..=DAY), default_value = "1s")]
    interval: Duration,

    /// Bytes per message
    ///
    /// From 1 to 16MiB, such as 4KiB; without the line end or the length that --protocol adds.
    #[arg(short, long, value_name = "SIZE", value_parser = size::<usize>(1..=Options::MAX_SIZE as u64), default_value = "64")]
    size: usize,

    /// Protocol of the far end
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Wire::Bytes)]
    protocol: Wire,

    /// Time to wait for an echo
    ///
    /// In seconds, or with a unit such as 500ms; from 1ms to 1h.
    #[arg(short = 'W', long, value_name = "TIMEOUT", value_parser = seconds(MILLISECOND..=HOUR), default_value = "3s")]
    timeout: Duration,

    /// Write one JSON object per line
    #[arg(long)]
    json: bool,

    /// Start each line with the time of day, in seconds since 1970
    #[arg(short = 'D', long, conflicts_with = "json")]
    timestamps: bool,

    /// Print only the header and the summary
    #[arg(short, long, action = ArgAction::Count, env = "EDGECHO_QUIET")]
    quiet: u8,

    /// Busy-poll for this long before blocking
    ///
    /// In seconds, or with a unit such as 50us; at most 1s. Round trips become shorter, and a CPU stays busy.
    #[arg(long, value_name = "DURATION", value_parser = seconds(Duration::ZERO..=SECOND), default_value = "0s")]
    busy_poll: Duration,

    #[command(flatten)]
    connecting: Connecting,
}

impl From<Ping> for Options {
    fn from(flags: Ping) -> Self {
        let mut options = Self::new(flags.target);
        options.count = (flags.count > 0).then_some(flags.count);
        options.interval = flags.interval;
        options.size = flags.size;
        options.framing = flags.protocol.into();
        options.timeout = flags.timeout;
        options.busy_poll = flags.busy_poll;
        options.handshake = !flags.connecting.no_handshake;
        options.send_proxy = flags.connecting.send_proxy.map(Into::into);
        options.connect = flags.connecting.timeouts();
        options.retry = flags.connecting.retry;
        options.is_quiet = flags.quiet > 0;
        options.format = if flags.json { Format::Json } else { Format::Text { timestamps: flags.timestamps } };
        options
    }
}

/// Pings until the end, and returns the exit status.
pub(super) fn ping(flags: Ping) -> ExitCode {
    match ping::run(&flags.into(), &mut stdout::lines()) {
        Ok(summary) if summary.lost() == 0 && summary.corrupt == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(FAILURE),
        // The reader of a pipe has seen enough: `edgecho ping | head`.
        Err(Error::Report(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let advice = if let Error::Connect { error, .. } = &error { connecting::advice(error) } else { "" };
            stderr::say(format_args!("error: {error}{advice}"));
            ExitCode::from(TROUBLE)
        }
    }
}
