//! The head of a connection when the server reads the PROXY protocol: a header, valid or not, or nothing.

use std::net::SocketAddr;

use edgecho::server::{Config, ProxyMode};

use crate::proxy::headers;

/// The first bytes of a connection.
#[derive(Debug, Default)]
pub struct Head {
    bytes: Vec<u8>,
    pub sent: usize,
    pub read: usize,
    /// The address that it names.
    pub source: Option<SocketAddr>,
    is_valid: bool,
    /// The server trusts the peer, and waits for a header.
    pub is_awaited: bool,
    /// It arrives at once, or not at all.
    is_atomic: bool,
}

impl Head {
    /// Returns the head of the connection of this number, whose peer has `own` address.
    pub fn new(number: usize, own: SocketAddr, config: &Config) -> Self {
        let Some(proxy) = config.proxy.as_ref().filter(|proxy| is_trusted(proxy.from.first(), own)) else {
            return Self::default();
        };
        let is_optional = proxy.mode == ProxyMode::Optional;
        let source = SocketAddr::from(([192, 0, 2, 7], own.port()));
        let whole = |bytes, source| Self {
            bytes,
            source,
            is_valid: true,
            is_awaited: true,
            is_atomic: is_optional,
            ..Self::default()
        };
        match number * 7 % 11 {
            0..3 => whole(headers::v1(source), Some(source)),
            3..6 => whole(headers::v2(source), Some(source)),
            6 => whole(headers::v2_with_checksum(source, true), Some(source)),
            7 => whole(headers::local(), None),
            8 => whole(b"PROXY UNKNOWN\r\n".to_vec(), None),
            // A client without a header, where it is optional. Its bytes are no signature.
            9 if is_optional => Self { is_awaited: true, ..Self::default() },
            9 => Self { is_awaited: true, bytes: vec![0x80; 30], ..Self::default() },
            _ => Self { is_atomic: is_optional, ..whole(headers::v2_with_checksum(source, false), None) }.invalid(),
        }
    }

    fn invalid(self) -> Self {
        Self { is_valid: false, ..self }
    }

    /// Sends up to `count` bytes, and returns how many are left of them for what follows.
    pub fn send(&mut self, count: u64) -> u64 {
        let rest = self.bytes.len() - self.sent;
        let most = if self.is_atomic { rest } else { usize::try_from(count).map_or(rest, |count| count.min(rest)) };
        self.sent += most;
        count.saturating_sub(most as u64)
    }

    /// Returns the bytes that have arrived, and were not read.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.read..self.sent]
    }

    /// Returns whether all of it has arrived, and it is a valid header.
    pub fn is_whole(&self) -> bool {
        self.is_valid && self.sent == self.bytes.len()
    }

    /// Returns whether all of it has arrived, and there is something.
    pub fn has_ended(&self) -> bool {
        !self.bytes.is_empty() && self.sent == self.bytes.len()
    }

    /// Returns whether there is a header at all.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn is_valid(&self) -> bool {
        self.is_valid
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn is_trusted(network: Option<&ipnet::IpNet>, own: SocketAddr) -> bool {
    network.is_some_and(|network| network.contains(&own.ip()))
}
