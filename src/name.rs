//! Names of hosts, and what they stand for.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// Whether a text may be the name of a host. What has a colon or a bracket, or only digits and dots, was meant as an address, and is
/// not one.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_'))
        && !text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// What a name stands for (getaddrinfo(3)): at least one address, and none twice.
///
/// # Errors
/// What the resolver says.
pub(crate) fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for address in (host, port).to_socket_addrs()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(io::Error::other("it has no address")) } else { Ok(addresses) }
}
