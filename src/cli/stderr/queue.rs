//! The queue of messages for stderr.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

/// The limit on queued log lines, in bytes: more than 1,000 lines.
const QUEUE_BYTES: usize = 128 * 1024;

/// The limit on a message, in bytes. A longer one is cut.
const MESSAGE_BYTES: usize = 16 * 1024;

static QUEUE: Mutex<Queue> = Mutex::new(Queue::new());

/// Locks the queue of this process.
pub(super) fn lock() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The room that a message may take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Dropped if the queue is full.
    Limited,
    /// Never dropped.
    Unlimited,
}

/// Whole messages, one after the other.
pub(super) struct Messages {
    pub(super) text: Vec<u8>,
    /// End offset of each message.
    pub(super) ends: Vec<usize>,
    /// Lines that were dropped after these messages.
    pub(super) dropped_lines: u64,
}

impl Messages {
    pub(super) const fn new() -> Self {
        Self { text: Vec::new(), ends: Vec::new(), dropped_lines: 0 }
    }
}

/// The thread that writes.
pub(super) enum Writer {
    NotStarted,
    Started(Thread),
    /// It could not be started.
    None,
}

/// Messages that wait to be written.
pub(super) struct Queue {
    messages: Messages,
    /// The messages that were taken last are being written.
    is_writing: bool,
    /// Number of successful calls of write(2).
    writes: u64,
    /// The thread that waits for the queue to become empty.
    waiting: Option<Thread>,
    pub(super) writer: Writer,
}

impl Queue {
    const fn new() -> Self {
        let messages = Messages::new();
        Self { messages, is_writing: false, writes: 0, waiting: None, writer: Writer::NotStarted }
    }

    /// Returns whether no message waits. The last ones may still be being written.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.text.is_empty()
    }

    /// Returns whether every message has been written or given up.
    pub(super) fn is_finished(&self) -> bool {
        self.is_empty() && !self.is_writing
    }

    /// Returns the number of successful calls of write(2): a measure of progress.
    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    pub(super) fn count_write(&mut self) {
        self.writes += 1;
    }

    /// Has `thread` unparked once the queue is finished.
    pub(super) fn wake_when_finished(&mut self, thread: Thread) {
        self.waiting = Some(thread);
    }

    /// Adds a message, or drops it and counts its lines. After a drop, all log lines are dropped until the queue is taken: there is one
    /// gap, at the place of the count.
    pub(super) fn add(&mut self, message: &str, room: Room) {
        let Messages { text, ends, dropped_lines } = &mut self.messages;
        let bytes = message.len().min(MESSAGE_BYTES);
        if room == Room::Limited && (*dropped_lines > 0 || text.len() + bytes > QUEUE_BYTES) {
            *dropped_lines += count_lines(message.as_bytes());
            return;
        }
        if message.len() > MESSAGE_BYTES {
            let end = (0..=MESSAGE_BYTES).rev().find(|&end| message.is_char_boundary(end)).unwrap_or_default();
            text.extend_from_slice(&message.as_bytes()[..end]);
            text.extend_from_slice("… (cut)\n".as_bytes());
        } else {
            text.extend_from_slice(message.as_bytes());
        }
        ends.push(text.len());
    }

    /// Exchanges the queued messages for `empty`. Returns false if there are none; then the queue is finished.
    pub(super) fn take(&mut self, empty: &mut Messages) -> bool {
        self.is_writing = !self.is_empty();
        if self.is_writing {
            std::mem::swap(&mut self.messages, empty);
        } else if let Some(waiting) = self.waiting.take() {
            waiting.unpark();
        }
        self.is_writing
    }
}

pub(super) fn count_lines(text: &[u8]) -> u64 {
    text.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_gap_until_the_queue_is_taken_and_its_lines_are_counted() {
        let mut queue = Queue::new();
        let line = format!("{}\n", "x".repeat(999));
        for _ in 0..QUEUE_BYTES / 1000 {
            queue.add(&line, Room::Limited);
        }
        let state = |queue: &Queue| (queue.messages.dropped_lines, queue.messages.ends.len());
        assert_eq!(state(&queue), (0, QUEUE_BYTES / 1000));
        queue.add(&line, Room::Limited);
        queue.add("two lines,\nand short\n", Room::Limited);
        assert_eq!(state(&queue), (3, QUEUE_BYTES / 1000));
        queue.add("error: never dropped\n", Room::Unlimited);
        assert!(queue.messages.text.ends_with(b"error: never dropped\n") && queue.messages.dropped_lines == 3);
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_between_characters() {
        for long in ["x".repeat(1 << 20), "ü".repeat(1 << 20), format!("x{}", "🦀".repeat(1 << 20))] {
            let mut queue = Queue::new();
            queue.add(&long, Room::Unlimited);
            let text = str::from_utf8(&queue.messages.text).expect("whole characters");
            assert!(text.len() < MESSAGE_BYTES + 16 && text.ends_with("… (cut)\n"));
        }
    }
}
