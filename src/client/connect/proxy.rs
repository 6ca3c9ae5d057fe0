//! The PROXY protocol header in front of a connection, as HAProxy defines it (proxy-protocol.txt, sections 2.1 and 2.2).

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use proxy_header::{ProxiedAddress, ProxyHeader as Header};

use super::error::ConnectError;
use super::state::State;
use crate::signatures;
use crate::sys::socket;

/// The version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyVersion {
    /// A line of text: `PROXY TCP4 192.0.2.1 192.0.2.2 40000 7777`, ended by CR LF.
    V1,
    /// Binary: 28 bytes for IPv4, 52 for IPv6.
    V2,
}

impl ProxyVersion {
    /// Returns the name of the version: `v1` or `v2`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    /// Returns the bytes that each header of this version begins with.
    pub(crate) fn signature(self) -> &'static [u8] {
        match self {
            Self::V1 => signatures::PROXY_V1,
            Self::V2 => signatures::PROXY_V2,
        }
    }
}

/// A PROXY protocol header: the addresses of a TCP connection.
///
/// ```
/// use edgecho::client::{ProxyHeader, ProxyVersion};
///
/// let header = ProxyHeader::new(ProxyVersion::V1, "192.0.2.1:40000".parse()?, "192.0.2.2:7777".parse()?);
/// assert_eq!(header.bytes(), b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 7777\r\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    bytes: Vec<u8>,
}

impl ProxyHeader {
    /// Returns the header of a connection from `source` to `destination`. Addresses of two families belong to no connection; their header
    /// says that the addresses are unknown.
    #[must_use]
    pub fn new(version: ProxyVersion, source: SocketAddr, destination: SocketAddr) -> Self {
        let encode = |header: &Header<'_>| {
            let mut bytes = Vec::new();
            match version {
                ProxyVersion::V1 => header.encode_v1(&mut bytes),
                ProxyVersion::V2 => header.encode_v2(&mut bytes),
            }
            .map(|()| bytes)
        };
        let known = encode(&Header::with_address(ProxiedAddress::stream(source, destination)));
        Self { bytes: known.or_else(|_| encode(&Header::with_local())).unwrap_or_default() }
    }

    /// Returns the header of a socket that is connected or connecting to `destination`: connect(2) has chosen its source address.
    pub(crate) fn of(version: ProxyVersion, stream: &impl AsFd, destination: SocketAddr) -> Result<Self, ConnectError> {
        let source = socket::getsockname(stream.as_fd())
            .map_err(|error| ConnectError::of(error, State::Initiated, Duration::ZERO))?;
        Ok(Self::new(version, source, destination))
    }

    /// Returns the bytes to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_writes_both_families_as_the_specification_shows() {
        let header = |version, source: &str, destination: &str| {
            ProxyHeader::new(version, source.parse().expect("an address"), destination.parse().expect("an address")).bytes
        };
        assert_eq!(
            header(ProxyVersion::V1, "[2001:db8::1]:1", "[2001:db8::2]:65535"),
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"
        );
        let v4 = header(ProxyVersion::V2, "192.0.2.1:258", "192.0.2.2:772");
        assert_eq!(v4, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x01\x02\x03\x04");
        let v6 = header(ProxyVersion::V2, "[2001:db8::1]:258", "[::1]:772");
        assert_eq!((v6.len(), &v6[12..16]), (52, &b"\x21\x21\0\x24"[..]));
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let bytes = header(version, "127.0.0.1:1", "127.0.0.1:2");
            assert!(bytes.starts_with(version.signature()));
        }
    }

    #[test]
    fn addresses_of_two_families_are_unknown() {
        let (v4, v6) = ("127.0.0.1:1".parse().expect("an address"), "[::1]:1".parse().expect("an address"));
        assert_eq!(ProxyHeader::new(ProxyVersion::V1, v4, v6).bytes, b"PROXY UNKNOWN\r\n");
        assert_eq!(ProxyHeader::new(ProxyVersion::V2, v4, v6).bytes[12..], *b"\x20\0\0\0");
    }
}
