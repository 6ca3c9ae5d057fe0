//! The limit on connections per source address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Counts connections by source: an IPv4 address, or the /64 network of an IPv6 address, which is what one subscriber has
/// (RFC 6177). All hosts of a link share the network of the link-local addresses (RFC 4291, 2.5.6), so that each of these addresses is a
/// source, on each link.
#[derive(Debug)]
pub(super) struct PerSource {
    limit: u32,
    open: HashMap<Source, u32>,
}

/// A source address that connections are counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source {
    ip: IpAddr,
    /// The interface of the link of a link-local address, otherwise 0.
    scope: u32,
}

impl PerSource {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, open: HashMap::new() }
    }

    /// Counts a connection, unless its source is at the limit. Returns whether it was counted.
    pub(super) fn admit(&mut self, peer: SocketAddr) -> bool {
        let open = self.open.entry(Source::from(peer)).or_default();
        let is_admitted = *open < self.limit;
        *open += u32::from(is_admitted);
        is_admitted
    }

    /// Takes back the count of a connection that is closed.
    pub(super) fn release(&mut self, peer: SocketAddr) {
        let source = Source::from(peer);
        if let Some(open) = self.open.get_mut(&source) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&source);
            }
        }
    }
}

impl From<SocketAddr> for Source {
    fn from(peer: SocketAddr) -> Self {
        match (peer.ip().to_canonical(), peer) {
            (IpAddr::V6(ip), SocketAddr::V6(peer)) if ip.is_unicast_link_local() => {
                Self { ip: ip.into(), scope: peer.scope_id() }
            }
            (IpAddr::V6(ip), _) => Self { ip: Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(), scope: 0 },
            (ip, _) => Self { ip, scope: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: &str) -> SocketAddr {
        let address = if ip.contains(':') { format!("[{ip}]:7777") } else { format!("{ip}:7777") };
        address.parse().expect(ip)
    }

    #[test]
    fn each_source_has_its_own_count_and_a_network_of_ipv6_is_one() {
        let mut per_source = PerSource::new(2);
        assert!(per_source.admit(peer("10.0.0.1")) && per_source.admit(peer("::ffff:10.0.0.1")));
        assert!(!per_source.admit(peer("10.0.0.1")), "a mapped address is the address");
        assert!(per_source.admit(peer("10.0.0.2")));
        assert!(per_source.admit(peer("2001:db8::1")) && per_source.admit(peer("2001:db8::2")));
        assert!(!per_source.admit(peer("2001:db8::3")));
        assert!(per_source.admit(peer("2001:db8:0:1::3")));
        per_source.release(peer("10.0.0.1"));
        assert!(per_source.admit(peer("10.0.0.1")));
    }

    #[test]
    fn each_link_local_address_is_a_source_on_each_link() {
        let mut per_source = PerSource::new(1);
        for source in ["fe80::1%2", "fe80::2%2", "fe80::1%3", "fe80::1:0:0:0:1%2", "febf::1%2"] {
            assert!(per_source.admit(peer(source)), "{source}");
            assert!(!per_source.admit(peer(source)), "{source}");
        }
        per_source.release(peer("fe80::1%2"));
        assert!(per_source.admit(peer("fe80::1%2")) && !per_source.admit(peer("fe80::1%3")));
        // The next network is no link-local one.
        assert!(per_source.admit(peer("fec0::1")) && !per_source.admit(peer("fec0::2")));
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let mut per_source = PerSource::new(1);
        for source in ["10.0.0.1", "2001:db8::1", "fe80::1%2"] {
            assert!(per_source.admit(peer(source)));
            per_source.release(peer(source));
        }
        assert!(per_source.open.is_empty());
    }
}
