//! Conversion of socket addresses between Rust's types and the kernel's (ip(7), ipv6(7)).

use std::io;
use std::mem::{offset_of, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// A socket address in the kernel's layout, for bind(2) and connect(2).
pub(super) enum RawAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl RawAddress {
    /// Returns a pointer to the address, and its length in bytes. The pointer is valid until `self` moves.
    pub(super) fn as_parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            Self::V4(address) => (std::ptr::from_ref(address).cast(), length_of::<libc::sockaddr_in>()),
            Self::V6(address) => (std::ptr::from_ref(address).cast(), length_of::<libc::sockaddr_in6>()),
        }
    }
}

impl From<&SocketAddr> for RawAddress {
    fn from(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(address) => Self::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                // Both the kernel and Rust's type keep the flow label in network byte order.
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            }),
        }
    }
}

/// A buffer for an internet address that the kernel writes, and for its length.
///
/// `sockaddr_in6` is the larger of the two families, so the kernel never truncates an address.
pub(super) struct AddressBuffer {
    storage: libc::sockaddr_in6,
    length: libc::socklen_t,
}

impl AddressBuffer {
    pub(super) fn new() -> Self {
        let storage = libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        };
        Self { storage, length: length_of::<libc::sockaddr_in6>() }
    }

    /// Returns pointers to the address and its length, for accept4(2) and getsockname(2).
    pub(super) fn as_mut_parts(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        (std::ptr::from_mut(&mut self.storage).cast(), &raw mut self.length)
    }

    /// Converts the address that the kernel wrote.
    ///
    /// # Errors
    /// `InvalidData`: not a complete IPv4 or IPv6 address.
    pub(super) fn decode(&self) -> io::Result<SocketAddr> {
        match i32::from(self.storage.sin6_family) {
            libc::AF_INET if self.length >= length_of::<libc::sockaddr_in>() => {
                // The port has the same offset in both families, and the IPv4 address has the offset of the IPv6 flow label. The
                // assertions below check that.
                let ip = Ipv4Addr::from(self.storage.sin6_flowinfo.to_ne_bytes());
                Ok(SocketAddrV4::new(ip, u16::from_be(self.storage.sin6_port)).into())
            }
            libc::AF_INET6 if self.length >= length_of::<libc::sockaddr_in6>() => {
                let ip = Ipv6Addr::from(self.storage.sin6_addr.s6_addr);
                let port = u16::from_be(self.storage.sin6_port);
                Ok(SocketAddrV6::new(ip, port, self.storage.sin6_flowinfo, self.storage.sin6_scope_id).into())
            }
            family => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the kernel returned an address of family {family} and {} bytes", self.length),
            )),
        }
    }
}

const _: () = assert!(offset_of!(libc::sockaddr_in, sin_family) == offset_of!(libc::sockaddr_in6, sin6_family));
const _: () = assert!(offset_of!(libc::sockaddr_in, sin_port) == offset_of!(libc::sockaddr_in6, sin6_port));
const _: () = assert!(offset_of!(libc::sockaddr_in, sin_addr) == offset_of!(libc::sockaddr_in6, sin6_flowinfo));

/// Returns the size of a C type as a `socklen_t`. Addresses are far smaller than 2^32 bytes.
const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(address: SocketAddr) -> SocketAddr {
        let mut buffer = AddressBuffer::new();
        match RawAddress::from(&address) {
            RawAddress::V4(raw) => {
                buffer.storage.sin6_family = raw.sin_family;
                buffer.storage.sin6_port = raw.sin_port;
                buffer.storage.sin6_flowinfo = raw.sin_addr.s_addr;
                buffer.length = length_of::<libc::sockaddr_in>();
            }
            RawAddress::V6(raw) => buffer.storage = raw,
        }
        buffer.decode().expect("a complete address")
    }

    #[test]
    fn addresses_survive_conversion_to_the_kernels_layout_and_back() {
        for text in ["127.0.0.1:7777", "0.0.0.0:0", "255.1.2.3:65535", "[::1]:7777", "[fe80::1%3]:80", "[2001:db8::7]:1"] {
            let address: SocketAddr = text.parse().expect(text);
            assert_eq!(round_trip(address), address);
        }
    }

    #[test]
    fn a_truncated_address_is_an_error() {
        let mut buffer = AddressBuffer::new();
        buffer.storage.sin6_family = libc::AF_INET6 as libc::sa_family_t;
        buffer.length = length_of::<libc::sockaddr_in>();
        assert_eq!(buffer.decode().expect_err("too short").kind(), io::ErrorKind::InvalidData);
    }
}
