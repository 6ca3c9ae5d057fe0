//! Reads a header of either version.

use super::header::{HeaderError, Parsed};
use super::{binary, text};
use crate::signatures::{PROXY_V1, PROXY_V2};

/// Reads a header of either version from the first bytes of a connection, by section 2 of the
/// [specification](https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt). Allocates nothing.
///
/// The result for a part of the bytes agrees with the result for all of them: each part of a header is a part, and more bytes after an
/// error do not change the error.
///
/// ```
/// use edgecho::server::proxy::{Parsed, parse};
///
/// let bytes = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 7777\r\nhello";
/// let Ok(Parsed::Whole(header)) = parse(bytes) else { panic!("a header") };
/// assert_eq!(header.source, Some("192.0.2.7:40000".parse()?));
/// assert_eq!(&bytes[header.length..], b"hello");
/// assert_eq!(parse(b"PROXY TC"), Ok(Parsed::PartOfHeader));
/// assert_eq!(parse(b"PRO"), Ok(Parsed::PartOfSignature));
/// assert!(parse(b"GET / HTTP/1.1\r\n").is_err());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
///
/// # Errors
/// Returns the reason why no further bytes can make these a valid header.
pub fn parse(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    if is_part(bytes, PROXY_V1) || is_part(bytes, PROXY_V2) {
        Ok(Parsed::PartOfSignature)
    } else if bytes.starts_with(PROXY_V1) {
        text::parse(bytes)
    } else if bytes.starts_with(PROXY_V2) {
        binary::parse(bytes)
    } else {
        Err(HeaderError::NoSignature)
    }
}

/// Returns whether `bytes` are less than the whole, and the start of it.
fn is_part(bytes: &[u8], whole: &[u8]) -> bool {
    bytes.len() < whole.len() && whole.starts_with(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::server::proxy::samples;

    /// Checks that the results for all parts of `bytes` agree with each other.
    fn check_parts(bytes: &[u8]) {
        let whole = parse(bytes);
        for end in 0..bytes.len() {
            match (parse(&bytes[..end]), whole) {
                (Ok(Parsed::Whole(part)), Ok(Parsed::Whole(header))) => {
                    assert_eq!(part, header);
                    assert!(part.length <= end);
                }
                (Ok(Parsed::Whole(_)), whole) => panic!("a header became {whole:?}"),
                (Ok(_), Ok(Parsed::Whole(header))) => assert!(end < header.length, "whole at {end}"),
                (Err(error), whole) => assert_eq!(Err(error), whole),
                (Ok(_), _) => {}
            }
        }
    }

    #[test]
    fn a_header_that_is_cut_at_any_byte_is_a_part() {
        for (bytes, source) in samples::valid() {
            let followed = [&bytes[..], b"PROXY and what else a client sends"].concat();
            for bytes in [&bytes, &followed] {
                let Ok(Parsed::Whole(header)) = parse(bytes) else { panic!("{:?} of {bytes:?}", parse(bytes)) };
                assert_eq!(header.source, source, "{bytes:?}");
                check_parts(bytes);
            }
            assert!(matches!(parse(&bytes), Ok(Parsed::Whole(header)) if header.length == bytes.len()));
        }
    }

    #[test]
    fn each_fault_has_its_error() {
        for (bytes, error) in samples::invalid() {
            assert_eq!(parse(&bytes), Err(error), "{:?}", String::from_utf8_lossy(&bytes));
            check_parts(&bytes);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            check_parts(&bytes);
            check_parts(&[PROXY_V1, &bytes].concat());
            check_parts(&[PROXY_V2, &bytes].concat());
        }

        #[test]
        fn a_header_with_changed_bytes_is_read_or_refused(
            which in 0..samples::valid().len(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = samples::valid()[which].0.clone();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            check_parts(&bytes);
        }

        /// An implementation by others, which is less strict, understands every header that is accepted here, and in the same way.
        #[test]
        fn what_is_accepted_others_accept(
            line in "PROXY (TCP4|TCP6|UNKNOWN)( ([0-9]{1,3}\\.){3}[0-9]{1,3}| [0-9a-f:]{2,12}| [0-9]{1,5}){0,5}\r\n",
        ) {
            if let Ok(Parsed::Whole(header)) = parse(line.as_bytes()) {
                let (other, length) = proxy_header::ProxyHeader::parse(line.as_bytes(), Default::default()).expect("valid");
                prop_assert_eq!(length, header.length);
                prop_assert_eq!(other.proxied_address().map(|address| address.source), header.source);
            }
        }
    }
}
