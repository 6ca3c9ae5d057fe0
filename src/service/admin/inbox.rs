//! The way from the loop of the service to the loop of the endpoint: a queue, and an eventfd(2) that wakes the latter.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use crate::server::{Stage, Statistics};
use crate::sys::eventfd::{self, EventFdFlags};

/// A message to the endpoint.
pub(super) enum Letter {
    /// The stage that was asked for under this number.
    Stage(u64, Stage),
    /// The statistics that were asked for under this number.
    Statistics(u64, Box<Statistics>),
    /// The service has ended.
    Stop,
}

/// The end that sends. Clones send to the same endpoint. Sending does not block.
#[derive(Clone)]
pub(super) struct Outlet {
    sender: Sender<Letter>,
    eventfd: Arc<OwnedFd>,
}

impl Outlet {
    /// Sends a letter. It is lost if the endpoint has ended.
    pub(super) fn send(&self, letter: Letter) {
        if self.sender.send(letter).is_ok() {
            // Fails only when the counter is full (eventfd(2)), and then the endpoint wakes up anyway.
            let _ = eventfd::raise(self.eventfd.as_fd());
        }
    }

    /// Returns the eventfd, which must be open in the descriptor tables of both threads.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

/// The end that receives.
pub(super) struct Inbox {
    receiver: Receiver<Letter>,
    eventfd: Arc<OwnedFd>,
}

impl Inbox {
    /// Returns an empty inbox and its other end.
    ///
    /// # Errors
    /// Returns the errors of eventfd(2).
    pub(super) fn new() -> io::Result<(Outlet, Self)> {
        let eventfd = Arc::new(eventfd::create(EventFdFlags::NONBLOCK | EventFdFlags::CLOEXEC)?);
        let (sender, receiver) = mpsc::channel();
        Ok((Outlet { sender, eventfd: Arc::clone(&eventfd) }, Self { receiver, eventfd }))
    }

    /// Returns the descriptor that makes an event when a letter has come.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Notes an event of the descriptor.
    pub(super) fn on_event(&self) {
        let _ = eventfd::take(self.eventfd.as_fd()); // an earlier event may have taken it
    }

    /// Takes the next letter.
    pub(super) fn next(&self) -> Option<Letter> {
        self.receiver.try_recv().ok()
    }
}
