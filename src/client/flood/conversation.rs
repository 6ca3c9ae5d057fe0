//! A connection in use: what it has sent, what has come back, and where the two differ. It is generic over its stream, and knows
//! neither epoll nor the other connections.

use std::io;

use super::in_flight::{InFlight, Message};
use super::options::Verify;
use crate::client::bytes::{Evidence, GATHERING, Original, Wire};
use crate::client::latency::ns;
use crate::stream::{Readiness, Stream};
use crate::sys::epoll::EpollFlags;

/// The most bytes that one call discards without a copy.
const DISCARDED_BYTES: usize = 1024 * 1024;

/// The number of bytes at either end of a read that [`Verify::Sample`] compares.
const SAMPLE_BYTES: usize = 8;

/// The end of a conversation.
#[derive(Debug)]
pub(super) enum End {
    /// Everything came back, then the far end answered our FIN with its own.
    InOrder,
    /// The far end closed before everything had come back, or before our FIN.
    ByPeer,
    /// A system call failed.
    Failed(io::Error),
    /// A byte came back wrong.
    Corrupt(Box<Evidence<u64>>),
}

/// A connection and its messages in flight.
#[derive(Debug)]
pub(super) struct Conversation<S> {
    stream: S,
    wire: Wire,
    readiness: Readiness,
    in_flight: InFlight,
    sent_bytes: u64,
    received_bytes: u64,
    evidence: Option<Box<Evidence<u64>>>,
    /// Our FIN follows the last byte, or has been sent.
    is_closing: bool,
    is_shut: bool,
}

impl<S: Stream> Conversation<S> {
    /// Returns a conversation on a connected stream. `readiness` holds what epoll has already reported.
    pub(super) fn new(stream: S, wire: Wire, readiness: Readiness) -> Self {
        Self {
            stream,
            wire,
            readiness: readiness | Readiness::WRITABLE,
            in_flight: InFlight::default(),
            sent_bytes: 0,
            received_bytes: 0,
            evidence: None,
            is_closing: false,
            is_shut: false,
        }
    }

    /// Returns the number of bytes that the kernel has taken, and the number that came back right.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.sent_bytes, self.received_bytes)
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Returns the number of messages that have not come back.
    #[inline]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the message that has been in flight for longest.
    pub(super) fn oldest(&self) -> Option<&Message> {
        self.in_flight.oldest()
    }

    /// Returns the number of the message that comes back next, counted from 0, and its position in the stream.
    pub(super) fn next_message(&self) -> (u64, u64) {
        self.in_flight.next()
    }

    /// Returns whether everything that was issued has come back.
    pub(super) fn is_even(&self) -> bool {
        self.received_bytes == self.in_flight.issued_bytes() && self.in_flight.is_empty()
    }

    /// Returns whether a byte was wrong and evidence is being gathered.
    pub(super) fn is_gathering(&self) -> bool {
        self.evidence.is_some()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Remembers an event.
    #[inline]
    pub(super) fn on_event(&mut self, flags: EpollFlags) {
        self.readiness.tell(flags);
    }

    /// Returns whether there is more to do before the next event.
    #[inline]
    pub(super) fn has_more(&self) -> bool {
        self.readiness.contains(Readiness::READABLE)
            || (self.readiness.contains(Readiness::WRITABLE) && self.sent_bytes < self.in_flight.issued_bytes())
    }

    /// Issues a message after those issued before.
    #[inline]
    pub(super) fn issue(&mut self, size: u32, due_ns: u64, now_ns: u64) {
        self.in_flight.issue(size, due_ns, now_ns);
    }

    /// Issues bytes without end.
    pub(super) fn start_stream(&mut self) {
        self.in_flight.issue_up_to(u64::MAX);
    }

    /// Ends the stream: what the kernel has taken is the last of it, up to the end of that message.
    pub(super) fn stop_stream(&mut self) {
        self.in_flight.issue_up_to(self.wire.message_end(self.sent_bytes));
    }

    /// Counts the bytes of a stream that are still in flight as one message, sent now.
    pub(super) fn await_rest(&mut self, now_ns: u64) {
        self.in_flight.await_rest(now_ns);
    }

    /// Closes after the last issued byte with a FIN. Call [`send`](Self::send) next.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
    }

    /// Offers the issued bytes to the kernel once, as many as fit into `scratch`. A full `scratch` goes out as it is, without the
    /// pattern, if nothing is verified and nothing is framed.
    #[inline]
    pub(super) fn send(&mut self, scratch: &mut [u8], verify: Verify) -> Result<(), End> {
        let issued_bytes = self.in_flight.issued_bytes();
        if self.sent_bytes < issued_bytes && self.readiness.contains(Readiness::WRITABLE) {
            let left = usize::try_from(issued_bytes - self.sent_bytes).unwrap_or(usize::MAX);
            let length = scratch.len().min(left);
            let is_made = verify == Verify::Off && length == scratch.len() && !self.wire.is_framed();
            let bytes = &mut scratch[..length];
            if !is_made {
                self.wire.fill(self.sent_bytes, bytes);
            }
            self.sent_bytes += self.readiness.offer(&mut self.stream, bytes).map_err(End::Failed)? as u64;
        }
        if self.is_closing && !self.is_shut && self.sent_bytes == issued_bytes {
            self.is_shut = true;
            self.stream.shutdown_write().map_err(End::Failed)?;
        }
        Ok(())
    }

    /// Reads once and compares. Returns the number of bytes that came; [take](Self::take_returned) their messages next. `now_ns` is
    /// called only if a byte is wrong.
    #[inline]
    pub(super) fn receive(&mut self, buffer: &mut [u8], verify: Verify, now_ns: impl Fn() -> u64) -> Result<usize, End> {
        if !self.readiness.contains(Readiness::READABLE) {
            return Ok(0);
        }
        let expected = usize::try_from(self.sent_bytes - self.received_bytes).unwrap_or(usize::MAX);
        // Bytes that are not verified need no copy. No more than were sent, so that bytes beyond them are still noticed.
        let is_discarded = verify == Verify::Off && expected >= buffer.len();
        let room = if is_discarded { expected.min(DISCARDED_BYTES) } else { buffer.len() };
        let result = if is_discarded { self.stream.discard(room) } else { self.stream.recv(buffer) };
        match self.readiness.note_received(result, room) {
            Ok(None) => Ok(0),
            Ok(Some(0)) => Err(self.end_of_stream()),
            Ok(Some(count)) => {
                if is_discarded || (self.evidence.is_none() && self.is_right(&buffer[..count], verify)) {
                    self.received_bytes += count as u64;
                } else {
                    self.gather(&buffer[..count], now_ns())?;
                }
                Ok(count)
            }
            Err(error) => Err(self.conclude().unwrap_or(End::Failed(error))),
        }
    }

    /// Takes a message that has come back whole.
    #[inline]
    pub(super) fn take_returned(&mut self) -> Option<Message> {
        self.in_flight.take_returned(self.received_bytes)
    }

    /// Returns when to call [`on_time`](Self::on_time), if evidence is being gathered.
    pub(super) fn gathers_until_ns(&self) -> Option<u64> {
        self.evidence.as_ref().map(|evidence| evidence.since() + ns(GATHERING))
    }

    /// Ends the conversation if evidence has been gathered for long enough.
    pub(super) fn on_time(&mut self, now_ns: u64) -> Option<End> {
        if self.gathers_until_ns()? > now_ns {
            return None;
        }
        self.conclude()
    }

    #[inline]
    fn is_right(&self, bytes: &[u8], verify: Verify) -> bool {
        let position = self.received_bytes;
        // Bytes that were not sent cannot come back.
        if position + bytes.len() as u64 > self.sent_bytes {
            return false;
        }
        match verify {
            Verify::Full => self.wire.matches(position, bytes),
            Verify::Sample => {
                let sample = SAMPLE_BYTES.min(bytes.len());
                let last = bytes.len() - sample;
                self.wire.matches(position, &bytes[..sample]) && self.wire.matches(position + last as u64, &bytes[last..])
            }
            Verify::Off => true,
        }
    }

    #[cold]
    fn gather(&mut self, mut bytes: &[u8], now_ns: u64) -> Result<(), End> {
        if self.evidence.is_none() {
            let sent = usize::try_from(self.sent_bytes - self.received_bytes).unwrap_or(usize::MAX).min(bytes.len());
            let right = self.wire.first_difference(self.received_bytes, &bytes[..sent]).unwrap_or(sent);
            self.received_bytes += right as u64;
            bytes = &bytes[right..];
        }
        let (position, sent_bytes) = (self.received_bytes, self.sent_bytes);
        let evidence = self.evidence.get_or_insert_with(|| Box::new(Evidence::new(position, now_ns)));
        if evidence.add(bytes, sent_bytes) { self.conclude().map_or(Ok(()), Err) } else { Ok(()) }
    }

    #[cold]
    fn conclude(&mut self) -> Option<End> {
        self.evidence.take().map(End::Corrupt)
    }

    #[cold]
    fn end_of_stream(&mut self) -> End {
        match self.conclude() {
            Some(end) => end,
            None if self.is_shut && self.is_even() => End::InOrder,
            None => End::ByPeer,
        }
    }
}

#[cfg(test)]
mod tests;
