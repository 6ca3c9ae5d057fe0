//! `edgecho serve`: its flags, and what its end means.

use std::fmt;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use edgecho::protocol::{Collect, Echo, Frame, Line, Protocol};
use edgecho::server::{Config, Error, Keepalive, Limits, ListenAddress, Server, SocketOptions, Timeouts};
use edgecho::sys::signal;
use tracing::warn;

use super::values::{OrOff, buffer_size, duration, duration_or_off, interface, keepalive, linger, piece_size};
use super::{FAILURE, WRONG_FLAG, stderr, stdout};

#[derive(Debug, Args)]
#[command(
    after_help = "At SIGINT, SIGTERM or SIGHUP open connections are served until they end or the drain timeout is over; a second \
    signal ends at once. SIGUSR1 prints the statistics. Exit status: 0 when no connection was aborted and no collected frame was \
    lost, 1 otherwise (aborted: closed by the server although that destroyed bytes; a peer that --write-timeout cut off is counted \
    apart), 2 for a wrong flag."
)]
pub(super) struct Serve {
    /// Address to listen on: IPV4:PORT, [IPV6]:PORT or NAME:PORT; port 0 lets the kernel choose. May be given several times, in
    /// the environment separated by commas
    #[arg(long, value_name = "ADDR", env = "EDGECHO_LISTEN", value_delimiter = ',', default_value = "127.0.0.1:7777")]
    listen: Vec<ListenAddress>,

    #[command(flatten)]
    protocol: ProtocolFlags,

    #[command(flatten)]
    limits: LimitFlags,

    #[command(flatten)]
    times: TimeFlags,

    #[command(flatten)]
    sockets: SocketFlags,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Protocol")]
struct ProtocolFlags {
    /// What to do with the bytes: echo returns them as they come; line returns whole lines, and ends after 'quit'; frame returns whole
    /// frames, each a length (4 bytes, the most significant first) and as many bytes; collect takes frames, and writes them as JSON Lines
    #[arg(long, value_name = "NAME", env = "EDGECHO_PROTOCOL", value_enum, default_value_t = Name::Echo)]
    protocol: Name,

    /// Of line: the longest line, in bytes without its end, up to 1GiB [default: 64KiB]
    #[arg(long, value_name = "BYTES", env = "EDGECHO_MAX_LINE", value_parser = piece_size)]
    max_line: Option<usize>,

    /// Of frame and collect: the longest frame, in bytes without its length, up to 1GiB [default: 64KiB]
    #[arg(long, value_name = "BYTES", env = "EDGECHO_MAX_FRAME", value_parser = piece_size)]
    max_frame: Option<usize>,

    /// Of collect: frames that may wait for the output, from 1, which take up to N times --max-frame of memory; at the limit nothing is
    /// read, so that it is passed by what one read brings (32KiB) [default: 256]
    #[arg(long, value_name = "N", env = "EDGECHO_QUEUE")]
    queue: Option<NonZeroUsize>,

    /// Of collect: where the lines go, appended to what is there; - is stdout [default: stdout]
    #[arg(long, value_name = "FILE", env = "EDGECHO_OUTPUT")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Echo,
    Line,
    Frame,
    Collect,
}

impl ProtocolFlags {
    /// Refuses a flag that was given, here or in the environment, though the protocol has no use for it; and pieces that would not fit into
    /// the memory.
    fn check(&self, memory_limit: Option<ByteSize>) -> Result<(), String> {
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
                && length as u64 > limit.as_u64()
            {
                return Err(format!("{flag} {} is more than --memory-limit {limit}", ByteSize(length as u64)));
            }
        }
        Ok(())
    }
}

/// As it is given on the command line.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitFlags {
    /// Connections that may be open; at the limit new clients wait in the kernel's queue [default: what the limit on open
    /// descriptors leaves room for]
    #[arg(long, value_name = "N", env = "EDGECHO_MAX_CONNECTIONS")]
    max_connections: Option<usize>,

    /// Connections of one source address (of IPv6, one /64 network or one link-local address); what is over it is closed at once
    /// [default: no limit]
    #[arg(long, value_name = "N", env = "EDGECHO_MAX_PER_IP")]
    max_per_ip: Option<u32>,

    /// Bytes a second read from each connection, such as 64KiB, from 100B to 1TiB; the sender is slowed down, and nothing is
    /// dropped [default: no limit]
    #[arg(long, value_name = "BYTES/S", env = "EDGECHO_RATE_LIMIT")]
    rate_limit: Option<ByteSize>,

    /// Bytes that all pending-write buffers together, and lines and frames that are not whole yet, may hold, from 64KiB; at the limit the
    /// server reads only from connections whose peer has acknowledged everything, 4KiB at a time (a line or frame of up to 16KiB is
    /// always read, so that with these protocols the limit may be passed by that much for each connection) [default: no limit]
    #[arg(long, value_name = "BYTES", env = "EDGECHO_MEMORY_LIMIT")]
    memory_limit: Option<ByteSize>,

    /// Bytes that may be pending for a connection when it is sent something that is no answer to it, such as a heartbeat, from 1KiB;
    /// what does not fit is skipped
    #[arg(long, value_name = "BYTES", env = "EDGECHO_OUTBOX_LIMIT", default_value = "256KiB")]
    outbox_limit: ByteSize,

    /// Clients that may wait in the kernel's queue, from 1; net.core.somaxconn may cut it
    #[arg(long, value_name = "N", env = "EDGECHO_BACKLOG", default_value_t = 4096)]
    backlog: i32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Times")]
struct TimeFlags {
    /// Close a connection that has neither sent nor acknowledged bytes for so long, from 10ms to 20days [default: off]
    #[arg(long, value_name = "DURATION", env = "EDGECHO_IDLE_TIMEOUT", value_parser = duration)]
    idle_timeout: Option<Duration>,

    /// Cut off a peer that has acknowledged none of its pending bytes for so long (and at most half as long again), from 10ms to 20days,
    /// or off. A kernel whose receive buffer is full acknowledges nothing until up to 1/16 of the buffer, or a whole segment, has been
    /// read: with 30s, a peer looks stalled that reads less than 3.5KB/s over loopback. A peer that has taken more than 15MiB, whose
    /// buffer may have grown, is given up to 2.1 times as long
    #[arg(long, value_name = "DURATION", env = "EDGECHO_WRITE_TIMEOUT", value_parser = duration_or_off, default_value = "30s")]
    write_timeout: OrOff,

    /// Close a connection after so long, whatever it does, from 10ms to 20days [default: off]
    #[arg(long, value_name = "DURATION", env = "EDGECHO_MAX_LIFETIME", value_parser = duration)]
    max_lifetime: Option<Duration>,

    /// Drain timeout: serve on for this long after the first signal, from 0s to 1day; closing what is left takes up to 2s more
    #[arg(long, value_name = "DURATION", env = "EDGECHO_DRAIN_TIMEOUT", value_parser = duration, default_value = "5s")]
    drain_timeout: Duration,

    /// Busy-poll for this long before blocking (at most 1s): shorter round trips, for a busy CPU
    #[arg(long, value_name = "DURATION", env = "EDGECHO_BUSY_POLL", value_parser = duration, default_value = "0s")]
    busy_poll: Duration,

    /// Log the statistics so often, from 100ms to 20days [default: never]
    #[arg(long, value_name = "DURATION", env = "EDGECHO_STATS_INTERVAL", value_parser = duration)]
    stats_interval: Option<Duration>,

    /// Tell every connection so often how many there are, from 100ms to 20days [default: never]
    #[arg(long, value_name = "DURATION", env = "EDGECHO_STATUS_INTERVAL", value_parser = duration)]
    status_interval: Option<Duration>,

    /// Send HEARTBEAT to a connection that has been quiet for so long, from 100ms to 20days [default: never]
    #[arg(long, value_name = "DURATION", env = "EDGECHO_HEARTBEAT", value_parser = duration)]
    heartbeat: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Sockets")]
struct SocketFlags {
    /// Leave Nagle's algorithm on: small segments wait for more
    #[arg(long, env = "EDGECHO_NO_NODELAY", value_parser = BoolishValueParser::new())]
    no_nodelay: bool,

    /// Probe a silent peer after IDLE, such as 60s; then each INTERVAL, and give it up after COUNT probes. Whole seconds
    /// [default: off]
    #[arg(long, value_name = "IDLE[,INTERVAL,COUNT]", env = "EDGECHO_KEEPALIVE", value_parser = keepalive)]
    keepalive: Option<Keepalive>,

    /// Close with a reset: 0s, the only time for which close(2) does not block. What the peer has not acknowledged is lost, and the
    /// connection counted as aborted [default: off]
    #[arg(long, value_name = "0s", env = "EDGECHO_LINGER", value_parser = linger)]
    linger: Option<Duration>,

    /// Size of each socket's receive buffer, from 1KiB to 1GiB [default: grows by itself]
    #[arg(long, value_name = "BYTES", env = "EDGECHO_RECV_BUFFER", value_parser = buffer_size)]
    recv_buffer: Option<u32>,

    /// Size of each socket's send buffer, from 1KiB to 1GiB [default: grows by itself]
    #[arg(long, value_name = "BYTES", env = "EDGECHO_SEND_BUFFER", value_parser = buffer_size)]
    send_buffer: Option<u32>,

    /// Share the port with other processes that do so, too
    #[arg(long, env = "EDGECHO_REUSE_PORT", value_parser = BoolishValueParser::new())]
    reuse_port: bool,

    /// Accept a connection when its first bytes are there, or after so long, in whole seconds [default: off]
    #[arg(long, value_name = "DURATION", env = "EDGECHO_DEFER_ACCEPT", value_parser = duration)]
    defer_accept: Option<Duration>,

    /// Give up a peer that has not acknowledged bytes for so long, from 1ms [default: the system's]
    #[arg(long, value_name = "DURATION", env = "EDGECHO_USER_TIMEOUT", value_parser = duration)]
    user_timeout: Option<Duration>,

    /// Copy each byte instead of passing the sender's own pages on (splice): for clients on this host that send pages of a file
    /// (sendfile) and change the file before they have read the echo
    #[arg(long, env = "EDGECHO_COPY", value_parser = BoolishValueParser::new())]
    copy: bool,

    /// Take no IPv4 connections on IPv6 addresses
    #[arg(long, env = "EDGECHO_IPV6_ONLY", value_parser = BoolishValueParser::new())]
    ipv6_only: bool,

    /// Take connections from one network interface only, such as eth0
    #[arg(long, value_name = "INTERFACE", env = "EDGECHO_BIND_DEVICE", value_parser = interface)]
    bind_device: Option<String>,
}

impl From<Serve> for Config {
    fn from(Serve { listen, protocol: _, limits, times, sockets }: Serve) -> Self {
        Self {
            listen,
            limits: Limits {
                max_connections: limits.max_connections,
                max_per_ip: limits.max_per_ip,
                rate_limit: limits.rate_limit.map(|rate| rate.as_u64()),
                memory_limit: limits.memory_limit.map(|bytes| bytes.as_u64()),
                outbox_limit: usize::try_from(limits.outbox_limit.as_u64()).unwrap_or(usize::MAX),
            },
            timeouts: Timeouts {
                idle: times.idle_timeout,
                write: times.write_timeout.0,
                lifetime: times.max_lifetime,
                drain: times.drain_timeout,
            },
            sockets: SocketOptions {
                backlog: limits.backlog,
                nodelay: !sockets.no_nodelay,
                keepalive: sockets.keepalive,
                reset_on_close: sockets.linger.is_some(),
                recv_buffer: sockets.recv_buffer,
                send_buffer: sockets.send_buffer,
                reuse_port: sockets.reuse_port,
                defer_accept: sockets.defer_accept,
                user_timeout: sockets.user_timeout,
                ipv6_only: sockets.ipv6_only,
                bind_device: sockets.bind_device,
            },
            busy_poll: times.busy_poll,
            stats_interval: times.stats_interval,
            status_interval: times.status_interval,
            heartbeat: times.heartbeat,
            copy: sockets.copy,
            signals: true,
        }
    }
}

pub(super) fn serve(options: Serve) -> ExitCode {
    if let Err(reason) = options.protocol.check(options.limits.memory_limit) {
        stderr::say(format_args!("error: {reason}"));
        return ExitCode::from(WRONG_FLAG);
    }
    let ProtocolFlags { protocol, max_line, max_frame, queue, output } = &options.protocol;
    let (protocol, max_line, max_frame, queue) = (*protocol, *max_line, *max_frame, *queue);
    let output = output.clone().filter(|path| path.as_os_str() != "-");
    let max_frame = max_frame.unwrap_or(Frame::MAX);
    let collect = (protocol == Name::Collect)
        .then(|| Collect::new(output.as_deref(), queue.map_or(Collect::QUEUE, NonZeroUsize::get), max_frame))
        .transpose();
    let collect = match collect {
        Ok(collect) => collect,
        Err(failure) => {
            let name = output.as_deref().map_or("stdout".to_owned(), |path| path.display().to_string());
            stderr::say(format_args!("error: cannot write to {name}: {failure}"));
            return ExitCode::from(FAILURE);
        }
    };
    // What is collected goes to stdout alone.
    let announcement = if collect.is_some() && output.is_none() { Announcement::ToStderr } else { Announcement::ToStdout };
    let config = options.into();
    if let Some(collect) = collect {
        return serve_protocol(collect, &config, announcement);
    }
    match protocol {
        Name::Echo | Name::Collect => serve_protocol(Echo, &config, announcement),
        Name::Line => serve_protocol(Line::new(max_line.unwrap_or(Line::MAX)), &config, announcement),
        Name::Frame => serve_protocol(Frame::new(max_frame), &config, announcement),
    }
}

fn serve_protocol(protocol: impl Protocol, config: &Config, announcement: Announcement) -> ExitCode {
    let result = Server::bind(protocol, config).and_then(|server| {
        announce(&server, announcement);
        server.run()
    });
    match result {
        Ok(summary) => {
            if tracing::enabled!(tracing::Level::DEBUG) {
                stderr::say(&summary.statistics);
            }
            if let Some(number) = summary.interrupted_by {
                stderr::finish();
                // The parent is to see which signal it was.
                let _ = signal::default_action(number);
                // The signal has not ended this process, for it is process 1 of a container: a shell would say the same of its end.
                return ExitCode::from(u8::try_from(128 + number).unwrap_or(FAILURE));
            }
            if summary.aborted == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
        }
        Err(failure) => {
            // Not a log line: no flag that quiets the log may hide why the program is not running.
            stderr::say(format_args!("error: {failure}"));
            ExitCode::from(if matches!(failure, Error::Config(_)) { WRONG_FLAG } else { FAILURE })
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Announcement {
    ToStdout,
    ToStderr,
}

/// Says where the server listens, a line an address: whoever has started it waits for that.
fn announce(server: &Server<impl Protocol>, announcement: Announcement) {
    for address in server.local_addresses() {
        let result = match announcement {
            Announcement::ToStderr => {
                stderr::say(format_args!("listening on {address}"));
                Ok(())
            }
            Announcement::ToStdout => {
                let mut out = stdout::lines();
                writeln!(out, "listening on {address}").and_then(|()| out.flush())
            }
        };
        if let Err(failure) = result {
            warn!("listening on {address}, but cannot say so: {failure}");
        }
    }
}
