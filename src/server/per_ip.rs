//! How many connections each source address has: `--max-per-ip`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Counts connections by source: an IPv4 address, or the /64 network of an IPv6 address, which is what one subscriber has
/// (RFC 6177).
#[derive(Debug)]
pub(super) struct PerIp {
    limit: u32,
    open: HashMap<IpAddr, u32>,
}

impl PerIp {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, open: HashMap::new() }
    }

    /// Counts a connection, if its source may have one more.
    pub(super) fn admit(&mut self, ip: IpAddr) -> bool {
        let open = self.open.entry(source(ip)).or_default();
        let is_admitted = *open < self.limit;
        *open += u32::from(is_admitted);
        is_admitted
    }

    /// One that was admitted has left.
    pub(super) fn release(&mut self, ip: IpAddr) {
        let source = source(ip);
        if let Some(open) = self.open.get_mut(&source) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&source);
            }
        }
    }
}

fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn each_source_has_its_own_count_and_a_network_of_ipv6_is_one() {
        let mut per_ip = PerIp::new(2);
        assert!(per_ip.admit(ip("10.0.0.1")) && per_ip.admit(ip("::ffff:10.0.0.1")));
        assert!(!per_ip.admit(ip("10.0.0.1")), "a mapped address is the address");
        assert!(per_ip.admit(ip("10.0.0.2")));
        assert!(per_ip.admit(ip("2001:db8::1")) && per_ip.admit(ip("2001:db8::2")));
        assert!(!per_ip.admit(ip("2001:db8::3")));
        assert!(per_ip.admit(ip("2001:db8:0:1::3")));
        per_ip.release(ip("10.0.0.1"));
        assert!(per_ip.admit(ip("10.0.0.1")));
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let mut per_ip = PerIp::new(1);
        assert!(per_ip.admit(ip("10.0.0.1")));
        per_ip.release(ip("10.0.0.1"));
        assert!(per_ip.open.is_empty());
    }
}
