//! Host names, and their addresses.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// Returns whether a text can be a host name. A text with a colon or a bracket, or of digits and dots only, is meant as an address.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_'))
        && !text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// Returns the addresses of a host name (getaddrinfo(3)): at least one, and none twice.
///
/// # Errors
/// The errors of the resolver, and one for a name without an address.
pub(crate) fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for address in (host, port).to_socket_addrs()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(addresses) }
}
