//! Where lines go. The loop never blocks on it, whatever it is.
//!
//! What can be polled (a pipe, a FIFO, a terminal) is opened anew, through proc(5), so that it does not block: to set `O_NONBLOCK` on
//! a descriptor that was inherited would set it for everybody who shares it, the shell included. What cannot be polled, for it is
//! always said to be ready (a regular file), or cannot be opened anew (a socket), is written to by a thread of its own, which says by
//! an eventfd when it is done.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::sys::eventfd::{self, EventFdFlags};
use crate::sys::signal::{self, Signal};

/// How much of a batch was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    All,
    Some,
    /// Nothing, until the source makes an event.
    Nothing,
}

pub(super) enum Sink {
    /// Written to by the loop itself, without blocking.
    Polled(File),
    /// Written to by a thread.
    Threaded(Threaded),
}

impl Sink {
    /// Opens a file, or stdout.
    pub(super) fn open(output: Option<&Path>) -> io::Result<Self> {
        let file = match output {
            // A FIFO that nobody reads is an error, and not a wait without an end (open(2), ENXIO).
            Some(path) => OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path)?,
            None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        };
        let kind = file.metadata()?.file_type();
        let is_polled = kind.is_fifo() || kind.is_char_device();
        match output {
            Some(_) if is_polled => Ok(Self::Polled(file)),
            None if is_polled => {
                let anew = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open("/proc/self/fd/1");
                anew.map(Self::Polled).or_else(|_| Threaded::start(file).map(Self::Threaded))
            }
            _ => Threaded::start(file).map(Self::Threaded),
        }
    }

    /// What makes an event when more can be taken.
    pub(super) fn source(&self) -> BorrowedFd<'_> {
        match self {
            Self::Polled(file) => file.as_fd(),
            Self::Threaded(threaded) => threaded.shared.eventfd.as_fd(),
        }
    }

    /// The source has made an event.
    pub(super) fn on_event(&mut self) {
        if let Self::Threaded(threaded) = self {
            let _ = eventfd::take(threaded.shared.eventfd.as_fd()); // it may have been taken with the event before
        }
    }

    /// Offers what is in `batch`, and leaves there what was not taken.
    pub(super) fn write(&mut self, batch: &mut Vec<u8>) -> io::Result<Taken> {
        match self {
            Self::Threaded(threaded) => threaded.hand_over(batch),
            Self::Polled(file) => match file.write(batch) {
                Ok(count) if count == batch.len() => {
                    batch.clear();
                    Ok(Taken::All)
                }
                Ok(count) => {
                    batch.drain(..count);
                    Ok(Taken::Some)
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(Taken::Nothing),
                    io::ErrorKind::Interrupted => Ok(Taken::Some),
                    _ => Err(error),
                },
            },
        }
    }

    /// Whether all that was taken has been written.
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Self::Polled(_) => true,
            Self::Threaded(threaded) => !threaded.shared.state().is_busy,
        }
    }

    /// Has what was written reach the disk, where there is one.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let result = match self {
            Self::Polled(file) => file.sync_data(),
            Self::Threaded(threaded) => threaded.shared.file.sync_data(),
        };
        match result {
            // What is no file on a disk has nothing to sync (fsync(2)).
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EROFS)) => Ok(()),
            result => result,
        }
    }
}

/// A thread that writes, one batch after the other.
pub(super) struct Threaded {
    shared: Arc<Shared>,
    batches: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    file: File,
    eventfd: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_busy: bool,
    failure: Option<io::Error>,
    /// What was not written when it failed.
    left: Vec<u8>,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Threaded {
    fn start(file: File) -> io::Result<Self> {
        let eventfd = eventfd::create(EventFdFlags::NONBLOCK | EventFdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared { file, eventfd, state: Mutex::default() });
        let (batches, receiver) = sync_channel(1);
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("output".to_owned()).spawn(move || write_all(&writer, &receiver))?;
        Ok(Self { shared, batches: Some(batches), thread: Some(thread) })
    }

    fn hand_over(&mut self, batch: &mut Vec<u8>) -> io::Result<Taken> {
        let mut state = self.shared.state();
        if state.is_busy {
            return Ok(Taken::Nothing);
        }
        if let Some(failure) = state.failure.take() {
            // What it has not written comes first.
            let mut left = std::mem::take(&mut state.left);
            left.append(batch);
            *batch = left;
            return Err(failure);
        }
        state.is_busy = true;
        drop(state);
        let sender = self.batches.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        sender.send(std::mem::take(batch)).map_err(|_| io::Error::other("the thread that writes has died"))?;
        Ok(Taken::All)
    }
}

impl Drop for Threaded {
    fn drop(&mut self) {
        self.batches = None; // which ends the thread
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_all(shared: &Shared, batches: &Receiver<Vec<u8>>) {
    // Signals are the loop's.
    let _ = signal::block(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1]);
    while let Ok(mut batch) = batches.recv() {
        let mut failure = None;
        while !batch.is_empty() && failure.is_none() {
            match (&shared.file).write(&batch) {
                Ok(count) => drop(batch.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => failure = Some(error),
            }
        }
        let mut state = shared.state();
        (state.is_busy, state.failure, state.left) = (false, failure, batch);
        drop(state);
        let _ = eventfd::raise(shared.eventfd.as_fd());
    }
}
