//! Speaking to a running server from another thread: through an eventfd(2) in the same epoll set as everything else.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::Error;
use super::kernel::{Kernel, Linux};
use super::run::Server;
use super::statistics::Statistics;
use super::tokens::HANDLE;
use crate::event::Token;
use crate::protocol::Protocol;
use crate::sys::epoll::EpollFlags;
use crate::sys::eventfd::{self, EventFdFlags};

/// What a server may be asked from outside.
enum Ask {
    Drain,
    Stop,
    Statistics(Sender<Statistics>),
}

struct Shared {
    eventfd: OwnedFd,
    asks: Mutex<Vec<Ask>>,
    has_ended: AtomicBool,
    addresses: Vec<SocketAddr>,
}

impl Shared {
    /// What is left by a thread that has panicked is as good as what any other has left.
    fn asks(&self) -> MutexGuard<'_, Vec<Ask>> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A way to speak to a server that runs in another thread. Clones speak to the same server.
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
    /// Has the server do what it does at a first SIGTERM: close its listeners, serve those who are connected until they leave or the
    /// drain's time is up, and end. Does nothing to one that drains already, or has ended.
    pub fn drain(&self) {
        self.ask(Ask::Drain);
    }

    /// Has the server do what it does at a second SIGTERM: end at once.
    pub fn stop(&self) {
        self.ask(Ask::Stop);
    }

    /// The statistics, as of now; none of a server that has ended. Waits until the server has come to it, which takes no longer than
    /// one of its turns. To be called from another thread than the server's, which would wait for itself.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        let (sender, receiver) = mpsc::channel();
        self.ask(Ask::Statistics(sender));
        receiver.recv().ok()
    }

    /// Where the server listens, with the ports that the kernel chose where 0 was asked for.
    #[must_use]
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.shared.addresses
    }

    fn ask(&self, ask: Ask) {
        let mut asks = self.shared.asks();
        if !self.shared.has_ended.load(Ordering::Relaxed) {
            asks.push(ask);
            // Fails only where the server has not yet heard of 2^64 others.
            let _ = eventfd::raise(self.shared.eventfd.as_fd());
        }
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
    /// Nobody waits for the answer of a server that has gone.
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            let mut asks = shared.asks();
            shared.has_ended.store(true, Ordering::Relaxed);
            asks.clear();
        }
    }
}

impl<P: Protocol> Server<P, Linux> {
    /// A handle to this server, to be sent to another thread.
    ///
    /// # Errors
    /// Those of eventfd(2) and epoll_ctl(2).
    pub fn handle(&mut self) -> io::Result<Handle> {
        if let Some(shared) = &self.handle_end.0 {
            return Ok(Handle { shared: Arc::clone(shared) });
        }
        let eventfd = eventfd::create(EventFdFlags::NONBLOCK | EventFdFlags::CLOEXEC)?;
        self.kernel.event_loop.watch(&eventfd, Token::fixed(HANDLE), EpollFlags::IN)?;
        let shared = Arc::new(Shared {
            eventfd,
            asks: Mutex::default(),
            has_ended: AtomicBool::new(false),
            addresses: self.local_addresses().collect(),
        });
        self.handle_end = HandleEnd(Some(Arc::clone(&shared)));
        Ok(Handle { shared })
    }
}

impl<P: Protocol, K: Kernel> Server<P, K> {
    /// Somebody asks for something through a handle.
    #[cold]
    pub(super) fn on_handle(&mut self) -> Result<(), Error> {
        let Some(shared) = &self.handle_end.0 else { return Ok(()) };
        match eventfd::take(shared.eventfd.as_fd()) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(Error::system("hear from a handle (read)")(error));
            }
            _ => {}
        }
        let asks = std::mem::take(&mut *shared.asks());
        for ask in asks {
            match ask {
                Ask::Drain if self.drain.has_begun() => {}
                Ask::Drain => self.begin_drain("asked by a handle"),
                Ask::Stop => self.is_stopped = true,
                // Who no longer waits for it does not get it.
                Ask::Statistics(sender) => drop(sender.send(self.statistics())),
            }
        }
        Ok(())
    }
}
