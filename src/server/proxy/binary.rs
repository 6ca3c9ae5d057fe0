//! Version 2 of the header: binary.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};

use super::header::{Header, HeaderError, MAX_HEADER_BYTES, Parsed, Version};

/// The signature, version and command, family and transport, and the length of the rest.
const FIXED_BYTES: usize = 16;

const COMMAND: usize = 12;
const FAMILY: usize = 13;
const LENGTH: usize = 14;

/// The type of the vector that holds the checksum, `PP2_TYPE_CRC32C`.
const CHECKSUM: u8 = 0x03;

/// CRC32C, by RFC 4960, appendix B.
static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Reads a header that begins with the [signature](crate::signatures::PROXY_V2).
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let Some(&command) = bytes.get(COMMAND) else { return Ok(Parsed::PartOfHeader) };
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ if command >> 4 == 2 => return Err(HeaderError::Command),
        _ => return Err(HeaderError::Version),
    };
    let Some(&family) = bytes.get(FAMILY) else { return Ok(Parsed::PartOfHeader) };
    if !is_local && (family >> 4 > 3 || family & 0xf > 2) {
        return Err(HeaderError::Family);
    }
    let Some(&[high, low]) = bytes.get(LENGTH..FIXED_BYTES) else { return Ok(Parsed::PartOfHeader) };
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_HEADER_BYTES {
        return Err(HeaderError::TooLong);
    }
    // "The receiver must use the real connection endpoints and discard the protocol block including the family which is ignored."
    let addresses_end = if is_local { None } else { addresses_end(family) };
    if addresses_end.is_some_and(|end| end > length) {
        return Err(HeaderError::TooShort);
    }
    let Some(header) = bytes.get(..length) else { return Ok(Parsed::PartOfHeader) };
    if let Some(end) = addresses_end {
        check_vectors(header, end)?;
    }
    let source = if is_local { None } else { source(family, &header[FIXED_BYTES..]) };
    Ok(Parsed::Whole(Header { version: Version::V2, is_local, source, length }))
}

/// Returns the end of the addresses in the header. With an unspecified family or transport their size is unknown, and nothing behind the length
/// is read.
fn addresses_end(family: u8) -> Option<usize> {
    match family {
        0x11 | 0x12 => Some(FIXED_BYTES + 2 * (4 + 2)),
        0x21 | 0x22 => Some(FIXED_BYTES + 2 * (16 + 2)),
        0x31 | 0x32 => Some(FIXED_BYTES + 2 * 108),
        _ => None,
    }
}

/// Returns the address of a client that has come over TCP. For the other families "the receiver falls back to the UNSPEC mode": a datagram has no
/// connection, and the address of a Unix socket is none that a limit or a log could use.
fn source(family: u8, addresses: &[u8]) -> Option<SocketAddr> {
    match (family, addresses) {
        (0x11, &[a, b, c, d, _, _, _, _, high, low, ..]) => {
            Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into())
        }
        (0x21, _) => {
            let (ip, rest) = addresses.split_first_chunk::<16>()?;
            let port = rest.get(16..)?.first_chunk::<2>()?;
            Some((Ipv6Addr::from(*ip), u16::from_be_bytes(*port)).into())
        }
        _ => None,
    }
}

/// Checks that vectors (TLV) fill the header from `start` to its end, and the checksum, if one of them holds it.
fn check_vectors(header: &[u8], start: usize) -> Result<(), HeaderError> {
    let mut at = start;
    let mut has_checksum = false;
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else { return Err(HeaderError::Vectors) };
        let value_at = at + 3;
        at = value_at + usize::from(u16::from_be_bytes([high, low]));
        let value = header.get(value_at..at).ok_or(HeaderError::Vectors)?;
        if kind == CHECKSUM && (std::mem::replace(&mut has_checksum, true) || value != checksum(header, value_at, at)) {
            return Err(HeaderError::Checksum);
        }
    }
    Ok(())
}

/// Returns the checksum of a header, with zeros in the place of the checksum itself, from `start` to `end`.
fn checksum(header: &[u8], start: usize, end: usize) -> [u8; 4] {
    let mut digest = CRC32C.digest();
    digest.update(&header[..start]);
    digest.update(&[0; 4]);
    digest.update(&header[end..]);
    digest.finalize().to_be_bytes()
}
