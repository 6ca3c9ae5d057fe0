//! The address of a peer in 22 bytes, instead of the 32 of a [`SocketAddr`]: every idle connection keeps one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The scope that marks an IPv4 address. No interface has this index (a positive `int` in the kernel), so an IPv4 address differs from
/// the IPv6 address that it is mapped to (RFC 4291, 2.5.5.2).
const IPV4: u32 = u32::MAX;

/// The address of a peer, without the flow label of IPv6, which names a flow and not a host.
///
/// ```
/// use std::net::SocketAddr;
///
/// use edgecho::server::Peer;
///
/// let address: SocketAddr = "[fe80::1%3]:7777".parse()?;
/// let peer = Peer::from(address);
/// assert_eq!(size_of_val(&peer), 22);
/// assert_eq!(SocketAddr::from(peer), address);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    ip: [u8; 16],
    scope: [u8; 4],
    port: u16,
}

impl Peer {
    /// Returns the address without the port.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        SocketAddr::from(*self).ip()
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        let (ip, scope) = match address {
            SocketAddr::V4(address) => (address.ip().to_ipv6_mapped(), IPV4),
            SocketAddr::V6(address) => (*address.ip(), address.scope_id()),
        };
        Self { ip: ip.octets(), scope: scope.to_ne_bytes(), port: address.port() }
    }
}

impl From<Peer> for SocketAddr {
    fn from(peer: Peer) -> Self {
        match (u32::from_ne_bytes(peer.scope), peer.ip) {
            (IPV4, [.., a, b, c, d]) => (Ipv4Addr::new(a, b, c, d), peer.port).into(),
            (scope, ip) => SocketAddrV6::new(Ipv6Addr::from(ip), peer.port, 0, scope).into(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_ipv4_address_is_not_the_ipv6_address_that_it_is_mapped_to() {
        for text in ["127.0.0.1:7", "[::ffff:127.0.0.1]:7", "[::]:0", "0.0.0.0:0", "[fe80::1%4294967294]:65535"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(SocketAddr::from(Peer::from(address)), address);
            assert_eq!(Peer::from(address).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn every_address_comes_back(ip: IpAddr, port: u16) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(SocketAddr::from(Peer::from(address)), address);
            prop_assert_eq!(Peer::from(address).ip(), ip);
        }
    }
}
