//! The latencies of a flood as a log for HdrHistogram's tools.

use std::io::{self, Write};
use std::time::SystemTime;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, IntervalLogWriterError, Tag};

use crate::client::flood::observer::Interval;

/// The output of a log, and its serializer.
pub struct HdrLogFile<W> {
    out: W,
    serializer: V2DeflateSerializer,
}

impl<W: Write> HdrLogFile<W> {
    /// Returns a log that will be written to `out`.
    pub fn new(out: W) -> Self {
        Self { out, serializer: V2DeflateSerializer::new() }
    }

    /// Writes the header of the log.
    ///
    /// # Errors
    /// The errors of `out`.
    pub fn begin(&mut self, start: SystemTime) -> io::Result<HdrLog<'_, '_, W>> {
        let mut builder = IntervalLogWriterBuilder::new();
        builder
            .add_comment("[Logged by edgecho flood; values are nanoseconds, the column of maxima milliseconds]")
            .with_start_time(start)
            .with_base_time(start)
            .with_max_value_divisor(1e6);
        Ok(HdrLog { log: builder.begin_log_with(&mut self.out, &mut self.serializer)? })
    }
}

/// A log after its header.
pub struct HdrLog<'a, 'b, W: Write> {
    log: IntervalLogWriter<'a, 'b, W, V2DeflateSerializer>,
}

impl<W: Write> HdrLog<'_, '_, W> {
    /// Adds an interval. In an open loop, the latencies from when messages were due have no tag, and the latencies from when they were
    /// sent have the tag `uncorrected`.
    ///
    /// # Errors
    /// The errors of the output.
    pub fn write(&mut self, interval: &Interval<'_>) -> io::Result<()> {
        let mut write = |histogram, tag| {
            self.log.write_histogram(histogram, interval.at, interval.length, tag).map_err(|error| match error {
                IntervalLogWriterError::IoError(error) => error,
                other => io::Error::other(format!("{other:?}")),
            })
        };
        write(interval.latency, None)?;
        interval.uncorrected.map_or(Ok(()), |histogram| write(histogram, Tag::new("uncorrected")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::latency::latencies;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use std::time::Duration;

    #[test]
    fn what_is_logged_is_read_back() {
        let mut latency = latencies();
        latency.record_n(250_000, 1_000).expect("in bounds");
        let mut file = HdrLogFile::new(Vec::new());
        {
            let mut log = file.begin(SystemTime::now()).expect("memory");
            let (at, length) = (Duration::from_secs(2), Duration::from_secs(1));
            log.write(&Interval { at, length, latency: &latency, uncorrected: Some(&latency) }).expect("memory");
        }
        let intervals: Vec<_> = IntervalLogIterator::new(&file.out)
            .filter_map(|entry| match entry.expect("an entry") {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        assert_eq!(intervals.len(), 2);
        assert_eq!((intervals[0].tag(), intervals[1].tag().map(|tag| tag.as_str())), (None, Some("uncorrected")));
        assert_eq!(intervals[0].start_timestamp(), Duration::from_secs(2));
        let bytes = base64(intervals[0].encoded_histogram());
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).expect("a histogram");
        assert_eq!(read, latency);
    }

    /// Decodes base64 (RFC 4648).
    fn base64(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut bits = (0_u32, 0);
        let mut bytes = Vec::new();
        for digit in text.bytes().filter_map(|byte| ALPHABET.iter().position(|&other| other == byte)) {
            bits = (bits.0 << 6 | digit as u32, bits.1 + 6);
            if bits.1 >= 8 {
                bits.1 -= 8;
                bytes.push((bits.0 >> bits.1) as u8);
                bits.0 &= (1 << bits.1) - 1;
            }
        }
        bytes
    }
}
