//! The flags of `edgecho serve`.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use edgecho::server::{Keepalive, ListenAddress, Timeouts};

use super::privileges::PrivilegeFlags;
use super::proxy::ProxyFlags;
use super::service::ServiceFlags;
use crate::cli::values::{
    DAY, MILLISECOND, OrOff, SECOND, duration, duration_or_off, interface, keepalive, linger, number, queue, size,
    whole_seconds,
};

/// The shortest interval of reports and heartbeats.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The longest TCP_USER_TIMEOUT in whole days: the kernel counts milliseconds in 31 bits.
const USER_TIMEOUT_MAX: Duration = DAY.saturating_mul(24);

const AFTER_HELP: &str = "\
Signals:
  SIGINT, SIGTERM, SIGHUP  Drain, after --drain-delay: stop listening, serve the open connections
                           until they end or --drain-timeout is over. A second signal ends the
                           server at once.
  SIGUSR1                  Print the statistics to stderr.

Exit status:
  0  No connection was aborted and no collected frame was lost. A connection is aborted when the
     server closes it although that destroys bytes. A peer that --write-timeout cut off does not
     count as aborted.
  1  A connection was aborted, a collected frame was lost, or the server could not start.
  2  A flag or its value is wrong.
  159  The process made a system call that --sandbox kill does not allow: SIGSYS, as a shell reports it.
  128+N  A second signal with number N ended the server: 143 for SIGTERM, as a shell reports it.

Examples:
  edgecho serve
      Echo on 127.0.0.1:7777.
  edgecho serve --listen '[::]:7777' --idle-timeout 60s --max-per-ip 20
      Echo to the network over IPv6 and IPv4, with limits.
  edgecho serve --protocol collect --output frames.jsonl
      Append each received frame to a file, as a line of JSON.";

#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub(in crate::cli) struct Serve {
    /// Address to listen on
    ///
    /// The default is 127.0.0.1:7777. If the service manager passes sockets on (systemd.socket(5)), the default is none besides these.
    /// IPV4:PORT, [IPV6]:PORT or NAME:PORT. May be given several times. In the environment, commas separate the addresses. Port 0 lets the kernel choose a free port. The
    /// server prints each address with its real port, as 'listening on ADDR'. [::]:PORT accepts IPv4 clients, too, unless --ipv6-only
    /// is given.
    #[arg(long, value_name = "ADDR", env = "EDGECHO_LISTEN", value_delimiter = ',')]
    pub(super) listen: Option<Vec<ListenAddress>>,

    #[command(flatten)]
    pub(super) protocol: ProtocolFlags,

    #[command(flatten)]
    pub(super) limits: LimitFlags,

    #[command(flatten)]
    pub(super) proxy: ProxyFlags,

    #[command(flatten)]
    pub(super) times: TimeFlags,

    #[command(flatten)]
    pub(super) sockets: SocketFlags,

    #[command(flatten)]
    pub(super) privileges: PrivilegeFlags,

    #[command(flatten)]
    pub(super) service: ServiceFlags,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Protocol")]
pub(super) struct ProtocolFlags {
    /// Protocol of the connections
    #[arg(long, value_name = "NAME", env = "EDGECHO_PROTOCOL", value_enum, default_value_t = Name::Echo)]
    pub(super) protocol: Name,

    /// Longest line, for --protocol line
    ///
    /// In bytes without the line end, such as 4KiB; at most 1GiB. A longer line is answered with an error, and the connection is closed.
    /// The default is 64KiB.
    #[arg(long, value_name = "BYTES", env = "EDGECHO_MAX_LINE", value_parser = size::<usize>(0..=1 << 30))]
    pub(super) max_line: Option<usize>,

    /// Longest frame, for --protocol frame and collect
    ///
    /// In bytes without the length, such as 4KiB; at most 1GiB. A longer frame is logged, and the connection is closed. The default is
    /// 64KiB.
    #[arg(long, value_name = "BYTES", env = "EDGECHO_MAX_FRAME", value_parser = size::<usize>(0..=1 << 30))]
    pub(super) max_frame: Option<usize>,

    /// Number of frames that may wait for the output, for --protocol collect
    ///
    /// From 1 to 4294967295; the default is 256. The frames take up to N times --max-frame of memory. At the limit no connection is read. One read
    /// (32KiB) may exceed the limit.
    #[arg(long, value_name = "N", env = "EDGECHO_QUEUE", value_parser = queue)]
    pub(super) queue: Option<NonZeroUsize>,

    /// File to append the collected lines to, for --protocol collect
    ///
    /// '-' is stdout, the default. 'listening on ADDR' goes to stderr if the lines go to stdout.
    #[arg(long, value_name = "FILE", env = "EDGECHO_OUTPUT")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Name {
    /// Return every byte as it arrives
    Echo,
    /// Return whole lines; the line 'quit' ends the connection
    Line,
    /// Return whole frames: a length (4 bytes, big-endian), then that many bytes
    Frame,
    /// Receive frames, and write each as a line of JSON
    Collect,
}

impl ProtocolFlags {
    /// Checks that the protocol uses each flag that was given, here or in the environment, and that a line or frame fits into the memory
    /// limit.
    pub(super) fn check(&self, memory_limit: Option<u64>) -> Result<(), String> {
        let Self { protocol, max_line, max_frame, queue, output } = self;
        for (flag, variable, is_given, owners) in [
            ("--max-line", "EDGECHO_MAX_LINE", max_line.is_some(), &[Name::Line] as &[_]),
            ("--max-frame", "EDGECHO_MAX_FRAME", max_frame.is_some(), &[Name::Frame, Name::Collect]),
            ("--queue", "EDGECHO_QUEUE", queue.is_some(), &[Name::Collect]),
            ("--output", "EDGECHO_OUTPUT", output.is_some(), &[Name::Collect]),
        ] {
            if is_given && !owners.contains(protocol) {
                let names: Vec<String> = owners.iter().map(|owner| format!("--protocol {owner}")).collect();
                let owners = names.join(" and ");
                return Err(format!(
                    "{flag} (or {variable}) has no effect with --protocol {protocol}: it belongs to {owners}"
                ));
            }
        }
        for (flag, length) in [("--max-line", max_line), ("--max-frame", max_frame)] {
            if let (Some(length), Some(limit)) = (*length, memory_limit)
                && length as u64 > limit
            {
                return Err(format!("{flag} {} is more than --memory-limit {}", ByteSize(length as u64), ByteSize(limit)));
            }
        }
        Ok(())
    }
}

/// Writes the name as the command line takes it.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitFlags {
    /// Maximum number of open connections
    ///
    /// At least 1. At the limit new clients wait in the backlog, and none is refused. The default is what the limit on open descriptors
    /// (RLIMIT_NOFILE) leaves room for.
    #[arg(long, value_name = "N", env = "EDGECHO_MAX_CONNECTIONS", value_parser = number::<usize>(1..=u64::MAX))]
    pub(super) max_connections: Option<usize>,

    /// Maximum number of open connections per source address
    ///
    /// At least 1; unlimited by default. Further connections from that address are closed at once. An IPv6 source is a /64 network, or a
    /// single link-local address.
    #[arg(long, value_name = "N", env = "EDGECHO_MAX_PER_IP", value_parser = number::<u32>(1..=u32::MAX.into()))]
    pub(super) max_per_ip: Option<u32>,

    /// Maximum number of bytes read from each connection per second
    ///
    /// Such as 64KiB; from 100B to 1TiB; unlimited by default. TCP slows the sender down, and no byte is dropped. A tenth of a second's
    /// worth may arrive at once.
    #[arg(long, value_name = "BYTES/S", env = "EDGECHO_RATE_LIMIT", value_parser = size::<u64>(100..=1 << 40))]
    pub(super) rate_limit: Option<u64>,

    /// Maximum memory for pending bytes of all connections together
    ///
    /// Such as 64MiB; at least 64KiB; unlimited by default. It counts all pending-write buffers, and incomplete lines and frames. At the
    /// limit the server reads only from connections whose peer has acknowledged everything, 4KiB at a time. A line or frame of up to
    /// 16KiB is always read, so each connection may exceed the limit by that much.
    #[arg(long, value_name = "BYTES", env = "EDGECHO_MEMORY_LIMIT", value_parser = size::<u64>(64 << 10..=u64::MAX))]
    pub(super) memory_limit: Option<u64>,

    /// Skip heartbeats and status lines above this many pending bytes
    ///
    /// At least 1KiB; per connection. The limit applies to all messages that are no reply. Skipped messages are counted.
    #[arg(long, value_name = "BYTES", env = "EDGECHO_OUTBOX_LIMIT", value_parser = size::<u64>(1 << 10..=u64::MAX), default_value = "256KiB")]
    pub(super) outbox_limit: u64,

    /// Maximum number of clients that wait to be accepted
    ///
    /// At least 1. The kernel reduces the length of the backlog to net.core.somaxconn.
    #[arg(long, value_name = "N", env = "EDGECHO_BACKLOG", value_parser = number::<i32>(1..=i32::MAX as u64), default_value_t = 4096)]
    pub(super) backlog: i32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Times")]
pub(super) struct TimeFlags {
    /// Close a connection that has been idle for this long
    ///
    /// From 10ms to 20days; off by default. A connection is idle while its peer neither sends nor acknowledges bytes.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_IDLE_TIMEOUT", value_parser = duration(Timeouts::MIN..=Timeouts::MAX))]
    pub(super) idle_timeout: Option<Duration>,

    /// Cut off a peer that acknowledges no pending byte for this long
    ///
    /// From 10ms to 20days, or 'off'. The cut may come later, by up to half the timeout. A kernel whose receive buffer is full
    /// acknowledges nothing until the peer has read up to 1/16 of the buffer, or a whole segment. With 30s, a peer that reads less than
    /// 3.5KB/s over loopback looks stalled. A peer that has taken more than 15MiB may have a larger buffer, and gets up to 2.1 times as
    /// long.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_WRITE_TIMEOUT", value_parser = duration_or_off(Timeouts::MIN..=Timeouts::MAX), default_value = "30s")]
    pub(super) write_timeout: OrOff,

    /// Close a connection that has been open for this long
    ///
    /// From 10ms to 20days; off by default.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_MAX_LIFETIME", value_parser = duration(Timeouts::MIN..=Timeouts::MAX))]
    pub(super) max_lifetime: Option<Duration>,

    /// Serve open connections for this long in a drain
    ///
    /// From 0s to 1day. The drain begins at the first signal, or --drain-delay later. Closing the remaining connections takes up to 2s more.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_DRAIN_TIMEOUT", value_parser = duration(Duration::ZERO..=Timeouts::MAX_DRAIN), default_value = "5s")]
    pub(super) drain_timeout: Duration,

    /// Keep accepting for this long after the first signal
    ///
    /// From 0s to 1day. A load balancer has this time to see that the server is not ready (/readyz returns 503) and to send its clients
    /// elsewhere. All limits hold meanwhile. A second signal ends the server at once. If the process was stopped at the end of this time
    /// (SIGSTOP), the time begins again.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_DRAIN_DELAY", value_parser = duration(Duration::ZERO..=Timeouts::MAX_DRAIN), default_value = "0s")]
    pub(super) drain_delay: Duration,

    /// Busy-poll for this long before blocking
    ///
    /// At most 1s. Round trips become shorter, and a CPU stays busy.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_BUSY_POLL", value_parser = duration(Duration::ZERO..=SECOND), default_value = "0s")]
    pub(super) busy_poll: Duration,

    /// Log the statistics at this interval
    ///
    /// From 100ms to 20days; never by default.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_STATS_INTERVAL", value_parser = duration(INTERVAL_MIN..=Timeouts::MAX))]
    pub(super) stats_interval: Option<Duration>,

    /// Tell each client the number of connections at this interval
    ///
    /// From 100ms to 20days; never by default.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_STATUS_INTERVAL", value_parser = duration(INTERVAL_MIN..=Timeouts::MAX))]
    pub(super) status_interval: Option<Duration>,

    /// Send HEARTBEAT to a connection without traffic for this long
    ///
    /// From 100ms to 20days; never by default.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_HEARTBEAT", value_parser = duration(INTERVAL_MIN..=Timeouts::MAX))]
    pub(super) heartbeat: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Sockets")]
pub(super) struct SocketFlags {
    /// Delay small segments, as by default in the kernel (no TCP_NODELAY)
    ///
    /// Nagle's algorithm: a small segment waits until the peer has acknowledged what was sent before.
    #[arg(long, env = "EDGECHO_NO_NODELAY", value_parser = BoolishValueParser::new())]
    pub(super) no_nodelay: bool,

    /// Let the kernel probe a silent peer (SO_KEEPALIVE)
    ///
    /// IDLE or IDLE,INTERVAL,COUNT, such as 60s,10s,6. The kernel probes after IDLE and then at each INTERVAL. It closes the connection
    /// after COUNT probes without an answer. Whole seconds from 1s to 32767s, and 1 to 127 probes. Off by default; INTERVAL and COUNT
    /// default to the system's.
    #[arg(long, value_name = "TIMES", env = "EDGECHO_KEEPALIVE", value_parser = keepalive)]
    pub(super) keepalive: Option<Keepalive>,

    /// Close connections with a reset (SO_LINGER)
    ///
    /// The only value is 0s: with any other, close(2) would block. A connection that the server closes in order still ends with FINs. If
    /// close(2) destroys bytes, the connection counts as aborted. Off by default.
    #[arg(long, value_name = "0s", env = "EDGECHO_LINGER", value_parser = linger)]
    pub(super) linger: Option<Duration>,

    /// Size of each socket's receive buffer (SO_RCVBUF)
    ///
    /// From 1KiB to 1GiB. By default the kernel grows the buffer as needed.
    #[arg(long, value_name = "BYTES", env = "EDGECHO_RECV_BUFFER", value_parser = size::<u32>(1 << 10..=1 << 30))]
    pub(super) recv_buffer: Option<u32>,

    /// Size of each socket's send buffer (SO_SNDBUF)
    ///
    /// From 1KiB to 1GiB. By default the kernel grows the buffer as needed.
    #[arg(long, value_name = "BYTES", env = "EDGECHO_SEND_BUFFER", value_parser = size::<u32>(1 << 10..=1 << 30))]
    pub(super) send_buffer: Option<u32>,

    /// Share the port with other processes that do so, too (SO_REUSEPORT)
    #[arg(long, env = "EDGECHO_REUSE_PORT", value_parser = BoolishValueParser::new())]
    pub(super) reuse_port: bool,

    /// Accept on the first bytes or after this long (TCP_DEFER_ACCEPT)
    ///
    /// A connection is accepted when its first bytes arrive, or after this time. Whole seconds from 1s to 32767s; off by default.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_DEFER_ACCEPT", value_parser = whole_seconds)]
    pub(super) defer_accept: Option<Duration>,

    /// Time for sent bytes to be acknowledged (TCP_USER_TIMEOUT)
    ///
    /// The time that sent bytes may stay unacknowledged. From 1ms to 24days; the system's default if not given.
    #[arg(long, value_name = "DURATION", env = "EDGECHO_USER_TIMEOUT", value_parser = duration(MILLISECOND..=USER_TIMEOUT_MAX))]
    pub(super) user_timeout: Option<Duration>,

    /// Copy each byte instead of returning the sender's pages
    ///
    /// Needed only for clients on this host that send pages of a file, such as with sendfile(2), and change the file before they have read
    /// the echo.
    #[arg(long, env = "EDGECHO_COPY", value_parser = BoolishValueParser::new())]
    pub(super) copy: bool,

    /// Accept no IPv4 clients on IPv6 addresses (IPV6_V6ONLY)
    #[arg(long, env = "EDGECHO_IPV6_ONLY", value_parser = BoolishValueParser::new())]
    pub(super) ipv6_only: bool,

    /// Accept from one network interface, such as eth0 (SO_BINDTODEVICE)
    #[arg(long, value_name = "INTERFACE", env = "EDGECHO_BIND_DEVICE", value_parser = interface)]
    pub(super) bind_device: Option<String>,
}
