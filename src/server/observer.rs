//! Observers: code of the program that the loop calls on its own thread.

use std::time::Instant;

use super::drain::Stage;

/// An observer of a running server, for [`Server::set_observer`](super::Server::set_observer).
///
/// The loop calls it on its own thread, so it must not block, and what it does is proof that the loop goes on. A service manager's watchdog needs that.
/// To look at a server from another thread, use a [`Handle`](super::Handle).
///
/// ```
/// use std::sync::mpsc::{self, Sender};
/// use std::time::Instant;
///
/// use edgecho::protocol::Echo;
/// use edgecho::server::{Observer, Server, Stage, View};
///
/// struct Stages(Sender<Stage>);
///
/// impl Observer for Stages {
///     fn observe(&mut self, view: &View) -> Option<Instant> {
///         let _ = self.0.send(view.stage);
///         None
///     }
/// }
///
/// let mut server = Server::builder().listen("127.0.0.1:0".parse()?).signals(false).bind(Echo)?;
/// let (sender, stages) = mpsc::channel();
/// server.set_observer(Stages(sender));
/// let handle = server.handle()?;
/// let thread = std::thread::spawn(move || server.run());
/// assert_eq!(stages.recv()?, Stage::Serving);
/// handle.stop();
/// thread.join().expect("no panic")?;
/// assert_eq!(stages.recv()?, Stage::Over);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Observer: Send {
    /// Looks at the server. Returns the time of the next call, if nothing changes before; a time in the past means after the next turn. With
    /// `None` the next call follows the next change.
    ///
    /// The first call is at the start of [`Server::run`](super::Server::run), before the first connection is accepted. Further calls follow a
    /// turn of the loop in which the stage or the number of open connections changed. A run that ends at once brings a last call, with
    /// [`Stage::Over`].
    fn observe(&mut self, view: &View) -> Option<Instant>;
}

/// The state of a server, as an [`Observer`] sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct View {
    /// The current time.
    pub now: Instant,
    /// The stage. A server that ends at once, by a second signal or [`Handle::stop`](super::Handle::stop), is [`Stage::Over`].
    pub stage: Stage,
    /// The number of open connections.
    pub open: usize,
    /// The number of connections accepted.
    pub accepted: u64,
}

/// An observer, and what it has seen.
pub(super) struct Watch {
    observer: Box<dyn Observer>,
    /// The stage and the number of open connections at the last call.
    seen: Option<(Stage, usize)>,
    /// The time of the next call, if nothing changes before.
    next: Option<Instant>,
    is_due: bool,
}

impl Watch {
    /// Returns an observer that has seen nothing.
    pub(super) fn new(observer: impl Observer + 'static) -> Self {
        Self { observer: Box::new(observer), seen: None, next: None, is_due: false }
    }

    /// Returns whether the observer has to be called: its time has come, or something has changed.
    pub(super) fn needs_call(&self, stage: Stage, open: usize) -> bool {
        self.is_due || self.seen != Some((stage, open))
    }

    /// Notes that the time of the next call has come.
    pub(super) fn note_due(&mut self) {
        self.next = None;
        self.is_due = true;
    }

    /// Calls the observer. Returns the time of the next call as it was before, and as it is now.
    pub(super) fn observe(&mut self, view: &View) -> (Option<Instant>, Option<Instant>) {
        self.seen = Some((view.stage, view.open));
        self.is_due = false;
        let next = self.observer.observe(view);
        (std::mem::replace(&mut self.next, next), next)
    }
}
