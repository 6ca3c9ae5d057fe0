//! Version 1 of the header: a line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::header::{Header, HeaderError, Parsed, Version};
use crate::signatures::PROXY_V1;

/// The longest line with its CR LF (specification, section 2.1).
const MAX_LINE_BYTES: usize = 107;

const TCP4: &[u8] = b"TCP4 ";
const TCP6: &[u8] = b"TCP6 ";
const UNKNOWN: &[u8] = b"UNKNOWN";

/// Reads a header that begins with the [signature](PROXY_V1).
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let line = &bytes[..bytes.len().min(MAX_LINE_BYTES)];
    let rest = &line[PROXY_V1.len()..];
    // "It is recommended to abort the connection as soon as possible so that the sender gets a chance to notice the anomaly."
    let begins = |protocol: &&[u8]| rest.starts_with(protocol) || protocol.starts_with(rest);
    if ![TCP4, TCP6, UNKNOWN].iter().any(begins) {
        return Err(HeaderError::Protocol);
    }
    let Some(end) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if line.len() < MAX_LINE_BYTES { Ok(Parsed::PartOfHeader) } else { Err(HeaderError::LineTooLong) };
    };
    match line[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if line.len() < MAX_LINE_BYTES => return Ok(Parsed::PartOfHeader),
        [b'\r'] => return Err(HeaderError::LineTooLong),
        _ => return Err(HeaderError::LineEnd),
    }
    let source = source(&line[PROXY_V1.len()..end])?;
    Ok(Parsed::Whole(Header { version: Version::V1, is_local: false, source, length: end + 2 }))
}

/// Returns the source address from the part between the signature and the end of the line.
fn source(line: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    if let Some(fields) = line.strip_prefix(TCP4) {
        addresses::<Ipv4Addr>(fields).map(Some)
    } else if let Some(fields) = line.strip_prefix(TCP6) {
        addresses::<Ipv6Addr>(fields).map(Some)
    } else {
        // "The receiver must ignore anything presented before the CRLF is found."
        let is_unknown = line.strip_prefix(UNKNOWN).is_some_and(|rest| rest.first().is_none_or(|&byte| byte == b' '));
        if is_unknown { Ok(None) } else { Err(HeaderError::Protocol) }
    }
}

/// Checks both addresses and both ports, and returns the source.
fn addresses<A: FromStr + Into<IpAddr>>(fields: &[u8]) -> Result<SocketAddr, HeaderError> {
    let mut fields = fields.split(|&byte| byte == b' ');
    let mut next = || fields.next().and_then(|field| str::from_utf8(field).ok()).ok_or(HeaderError::Fields);
    let (source, destination, source_port, destination_port) = (next()?, next()?, next()?, next()?);
    if fields.next().is_some() {
        return Err(HeaderError::Fields);
    }
    // Rust's parsers refuse leading zeros in IPv4 addresses. They accept `::ffff:192.0.2.1`, which inet_ntop(3) writes, and so HAProxy and
    // nginx do.
    let address = |text: &str| text.parse::<A>().map(Into::into).map_err(|_| HeaderError::Address);
    address(destination)?;
    port(destination_port)?;
    Ok(SocketAddr::new(address(source)?, port(source_port)?))
}

/// Reads a port: digits only, without leading zeros.
fn port(text: &str) -> Result<u16, HeaderError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(HeaderError::Port)
}
