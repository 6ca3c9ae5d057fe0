//! Addresses for programs that cannot choose a free port.

use std::net::{SocketAddr, TcpListener};

pub use crate::support::client::free_address;

/// Returns an address of ::1 that nothing listened on a moment ago. IPv6 has only one loopback address, so another test can take the port.
pub fn free_ipv6_address() -> SocketAddr {
    TcpListener::bind("[::1]:0").and_then(|listener| listener.local_addr()).expect("a port of ::1")
}
