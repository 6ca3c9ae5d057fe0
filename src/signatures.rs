//! The first bytes of the headers of the PROXY protocol, by its
//! [specification](https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt). The server reads such headers, and the clients send them.

/// Version 1 (section 2.1), with the space that ends the word.
pub(crate) const PROXY_V1: &[u8] = b"PROXY ";

/// Version 2 (section 2.2).
pub(crate) const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
