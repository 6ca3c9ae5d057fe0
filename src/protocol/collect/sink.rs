//! The output of lines. The loop never blocks on it.
//!
//! An output that epoll can watch (a pipe, a FIFO, a terminal) is reopened through proc(5) without blocking. Setting `O_NONBLOCK` on an
//! inherited descriptor would set it for every process that shares it, such as the shell. Another output (a regular file, `/dev/null`,
//! `/dev/full`), or one that cannot be reopened (a socket, a pipe of another user), is written to by a thread, which reports through an
//! eventfd.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tracing::warn;

use super::writer::{Activity, Writer};
use crate::sys::epoll::{self, CreateFlags, EpollFlags};

/// Returns whether a regular file ends within a line, which happens when a run could not write its last line. A file without read
/// permission is assumed to be whole.
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
    /// There is more to write, and the next step can be tried at once.
    More,
    /// There is more to write, after an event of the descriptor or a retry.
    Waiting,
}

/// The output, and the batch that is being written.
pub(super) struct Sink {
    output: Output,
    sync: Sync,
}

enum Output {
    /// The loop writes itself, without blocking. The first `done` bytes of the batch are written.
    Polled { file: File, batch: Vec<u8>, done: usize, written_bytes: u64 },
    /// A thread writes.
    Threaded(Writer),
}

/// Progress of the final sync to the disk.
enum Sync {
    NotBegun,
    Running,
    Ended(io::Result<()>),
}

impl Sink {
    /// Opens a file, or stdout.
    pub(super) fn open(output: Option<&Path>) -> io::Result<Self> {
        let file = match output {
            // A FIFO without a reader is an error (open(2), ENXIO), and not an endless wait.
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
        // If stdout is a file, it is appended to, even if the shell has opened it otherwise: truncating it then makes room.
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

    /// Returns the descriptor that makes an event when more can be written.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.output {
            Output::Polled { file, .. } => file.as_fd(),
            Output::Threaded(writer) => writer.descriptor(),
        }
    }

    /// Acts on an event of the descriptor.
    pub(super) fn on_event(&mut self) {
        if let Output::Threaded(writer) = &mut self.output {
            writer.on_event();
        }
    }

    /// Returns whether a batch can begin: none is being written, and none has failed.
    pub(super) fn is_ready(&self) -> bool {
        match &self.output {
            Output::Polled { batch, .. } => batch.is_empty(),
            Output::Threaded(writer) => writer.is_idle(),
        }
    }

    /// Takes a batch, and leaves an empty one. [`step`](Self::step) writes it.
    pub(super) fn begin(&mut self, next: &mut Vec<u8>) {
        match &mut self.output {
            Output::Polled { batch, done, .. } => {
                std::mem::swap(batch, next);
                *done = 0;
            }
            Output::Threaded(writer) => writer.begin(next),
        }
    }

    /// Continues to write, with at most one write(2).
    ///
    /// # Errors
    /// The errors of write(2), each returned once. The batch keeps the bytes that were not written, for a [`retry`](Self::retry).
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

    /// Lets the next [`step`](Self::step) retry a batch that failed.
    pub(super) fn retry(&mut self) {
        if let Output::Threaded(writer) = &mut self.output {
            writer.retry();
        }
    }

    /// Returns the number of bytes written since the start.
    pub(super) fn written_bytes(&self) -> u64 {
        match &self.output {
            Output::Polled { written_bytes, .. } => *written_bytes,
            Output::Threaded(writer) => writer.written_bytes(),
        }
    }

    /// Syncs the output to the disk, if there is one. Returns whether the sync has ended. If not, the descriptor makes an event at its
    /// end.
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

    /// Returns the reason why the written lines may not be on the disk, if a sync was begun.
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
