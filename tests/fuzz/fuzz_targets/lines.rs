//! The decoded lines do not depend on how the stream is cut, and none exceeds the maximum length.
#![no_main]

use edgecho::protocol::{Decoder, Lines};
use libfuzzer_sys::fuzz_target;

const MAX: usize = 40;

fuzz_target!(|parts: Vec<Vec<u8>>| {
    let mut lines = Lines::new(MAX);
    let mut found = Vec::new();
    let mut given = Vec::new();
    for part in &parts {
        given.extend_from_slice(part);
        let result = lines.decode(part, |line| {
            assert!(line.ends_with(b"\n") && line.len() <= MAX + 2);
            found.extend_from_slice(line);
            true
        });
        if result.is_err() {
            assert!(given.starts_with(&found), "the lines before the error are unchanged");
            return;
        }
        assert!(lines.rest().len() <= MAX + 1 && !lines.rest().contains(&b'\n'));
        assert_eq!([&found[..], lines.rest()].concat(), given, "no byte is lost or added");
    }
});
