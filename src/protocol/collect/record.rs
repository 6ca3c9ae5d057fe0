//! Queued frames, and the lines made of them. A line is made in parts, so that a large frame neither delays the loop nor needs memory for
//! its whole line.

use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::protocol::decode::Frames;

/// Bytes of a payload that one step checks or writes. A multiple of 3, so that base64 has no padding in the middle.
const PART_BYTES: usize = 12 * 1024;

/// Approximate bytes of a line without its payload: the work that an empty frame counts for.
const FRAMING_BYTES: usize = 128;

/// The end of the year 9999, the last one in RFC 3339.
const LAST_TIME: Duration = Duration::new(253_402_300_799, 999_999_999);

/// An accepted frame.
pub(super) struct Record {
    session: Rc<str>,
    sequence: u64,
    frame: Vec<u8>,
    received_at: SystemTime,
    stage: Stage,
    /// Bytes of the payload that the stage has finished.
    done: usize,
}

/// Progress of a record's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The payload is checked for bytes that are not UTF-8. Nothing is written yet.
    Checking,
    /// The line has begun. The payload has this encoding.
    Writing(Encoding),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Text,
    Base64,
}

/// Returns the time of the system clock. The clock may be set to a time that RFC 3339 cannot express. The result is then the nearest time
/// that it can.
pub(super) fn now() -> SystemTime {
    within_rfc_3339(SystemTime::now())
}

fn within_rfc_3339(time: SystemTime) -> SystemTime {
    time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST_TIME)
}

impl Record {
    pub(super) fn new(session: Rc<str>, sequence: u64, frame: Vec<u8>, received_at: SystemTime) -> Self {
        Self { session, sequence, frame, received_at, stage: Stage::Checking, done: 0 }
    }

    /// Appends parts of the line to `batch`, until `batch` has `batch_bytes` or the budget is used up. Takes the work done from
    /// `budget_bytes`. Returns whether the line is whole. A call may exceed either limit by one part.
    pub(super) fn write(&mut self, batch: &mut Vec<u8>, batch_bytes: usize, budget_bytes: &mut usize) -> bool {
        while batch.len() < batch_bytes && *budget_bytes > 0 {
            let before = self.done;
            match self.stage {
                Stage::Checking => self.check(batch),
                Stage::Writing(encoding) => {
                    self.write_part(encoding, batch);
                    if self.done == self.payload().len() {
                        let time = humantime::format_rfc3339_micros(self.received_at);
                        writeln!(batch, r#"","received_at":"{time}"}}"#).expect("a vector takes it");
                        *budget_bytes = budget_bytes.saturating_sub(self.done - before + FRAMING_BYTES);
                        return true;
                    }
                }
            }
            *budget_bytes = budget_bytes.saturating_sub(self.done.abs_diff(before).min(PART_BYTES));
        }
        false
    }

    fn payload(&self) -> &[u8] {
        Frames::payload(&self.frame)
    }

    /// Returns the bytes of the next step.
    fn part(&self) -> &[u8] {
        let rest = &self.payload()[self.done..];
        &rest[..rest.len().min(PART_BYTES)]
    }

    /// Checks the next part for bytes that are not UTF-8. Begins the line once the encoding is known.
    fn check(&mut self, batch: &mut Vec<u8>) {
        let part = self.part();
        let is_last = self.done + part.len() == self.payload().len();
        match std::str::from_utf8(part) {
            Ok(_) if is_last => self.begin(Encoding::Text, batch),
            Ok(_) => self.done += part.len(),
            // A character that the part has cut is checked with the next part.
            Err(error) if error.error_len().is_none() && !is_last => self.done += error.valid_up_to(),
            Err(_) => self.begin(Encoding::Base64, batch),
        }
    }

    fn begin(&mut self, encoding: Encoding, batch: &mut Vec<u8>) {
        let Self { session, sequence, .. } = self;
        let (length, name) =
            (Frames::payload(&self.frame).len(), if encoding == Encoding::Text { "text" } else { "base64" });
        // The name of a session is a number and an address, which need no escapes.
        write!(batch, r#"{{"session":"{session}","sequence":{sequence},"length":{length},"encoding":"{name}","payload":""#)
            .expect("a vector takes it");
        (self.stage, self.done) = (Stage::Writing(encoding), 0);
    }

    fn write_part(&mut self, encoding: Encoding, batch: &mut Vec<u8>) {
        let (part, start) = (self.part(), batch.len());
        match encoding {
            Encoding::Text => {
                // The whole payload is text. A character that the part has cut comes with the next part.
                let text = part.utf8_chunks().next().map_or("", |chunk| chunk.valid());
                serde_json::to_writer(&mut *batch, text).expect("text into memory");
                batch.pop();
                batch.remove(start); // the quotes: only the whole payload has them
                self.done += text.len();
            }
            Encoding::Base64 => {
                batch.resize(start + part.len().div_ceil(3) * 4, 0);
                let count = STANDARD.encode_slice(part, &mut batch[start..]).expect("room for all of it");
                self.done += part.len();
                batch.truncate(start + count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Makes a line with these limits for each call. Returns it, and the length of the largest part.
    fn line(payload: &[u8], batch_bytes: usize, budget_bytes: usize) -> (Vec<u8>, usize) {
        let mut record = Record::new("gs-1@[::1]:7".into(), 3, Frames::encode(payload), UNIX_EPOCH);
        let (mut line, mut largest) = (Vec::new(), 0);
        loop {
            let mut batch = Vec::new();
            let mut budget_bytes = budget_bytes;
            let is_whole = record.write(&mut batch, batch_bytes, &mut budget_bytes);
            largest = largest.max(batch.len());
            line.extend_from_slice(&batch);
            if is_whole {
                return (line, largest);
            }
        }
    }

    fn assert_line(payload: &[u8], batch_bytes: usize, budget_bytes: usize) {
        let (line, largest) = line(payload, batch_bytes, budget_bytes);
        // Each byte of a part may become six, as \u0000.
        assert!(largest <= batch_bytes + 6 * PART_BYTES + 2 * FRAMING_BYTES, "{largest}");
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let value: Value = serde_json::from_slice(&line).expect("JSON");
        let expected = match std::str::from_utf8(payload) {
            Ok(text) => ("text", text.to_owned()),
            Err(_) => ("base64", STANDARD.encode(payload)),
        };
        assert_eq!((value["encoding"].as_str(), value["payload"].as_str()), (Some(expected.0), Some(&*expected.1)));
        assert_eq!((value["session"].as_str(), value["sequence"].as_u64()), (Some("gs-1@[::1]:7"), Some(3)));
        assert_eq!(value["length"].as_u64(), Some(payload.len() as u64));
        assert_eq!(value["received_at"].as_str(), Some("1970-01-01T00:00:00.000000Z"));
    }

    #[test]
    fn a_line_is_the_same_in_however_many_parts_it_is_made() {
        let text = "a\"\\\n\u{0}ä€😀".repeat(PART_BYTES / 3);
        for shift in 0..4 {
            assert_line(&text.as_bytes()[text.len() / 15 * 14 - shift..], 1, 1);
            assert_line(&text.as_bytes()[shift.min(1)..], 64 << 10, 1);
            let cut = [text.as_bytes(), &"😀".as_bytes()[..shift]].concat();
            assert_line(&cut, 64 << 10, 256 << 10);
            assert_line(&vec![0xff; PART_BYTES * 2 + shift], 1, 100);
        }
    }

    proptest! {
        #[test]
        fn any_payload_becomes_one_line(payload in prop::collection::vec(any::<u8>(), 0..64), text in "\\PC{0,32}") {
            assert_line(&payload, 64 << 10, 256 << 10);
            assert_line(text.as_bytes(), 64 << 10, 256 << 10);
        }
    }

    #[test]
    fn a_clock_that_is_set_to_any_time_makes_a_line() {
        let day = Duration::from_secs(86_400);
        for time in [UNIX_EPOCH - day, UNIX_EPOCH, UNIX_EPOCH + LAST_TIME, UNIX_EPOCH + LAST_TIME + day] {
            let mut record = Record::new("gs-1@127.0.0.1:7".into(), 1, Frames::encode(b""), within_rfc_3339(time));
            let mut batch = Vec::new();
            assert!(
                record.write(&mut batch, 1 << 10, &mut { 1 << 10 }) || record.write(&mut batch, 1 << 10, &mut { 1 << 10 })
            );
            let value: Value = serde_json::from_slice(&batch).expect("JSON");
            let time = value["received_at"].as_str().expect("text");
            assert!(time.starts_with("1970-01-01T00") || time.starts_with("9999-12-31T23"), "{time}");
        }
    }
}
