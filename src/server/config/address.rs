//! Addresses to listen on.

use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::name::{is_name, look_up};

/// An address to listen on: `127.0.0.1:7777`, `[::1]:7777`, or a name with a port, `localhost:7777`, which may have several addresses.
///
/// ```
/// use edgecho::server::ListenAddress;
///
/// let address: ListenAddress = "[::1]:7777".parse()?;
/// assert_eq!(address.addresses(), ["[::1]:7777".parse()?]);
/// assert!("7777".parse::<ListenAddress>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    addresses: Vec<SocketAddr>,
}

impl ListenAddress {
    /// Returns the socket addresses: at least one.
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

/// An error in the text of an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The text has no port, or one that is not a number up to 65535.
    #[error("expected HOST:PORT with a port from 0 to 65535, such as 127.0.0.1:7777, [::1]:7777 or localhost:7777")]
    Malformed,
    /// The text is a name with a port, but the name has no address.
    #[error("cannot look up '{host}': {error}")]
    Unknown {
        /// The name.
        host: String,
        /// The resolver's error.
        error: io::Error,
    },
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    /// Reads an address. A name is looked up at once (getaddrinfo(3)).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = match parse(text)? {
            Parsed::Address(address) => return Ok(address.into()),
            Parsed::Name(host, port) => (host, port),
        };
        let addresses = look_up(host, port).map_err(|error| AddressError::Unknown { host: host.to_owned(), error })?;
        Ok(Self { addresses })
    }
}

/// A parsed address. A name is not looked up yet.
#[derive(Debug, PartialEq, Eq)]
enum Parsed<'a> {
    Address(SocketAddr),
    Name(&'a str, u16),
}

fn parse(text: &str) -> Result<Parsed<'_>, AddressError> {
    if let Ok(address) = text.parse() {
        return Ok(Parsed::Address(address));
    }
    let (host, port) = text.rsplit_once(':').ok_or(AddressError::Malformed)?;
    let port = port.parse().map_err(|_| AddressError::Malformed)?;
    if is_name(host) { Ok(Parsed::Name(host, port)) } else { Err(AddressError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f.:\\[\\]%-]{0,30}|\\PC{0,30}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read_back(address in any::<SocketAddr>()) {
            let text = address.to_string();
            let Ok(Parsed::Address(read)) = parse(&text) else { panic!("{text} was not read as an address") };
            prop_assert_eq!((read.ip(), read.port()), (address.ip(), address.port()));
        }

        #[test]
        fn names_are_read_with_their_port(host in "[a-z][a-z0-9-]{0,20}(\\.[a-z][a-z0-9]{0,5})?", port in any::<u16>()) {
            let text = format!("{host}:{port}");
            prop_assert_eq!(parse(&text).expect("a name"), Parsed::Name(&host, port));
        }
    }

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
