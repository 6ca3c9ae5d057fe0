//! Notification: the state of the service, for the service manager (sd_notify(3)).
//!
//! The socket is connected once, before privileges are given up, and each message is one send(2) that does not block.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::server::{Observer, Stage, View};
use crate::sys::socket::{self, MessageFlags};

/// The shortest time between two messages with `STATUS=`.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The pause before another try, when the queue of the receiver was full.
const RETRY: Duration = Duration::from_millis(100);

/// Bounds on the interval of `WATCHDOG=1`: the loop counts time in milliseconds, and a date has an end.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// An error in how the service manager wants to be notified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// `NOTIFY_SOCKET` is not the address of a UNIX socket.
    #[error("NOTIFY_SOCKET is {0:?}, which is neither an absolute path nor an abstract name with '@' (sd_notify(3))")]
    Address(OsString),
    /// `NOTIFY_SOCKET` is the address of a socket of a virtual machine.
    #[error("NOTIFY_SOCKET is {0:?}: vsock(7) addresses are not supported, only paths and abstract names (sd_notify(3))")]
    Vsock(OsString),
    /// `WATCHDOG_USEC` or `WATCHDOG_PID` has no valid value.
    #[error("{variable} is {value:?}, which is not {expected} (sd_watchdog_enabled(3))")]
    Watchdog {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: OsString,
        /// The expected value.
        expected: &'static str,
    },
    /// The socket cannot be connected.
    #[error(
        "cannot connect to NOTIFY_SOCKET {address:?}: {error}; the service manager would wait for a notification in vain"
    )]
    Connect {
        /// The address.
        address: OsString,
        /// The kernel's error.
        error: io::Error,
    },
}

/// Notifies the service manager of the state of a server, as its [observer](crate::server::Server::set_observer).
///
/// | message | sent |
/// |---|---|
/// | `READY=1` | when the loop begins, before the first connection is accepted |
/// | `STATUS=` | with the stage and the number of open connections, when one of them has changed, and at most once a second |
/// | `STOPPING=1` | when the drain delay or the drain begins, or the server ends at once |
/// | `WATCHDOG=1` | at half of the interval in `WATCHDOG_USEC`, by the loop itself: a loop that hangs sends none |
///
/// No message blocks the loop. If the receiver's queue is full, the message is tried again after 100 ms, or after 1 s if it is only a status, which
/// a later one replaces.
/// Any other error ends the notification, with a warning. `ECONNREFUSED` is one: the receiver has closed its socket, and a new one at the same
/// address would need connect(2), which the sandbox forbids.
#[derive(Debug)]
pub struct Notifier {
    /// None after an error.
    socket: Option<UnixDatagram>,
    is_ready: bool,
    is_stopping: bool,
    status: Status,
    watchdog: Option<Watchdog>,
    /// The time of the next try, when the receiver's queue was full.
    retry: Option<Instant>,
}

/// The status that was sent last.
#[derive(Debug, Clone, Copy, Default)]
struct Status {
    sent: Option<Text>,
    /// The time of the next one at the earliest.
    not_before: Option<Instant>,
}

/// The content of `STATUS=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Text {
    stage: Stage,
    open: usize,
}

impl Text {
    fn is_stopping(self) -> bool {
        self.stage != Stage::Serving
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Leaving => "leaving, still serving",
            Stage::Over => "cutting off",
            stage => stage.name(),
        };
        let noun = if self.open == 1 { "connection" } else { "connections" };
        write!(f, "STATUS={stage} {} {noun}", self.open)
    }
}

#[derive(Debug)]
struct Watchdog {
    /// Half of the time after which the service manager restarts the service.
    interval: Duration,
    /// The time of the next message; none before the first.
    next: Option<Instant>,
}

impl Notifier {
    /// Returns the notifier that the environment asks for with `NOTIFY_SOCKET`, connected, or `None` without that variable.
    ///
    /// # Errors
    /// Returns an error if a variable has a wrong value, or the socket cannot be connected.
    pub fn from_environment() -> Result<Option<Self>, NotifyError> {
        let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else { return Ok(None) };
        let interval = watchdog_in(env::var_os, std::process::id())?;
        Self::connect(&address, interval).map(Some)
    }

    /// Connects to a socket: an absolute path, or '@' and an abstract name. `watchdog` is the time after which the service manager restarts a
    /// service that has not sent `WATCHDOG=1`.
    ///
    /// # Errors
    /// Returns an error for any other address, or if the socket cannot be connected.
    pub fn connect(address: &OsStr, watchdog: Option<Duration>) -> Result<Self, NotifyError> {
        let failed = |error| NotifyError::Connect { address: address.to_owned(), error };
        let target = match address.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(address),
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            bytes if bytes.starts_with(b"vsock") => return Err(NotifyError::Vsock(address.to_owned())),
            _ => return Err(NotifyError::Address(address.to_owned())),
        };
        let target = target.map_err(failed)?;
        let socket = UnixDatagram::unbound().map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        socket.connect_addr(&target).map_err(failed)?;
        let interval = |time: Duration| (time / 2).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        let watchdog = watchdog.map(|time| Watchdog { interval: interval(time), next: None });
        let status = Status::default();
        Ok(Self { socket: Some(socket), is_ready: false, is_stopping: false, status, watchdog, retry: None })
    }

    /// Sends one message. Returns false if the receiver's queue is full.
    fn send(&mut self, message: &str) -> bool {
        let Some(socket) = &self.socket else { return true };
        let result = socket::send(socket.as_fd(), message.as_bytes(), MessageFlags::NOSIGNAL);
        let Err(error) = result else { return true };
        let is_full = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR));
        if !is_full {
            warn!("the service manager is no longer notified (send): {error}");
            self.socket = None;
        }
        !is_full
    }

    /// Sends what is due, in order. Returns false if the receiver's queue had no room for a state, which must not be lost.
    fn send_due(&mut self, text: Text, now: Instant) -> bool {
        if !self.is_ready {
            if !self.send(&format!("READY=1\n{text}")) {
                return false;
            }
            self.is_ready = true;
            self.status = Status::sent(text, now);
        }
        if text.is_stopping() && !self.is_stopping {
            if !self.send("STOPPING=1") {
                return false;
            }
            self.is_stopping = true;
        }
        if self.watchdog.as_ref().is_some_and(|watchdog| watchdog.is_due(now)) {
            if !self.send("WATCHDOG=1") {
                return false;
            }
            self.watchdog.iter_mut().for_each(|watchdog| watchdog.next = Some(now + watchdog.interval));
        }
        if self.status.is_due(text, now) {
            // A status that found no room holds up nothing else.
            self.status = match self.send(&text.to_string()) {
                true => Status::sent(text, now),
                false => Status { not_before: Some(now + STATUS_INTERVAL), ..self.status },
            };
        }
        true
    }
}

impl Observer for Notifier {
    fn observe(&mut self, view: &View) -> Option<Instant> {
        let text = Text { stage: view.stage, open: view.open };
        if self.retry.is_some_and(|at| view.now < at) {
            return self.retry;
        }
        self.retry = (!self.send_due(text, view.now)).then(|| view.now + RETRY);
        self.socket.as_ref()?;
        let watchdog = self.watchdog.as_ref().and_then(|watchdog| watchdog.next);
        self.retry.or([self.status.next(text), watchdog].into_iter().flatten().min())
    }
}

impl Status {
    fn sent(text: Text, now: Instant) -> Self {
        Self { sent: Some(text), not_before: Some(now + STATUS_INTERVAL) }
    }

    fn is_due(&self, text: Text, now: Instant) -> bool {
        self.sent != Some(text) && self.not_before.is_none_or(|at| at <= now)
    }

    /// Returns the time at which a changed status can be sent.
    fn next(&self, text: Text) -> Option<Instant> {
        self.not_before.filter(|_| self.sent != Some(text))
    }
}

impl Watchdog {
    fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|at| at <= now)
    }
}

/// Returns the time after which the service manager restarts the process `pid`, if it has a watchdog: sd_watchdog_enabled(3).
fn watchdog_in(variable: impl Fn(&'static str) -> Option<OsString>, pid: u32) -> Result<Option<Duration>, NotifyError> {
    let number = |name, expected| {
        let Some(value) = variable(name) else { return Ok(None) };
        match value.to_str().and_then(|text| text.parse::<u64>().ok()) {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(NotifyError::Watchdog { variable: name, value, expected }),
        }
    };
    if number("WATCHDOG_PID", "a process id")?.is_some_and(|owner| owner != u64::from(pid)) {
        return Ok(None);
    }
    Ok(number("WATCHDOG_USEC", "a number of microseconds, at least 1")?.map(Duration::from_micros))
}

#[cfg(test)]
mod tests;
