//! The addresses that a server is told to listen on.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// An address to listen on: `127.0.0.1:7777`, `[::1]:7777`, or a name with a port, `localhost:7777`, which may stand for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    addresses: Vec<SocketAddr>,
}

impl ListenAddress {
    /// What it stands for: at least one address.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self { addresses: vec![address] }
    }
}

/// Why a text is not an address to listen on.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It has no port, or one that is not a number up to 65535.
    #[error("expected HOST:PORT with a port from 0 to 65535, such as 127.0.0.1:7777, [::1]:7777 or localhost:7777")]
    Malformed,
    /// It has the form of a name with a port, but nobody knows the name.
    #[error("cannot look up '{host}': {source}")]
    Unknown {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    /// Reads an address. A name is looked up at once (getaddrinfo(3)).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::Malformed)?;
        let port: u16 = port.parse().map_err(|_| AddressError::Malformed)?;
        // What has a colon or a bracket, or only digits and dots, was meant as an address, and is not one.
        let is_name = !host.is_empty()
            && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_'))
            && !host.chars().all(|c| c.is_ascii_digit() || c == '.');
        if !is_name {
            return Err(AddressError::Malformed);
        }
        let unknown = |source| AddressError::Unknown { host: host.to_owned(), source };
        let mut addresses = Vec::new();
        for address in (host, port).to_socket_addrs().map_err(unknown)? {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(unknown(io::Error::other("it has no address")));
        }
        Ok(Self { addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_each_kind_are_read() {
        for text in ["127.0.0.1:7777", "0.0.0.0:0", "[::1]:7777", "[::]:65535"] {
            let address: ListenAddress = text.parse().expect(text);
            assert_eq!(address.addresses(), [text.parse::<SocketAddr>().expect(text)]);
        }
        let named: ListenAddress = "localhost:7777".parse().expect("localhost");
        assert!(named.addresses().iter().all(|address| address.ip().is_loopback() && address.port() == 7777));
    }

    #[test]
    fn what_is_no_address_is_told_from_a_name_that_nobody_knows() {
        for text in [
            "",
            "7777",
            ":7777",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "127.0.0.1:-1",
            "::1:7777x",
            "1.2.3:80",
            "a b:1",
        ] {
            assert!(matches!(text.parse::<ListenAddress>(), Err(AddressError::Malformed)), "{text}");
        }
        assert!(matches!("no-such-host.invalid:7".parse::<ListenAddress>(), Err(AddressError::Unknown { .. })));
    }
}
