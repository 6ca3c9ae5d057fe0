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
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A receiver with a name of its own, and a notifier that is connected to it.
    fn pair(name: &str, watchdog: Option<Duration>) -> (UnixDatagram, Notifier) {
        let name = format!("edgecho-{}-{name}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an abstract name");
        let receiver = UnixDatagram::bind_addr(&address).expect("a receiver");
        receiver.set_nonblocking(true).expect("non-blocking");
        let notifier = Notifier::connect(OsStr::new(&format!("@{name}")), watchdog).expect("connected");
        (receiver, notifier)
    }

    fn received(receiver: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 256];
        let next = || receiver.recv(&mut buffer).ok().map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned());
        std::iter::from_fn(next).collect()
    }

    fn view(now: Instant, stage: Stage, open: usize) -> View {
        View { now, stage, open, accepted: 0 }
    }

    #[test]
    fn a_status_follows_a_change_and_at_most_once_a_second() {
        let (receiver, mut notifier) = pair("status", None);
        let start = Instant::now();
        assert_eq!(notifier.observe(&view(start, Stage::Serving, 0)), None);
        assert_eq!(received(&receiver), ["READY=1\nSTATUS=serving 0 connections"]);
        let next = notifier.observe(&view(start + SECOND / 4, Stage::Serving, 1));
        assert_eq!(next, Some(start + SECOND));
        assert_eq!(notifier.observe(&view(start + SECOND / 3, Stage::Serving, 2)), next);
        assert_eq!(received(&receiver), [""; 0]);
        assert_eq!(notifier.observe(&view(start + SECOND, Stage::Serving, 2)), None);
        assert_eq!(received(&receiver), ["STATUS=serving 2 connections"]);
        // A change that was taken back.
        assert_eq!(notifier.observe(&view(start + SECOND * 3 / 2, Stage::Serving, 1)), Some(start + SECOND * 2));
        assert_eq!(notifier.observe(&view(start + SECOND * 5 / 3, Stage::Serving, 2)), None);
        assert_eq!(notifier.observe(&view(start + SECOND * 9, Stage::Serving, 1)), None);
        assert_eq!(received(&receiver), ["STATUS=serving 1 connection"]);
    }

    #[test]
    fn stopping_is_sent_once_and_at_once() {
        let (receiver, mut notifier) = pair("stopping", None);
        let start = Instant::now();
        notifier.observe(&view(start, Stage::Serving, 3));
        assert_eq!(notifier.observe(&view(start, Stage::Draining, 3)), Some(start + SECOND));
        notifier.observe(&view(start + SECOND, Stage::Draining, 3));
        notifier.observe(&view(start + SECOND, Stage::Over, 3));
        let messages = received(&receiver);
        assert_eq!(messages, ["READY=1\nSTATUS=serving 3 connections", "STOPPING=1", "STATUS=draining 3 connections"]);
    }

    #[test]
    fn the_status_tells_the_stages_apart() {
        let (receiver, mut notifier) = pair("stages", None);
        let start = Instant::now();
        for (&stage, second) in Stage::ALL.iter().zip(0..) {
            notifier.observe(&view(start + SECOND * second, stage, 1));
        }
        let messages = received(&receiver);
        let expected = [
            "READY=1\nSTATUS=serving 1 connection",
            "STOPPING=1",
            "STATUS=leaving, still serving 1 connection",
            "STATUS=draining 1 connection",
            "STATUS=closing 1 connection",
            "STATUS=cutting off 1 connection",
        ];
        assert_eq!(messages, expected);
    }

    #[test]
    fn the_watchdog_is_fed_at_half_of_its_interval() {
        let (receiver, mut notifier) = pair("watchdog", Some(SECOND * 10));
        let start = Instant::now();
        assert_eq!(notifier.observe(&view(start, Stage::Serving, 0)), Some(start + SECOND * 5));
        assert_eq!(notifier.observe(&view(start + SECOND * 4, Stage::Serving, 0)), Some(start + SECOND * 5));
        assert_eq!(received(&receiver), ["READY=1\nSTATUS=serving 0 connections", "WATCHDOG=1"]);
        // After a pause of the process the next one comes half an interval later.
        assert_eq!(notifier.observe(&view(start + SECOND * 60, Stage::Serving, 0)), Some(start + SECOND * 65));
        assert_eq!(received(&receiver), ["WATCHDOG=1"]);
    }

    #[test]
    fn a_full_receiver_blocks_nothing_and_gets_each_state_later() {
        let (receiver, mut notifier) = pair("full", None);
        while notifier.send("a message that is in the way") {}
        let start = Instant::now();
        assert_eq!(notifier.observe(&view(start, Stage::Serving, 0)), Some(start + RETRY));
        received(&receiver);
        assert_eq!(notifier.observe(&view(start + RETRY / 2, Stage::Draining, 0)), Some(start + RETRY), "a try per pause");
        assert_eq!(received(&receiver), [""; 0]);
        notifier.observe(&view(start + RETRY, Stage::Draining, 0));
        assert_eq!(received(&receiver), ["READY=1\nSTATUS=draining 0 connections", "STOPPING=1"]);
        while notifier.send("a message that is in the way") {}
        let now = start + SECOND * 5;
        assert_eq!(notifier.observe(&view(now, Stage::Draining, 1)), Some(now + STATUS_INTERVAL), "only a status");
        received(&receiver);
        assert_eq!(notifier.observe(&view(now + STATUS_INTERVAL, Stage::Draining, 2)), None);
        assert_eq!(received(&receiver), ["STATUS=draining 2 connections"]);
    }

    #[test]
    fn without_a_receiver_the_notification_ends() {
        let (receiver, mut notifier) = pair("gone", Some(SECOND));
        drop(receiver);
        assert_eq!(notifier.observe(&view(Instant::now(), Stage::Serving, 0)), None);
        assert!(notifier.socket.is_none());
    }

    #[test]
    fn an_address_of_another_kind_is_refused() {
        for (address, part) in [
            ("vsock:2:1234", "vsock(7) addresses are not supported"),
            ("vsock-stream:2:1234", "vsock(7) addresses are not supported"),
            ("run/notify", "neither an absolute path"),
            ("/no/such/socket", "cannot connect to NOTIFY_SOCKET \"/no/such/socket\": No such file"),
            (&format!("/{}", "x".repeat(200)), "cannot connect"),
        ] {
            let error = Notifier::connect(OsStr::new(address), None).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_watchdog_of_another_process_is_ignored_and_a_wrong_value_is_named() {
        let watchdog = |usec: &str, pid: &str| {
            let value = |name| if name == "WATCHDOG_USEC" { usec.into() } else { pid.into() };
            watchdog_in(|name| Some(value(name)).filter(|value: &OsString| !value.is_empty()), 7)
        };
        assert_eq!(watchdog("30000000", "7").expect("good values"), Some(SECOND * 30));
        assert_eq!(watchdog("30000000", "").expect("good values"), Some(SECOND * 30));
        assert_eq!(watchdog("30000000", "8").expect("of another process"), None);
        assert_eq!(watchdog("", "7").expect("none"), None);
        for (usec, pid) in [("0", "7"), ("soon", "7"), ("-1", "7"), ("1", "me")] {
            let error = watchdog(usec, pid).expect_err("a wrong value").to_string();
            assert!(error.starts_with("WATCHDOG_"), "{error}");
        }
        let (_receiver, mut notifier) = pair("infinity", Some(Duration::from_micros(u64::MAX)));
        let start = Instant::now();
        assert_eq!(notifier.observe(&view(start, Stage::Serving, 0)), Some(start + LONGEST_INTERVAL));
    }
}
