//! The admin endpoint: metrics, health and a live page over HTTP.
//!
//! A [`Server`] of this crate serves it, on its own thread, with its own limits and its own descriptor table. It asks
//! the loop of the service for its statistics through a [`Handle`], and answers 503 if that takes longer than a second.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | all metrics, in the text format of Prometheus or in OpenMetrics, as the field `Accept` asks for |
//! | `/livez` | 200 if the loop of the service answers within a second, 503 otherwise |
//! | `/readyz` | 200 if it also accepts clients for good; 503 with the name of the stage during a drain |
//! | `/` | a page with live plots |
//!
//! Nothing that a client sends changes anything: there is GET, HEAD and OPTIONS. A request without an answer here gets the error of its kind:
//! 400, 404, 405, 408, 413, 414, 417, 431, 501, 505. No answer has the address of a peer of the service.
//!
//! | limit | value |
//! |---|---|
//! | connections | 512; from 64 on a new one cuts off the one that has asked for nothing for the longest time, if that is more than 1 s; from 384 on always |
//! | head of a request | 8 KiB, 64 fields, a target of 2 KiB, 10 s |
//! | connection that asks for nothing | 90 s |
//! | peer that takes nothing of an answer | 10 s |
//! | lifetime of a connection | 15 min |
//! | memory | 8 KiB of a head, 32 KiB of input and one answer per connection |

mod inbox;
mod metrics;
mod page;
mod process;
mod protocol;
mod request;
mod response;

use std::cell::OnceCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{Dispatch, error};

use crate::server::{Error, Handle, ListenAddress, Server};
use crate::sys::{limits, signal, thread};
use inbox::{Inbox, Letter, Outlet};
use protocol::{Endpoint, MAX_CONNECTIONS};

#[doc(hidden)]
pub use request::{Format, Heads, MAX_HEAD_BYTES, Request, Resource, Wanted};
#[doc(hidden)]
pub use response::Status;

/// Connections, if the thread shares the descriptor table of the process.
const MAX_CONNECTIONS_SHARED: usize = 64;

/// Descriptors of the thread besides its connections, at most.
const OWN_DESCRIPTORS: u64 = 16;

/// Clients that wait to be accepted.
const BACKLOG: i32 = 1024;

/// The time in which a peer must take some of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time that a connection is open.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// The longest wait for the end of the thread.
const END: Duration = Duration::from_secs(1);

/// A running admin endpoint. It ends when this is dropped.
///
/// ```
/// use std::io::{Read, Write};
///
/// use edgecho::protocol::Echo;
/// use edgecho::server::Server;
/// use edgecho::service::admin::Admin;
///
/// let mut server = Server::builder()
///     .listen("127.0.0.1:0".parse()?)
///     .configure(|config| (config.signals, config.time_turns) = (false, true))
///     .bind(Echo)?;
/// let handle = server.handle()?;
/// let admin = Admin::start(&"127.0.0.1:0".parse()?, handle.clone())?;
/// let thread = std::thread::spawn(move || server.run());
///
/// let mut client = std::net::TcpStream::connect(admin.local_addresses()[0])?;
/// client.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
/// let answer = std::io::read_to_string(&client)?;
/// assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nserving\n"));
/// handle.drain();
/// thread.join().expect("no panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Admin {
    addresses: Vec<SocketAddr>,
    outlet: Outlet,
    /// Kept until the thread has ended: the thread's descriptor table is not the one that the descriptor of the handle is closed in.
    service: Handle,
    has_ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Descriptors that an endpoint takes from the connections of the service: one is of the handle, and one brings its answers. Set
    /// [`Limits::reserved_descriptors`](crate::server::Limits::reserved_descriptors) to this, and the service reaches its connection limit
    /// instead of the limit on descriptors.
    pub const DESCRIPTORS: usize = 2;

    /// Listens on `address`, and serves the service with the handle `service` from a thread of its own. The service need not run yet: requests
    /// are answered with 503 until it does.
    ///
    /// The thread has its own descriptor table (close_range(2)) since Linux 5.9, with none of the descriptors that are open in the calling
    /// thread but 0, 1 and 2. So it runs no code that could use another one: all signals are blocked in it, and it calls no `tracing`
    /// subscriber. A panic hook must use no other descriptors.
    ///
    /// A failure after the start ends the endpoint; the service goes on, and logs it on its own thread.
    ///
    /// # Errors
    /// Returns [`Error::Listen`] for an address that cannot be listened on, and [`Error::System`] for any other failed call.
    pub fn start(address: &ListenAddress, service: Handle) -> Result<Self, Error> {
        Self::spawn(address, service, false)
    }

    /// Starts as [`start`](Self::start) does, with a log of the endpoint: its thread calls the `tracing` subscriber, in a span with the name
    /// `admin`. The subscriber must use no descriptors but 0, 1 and 2: any other number names another file on this thread, or none.
    ///
    /// # Errors
    /// Returns the errors of [`start`](Self::start).
    pub fn start_with_log(address: &ListenAddress, service: Handle) -> Result<Self, Error> {
        Self::spawn(address, service, true)
    }

    fn spawn(address: &ListenAddress, service: Handle, has_log: bool) -> Result<Self, Error> {
        let (outlet, inbox) = Inbox::new().map_err(Error::system("make a counter (eventfd2)"))?;
        let (started, has_started) = mpsc::sync_channel(1);
        let (lives, has_ended) = mpsc::sync_channel(0);
        let (address, its_service, its_outlet) = (address.clone(), service.clone(), outlet.clone());
        let body = move || {
            let _lives = lives; // dropped at the end
            // A subscriber may use descriptors that this thread has not.
            let quiet = (!has_log).then(|| tracing::dispatcher::set_default(&Dispatch::none()));
            let result = serve(&address, its_service.clone(), its_outlet, inbox, &started);
            drop(quiet);
            if let Err(error) = result {
                let log = move || error!("the admin endpoint has ended, and the service goes on: {error}");
                if has_log {
                    log();
                } else {
                    let _ = its_service.post(move |_| log()); // fails when the service has ended, too
                }
            }
        };
        let spawn = std::thread::Builder::new().name("admin".to_owned()).spawn(body);
        let thread = spawn.map_err(Error::system("start a thread for the admin endpoint (clone3)"))?;
        let addresses = has_started.recv().unwrap_or_else(|_| Err(died()))?;
        Ok(Self { addresses, outlet, service, has_ended, thread: Some(thread) })
    }

    /// Returns the addresses that it listens on, with the ports that the kernel chose for port 0.
    #[must_use]
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Admin {
    /// Ends the endpoint, and waits up to a second for its thread. Its clients are cut off.
    fn drop(&mut self) {
        self.outlet.send(Letter::Stop);
        match self.has_ended.recv_timeout(END) {
            Err(RecvTimeoutError::Disconnected) => {
                if let Some(thread) = self.thread.take() {
                    let _ = thread.join();
                }
            }
            // The thread may drop the last copies. Their descriptors would then stay open here, and close another one there.
            _ => std::mem::forget((self.outlet.clone(), self.service.clone())),
        }
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

fn died() -> Error {
    Error::Protocol { reason: "the thread of the admin endpoint has died".to_owned() }
}

/// Serves on this thread, until the endpoint is stopped.
///
/// # Errors
/// Returns an error that ends the endpoint after its start. One of the start is sent to `started`.
fn serve(
    address: &ListenAddress,
    service: Handle,
    outlet: Outlet,
    inbox: Inbox,
    started: &SyncSender<Result<Vec<SocketAddr>, Error>>,
) -> Result<(), Error> {
    // Lines of this server must not be taken for lines of the service.
    let _span = tracing::error_span!("admin").entered();
    let _ = signal::block_all(); // the loop of the service handles signals
    let has_own_table = keep_only([service.descriptor(), outlet.descriptor()]);
    let wanted = if has_own_table { MAX_CONNECTIONS } else { MAX_CONNECTIONS_SHARED };
    let room = limits::descriptors().map_or(u64::MAX, |limit| limit.soft.saturating_sub(OWN_DESCRIPTORS).max(1));
    let max_connections = wanted.min(usize::try_from(room).unwrap_or(usize::MAX));
    let own = Rc::new(OnceCell::new());
    let endpoint = Endpoint::new(service, outlet, inbox, Rc::clone(&own), max_connections);
    let result = bind(address, endpoint, max_connections).and_then(|mut server| {
        let handle = server.handle().map_err(Error::system("make a handle (eventfd2, epoll_ctl)"))?;
        let _ = own.set(handle);
        Ok(server)
    });
    match result {
        Err(error) => drop(started.send(Err(error))),
        Ok(server) => {
            let _ = started.send(Ok(server.local_addresses().collect()));
            server.run()?;
        }
    }
    Ok(())
}

fn bind(address: &ListenAddress, endpoint: Endpoint, max_connections: usize) -> Result<Server<Endpoint>, Error> {
    Server::builder()
        .listen(address.clone())
        .configure(|config| {
            config.signals = false;
            config.limits.max_connections = Some(max_connections);
            config.timeouts.write = Some(WRITE_TIMEOUT);
            config.timeouts.lifetime = Some(LIFETIME);
            config.sockets.backlog = BACKLOG;
        })
        .bind(endpoint)
}

/// Gives this thread its own descriptor table with these descriptors, and 0, 1 and 2, under their numbers, if the kernel can (since Linux
/// 5.9), and returns whether it can. The loop of the service then keeps the kernel's cheap path for its lookups, and a listener that it
/// closes is really closed.
fn keep_only(kept: [BorrowedFd<'_>; 2]) -> bool {
    if thread::unshare_and_close(u32::MAX, u32::MAX).is_err() {
        return false;
    }
    let mut kept = kept.map(|descriptor| descriptor.as_raw_fd() as u32);
    kept.sort_unstable();
    let mut next = 3;
    for number in kept.into_iter().chain([u32::MAX]) {
        if next < number {
            let _: io::Result<()> = thread::unshare_and_close(next, number - 1);
        }
        next = next.max(number.saturating_add(1));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::span::{Attributes, Id, Record};
    use tracing::subscriber::{Interest, Subscriber};
    use tracing::{Event, Metadata};

    use super::*;
    use crate::protocol::Echo;

    static CALLS_BY_THE_ENDPOINT: AtomicUsize = AtomicUsize::new(0);
    static CALLS: AtomicUsize = AtomicUsize::new(0);

    /// A subscriber that could write to a file. It counts its calls.
    struct Log;

    impl Subscriber for Log {
        fn register_callsite(&self, _metadata: &'static Metadata<'static>) -> Interest {
            Interest::sometimes()
        }

        fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
            let is_endpoint = std::thread::current().name() == Some("admin");
            if is_endpoint { &CALLS_BY_THE_ENDPOINT } else { &CALLS }.fetch_add(1, Ordering::Relaxed);
            false
        }

        fn new_span(&self, _attributes: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _span: &Id, _values: &Record<'_>) {}

        fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

        fn event(&self, _event: &Event<'_>) {}

        fn enter(&self, _span: &Id) {}

        fn exit(&self, _span: &Id) {}
    }

    #[test]
    fn no_subscriber_of_the_program_runs_on_the_thread_that_has_other_descriptors() {
        tracing::subscriber::set_global_default(Log).expect("no other test sets one");
        let builder = Server::builder().listen("127.0.0.1:0".parse().expect("an address")).signals(false);
        let mut server = builder.bind(Echo).expect("it listens");
        let handle = server.handle().expect("a handle");
        let thread = std::thread::spawn(move || server.run());
        let admin = Admin::start(&"127.0.0.1:0".parse().expect("an address"), handle.clone()).expect("it listens");
        for address in [admin.local_addresses()[0], handle.local_addresses()[0]] {
            let mut client = TcpStream::connect(address).expect("it listens");
            client.write_all(b"GET /livez HTTP/1.0\r\n\r\n").expect("send");
            client.read_exact(&mut [0; 4]).expect("an answer");
        }
        drop(admin);
        handle.drain();
        thread.join().expect("no panic").expect("no error");
        assert_eq!(CALLS_BY_THE_ENDPOINT.load(Ordering::Relaxed), 0);
        assert!(CALLS.load(Ordering::Relaxed) > 0, "the service itself logs");
    }
}
