//! Writes queued messages to stderr, and reports the lines that are missing.

use std::io::{ErrorKind, Stderr, stderr};
use std::os::fd::AsFd;
use std::time::SystemTime;

use edgecho::sys::file;

use super::queue::{self, Messages, count_lines};

/// The limit on one write(2), in bytes, made of whole messages. A pipe takes this many at once, so that the lines of several programs
/// never mix (pipe(7), `PIPE_BUF`).
const WRITE_BYTES: usize = libc::PIPE_BUF;

/// The state of stderr, and the messages that are being written to it.
pub(super) struct Output {
    messages: Messages,
    /// Offset into the text, and index of the message there. Everything before has been written or given up.
    position: usize,
    message: usize,
    /// Lines that could not be written and have not been reported.
    lost_lines: u64,
    /// The last attempt to write failed.
    is_failing: bool,
    /// The last written byte did not end a line.
    is_within_line: bool,
}

impl Output {
    pub(super) const fn new() -> Self {
        let messages = Messages::new();
        Self { messages, position: 0, message: 0, lost_lines: 0, is_failing: false, is_within_line: false }
    }

    /// Returns whether messages that were taken from the queue wait to be written, or missing lines to be reported.
    pub(super) fn has_more(&self) -> bool {
        self.position < self.messages.text.len() || (self.messages.dropped_lines > 0 && !self.is_failing)
    }

    /// Writes the next messages. Waits for room for up to `patience_ms`, or without limit if that is `None`. Returns false if there are
    /// no messages.
    pub(super) fn write_next(&mut self, patience_ms: Option<i32>) -> bool {
        if self.position == self.messages.text.len() {
            self.lost_lines += std::mem::take(&mut self.messages.dropped_lines);
            // While writes fail, the report waits for the next message.
            if self.lost_lines > 0 && !self.is_failing {
                self.report_lost_lines(patience_ms);
                return true;
            }
            return self.take_queue();
        }
        let start = self.position;
        let fits = |&&end: &&usize| end - start <= WRITE_BYTES;
        let count = self.messages.ends[self.message..].iter().take_while(fits).count().max(1);
        self.message += count;
        self.position = self.messages.ends[self.message - 1];
        let text = std::mem::take(&mut self.messages.text);
        let messages = &text[start..self.position];
        let written = if self.report_lost_lines(patience_ms) { self.write(messages, patience_ms) } else { 0 };
        self.lost_lines += count_lines(&messages[written..]);
        self.messages.text = text;
        true
    }

    /// Takes the queued messages. Returns false if there are none.
    fn take_queue(&mut self) -> bool {
        self.messages.text.clear();
        self.messages.ends.clear();
        (self.position, self.message) = (0, 0);
        queue::lock().take(&mut self.messages)
    }

    /// Logs the number of missing lines, if any. Returns false if that failed.
    fn report_lost_lines(&mut self, patience_ms: Option<i32>) -> bool {
        if self.lost_lines == 0 {
            return true;
        }
        let line_end = if self.is_within_line { "\n" } else { "" };
        let now = humantime::format_rfc3339_micros(SystemTime::now());
        let lines = self.lost_lines;
        let report = format!("{line_end}{now}  WARN log lines were dropped: stderr was blocked or failed lines={lines}\n");
        let is_written = self.write(report.as_bytes(), patience_ms) == report.len();
        if is_written {
            self.lost_lines = 0;
        }
        is_written
    }

    /// Writes `bytes` until all are written or stderr fails. Returns the number of written bytes.
    fn write(&mut self, bytes: &[u8], patience_ms: Option<i32>) -> usize {
        let stderr = stderr();
        let mut written = 0;
        while written < bytes.len() {
            match file::write(stderr.as_fd(), &bytes[written..]) {
                Ok(0) => break,
                Ok(count) => {
                    written += count;
                    queue::lock().count_write();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another program has made the shared file description non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock && wait_until_writable(&stderr, patience_ms) => {}
                Err(_) => break,
            }
        }
        self.is_failing = written < bytes.len();
        if written > 0 {
            self.is_within_line = bytes[written - 1] != b'\n';
        }
        written
    }
}

/// Waits for room, for up to `patience_ms` or without limit. Returns whether there is room.
fn wait_until_writable(stderr: &Stderr, patience_ms: Option<i32>) -> bool {
    loop {
        match file::poll_writable(stderr.as_fd(), patience_ms.unwrap_or(-1)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.unwrap_or(false),
        }
    }
}
