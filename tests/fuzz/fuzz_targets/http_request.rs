//! Any bytes are requests, an incomplete head, or refused; memory is bounded, and a good request is the same however it is cut.
#![no_main]

use edgecho::service::admin::{Heads, MAX_HEAD_BYTES, Request, Wanted};
use libfuzzer_sys::fuzz_target;

/// Takes requests up to the first that is the last of its connection.
fn requests(parts: &[&[u8]]) -> Vec<Request> {
    let (mut heads, mut found) = (Heads::default(), Vec::new());
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let (taken, request) = heads.take(rest);
            assert!(taken > 0 && taken <= rest.len() && heads.kept_bytes() < MAX_HEAD_BYTES);
            assert!(request.is_some() || taken == rest.len(), "bytes are left without a request");
            rest = &rest[taken..];
            found.extend(request);
            if request.is_some_and(|request| request.is_last) {
                return found;
            }
        }
    }
    found
}

fuzz_target!(|input: (&[u8], Vec<u8>)| {
    let (bytes, cuts) = input;
    let whole = requests(&[bytes]);
    let (mut parts, mut rest) = (Vec::new(), bytes);
    for cut in cuts {
        let (part, others) = rest.split_at(usize::from(cut).min(rest.len()));
        parts.push(part);
        rest = others;
    }
    parts.push(rest);
    // Bytes that are no request may be refused sooner or later. All requests before them are the same.
    let good = |request: &&Request| !matches!(request.wanted, Wanted::Error(_));
    assert!(whole.iter().take_while(good).eq(requests(&parts).iter().take_while(good)));
});
