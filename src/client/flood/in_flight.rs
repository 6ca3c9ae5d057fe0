//! The messages of a connection that have been issued and have not come back.

use std::collections::VecDeque;

/// A message in flight. Times are in nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// The position after its last byte in the stream of the connection.
    pub(super) end: u64,
    /// The time at which it was due.
    pub(super) due_ns: u64,
    /// The time at which it was issued.
    pub(super) sent_ns: u64,
}

/// The messages in flight, the oldest first.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    messages: VecDeque<Message>,
    /// The position after the last issued message.
    issued_bytes: u64,
    /// The number of messages that have come back, and the position after the last of them.
    returned: u64,
    returned_bytes: u64,
}

impl InFlight {
    /// Returns the number of messages in flight.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns the position up to which bytes are to be sent.
    #[inline]
    pub(super) fn issued_bytes(&self) -> u64 {
        self.issued_bytes
    }

    /// Adds a message of `size` bytes.
    #[inline]
    pub(super) fn issue(&mut self, size: u32, due_ns: u64, now_ns: u64) {
        self.issued_bytes += u64::from(size);
        self.messages.push_back(Message { end: self.issued_bytes, due_ns, sent_ns: now_ns });
    }

    /// Issues bytes up to `end` without a message.
    pub(super) fn issue_up_to(&mut self, end: u64) {
        self.issued_bytes = end;
    }

    /// Makes one message, sent now, of issued bytes that belong to none.
    pub(super) fn await_rest(&mut self, now_ns: u64) {
        if self.messages.is_empty() {
            self.messages.push_back(Message { end: self.issued_bytes, due_ns: now_ns, sent_ns: now_ns });
        }
    }

    /// Returns the message that has been in flight for longest.
    pub(super) fn oldest(&self) -> Option<&Message> {
        self.messages.front()
    }

    /// Takes the oldest message if the connection has received it whole.
    #[inline]
    pub(super) fn take_returned(&mut self, received_bytes: u64) -> Option<Message> {
        if self.messages.front()?.end > received_bytes {
            return None;
        }
        let message = self.messages.pop_front()?;
        self.returned += 1;
        self.returned_bytes = message.end;
        Some(message)
    }

    /// Returns the number of the message that comes back next, counted from 0, and its position in the stream.
    pub(super) fn next(&self) -> (u64, u64) {
        (self.returned, self.returned_bytes)
    }
}
