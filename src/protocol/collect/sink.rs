//! Where lines go. The loop never blocks on it, whatever it is.
//!
//! What can be polled (a pipe, a FIFO, a terminal) is opened anew, through proc(5), so that it does not block: to set `O_NONBLOCK` on
//! a descriptor that was inherited would set it for everybody who shares it, the shell included. What cannot be polled (a regular file,
//! `/dev/null`, `/dev/full`), or cannot be opened anew (a socket, or a pipe of another user), is written to by a thread of its own,
//! which says by an eventfd when it is done.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tracing::warn;

use super::writer::{Activity, Writer};
use crate::sys::epoll::{self, CreateFlags, EpollFlags};

/// Returns whether a regular file ends within a line, as a run leaves it that could not write to its end. A file that may not be read is
/// taken to be whole.
fn ends_within_a_line(path: &Path) -> io::Result<bool> {
    if !path.metadata()?.is_file() {
        return Ok(false);
    }
    let Ok(mut file) = File::open(path) else { return Ok(false) };
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last != *b"\n")
}

/// Result of a [`Sink::step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The batch has been written.
    Done,
    /// There is more to write, and it can be tried at once.
    More,
    /// There is more to write, but not before the source makes an event, or before a retry.
    Waiting,
}

/// The output, and the batch that it is being sent.
pub(super) struct Sink {
    output: Output,
    sync: Sync,
}

enum Output {
    /// Written to by the loop itself, without blocking: what `done` leaves of the batch.
    Polled { file: File, batch: Vec<u8>, done: usize, written_bytes: u64 },
    /// Written to by a thread.
    Threaded(Writer),
}

/// Progress of the final sync, which has the lines reach the disk.
enum Sync {
    NotBegun,
    Running,
    Ended(io::Result<()>),
}

impl Sink {
    /// Opens a file, or stdout.
    pub(super) fn open(output: Option<&Path>) -> io::Result<Self> {
        let file = match output {
            // A FIFO that nobody reads is an error, and not a wait without an end (open(2), ENXIO).
            Some(path) => {
                let mut file = OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path)?;
                if ends_within_a_line(path)? {
                    warn!("{} ends within a line: what follows begins a new one", path.display());
                    file.write_all(b"\n")?;
                }
                file
            }
            None => File::from(io::stdout().as_fd().try_clone_to_owned()?),
        };
        let polled = match output {
            _ if !can_be_polled(file.as_fd())? => Err(file),
            Some(_) => Ok(file),
            None => OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open("/proc/self/fd/1").map_err(|_| file),
        };
        // A file behind stdout is appended to, however the shell has opened it: truncating it then makes room.
        let polled = match polled {
            Err(file) if output.is_none() && file.metadata()?.is_file() => {
                Err(OpenOptions::new().append(true).open("/proc/self/fd/1").unwrap_or(file))
            }
            polled => polled,
        };
        let output = match polled {
            Ok(file) => Output::Polled { file, batch: Vec::new(), done: 0, written_bytes: 0 },
            Err(file) => Output::Threaded(Writer::start(file)?),
        };
        Ok(Self { output, sync: Sync::NotBegun })
    }

    /// Returns what makes an event when more can be written.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.output {
            Output::Polled { file, .. } => file.as_fd(),
            Output::Threaded(writer) => writer.descriptor(),
        }
    }

    /// Takes note of an event of the source.
    pub(super) fn on_event(&mut self) {
        if let Output::Threaded(writer) = &mut self.output {
            writer.on_event();
        }
    }

    /// Returns whether a batch can be begun: none is being written, and none has failed.
    pub(super) fn is_ready(&self) -> bool {
        match &self.output {
            Output::Polled { batch, .. } => batch.is_empty(),
            Output::Threaded(writer) => writer.is_idle(),
        }
    }

    /// Takes a batch, to be written by [`step`](Self::step)s, and leaves an empty one.
    pub(super) fn begin(&mut self, next: &mut Vec<u8>) {
        match &mut self.output {
            Output::Polled { batch, done, .. } => {
                std::mem::swap(batch, next);
                *done = 0;
            }
            Output::Threaded(writer) => writer.begin(next),
        }
    }

    /// Writes on, with at most one write(2).
    ///
    /// # Errors
    /// Those of write(2), each told once. The batch stays, at the byte at which it failed, for a [`retry`](Self::retry).
    pub(super) fn step(&mut self) -> io::Result<Step> {
        match &mut self.output {
            Output::Threaded(writer) => match writer.activity() {
                Activity::Idle => Ok(Step::Done),
                Activity::Busy | Activity::Failed(None) => Ok(Step::Waiting),
                Activity::Failed(Some(error)) => Err(error),
            },
            Output::Polled { file, batch, done, written_bytes } => match file.write(&batch[*done..]) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    *done += count;
                    *written_bytes += count as u64;
                    if *done < batch.len() {
                        return Ok(Step::More);
                    }
                    batch.clear();
                    Ok(Step::Done)
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(Step::Waiting),
                    io::ErrorKind::Interrupted => Ok(Step::More),
                    _ => Err(error),
                },
            },
        }
    }

    /// Has a batch that failed tried again by the next [`step`](Self::step).
    pub(super) fn retry(&mut self) {
        if let Output::Threaded(writer) = &mut self.output {
            writer.retry();
        }
    }

    /// Returns the number of bytes that have been written since the start.
    pub(super) fn written_bytes(&self) -> u64 {
        match &self.output {
            Output::Polled { written_bytes, .. } => *written_bytes,
            Output::Threaded(writer) => writer.written_bytes(),
        }
    }

    /// Has what was written reach the disk, where there is one. Returns whether that has come to its end; if not, the source makes an
    /// event when it has.
    pub(super) fn sync(&mut self) -> bool {
        let Output::Threaded(writer) = &mut self.output else { return true };
        match self.sync {
            Sync::NotBegun => {
                writer.sync();
                self.sync = Sync::Running;
            }
            Sync::Running => {
                if let Some(result) = writer.take_sync() {
                    self.sync = Sync::Ended(result);
                }
            }
            Sync::Ended(_) => {}
        }
        matches!(self.sync, Sync::Ended(_))
    }

    /// Returns why it is not certain that what was written is on the disk, if a sync was begun.
    pub(super) fn sync_failure(&self) -> Option<String> {
        match &self.sync {
            Sync::NotBegun | Sync::Ended(Ok(())) => None,
            Sync::Running => Some("the disk takes too long".to_owned()),
            Sync::Ended(Err(error)) => Some(error.to_string()),
        }
    }
}

/// Returns whether epoll can watch a descriptor. epoll_ctl(2), EPERM: "The target file does not support epoll."
fn can_be_polled(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    match epoll::add(epoll.as_fd(), fd, EpollFlags::OUT, 0) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(false),
        Err(error) => Err(error),
    }
}
