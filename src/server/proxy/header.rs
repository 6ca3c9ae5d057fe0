//! The header of the PROXY protocol: what a receiver learns from it, and the reasons for which it is refused.

use std::net::SocketAddr;

/// The most bytes that a header may have. The text format allows 107 and the binary one 65,551, but the specification promises a header that
/// fits into the smallest TCP segment, 536 bytes.
pub const MAX_HEADER_BYTES: usize = 4096;

/// The format of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Version {
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary.
    V2,
}

/// A whole and valid header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// The format.
    pub version: Version,
    /// The proxy has opened the connection for itself, such as for a health check: the command LOCAL of version 2.
    pub is_local: bool,
    /// The address of the client. `None` if the connection's own address holds: for LOCAL, for UNKNOWN and UNSPEC, and for a client that has not
    /// come over TCP.
    pub source: Option<SocketAddr>,
    /// The length in bytes. What follows belongs to the client.
    pub length: usize,
}

/// The result of [`parse`](super::parse()), unless the bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parsed {
    /// A header, with or without bytes of the client behind it.
    Whole(Header),
    /// The start of a signature, or nothing. It may still become something else than a header.
    PartOfSignature,
    /// A signature, and the start of what belongs behind it. The sender speaks the PROXY protocol.
    PartOfHeader,
}

/// The reason why bytes are no valid header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The connection has ended within its header. [`parse`](super::parse()) does not return this error.
    #[error("the connection ended within the header")]
    CutShort,
    /// The bytes begin with no signature.
    #[error("the first bytes are not the signature of a header")]
    NoSignature,
    /// Version 1: the line does not end within 107 bytes.
    #[error("the line does not end within 107 bytes")]
    LineTooLong,
    /// Version 1: a CR without LF, or the reverse.
    #[error("the line does not end with CR LF")]
    LineEnd,
    /// Version 1: neither TCP4 nor TCP6 nor UNKNOWN.
    #[error("the protocol is neither TCP4 nor TCP6 nor UNKNOWN")]
    Protocol,
    /// Version 1: not two addresses and two ports, with single spaces in between.
    #[error("the line does not hold two addresses and two ports")]
    Fields,
    /// Version 1: no address of the family, or not in its canonical form.
    #[error("an address is malformed")]
    Address,
    /// Version 1: no number up to 65535, or one with a leading zero.
    #[error("a port is malformed")]
    Port,
    /// Version 2: the version in the 13th byte is not 2.
    #[error("the version is not 2")]
    Version,
    /// Version 2: neither LOCAL nor PROXY.
    #[error("the command is neither LOCAL nor PROXY")]
    Command,
    /// Version 2: an unassigned address family or transport protocol.
    #[error("the address family or the transport protocol is unassigned")]
    Family,
    /// Version 2: more than [`MAX_HEADER_BYTES`].
    #[error("the header is longer than 4096 bytes")]
    TooLong,
    /// Version 2: the length leaves no room for the addresses of the family.
    #[error("the length leaves no room for the addresses")]
    TooShort,
    /// Version 2: the vectors behind the addresses (TLV) do not fill the rest of the header.
    #[error("the vectors behind the addresses (TLV) do not fill the header")]
    Vectors,
    /// Version 2: the CRC32C checksum is wrong, has not four bytes, or is there twice.
    #[error("the checksum (CRC32C) is wrong")]
    Checksum,
}
