//! The payloads of a ping.

use crate::client::bytes::{Framing, Original, Pattern, wrap};

/// The size of the header: a sequence number (8 bytes, big-endian) and a CRC-32 (IEEE 802.3) of everything else.
const HEADER_BYTES: usize = 12;

/// The distance within which bytes in the wrong place are searched.
const SEARCHED_BYTES: u64 = 64 * 1024;

/// The payloads of a run, each of `size` bytes without its framing: a header, then a pattern. A payload that is too small for the
/// header is only a pattern. Sequence numbers count from 1. In a line, no byte is a line end.
#[derive(Debug)]
pub(super) struct Payloads {
    pattern: Pattern,
    size: usize,
    framing: Framing,
}

impl Payloads {
    pub(super) fn new(seed: u64, size: usize, framing: Framing) -> Self {
        Self { pattern: Pattern::new(seed, 0), size, framing }
    }

    /// Returns the size of a payload on the wire.
    pub(super) fn size(&self) -> usize {
        self.size + self.framing.overhead() as usize
    }

    /// Returns the payload of a sequence number with its framing.
    pub(super) fn make(&self, sequence: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        self.pattern.fill(sequence.wrapping_mul(self.size as u64), &mut bytes);
        if let Some((header, rest)) = bytes.split_at_mut_checked(HEADER_BYTES) {
            header[..8].copy_from_slice(&sequence.to_be_bytes());
            let mut checksum = crc32fast::Hasher::new();
            checksum.update(&header[..8]);
            checksum.update(rest);
            header[8..].copy_from_slice(&checksum.finalize().to_be_bytes());
        }
        wrap(self.framing, bytes)
    }
}

/// The payloads of one connection, as one stream.
#[derive(Debug)]
pub(super) struct Carried<'a> {
    pub(super) payloads: &'a Payloads,
    /// The sequence number of the first payload. The others follow one by one.
    pub(super) first: u64,
}

impl Original for Carried<'_> {
    fn byte(&self, position: u64) -> u8 {
        let size = self.payloads.size() as u64;
        self.payloads.make(self.first + position / size)[(position % size) as usize]
    }

    fn find(&self, bytes: &[u8], near: u64, end: u64) -> Option<u64> {
        if bytes.len() < 2 {
            return None; // a single byte occurs in too many places
        }
        let size = self.payloads.size() as u64;
        let first = near.saturating_sub(SEARCHED_BYTES) / size;
        let last = near.saturating_add(SEARCHED_BYTES).min(end).div_ceil(size);
        let mut sent: Vec<u8> = (first..last).flat_map(|index| self.payloads.make(self.first + index)).collect();
        sent.truncate(end.saturating_sub(first * size) as usize);
        let places = sent.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes);
        let places = places.map(|(index, _)| first * size + index as u64).filter(|&place| place != near);
        places.min_by_key(|place| place.abs_diff(near))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::bytes::{Corruption, diagnose};

    #[test]
    fn a_payload_carries_its_number_and_its_checksum() {
        let payloads = Payloads::new(1, 64, Framing::Bytes);
        let bytes = payloads.make(0x0102);
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[..8], [0, 0, 0, 0, 0, 0, 1, 2]);
        let mut covered = bytes[..8].to_vec();
        covered.extend_from_slice(&bytes[12..]);
        assert_eq!(bytes[8..12], crc32fast::hash(&covered).to_be_bytes());
        assert_ne!(payloads.make(1)[12..], payloads.make(2)[12..]);
        for size in 0..HEADER_BYTES {
            assert_eq!(Payloads::new(1, size, Framing::Bytes).make(1).len(), size, "too small for a header");
        }
    }

    #[test]
    fn what_went_wrong_is_told_from_the_bytes() {
        for size in [8, 64, 1_000] {
            let payloads = Payloads::new(9, size, Framing::Bytes);
            let carried = Carried { payloads: &payloads, first: 5 };
            let sent: Vec<u8> = (5..8).flat_map(|sequence| payloads.make(sequence)).collect();
            let verdict = |received: &[u8]| {
                let first = (0_u64..)
                    .zip(received)
                    .find(|&(place, &byte)| place >= sent.len() as u64 || byte != sent[place as usize]);
                let at = first.expect("something differs").0;
                (at, diagnose(&received[at as usize..], &carried, at, sent.len() as u64, |_| None))
            };
            let mut flipped = sent.clone();
            flipped[size + 3] ^= 1;
            assert_eq!(verdict(&flipped).1.name(), "changed", "{size}");
            let again = [&sent[..], &sent[2 * size..]].concat();
            assert_eq!(verdict(&again), (3 * size as u64, Corruption::Repeated { from: 2 * size as u64 }));
            let missing = [&sent[..size], &sent[2 * size..]].concat();
            assert_eq!(verdict(&missing).1.name(), "dropped", "{size}");
            let swapped = [&sent[size..2 * size], &sent[..size], &sent[2 * size..]].concat();
            assert_eq!(verdict(&swapped).1.name(), "reordered", "{size}");
        }
    }
}
