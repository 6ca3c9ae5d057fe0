//! The decoded frames do not depend on how the stream is cut, and no buffer exceeds the largest frame.
#![no_main]

use edgecho::protocol::{DecodeError, Decoder, Frames};
use libfuzzer_sys::fuzz_target;

const MAX: usize = 40;

fuzz_target!(|parts: Vec<Vec<u8>>| {
    let mut frames = Frames::new(MAX);
    let mut found = Vec::new();
    let mut given = Vec::new();
    for part in &parts {
        given.extend_from_slice(part);
        let result = frames.decode(part, |frame| {
            assert_eq!(frame, Frames::encode(Frames::payload(frame)));
            assert!(frame.len() <= MAX + 4);
            found.extend_from_slice(frame);
            true
        });
        if let Err(error) = result {
            assert!(matches!(error, DecodeError::TooLong { length } if length > MAX as u64) && given.starts_with(&found));
            return;
        }
        assert!(frames.rest().len() < MAX + 4);
        assert_eq!([&found[..], frames.rest()].concat(), given, "no byte is lost or added");
    }
});
