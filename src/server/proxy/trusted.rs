//! The networks whose peers may send a header.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

/// The networks of trusted peers.
#[derive(Debug)]
pub(super) struct Trusted {
    networks: Vec<IpNet>,
}

impl Trusted {
    pub(super) fn new(networks: &[IpNet]) -> Self {
        Self { networks: networks.iter().map(|&network| canonical(network)).collect() }
    }

    /// Returns whether a peer may send a header. A client that has come to an IPv6 listener over IPv4 has a mapped address (ipv6(7)), and counts
    /// as an IPv4 peer: `::/0` does not contain it.
    pub(super) fn contains(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        self.networks.iter().any(|network| network.contains(&ip))
    }
}

/// Returns a network of mapped addresses as the network of the IPv4 addresses.
fn canonical(network: IpNet) -> IpNet {
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(length)) if network.addr().is_ipv6() => {
            Ipv4Net::new(address, length).map_or(network, Into::into)
        }
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_of_an_ipv6_listener_is_matched_by_its_ipv4_address() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", &["10.1.2.3:1", "[::ffff:10.1.2.3]:1"] as &[_], &["11.0.0.0:1", "[::10.1.2.3]:1"] as &[_]),
            ("127.0.0.1/32", &["127.0.0.1:1"], &["127.0.0.2:1", "[::1]:1"]),
            ("127.0.0.1/8", &["127.9.9.9:1"], &["128.0.0.1:1"]),
            ("2001:db8::/32", &["[2001:db8:9::1]:1"], &["[2001:db9::1]:1", "10.0.0.1:1"]),
            ("fe80::/10", &["[fe80::1%2]:1"], &["[fec0::1]:1"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3:1", "[::ffff:10.1.2.3]:1"], &["11.0.0.0:1"]),
            ("::ffff:0.0.0.0/96", &["10.1.2.3:1"], &["[::1]:1"]),
            ("0.0.0.0/0", &["10.1.2.3:1", "[::ffff:10.1.2.3]:1"], &["[::1]:1"]),
            ("::/0", &["[::1]:1", "[2001:db8::1]:1"], &["10.1.2.3:1", "[::ffff:10.1.2.3]:1"]),
        ] {
            let trusted = Trusted::new(&[network.parse().expect(network)]);
            for peer in inside {
                assert!(trusted.contains(peer.parse().expect(peer)), "{peer} in {network}");
            }
            for peer in outside {
                assert!(!trusted.contains(peer.parse().expect(peer)), "{peer} not in {network}");
            }
        }
    }
}
