//! The far end: a host and a port, and the addresses they stand for.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::name::{is_name, look_up};

/// The default port, as of `edgecho serve`.
pub const DEFAULT_PORT: u16 = 7777;

/// A far end, read from `HOST[:PORT]`: a name, an IPv4 address, or an IPv6 address, which needs brackets only if a port follows.
///
/// ```
/// use edgecho::client::Target;
///
/// let target: Target = "127.0.0.1".parse()?;
/// assert_eq!(target.addresses(), ["127.0.0.1:7777".parse()?]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    text: String,
    addresses: Vec<SocketAddr>,
}

impl Target {
    /// Returns the addresses in the order of the resolver; at least one.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { text: address.to_string(), addresses: vec![address] }
    }
}

/// The reason why a text names no far end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The text is neither an address nor a name.
    #[error("expected HOST or HOST:PORT with a port from 1 to 65535, such as 127.0.0.1, localhost:7777 or [::1]:7777")]
    Malformed,
    /// The name has no address.
    #[error("cannot look up '{host}': {error}")]
    Unknown {
        /// The name.
        host: String,
        /// The error of the resolver (getaddrinfo(3)).
        error: io::Error,
    },
}

impl FromStr for Target {
    type Err = TargetError;

    /// Reads `HOST[:PORT]`. A name is looked up at once (getaddrinfo(3)).
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (host, port) = split(text).ok_or(TargetError::Malformed)?;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, port).into());
        }
        if let Ok(address) = format!("[{host}]:{port}").parse::<SocketAddr>() {
            return Ok(address.into()); // with a scope, such as fe80::1%2
        }
        if !is_name(host) {
            return Err(TargetError::Malformed);
        }
        let addresses = look_up(host, port).map_err(|error| TargetError::Unknown { host: host.to_owned(), error })?;
        Ok(Self { text: format!("{host}:{port}"), addresses })
    }
}

/// Splits a text into host and port. A text with several colons and no bracket is an IPv6 address without a port.
fn split(text: &str) -> Option<(&str, u16)> {
    let port = |text: &str| text.parse().ok().filter(|&port| port != 0);
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = if rest.is_empty() { DEFAULT_PORT } else { port(rest.strip_prefix(':')?)? };
        return host.contains(':').then_some((host, port));
    }
    match text.split_once(':') {
        None => Some((text, DEFAULT_PORT)),
        Some((_, rest)) if rest.contains(':') => Some((text, DEFAULT_PORT)),
        Some((host, rest)) => Some((host, port(rest)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<String> {
        text.parse::<Target>().expect(text).addresses().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_port_may_be_left_out() {
        assert_eq!(read("127.0.0.1"), ["127.0.0.1:7777"]);
        assert_eq!(read("127.0.0.1:9"), ["127.0.0.1:9"]);
        assert_eq!(read("::1"), ["[::1]:7777"]);
        assert_eq!(read("[::1]"), ["[::1]:7777"]);
        assert_eq!(read("[::1]:9"), ["[::1]:9"]);
        assert_eq!(read("fe80::1%3"), ["[fe80::1%3]:7777"]);
        assert!(read("localhost:9").iter().all(|address| address.ends_with(":9")));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in
            ["", ":9", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "a b", "1.2.3", "[127.0.0.1]:9", "[::1]9", "[::1"]
        {
            assert!(matches!(text.parse::<Target>(), Err(TargetError::Malformed)), "{text}");
        }
        assert!(matches!("no-such-host.invalid".parse::<Target>(), Err(TargetError::Unknown { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f.:\\[\\]%]{0,30}|[^a-zA-Z]{0,20}") {
            let _ = text.parse::<Target>();
        }

        #[test]
        fn any_address_is_read(address: SocketAddr) {
            prop_assume!(address.port() != 0);
            let target: Target = address.to_string().parse().expect("an address");
            prop_assert_eq!((target.addresses()[0].ip(), target.addresses()[0].port()), (address.ip(), address.port()));
        }
    }
}
