//! Requests of a protocol to the server: bytes for other connections, timers, closing. They are collected during a call of the protocol,
//! and the server carries them out right after it.

use std::time::Duration;

slotmap::new_key_type! {
    /// The name of a connection. No other connection ever gets the same name: what is sent to a closed connection goes nowhere.
    pub struct SessionId;
}

/// A timer, told by its number.
///
/// ```
/// use std::time::Duration;
///
/// use edgecho::protocol::{Protocol, Reply, Timer};
///
/// /// Closes each connection after a minute, and warns ten seconds before.
/// struct Minute;
///
/// impl Protocol for Minute {
///     type Session = ();
///
///     fn open(&mut self, reply: &mut impl Reply) {
///         reply.set_timer(Timer::once(1, Duration::from_secs(50)));
///         reply.set_timer(Timer::once(2, Duration::from_secs(60)));
///     }
///
///     fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
///         reply.send(input);
///     }
///
///     fn on_timer(&mut self, (): &mut (), timer: u32, reply: &mut impl Reply) {
///         match timer {
///             1 => reply.send(b"ten seconds left\n"),
///             _ => reply.close(),
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// Number that the protocol tells its timers by.
    pub number: u32,
    /// Time from now on. A timer never comes early. It comes late while the loop is busy.
    pub after: Duration,
    /// Interval of a timer that repeats, at least a millisecond. The timer follows a schedule: a late one does not delay the next, and
    /// missed ones are left out.
    pub every: Option<Duration>,
}

impl Timer {
    /// The shortest interval of a timer that repeats. A shorter one is raised to this.
    pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

    /// Returns a timer that comes once. One that the clock cannot reach, such as [`Duration::MAX`], never comes.
    #[must_use]
    pub fn once(number: u32, after: Duration) -> Self {
        Self { number, after, every: None }
    }

    /// Returns a timer that repeats.
    #[must_use]
    pub fn every(number: u32, interval: Duration) -> Self {
        let interval = interval.max(Self::SHORTEST_INTERVAL);
        Self { number, after: interval, every: Some(interval) }
    }
}

/// The connections that something is sent to.
///
/// ```
/// use edgecho::protocol::{Protocol, Recipients, Reply};
///
/// /// Passes the input of each connection on to all others.
/// struct Relay;
///
/// impl Protocol for Relay {
///     type Session = ();
///
///     fn open(&mut self, _reply: &mut impl Reply) {}
///
///     fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
///         let others = Recipients::Others(reply.id());
///         reply.post().send(others, input);
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recipients {
    /// One connection.
    One(SessionId),
    /// All connections but one.
    Others(SessionId),
    /// All connections.
    All,
}

/// Bytes on their way to one or more connections.
///
/// ```
/// use edgecho::protocol::{Mail, Recipients};
///
/// let mail = Mail { to: Recipients::All, bytes: (*b"hello\n").into() };
/// assert_eq!(mail.bytes.len(), 6);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The recipients.
    pub to: Recipients,
    /// The bytes.
    pub bytes: Box<[u8]>,
}

/// A request to the server.
#[derive(Debug)]
pub(crate) enum Request {
    Deliver(Mail),
    /// The owner is a connection, or the server for `None`.
    SetTimer(Option<SessionId>, Timer),
    CancelTimer(Option<SessionId>, u32),
    Resume(SessionId),
    /// Closes the connection in order.
    Close(SessionId),
    /// Closes the connection as it is.
    Cut(SessionId),
    /// Ends the server with an error.
    Fail(String),
}

/// Requests to the server, carried out in order right after the call of the protocol.
///
/// Bytes for a connection follow what it was sent before. A connection that reads nothing is sent at most
/// [`outbox_limit`](crate::server::Limits::outbox_limit) bytes: a piece that does not fit is skipped as a whole, and counted in
/// [`Statistics`](crate::server::Statistics).
///
/// ```
/// use std::time::Duration;
///
/// use edgecho::protocol::{Post, Protocol, Recipients, Reply, Timer};
///
/// /// Tells every client the seconds that have passed.
/// #[derive(Default)]
/// struct Clock {
///     seconds: u64,
/// }
///
/// impl Protocol for Clock {
///     type Session = ();
///
///     fn start(&mut self, post: &mut Post) {
///         post.set_timer(Timer::every(1, Duration::from_secs(1)));
///     }
///
///     fn open(&mut self, _reply: &mut impl Reply) {}
///
///     fn receive(&mut self, (): &mut (), _input: &[u8], _reply: &mut impl Reply) {}
///
///     fn on_server_timer(&mut self, _timer: u32, post: &mut Post) {
///         self.seconds += 1;
///         post.send(Recipients::All, format!("{}\n", self.seconds).as_bytes());
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct Post {
    requests: Vec<Request>,
}

impl Post {
    /// Sends `bytes` to one connection, to all, or to all but one. The bytes are copied.
    pub fn send(&mut self, to: Recipients, bytes: &[u8]) {
        self.requests.push(Request::Deliver(Mail { to, bytes: bytes.into() }));
    }

    /// Closes a connection in order: the peer is sent all pending bytes, then our FIN.
    pub fn close(&mut self, id: SessionId) {
        self.requests.push(Request::Close(id));
    }

    /// Cuts a connection off: it is closed at once, with close(2), and its pending bytes are lost. A peer that takes nothing, or ignores our
    /// FIN, keeps its place until the write timeout with [`close`](Self::close), and not with this.
    pub fn cut(&mut self, id: SessionId) {
        self.requests.push(Request::Cut(id));
    }

    /// Sets a timer of the server. It replaces the timer with the same number.
    pub fn set_timer(&mut self, timer: Timer) {
        self.set(None, timer);
    }

    /// Cancels a timer of the server.
    pub fn cancel_timer(&mut self, timer: u32) {
        self.cancel(None, timer);
    }

    /// Resumes a connection: the server offers input that was [left](super::Reply::leave) again, or reads a connection that
    /// [`Background::can_receive`](super::Background::can_receive) has stopped.
    pub fn resume(&mut self, id: SessionId) {
        self.requests.push(Request::Resume(id));
    }

    /// Ends the server: [`Server::run`](crate::server::Server::run) returns [`Error::Protocol`](crate::server::Error::Protocol) with this
    /// reason.
    pub fn fail(&mut self, reason: String) {
        self.requests.push(Request::Fail(reason));
    }

    pub(super) fn set(&mut self, owner: Option<SessionId>, timer: Timer) {
        self.requests.push(Request::SetTimer(owner, timer));
    }

    pub(super) fn cancel(&mut self, owner: Option<SessionId>, timer: u32) {
        self.requests.push(Request::CancelTimer(owner, timer));
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Takes the requests. Requests made while they are carried out come in the next round.
    pub(crate) fn take(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }
}
