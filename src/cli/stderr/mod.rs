//! Stderr, to which the program writes without ever waiting for it.
//!
//! A thread writes the messages, from a queue with a limit. The first message starts the thread, so a program without messages has one
//! thread. A log line that finds the queue full is dropped and counted. The count is logged as soon as stderr takes bytes again. At its end
//! the program waits for the queued messages while there is progress, for a second at most.

mod output;
mod queue;

use std::fmt::Display;
use std::io::stderr;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use edgecho::sys::{file, signal, thread};

use output::Output;
use queue::{Room, Writer};

/// The time that the end of the program waits for stderr without progress.
const STALLED: Duration = Duration::from_millis(200);

/// The time that the end of the program waits for stderr in all.
const LONGEST_END: Duration = Duration::from_secs(1);

static OUTPUT: Mutex<Output> = Mutex::new(Output::new());

/// Set by the thread when it has its own descriptor table.
static READY: OnceLock<()> = OnceLock::new();

/// Queues a log message, which ends with a line end, or drops it if the queue is full.
pub(super) fn log(message: &str) {
    push(message, Room::Limited);
}

/// Queues a message that no log level hides and that is never dropped, such as the reason for the end of the program.
pub(super) fn say(message: impl Display) {
    let mut message = message.to_string();
    if !message.ends_with('\n') {
        message.push('\n');
    }
    push(&message, Room::Unlimited);
}

/// Waits until all messages are written, or stderr has taken nothing for a while. The last call before the program ends.
pub(super) fn finish() {
    let mut queue = queue::lock();
    if matches!(queue.writer, Writer::None) {
        drop(queue);
        return write_while_there_is_room(STALLED);
    }
    let start = Instant::now();
    let (mut progress, mut progress_at) = (queue.writes(), start);
    while !queue.is_finished() {
        let now = Instant::now();
        if queue.writes() != progress {
            (progress, progress_at) = (queue.writes(), now);
        }
        let until = (progress_at + STALLED).min(start + LONGEST_END);
        if now >= until {
            return;
        }
        queue.wake_when_finished(std::thread::current());
        drop(queue);
        std::thread::park_timeout(until - now);
        queue = queue::lock();
    }
}

/// Writes without a thread from here on, as far as stderr has room. The rest of the messages stays queued.
pub(super) fn write_without_thread() {
    let mut queue = queue::lock();
    if matches!(queue.writer, Writer::NotStarted) {
        queue.writer = Writer::None;
    }
}

/// Lets the next message start a thread, after [`write_without_thread`]. Messages for which stderr had no room start it now.
pub(super) fn write_with_thread() {
    let has_more = output().has_more();
    let mut queue = queue::lock();
    if matches!(queue.writer, Writer::None) {
        queue.writer = if has_more || !queue.is_empty() { writer() } else { Writer::NotStarted };
    }
}

/// Starts the thread, and waits until it is ready to write: it makes no call then but to write, wait and allocate memory.
pub(super) fn start() {
    let mut queue = queue::lock();
    if matches!(queue.writer, Writer::NotStarted) {
        queue.writer = writer();
    }
    if matches!(queue.writer, Writer::Started(_)) {
        drop(queue);
        READY.wait();
    }
}

/// Queues a message, and sees to it that it is written.
fn push(message: &str, room: Room) {
    let mut queue = queue::lock();
    queue.add(message, room);
    if matches!(queue.writer, Writer::NotStarted) {
        queue.writer = writer();
    }
    if let Writer::Started(writer) = &queue.writer {
        writer.unpark();
    } else {
        drop(queue);
        write_while_there_is_room(Duration::ZERO);
    }
}

/// Starts the thread that writes, if there can be one.
fn writer() -> Writer {
    start_writer().map_or(Writer::None, Writer::Started)
}

/// Starts the thread that writes. It blocks every signal, because other threads wait for signals.
fn start_writer() -> std::io::Result<Thread> {
    let mask = signal::block_all()?;
    let builder = std::thread::Builder::new().name("log".to_owned()).stack_size(64 * 1024);
    let writer = builder.spawn(|| {
        // With a descriptor table of its own, this thread keeps no socket of the program open, and the event loop looks up descriptors
        // without locking. If the kernel cannot do this, all works as well, but a little slower.
        let _ = thread::unshare_and_close(3, u32::MAX);
        let _ = READY.set(());
        let mut output = output();
        loop {
            while output.write_next(None) {}
            std::thread::park();
        }
    });
    let _ = signal::set_mask(&mask); // cannot fail: the mask was in force a moment ago
    Ok(writer?.thread().clone())
}

/// Writes the queued messages in a program that cannot start another thread. Stops when stderr has had no room for `patience`.
fn write_while_there_is_room(patience: Duration) {
    let patience_ms = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    let start = Instant::now();
    let mut output = output();
    while (output.has_more() || !queue::lock().is_empty())
        && file::poll_writable(stderr().as_fd(), patience_ms).unwrap_or(false)
        && output.write_next(Some(patience_ms))
        && start.elapsed() < LONGEST_END
    {}
}

fn output() -> MutexGuard<'static, Output> {
    OUTPUT.lock().unwrap_or_else(PoisonError::into_inner)
}
