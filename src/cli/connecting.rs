//! The flags that `ping` and `flood` share: how to connect, and the protocol of the far end.

use std::time::Duration;

use clap::{Args, ValueEnum};
use edgecho::client::{ConnectError, Framing, ProxyVersion, State, Timeouts};

use super::values::{HOUR, MILLISECOND, number, seconds};

/// The protocol of the far end.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Wire {
    /// Bytes, without boundaries
    Bytes,
    /// Lines, each ended by LF
    Line,
    /// Frames: a length (4 bytes, big-endian), then that many bytes
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

/// The version of the PROXY protocol.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Proxy {
    /// A line of text
    V1,
    /// Binary
    V2,
}

impl From<Proxy> for ProxyVersion {
    fn from(version: Proxy) -> Self {
        match version {
            Proxy::V1 => Self::V1,
            Proxy::V2 => Self::V2,
        }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Connecting")]
pub(super) struct Connecting {
    /// Do not check first that the far end is an echo service
    ///
    /// By default a handshake sends 16 bytes, at least 12 of them random, and waits for them to come back.
    #[arg(long)]
    pub(super) no_handshake: bool,

    /// Begin each connection with a PROXY protocol header
    ///
    /// For a far end that accepts the PROXY protocol, such as HAProxy with accept-proxy. The header holds the connection's own source and
    /// destination address. It is no part of the messages, and is counted separately.
    #[arg(long, value_name = "VERSION", env = "EDGECHO_SEND_PROXY", value_enum)]
    pub(super) send_proxy: Option<Proxy>,

    /// Maximum time to connect
    ///
    /// In seconds, or with a unit such as 500ms; from 1ms to 1h.
    #[arg(long, value_name = "DURATION", value_parser = seconds(MILLISECOND..=HOUR), default_value = "3s")]
    connect_timeout: Duration,

    /// Maximum time for the handshake
    ///
    /// In seconds, or with a unit such as 500ms; from 1ms to 1h.
    #[arg(long, value_name = "DURATION", value_parser = seconds(MILLISECOND..=HOUR), default_value = "3s")]
    handshake_timeout: Duration,

    /// Number of retries when a connection is refused
    ///
    /// The pauses between attempts double from 100ms to 5s. Each is shortened by up to a half at random.
    #[arg(long, value_name = "N", value_parser = number::<u32>(0..=u32::MAX.into()), default_value_t = 0)]
    pub(super) retry: u32,
}

impl Connecting {
    pub(super) fn timeouts(&self) -> Timeouts {
        let mut timeouts = Timeouts::default();
        timeouts.connect = self.connect_timeout;
        timeouts.handshake = self.handshake_timeout;
        timeouts
    }
}

/// Returns the flag that helps against an error, as an addition to its text.
pub(super) fn advice(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Mangled { .. } => " (--no-handshake skips this check)",
        ConnectError::TimedOut { state: State::SentHandshake | State::AwaitingAck, returned_bytes: 0, .. } => {
            " (--no-handshake skips this check)"
        }
        ConnectError::ProxyEchoed => " (leave out --send-proxy)",
        ConnectError::Reset { state: State::SentHandshake | State::AwaitingAck } => {
            " (see --send-proxy, if the far end requires the PROXY protocol)"
        }
        _ => "",
    }
}
