//! The outbox is a queue of bytes for every sequence of pushes and consumes.
#![no_main]

use std::collections::VecDeque;

use edgecho::stream::Outbox;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|steps: Vec<(&[u8], u16)>| {
    let mut outbox = Outbox::default();
    let mut model = VecDeque::new();
    for (bytes, count) in steps {
        outbox.push(bytes);
        model.extend(bytes);
        let count = usize::from(count).min(outbox.len());
        outbox.consume(count);
        model.drain(..count);
        assert_eq!(outbox.pending(), model.make_contiguous());
        assert_eq!(outbox.is_empty(), model.is_empty());
    }
});
