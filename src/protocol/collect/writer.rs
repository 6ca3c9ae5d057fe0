//! A thread that writes to an output that may block, one batch after the other. The loop never waits for it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys::eventfd::{self, EventFdFlags};
use crate::sys::signal;
use crate::sys::{file, thread};

/// The loop's handle to the thread. When it is dropped, the thread ends after its current write.
pub(super) struct Writer {
    eventfd: OwnedFd,
    shared: Arc<Shared>,
    jobs: Sender<Job>,
}

enum Job {
    Write(Vec<u8>),
    /// Continues the batch that failed.
    Retry,
    Sync,
}

/// State of the thread.
#[derive(Default)]
pub(super) enum Activity {
    #[default]
    Idle,
    Busy,
    /// The batch waits for a retry after this error, which is taken once.
    Failed(Option<io::Error>),
}

#[derive(Default)]
struct State {
    activity: Activity,
    written_bytes: u64,
    sync: Option<io::Result<()>>,
    /// The memory of the previous batch.
    spare: Vec<u8>,
}

#[derive(Default)]
struct Shared(Mutex<State>);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts a thread that writes to `file`.
    pub(super) fn start(file: File) -> io::Result<Self> {
        let eventfd = eventfd::create(EventFdFlags::NONBLOCK | EventFdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared::default());
        let (jobs, receiver) = mpsc::channel();
        let ends = Arc::new((file, eventfd));
        let (ready, is_ready) = sync_channel(1);
        let (theirs, state) = (Arc::clone(&ends), Arc::clone(&shared));
        std::thread::Builder::new().name("output".to_owned()).spawn(move || {
            // The loop handles signals. With SIGXFSZ blocked, a write above the size limit fails with EFBIG and does not end the process.
            let _ = signal::block_all();
            let own = own_descriptors(&theirs.0, theirs.1.as_fd());
            drop(theirs); // the loop still has them, and closes them in the table that they were opened in
            match own {
                Ok((file, eventfd)) => {
                    let _ = ready.send(Ok(()));
                    work(&file, eventfd.as_fd(), &state, &receiver);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        is_ready.recv().map_err(|_| died())??;
        let (_, eventfd) = Arc::into_inner(ends).ok_or_else(died)?;
        Ok(Self { eventfd, shared, jobs })
    }

    /// Returns the descriptor that makes an event when the thread has finished a job.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Acts on an event of the descriptor.
    pub(super) fn on_event(&mut self) {
        let _ = eventfd::take(self.descriptor()); // an earlier event may have taken it
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.shared.state().activity, Activity::Idle)
    }

    /// Returns the state of the thread. An error is returned once.
    pub(super) fn activity(&mut self) -> Activity {
        match &mut self.shared.state().activity {
            Activity::Idle => Activity::Idle,
            Activity::Busy => Activity::Busy,
            Activity::Failed(error) => Activity::Failed(error.take()),
        }
    }

    /// Returns the number of bytes written since the start.
    pub(super) fn written_bytes(&self) -> u64 {
        self.shared.state().written_bytes
    }

    /// Gives the idle thread a batch, in exchange for the memory of the previous batch.
    pub(super) fn begin(&mut self, batch: &mut Vec<u8>) {
        let spare = std::mem::take(&mut self.shared.state().spare);
        self.give(Job::Write(std::mem::replace(batch, spare)));
    }

    /// Lets the thread retry the batch that failed, from the byte at which it stopped.
    pub(super) fn retry(&mut self) {
        if matches!(self.shared.state().activity, Activity::Failed(_)) {
            self.give(Job::Retry);
        }
    }

    /// Lets the idle thread sync the output to the disk.
    pub(super) fn sync(&mut self) {
        self.give(Job::Sync);
    }

    /// Takes the result of the sync, once there is one.
    pub(super) fn take_sync(&mut self) -> Option<io::Result<()>> {
        self.shared.state().sync.take()
    }

    fn give(&mut self, job: Job) {
        self.shared.state().activity = Activity::Busy;
        if self.jobs.send(job).is_err() {
            self.shared.state().activity = Activity::Failed(Some(died()));
        }
    }
}

fn died() -> io::Error {
    io::Error::other("the thread that writes has died")
}

/// Gives this thread its own copies of the descriptors, in a descriptor table without others if the kernel can make one (since Linux
/// 5.9). The kernel then keeps its cheap path for the lookups of the loop, and a listener that the loop closes is really closed.
fn own_descriptors(file: &File, eventfd: BorrowedFd<'_>) -> io::Result<(File, OwnedFd)> {
    let is_alone = thread::unshare_and_close(u32::MAX, u32::MAX).is_ok();
    let own = (file.try_clone()?, eventfd.try_clone_to_owned()?);
    if is_alone {
        let (one, other) = (own.0.as_raw_fd() as u32, own.1.as_raw_fd() as u32);
        let (low, high) = (one.min(other), one.max(other));
        for range in [0..low, low + 1..high, high + 1..u32::MAX].into_iter().filter(|range| !range.is_empty()) {
            let _ = thread::unshare_and_close(range.start, range.end - 1); // otherwise an unused copy stays open
        }
    }
    Ok(own)
}

fn work(file: &File, eventfd: BorrowedFd<'_>, shared: &Shared, jobs: &Receiver<Job>) {
    let (mut batch, mut done) = (Vec::new(), 0);
    while let Ok(job) = jobs.recv() {
        let mut synced = None;
        let mut result = Ok(());
        match job {
            Job::Sync => synced = Some(sync(file)),
            Job::Write(next) => {
                (batch, done) = (next, 0);
                result = write_all(file, &batch, &mut done, shared);
            }
            Job::Retry => result = write_all(file, &batch, &mut done, shared),
        }
        let mut state = shared.state();
        if result.is_ok() {
            batch.clear();
            state.spare = std::mem::take(&mut batch);
        }
        state.sync = synced;
        state.activity = result.map_or_else(|error| Activity::Failed(Some(error)), |()| Activity::Idle);
        drop(state);
        let _ = eventfd::raise(eventfd);
    }
}

/// Writes a batch from byte `done` on. `done` then counts all bytes written, also after an error.
fn write_all(mut file: &File, batch: &[u8], done: &mut usize, shared: &Shared) -> io::Result<()> {
    // A pipe takes a piece of this size as a whole or not at all (pipe(7), PIPE_BUF), so the number of written bytes is known.
    let most = if file.metadata().is_ok_and(|metadata| metadata.is_file()) { usize::MAX } else { libc::PIPE_BUF };
    while *done < batch.len() {
        let end = batch.len().min(done.saturating_add(most));
        match file.write(&batch[*done..end]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                *done += count;
                shared.state().written_bytes += count as u64;
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                // A process that shares the file has set O_NONBLOCK.
                io::ErrorKind::WouldBlock => drop(file::poll_writable(file.as_fd(), -1)?),
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

/// Calls fdatasync(2), if there is something to sync.
fn sync(file: &File) -> io::Result<()> {
    match file.sync_data() {
        // Only files on a disk can be synced (fsync(2)).
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EROFS)) => Ok(()),
        result => result,
    }
}
