//! Any bytes are a header, a part of one, or refused; and the results for all parts of the bytes agree with each other.
#![no_main]

use edgecho::server::proxy::{MAX_HEADER_BYTES, Parsed, parse};
use libfuzzer_sys::fuzz_target;

const SIGNATURES: [&[u8]; 3] = [b"", b"PROXY TCP", b"\r\n\r\n\0\r\nQUIT\n\x21"];

fuzz_target!(|input: (u8, &[u8])| {
    let (signature, rest) = input;
    let bytes = [SIGNATURES[usize::from(signature) % SIGNATURES.len()], rest].concat();
    let whole = parse(&bytes);
    if let Ok(Parsed::Whole(header)) = whole {
        assert!(header.length <= bytes.len() && header.length <= MAX_HEADER_BYTES);
    }
    for end in 0..bytes.len().min(2 * MAX_HEADER_BYTES) {
        match (parse(&bytes[..end]), whole) {
            (Ok(Parsed::Whole(part)), Ok(Parsed::Whole(header))) => assert!(part == header && part.length <= end),
            (Ok(_), Ok(Parsed::Whole(header))) => assert!(end < header.length, "a whole header is a part"),
            (Ok(Parsed::Whole(_)), whole) => panic!("a header became {whole:?}"),
            (Err(error), whole) => assert_eq!(Err(error), whole),
            (Ok(_), _) => {}
        }
    }
});
