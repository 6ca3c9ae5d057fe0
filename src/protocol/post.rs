//! What a protocol sends to others than the one who has just spoken, and what it wants to be reminded of. It is collected while a
//! connection has its turn, and done right afterwards.

use std::time::Duration;

use super::SessionId;

/// A timer: when it is to come, and under what number.
///
/// ```
/// use std::time::Duration;
///
/// use edgecho::protocol::{Protocol, Reply, Timer};
///
/// /// Closes each connection after a minute, and says so ten seconds before.
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
    /// The number that it is told by.
    pub number: u32,
    /// How long from now. It comes never sooner, and as much later as the loop takes to come to it.
    pub after: Duration,
    /// How long from one to the next, if it is to come again and again. They follow a schedule: one that comes late does not
    /// delay the next, and those that were missed altogether are left out. At least a millisecond.
    pub every: Option<Duration>,
}

impl Timer {
    /// The shortest interval of a timer that repeats: a shorter one is taken for it.
    pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

    /// A timer that comes once. One that the clock cannot reach, such as [`Duration::MAX`], never comes.
    #[must_use]
    pub fn once(number: u32, after: Duration) -> Self {
        Self { number, after, every: None }
    }

    /// A timer that comes over and over.
    #[must_use]
    pub fn every(number: u32, interval: Duration) -> Self {
        let interval = interval.max(Self::SHORTEST_INTERVAL);
        Self { number, after: interval, every: Some(interval) }
    }
}

/// Who is to be sent something.
///
/// ```
/// use edgecho::protocol::{Protocol, Recipients, Reply};
///
/// /// What one sends, the others receive.
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
pub enum Recipients {
    /// One connection.
    One(SessionId),
    /// All but one.
    Others(SessionId),
    /// All.
    All,
}

/// Bytes on their way to somebody.
///
/// ```
/// use edgecho::protocol::{Mail, Recipients};
///
/// let mail = Mail { to: Recipients::All, bytes: (*b"hello\n").into() };
/// assert_eq!(mail.bytes.len(), 6);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// To whom.
    pub to: Recipients,
    /// What.
    pub bytes: Box<[u8]>,
}

/// What was asked for, in the order in which it was.
#[derive(Debug)]
pub(crate) enum Request {
    Deliver(Mail),
    /// For a connection, or for the server.
    SetTimer(Option<SessionId>, Timer),
    CancelTimer(Option<SessionId>, u32),
    Resume(SessionId),
    /// To be closed in order.
    Close(SessionId),
    /// The server cannot go on.
    Fail(String),
}

/// What a protocol asks of the server. What is sent to a connection follows what was sent there before, in order. A connection that
/// takes nothing is not sent more than fits into `outbox_limit` (see [`Limits`](crate::server::Limits)): what does not is skipped as a
/// whole, and counted.
///
/// ```
/// use std::time::Duration;
///
/// use edgecho::protocol::{Post, Protocol, Recipients, Reply, Timer};
///
/// /// Tells everybody the time that has passed.
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
    /// Sends `bytes` to one connection, to all, or to all but one.
    pub fn send(&mut self, to: Recipients, bytes: &[u8]) {
        self.requests.push(Request::Deliver(Mail { to, bytes: bytes.into() }));
    }

    /// Closes a connection in order: what was sent before still goes out, then our FIN.
    pub fn close(&mut self, id: SessionId) {
        self.requests.push(Request::Close(id));
    }

    /// Has a timer of the server come, which replaces one that it has under the same number.
    pub fn set_timer(&mut self, timer: Timer) {
        self.set(None, timer);
    }

    /// Takes a timer of the server back.
    pub fn cancel_timer(&mut self, timer: u32) {
        self.cancel(None, timer);
    }

    /// Reads on from a connection for which [`can_receive`](super::Protocol::can_receive) has said no.
    pub fn resume(&mut self, id: SessionId) {
        self.requests.push(Request::Resume(id));
    }

    /// Ends the server, for a reason in words: the protocol cannot go on.
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

    /// Takes what was asked for; what is asked for meanwhile comes in the next turn.
    pub(crate) fn take(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }
}
