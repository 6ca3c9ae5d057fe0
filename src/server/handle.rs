//! Handles: requests to a running server from other threads, through an eventfd(2) in the server's epoll set.

use std::io;
use std::net::SocketAddr;
#[cfg(feature = "service")]
use std::os::fd::BorrowedFd;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::drain::Stage;
use super::statistics::Statistics;
use crate::protocol::Post;
use crate::sys::eventfd::{self, EventFdFlags};

/// The most requests that wait for the server at a time, besides those whose thread waits without a limit.
const MAX_WAITING: usize = 1024;

/// A request from another thread.
pub(super) enum Ask {
    Drain,
    Stop,
    Statistics(Box<dyn FnOnce(Statistics) + Send>),
    Stage(Box<dyn FnOnce(Stage) + Send>),
    Post(Box<dyn FnOnce(&mut Post) + Send>),
}

/// The reason why a [`Handle::post`], [`Handle::request_statistics`] or [`Handle::request_stage`] was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// The server has ended.
    #[error("the server has ended")]
    Ended,
    /// 1024 requests wait for the server already.
    #[error("{MAX_WAITING} requests wait for the server")]
    Full,
}

/// The reason why [`Handle::statistics_within`] has returned no statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatisticsError {
    /// The loop of the server has not answered in time.
    #[error("the loop of the server has not answered within {patience:?}")]
    Late {
        /// The time that was waited.
        patience: Duration,
    },
    /// The request was refused.
    #[error(transparent)]
    Refused(#[from] PostError),
}

/// Requests that the server has not taken yet.
#[derive(Default)]
struct Asks {
    waiting: Vec<Ask>,
    /// The requests among them that count towards [`MAX_WAITING`].
    limited: usize,
}

struct Shared {
    eventfd: OwnedFd,
    asks: Mutex<Asks>,
    has_ended: AtomicBool,
    addresses: Vec<SocketAddr>,
}

impl Shared {
    /// A thread that panics leaves the requests intact: each change is a single push or take.
    fn asks(&self) -> MutexGuard<'_, Asks> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle to a server that runs in another thread. Clones are handles to the same server.
///
/// ```
/// use edgecho::protocol::Echo;
/// use edgecho::server::Server;
///
/// let mut server = Server::builder().listen("127.0.0.1:0".parse()?).signals(false).bind(Echo)?;
/// let handle = server.handle()?;
/// let thread = std::thread::spawn(move || server.run());
/// assert_eq!(handle.statistics().expect("it is running").accepted, 0);
/// handle.drain();
/// assert_eq!(thread.join().expect("no panic")?.aborted, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// Begins a drain, as a first SIGTERM does: after the drain delay, if there is one, the server closes its listeners, serves open
    /// connections until they end or the drain timeout is up, and ends. Does nothing if a signal or a handle has begun this before, or if
    /// the server has ended.
    pub fn drain(&self) {
        let _ = self.ask(Ask::Drain, false);
    }

    /// Ends the server at once, as a second SIGTERM does.
    pub fn stop(&self) {
        let _ = self.ask(Ask::Stop, false);
    }

    /// Returns the current statistics, or `None` if the server has ended. Waits for the server, for one turn of its loop at most. The
    /// thread of the server must not call this: it would wait for itself.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        let (sender, receiver) = mpsc::channel();
        let answer = move |statistics| drop(sender.send(statistics));
        self.ask(Ask::Statistics(Box::new(answer)), false).ok()?;
        receiver.recv().ok()
    }

    /// Returns the current statistics. Waits for up to `patience`: a loop that hangs does not hang the caller. The thread of the server
    /// must not call this.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use edgecho::protocol::Echo;
    /// use edgecho::server::{Server, StatisticsError};
    ///
    /// let mut server = Server::builder().listen("127.0.0.1:0".parse()?).signals(false).bind(Echo)?;
    /// let handle = server.handle()?;
    /// let patience = Duration::from_millis(1);
    /// // The server does not run yet.
    /// assert_eq!(handle.statistics_within(patience).err(), Some(StatisticsError::Late { patience }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`StatisticsError::Late`] at the end of `patience`, and [`StatisticsError::Refused`] if the server has ended, or 1024 requests wait
    /// for it. A request that came too late still waits for the server.
    pub fn statistics_within(&self, patience: Duration) -> Result<Statistics, StatisticsError> {
        let (sender, receiver) = mpsc::channel();
        self.request_statistics(move |statistics| drop(sender.send(statistics)))?;
        receiver.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => StatisticsError::Late { patience },
            RecvTimeoutError::Disconnected => PostError::Ended.into(),
        })
    }

    /// Requests the current statistics, and returns at once. They cost the loop a look at each open connection. The server's thread calls `answer` within one turn of its loop, so `answer`
    /// must not block. Any thread may call this.
    ///
    /// If the server ends first, `answer` is dropped. If `answer` panics, the server ends as after a panic of its protocol.
    ///
    /// ```
    /// use edgecho::protocol::Echo;
    /// use edgecho::server::Server;
    ///
    /// let mut server = Server::builder().listen("127.0.0.1:0".parse()?).signals(false).bind(Echo)?;
    /// let handle = server.handle()?;
    /// let thread = std::thread::spawn(move || server.run());
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// handle.request_statistics(move |statistics| sender.send(statistics.open).expect("it is received"))?;
    /// assert_eq!(receiver.recv()?, 0);
    /// handle.drain();
    /// thread.join().expect("no panic")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PostError::Ended`] if the server has ended, and [`PostError::Full`] if 1024 requests wait for it.
    pub fn request_statistics(&self, answer: impl FnOnce(Statistics) + Send + 'static) -> Result<(), PostError> {
        self.ask(Ask::Statistics(Box::new(answer)), true)
    }

    /// Requests the current stage of the server, and returns at once. The server's thread calls `answer` as for
    /// [`request_statistics`](Self::request_statistics), but looks at no connection: the cost does not depend on their number.
    ///
    /// ```
    /// use edgecho::protocol::Echo;
    /// use edgecho::server::{Server, Stage};
    ///
    /// let mut server = Server::builder().listen("127.0.0.1:0".parse()?).signals(false).bind(Echo)?;
    /// let handle = server.handle()?;
    /// let thread = std::thread::spawn(move || server.run());
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// handle.request_stage(move |stage| sender.send(stage).expect("it is received"))?;
    /// assert_eq!(receiver.recv()?, Stage::Serving);
    /// handle.drain();
    /// thread.join().expect("no panic")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PostError::Ended`] if the server has ended, and [`PostError::Full`] if 1024 requests wait for it.
    pub fn request_stage(&self, answer: impl FnOnce(Stage) + Send + 'static) -> Result<(), PostError> {
        self.ask(Ask::Stage(Box::new(answer)), true)
    }

    /// Lets the server's thread make requests: send bytes to connections, close them, set timers of the server. Returns at once; `make`
    /// runs within one turn of the loop. Any thread may call this.
    ///
    /// Timers come only if the protocol is not [`ONLY_ANSWERS`](crate::protocol::Protocol::ONLY_ANSWERS). If the server ends first,
    /// `make` is dropped. If `make` panics, the server ends as after a panic of its protocol.
    ///
    /// ```
    /// use edgecho::protocol::{Echo, Recipients};
    /// use edgecho::server::Server;
    ///
    /// let mut server = Server::builder().listen("127.0.0.1:0".parse()?).signals(false).bind(Echo)?;
    /// let handle = server.handle()?;
    /// let thread = std::thread::spawn(move || server.run());
    ///
    /// let client = std::net::TcpStream::connect(handle.local_addresses()[0])?;
    /// std::io::Write::write_all(&mut &client, b"?")?;
    /// let mut answer = [0; 1];
    /// std::io::Read::read_exact(&mut &client, &mut answer)?; // now the connection is open
    /// handle.post(|post| post.send(Recipients::All, b"the server goes down in a minute\n"))?;
    /// handle.drain();
    /// client.shutdown(std::net::Shutdown::Write)?;
    /// assert_eq!(std::io::read_to_string(&client)?, "the server goes down in a minute\n");
    /// thread.join().expect("no panic")?;
    /// assert!(handle.post(|_| {}).is_err(), "it has ended");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PostError::Ended`] if the server has ended, and [`PostError::Full`] if 1024 requests wait for it.
    pub fn post(&self, make: impl FnOnce(&mut Post) + Send + 'static) -> Result<(), PostError> {
        self.ask(Ask::Post(Box::new(make)), true)
    }

    /// Returns the addresses that the server listens on, with the ports that the kernel chose for port 0.
    #[must_use]
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.shared.addresses
    }

    /// Returns the eventfd(2) that wakes up the server. A thread with a descriptor table of its own must keep it open to use this handle.
    #[cfg(feature = "service")]
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared.eventfd.as_fd()
    }

    fn ask(&self, ask: Ask, is_limited: bool) -> Result<(), PostError> {
        let mut asks = self.shared.asks();
        if self.shared.has_ended.load(Ordering::Relaxed) {
            return Err(PostError::Ended);
        }
        if is_limited {
            if asks.limited == MAX_WAITING {
                return Err(PostError::Full);
            }
            asks.limited += 1;
        }
        asks.waiting.push(ask);
        // Fails only when the counter is full (eventfd(2)), and then the server wakes up anyway.
        let _ = eventfd::raise(self.shared.eventfd.as_fd());
        Ok(())
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("addresses", &self.shared.addresses).finish_non_exhaustive()
    }
}

/// The server's end of its handles.
#[derive(Default)]
pub(super) struct HandleEnd(Option<Arc<Shared>>);

impl Drop for HandleEnd {
    /// Drops the requests that were not taken: a thread that waits for an answer learns that the server has ended.
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            let mut asks = shared.asks();
            shared.has_ended.store(true, Ordering::Relaxed);
            let dropped = std::mem::take(&mut *asks);
            drop(asks); // dropping a request may run foreign code, which may use a handle
            drop(dropped);
        }
    }
}

impl HandleEnd {
    /// Returns the handle, if there is one.
    pub(super) fn handle(&self) -> Option<Handle> {
        self.0.as_ref().map(|shared| Handle { shared: Arc::clone(shared) })
    }

    /// Makes the handle to a server that listens on `addresses`. `watch` puts its eventfd into the epoll set.
    ///
    /// # Errors
    /// Returns the errors of eventfd(2) and of `watch`.
    pub(super) fn create(
        &mut self,
        addresses: Vec<SocketAddr>,
        watch: impl FnOnce(&OwnedFd) -> io::Result<()>,
    ) -> io::Result<Handle> {
        let eventfd = eventfd::create(EventFdFlags::NONBLOCK | EventFdFlags::CLOEXEC)?;
        watch(&eventfd)?;
        let shared = Arc::new(Shared { eventfd, asks: Mutex::default(), has_ended: AtomicBool::new(false), addresses });
        self.0 = Some(Arc::clone(&shared));
        Ok(Handle { shared })
    }

    /// Takes the requests of the handles.
    ///
    /// # Errors
    /// Returns the error of read(2).
    pub(super) fn take(&self) -> io::Result<Vec<Ask>> {
        let Some(shared) = &self.0 else { return Ok(Vec::new()) };
        match eventfd::take(shared.eventfd.as_fd()) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        Ok(std::mem::take(&mut *shared.asks()).waiting)
    }
}
