//! Stderr, to which the program writes without ever waiting for it.
//!
//! A thread of its own does the writing, from a queue with a limit. It is started with the first message, so that a program with nothing
//! to say has one thread. A log line that finds no room is dropped and counted, and the count is logged as soon as stderr takes something
//! again. The end of the program waits for what is queued while there is progress, and not for long.

use std::fmt::Display;
use std::io::{ErrorKind, Stderr, stderr};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use edgecho::sys::{file, signal, thread};

/// The bytes of log lines that can wait: more than 1,000 lines.
const QUEUE_BYTES: usize = 128 * 1024;

/// A longer message is cut.
const MESSAGE_BYTES: usize = 16 * 1024;

/// The bytes of one write(2), made of whole messages: a pipe takes so many at once, so that the lines of several programs never mix
/// (pipe(7), `PIPE_BUF`).
const WRITE_BYTES: usize = libc::PIPE_BUF;

/// The time that the end of the program waits for stderr while that takes nothing, and the time that it waits at most.
const STALLED: Duration = Duration::from_millis(200);
const LONGEST_END: Duration = Duration::from_secs(1);

static QUEUE: Mutex<Queue> = Mutex::new(Queue::new());
static OUTPUT: Mutex<Output> = Mutex::new(Output::new());

/// Writes a log message, which ends with a line end, or drops it if stderr has not taken what came before.
pub(super) fn log(message: &str) {
    push(message, Room::Limited);
}

/// Writes a message that no log level hides and that is never dropped, such as the reason for the end of the program.
pub(super) fn say(message: impl Display) {
    let mut message = message.to_string();
    if !message.ends_with('\n') {
        message.push('\n');
    }
    push(&message, Room::Unlimited);
}

/// Waits until all messages are written, or until stderr has taken nothing for a while. The last call before the program ends.
pub(super) fn finish() {
    let mut queue = lock(&QUEUE);
    if matches!(queue.writer, Writer::None) {
        drop(queue);
        return write_while_there_is_room(STALLED);
    }
    let start = Instant::now();
    let (mut progress, mut progress_at) = (queue.writes, start);
    while !queue.is_empty() || queue.is_writing {
        let now = Instant::now();
        if queue.writes != progress {
            (progress, progress_at) = (queue.writes, now);
        }
        let until = (progress_at + STALLED).min(start + LONGEST_END);
        if now >= until {
            return;
        }
        queue.waiting = Some(std::thread::current());
        drop(queue);
        std::thread::park_timeout(until - now);
        queue = lock(&QUEUE);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Limited,
    Unlimited,
}

/// Queues a message, and makes sure that it is written.
fn push(message: &str, room: Room) {
    let mut queue = lock(&QUEUE);
    queue.accept(message, room);
    if matches!(queue.writer, Writer::NotStarted) {
        queue.writer = start_writer().map_or(Writer::None, Writer::Started);
    }
    if let Writer::Started(writer) = &queue.writer {
        writer.unpark();
    } else {
        drop(queue);
        write_while_there_is_room(Duration::ZERO);
    }
}

/// Starts the thread. It blocks every signal, for signals are for the other threads, some of which wait for them.
fn start_writer() -> std::io::Result<Thread> {
    let mask = signal::block_all()?;
    let builder = std::thread::Builder::new().name("log".to_owned()).stack_size(64 * 1024);
    let writer = builder.spawn(|| {
        // The sockets of this program are not to stay open for this thread's sake; and while no other thread shares its table, the event
        // loop looks up a descriptor without locking. On a kernel that cannot do this, all works as well, if a little slower.
        let _ = thread::unshare_and_close(3, u32::MAX);
        let mut output = lock(&OUTPUT);
        loop {
            while output.write_next(None) {}
            std::thread::park();
        }
    });
    let _ = signal::set_mask(&mask); // it was in force a moment ago
    Ok(writer?.thread().clone())
}

/// Writes what is queued in a program that cannot have another thread: as long as stderr has room, and for that it waits so long at most.
fn write_while_there_is_room(patience: Duration) {
    let patience_ms = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    let start = Instant::now();
    let mut output = lock(&OUTPUT);
    while (output.has_more() || !lock(&QUEUE).is_empty())
        && file::poll_writable(stderr().as_fd(), patience_ms).unwrap_or(false)
        && output.write_next(Some(patience_ms))
        && start.elapsed() < LONGEST_END
    {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread that writes.
enum Writer {
    NotStarted,
    Started(Thread),
    /// It could not be started.
    None,
}

/// Messages that wait to be written.
struct Queue {
    text: Vec<u8>,
    /// End offset of each message.
    ends: Vec<usize>,
    /// Lines that were dropped behind these messages.
    dropped_lines: u64,
    writer: Writer,
    /// Messages that were taken from here are being written.
    is_writing: bool,
    /// Counts successful calls of write(2).
    writes: u64,
    /// The thread that waits for the queue to become empty, if any.
    waiting: Option<Thread>,
}

impl Queue {
    const fn new() -> Self {
        Self {
            text: Vec::new(),
            ends: Vec::new(),
            dropped_lines: 0,
            writer: Writer::NotStarted,
            is_writing: false,
            writes: 0,
            waiting: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes a message, or drops it and counts its lines. Once one is dropped, all that follow are, until the queue has been taken: there
    /// is one gap, and it is where the count says.
    fn accept(&mut self, message: &str, room: Room) {
        let bytes = message.len().min(MESSAGE_BYTES);
        if room == Room::Limited && (self.dropped_lines > 0 || self.text.len() + bytes > QUEUE_BYTES) {
            self.dropped_lines += count_lines(message.as_bytes());
            return;
        }
        if message.len() > MESSAGE_BYTES {
            let end = (0..=MESSAGE_BYTES).rev().find(|&end| message.is_char_boundary(end)).unwrap_or_default();
            self.text.extend_from_slice(&message.as_bytes()[..end]);
            self.text.extend_from_slice("… (cut)\n".as_bytes());
        } else {
            self.text.extend_from_slice(message.as_bytes());
        }
        self.ends.push(self.text.len());
    }
}

/// State of stderr, and the messages that are being written to it.
struct Output {
    text: Vec<u8>,
    ends: Vec<usize>,
    /// Position in the text, and in its messages: everything before has been written or given up.
    position: usize,
    message: usize,
    /// Lines that were dropped behind these messages.
    dropped_lines: u64,
    /// Lines that could not be written, and have not been reported.
    lost_lines: u64,
    /// The last attempt to write has failed.
    is_failing: bool,
    /// The last byte that was written did not end a line.
    is_within_line: bool,
}

impl Output {
    const fn new() -> Self {
        Self {
            text: Vec::new(),
            ends: Vec::new(),
            position: 0,
            message: 0,
            dropped_lines: 0,
            lost_lines: 0,
            is_failing: false,
            is_within_line: false,
        }
    }

    fn has_more(&self) -> bool {
        self.position < self.text.len() || (self.dropped_lines > 0 && !self.is_failing)
    }

    /// Writes the next messages, and waits for room up to `patience_ms`, or without a limit if that is none. Returns false if there are none.
    fn write_next(&mut self, patience_ms: Option<i32>) -> bool {
        if self.position == self.text.len() {
            self.lost_lines += std::mem::take(&mut self.dropped_lines);
            // While nothing can be written, the next message is soon enough.
            if self.lost_lines > 0 && !self.is_failing {
                self.report_lost_lines(patience_ms);
                return true;
            }
            return self.take_queue();
        }
        let start = self.position;
        let fits = |&&end: &&usize| end - start <= WRITE_BYTES;
        let count = self.ends[self.message..].iter().take_while(fits).count().max(1);
        self.message += count;
        self.position = self.ends[self.message - 1];
        let text = std::mem::take(&mut self.text);
        let messages = &text[start..self.position];
        let written = if self.report_lost_lines(patience_ms) { self.write(messages, patience_ms) } else { 0 };
        self.lost_lines += count_lines(&messages[written..]);
        self.text = text;
        true
    }

    /// Takes what has been queued. Returns false if that is nothing.
    fn take_queue(&mut self) -> bool {
        self.text.clear();
        self.ends.clear();
        (self.position, self.message) = (0, 0);
        let mut queue = lock(&QUEUE);
        queue.is_writing = !queue.is_empty();
        if queue.is_writing {
            std::mem::swap(&mut self.text, &mut queue.text);
            std::mem::swap(&mut self.ends, &mut queue.ends);
            self.dropped_lines = std::mem::take(&mut queue.dropped_lines);
        } else if let Some(waiting) = queue.waiting.take() {
            waiting.unpark();
        }
        queue.is_writing
    }

    /// Logs how many lines are missing here, if any are. Returns false if that could not be written.
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

    /// Writes all of `bytes`, if nothing is wrong with stderr. Returns how many were written.
    fn write(&mut self, bytes: &[u8], patience_ms: Option<i32>) -> usize {
        let stderr = stderr();
        let mut written = 0;
        while written < bytes.len() {
            match file::write(stderr.as_fd(), &bytes[written..]) {
                Ok(0) => break,
                Ok(count) => {
                    written += count;
                    count_progress();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another program has made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock && is_writable(&stderr, patience_ms) => {}
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

/// Waits for room, so long or for ever.
fn is_writable(stderr: &Stderr, patience_ms: Option<i32>) -> bool {
    loop {
        match file::poll_writable(stderr.as_fd(), patience_ms.unwrap_or(-1)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.unwrap_or(false),
        }
    }
}

fn count_progress() {
    let mut queue = lock(&QUEUE);
    queue.writes += 1;
}

fn count_lines(text: &[u8]) -> u64 {
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
            queue.accept(&line, Room::Limited);
        }
        assert_eq!((queue.dropped_lines, queue.ends.len()), (0, QUEUE_BYTES / 1000));
        queue.accept(&line, Room::Limited);
        queue.accept("two lines,\nand short\n", Room::Limited);
        assert_eq!((queue.dropped_lines, queue.ends.len()), (3, QUEUE_BYTES / 1000));
        queue.accept("error: never dropped\n", Room::Unlimited);
        assert!(queue.text.ends_with(b"error: never dropped\n") && queue.dropped_lines == 3);
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_between_characters() {
        for long in ["x".repeat(1 << 20), "ü".repeat(1 << 20), format!("x{}", "🦀".repeat(1 << 20))] {
            let mut queue = Queue::new();
            queue.accept(&long, Room::Unlimited);
            let text = str::from_utf8(&queue.text).expect("whole characters");
            assert!(text.len() < MESSAGE_BYTES + 16 && text.ends_with("… (cut)\n"));
        }
    }
}
