//! The kernel's side of one connection, and the peer behind it: what has arrived, what was sent, and what the peer's kernel has acknowledged.

use std::collections::VecDeque;
use std::io;
use std::sync::LazyLock;

use edgecho::event::Token;
use edgecho::sys::epoll::EpollFlags;

use super::head::Head;
use super::moments::{At, Latest, Look};

/// The number of different bytes in a row that a peer sends. It is a prime, so that no buffer is a multiple of it.
const PERIOD: usize = 65_521;

/// The bytes that all peers send in a circle, each from another place on. No byte is ASCII, so that notices of the server stand out.
static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let bytes: Vec<u8> = crate::support::client::pattern(11, PERIOD).iter().map(|byte| byte | 0x80).collect();
    bytes.iter().copied().cycle().take(PERIOD * 2).collect()
});

#[derive(Debug)]
pub struct Socket {
    salt: usize,
    /// The token and the interest under which it is watched.
    pub watched: Option<(Token, EpollFlags)>,
    /// It stands in the list of the ready ones.
    pub is_listed: bool,
    /// Time at which the client connected.
    pub opened: At,
    /// The latest time at which the server may have opened it.
    pub begun: At,
    /// The server has opened it. Before that it waits for the header.
    pub is_open: bool,
    pub head: Head,
    pub is_closed: bool,
    /// It has sent a request to close to the server by way of the protocol.
    pub has_asked_to_close: bool,

    pub delivered: u64,
    pub read: u64,
    /// Bytes that were delivered after the current batch was collected.
    fresh: (u64, u64),
    mark: Option<u64>,
    had_urgent: bool,
    pub is_finished: bool,
    pub saw_fin: bool,
    pub is_reset: bool,
    has_untaken_error: bool,
    pub is_interrupted: bool,
    is_known_empty: bool,

    /// Acknowledges everything as soon as it is sent.
    pub is_prompt: bool,
    capacity: u64,
    pub sent: u64,
    pub acked: u64,
    pub our_fin: Option<At>,
    pub is_fin_acked: bool,
    pub echoed: u64,
    notice: Vec<u8>,
    /// The last send was not taken as a whole: the rest is in the outbox.
    pub is_pending: bool,
    pub pending_bytes: u64,
    pub pending_since: At,
    wants_room: bool,
    is_known_full: bool,

    pub deliveries: Latest,
    pub acknowledgements: Latest,
    /// The last segment of any kind from the peer.
    pub segment: At,
    /// Segments came that acknowledged nothing new and carried nothing.
    pub has_probes: bool,
    /// The last event or call.
    pub touched: At,
    pub last_read: At,
    pub last_heartbeat: At,
    pub look: Option<Look>,
    /// Closing it as idle was justified at a moment since it was last read.
    pub may_be_idle: bool,

    pub calls_this_turn: usize,
    pub read_this_turn: usize,
}

impl Socket {
    /// A connection that a client has opened, and that waits to be accepted.
    pub fn new(number: usize, head: Head, capacity: u64, is_prompt: bool, at: At) -> Self {
        Self {
            salt: number * 7_919 % PERIOD,
            watched: None,
            is_listed: false,
            opened: at,
            begun: at,
            is_open: false,
            head,
            is_closed: false,
            has_asked_to_close: false,
            delivered: 0,
            read: 0,
            fresh: (0, 0),
            mark: None,
            had_urgent: false,
            is_finished: false,
            saw_fin: false,
            is_reset: false,
            has_untaken_error: false,
            is_interrupted: false,
            is_known_empty: false,
            is_prompt,
            capacity,
            sent: 0,
            acked: 0,
            our_fin: None,
            is_fin_acked: false,
            echoed: 0,
            notice: Vec::new(),
            is_pending: false,
            pending_bytes: 0,
            pending_since: At::default(),
            wants_room: false,
            is_known_full: false,
            deliveries: Latest::default(),
            acknowledgements: Latest::default(),
            segment: at,
            has_probes: false,
            touched: at,
            last_read: At::default(),
            last_heartbeat: At::default(),
            look: None,
            may_be_idle: false,
            calls_this_turn: 0,
            read_this_turn: 0,
        }
    }

    pub fn unread(&self) -> u64 {
        self.delivered - self.read
    }

    /// The unread bytes that were there when the current batch was collected.
    pub fn known_unread(&self, epoch: u64) -> u64 {
        let fresh = if self.fresh.0 == epoch { self.fresh.1 } else { 0 };
        self.unread().saturating_sub(fresh)
    }

    pub fn unacknowledged(&self) -> u64 {
        self.sent - self.acked + u64::from(self.our_fin.is_some() && !self.is_fin_acked)
    }

    fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.sent - self.acked)
    }

    /// As sk_stream_is_writeable() of Linux: a third of the send buffer is free.
    pub fn is_writable(&self) -> bool {
        self.room() >= (self.sent - self.acked) / 2
    }

    fn is_watched_for_room(&self) -> bool {
        self.watched.is_some_and(|(_, interest)| interest.contains(EpollFlags::OUT))
    }

    /// All the flags that hold now: epoll_wait(2) looks at the whole state when it returns a descriptor.
    pub fn state(&mut self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::IN, self.unread() > 0 || !self.head.unread().is_empty() || self.is_finished || self.is_reset);
        flags.set(EpollFlags::PRI, self.mark.is_some());
        flags.set(EpollFlags::RDHUP, self.is_finished || self.is_reset);
        flags.set(EpollFlags::OUT, self.is_writable() || self.is_reset);
        flags.set(EpollFlags::HUP, self.is_reset || (self.is_finished && self.our_fin.is_some()));
        flags.set(EpollFlags::ERR, self.is_reset);
        self.wants_room |= !self.is_writable();
        flags
    }

    /// epoll has reported the state to the server.
    pub fn told(&mut self, flags: EpollFlags, at: At) {
        self.is_known_empty &= !flags.contains(EpollFlags::IN);
        self.is_known_full &= !flags.contains(EpollFlags::OUT);
        self.touched = at;
    }

    /// The peer sends bytes. Returns whether that makes an edge.
    pub fn deliver(&mut self, count: u64, is_urgent: bool, at: At, epoch: u64) -> bool {
        if self.is_reset || self.is_finished {
            return false;
        }
        let count = self.head.send(count);
        let is_urgent = is_urgent && count > 0;
        self.had_urgent |= is_urgent;
        if is_urgent {
            self.mark = Some(self.delivered);
        }
        self.delivered += count;
        self.fresh = (epoch, count + if self.fresh.0 == epoch { self.fresh.1 } else { 0 });
        self.deliveries.note(at, epoch);
        self.segment = at;
        true
    }

    /// The peer's kernel acknowledges bytes. Returns whether that makes an edge: it does if the server has found no room, and a third of
    /// the buffer is free now.
    pub fn acknowledge(&mut self, most: u64, at: At, epoch: u64) -> bool {
        if self.is_reset {
            return false;
        }
        let count = most.min(self.sent - self.acked);
        self.acked += count;
        let acks_fin = self.our_fin.is_some() && !self.is_fin_acked && self.acked == self.sent && most > count;
        self.is_fin_acked |= acks_fin;
        self.segment = at;
        if count > 0 || acks_fin {
            self.acknowledgements.note(at, epoch);
        } else {
            self.has_probes = true;
        }
        count > 0 && self.is_writable() && std::mem::take(&mut self.wants_room) && self.is_watched_for_room()
    }

    pub fn finish(&mut self, at: At, epoch: u64) -> bool {
        if self.is_reset || std::mem::replace(&mut self.is_finished, true) {
            return false;
        }
        self.deliveries.note(at, epoch);
        self.segment = at;
        true
    }

    pub fn reset(&mut self) -> bool {
        self.has_untaken_error = true;
        !std::mem::replace(&mut self.is_reset, true)
    }

    pub fn take_error(&mut self) -> Option<io::Error> {
        std::mem::take(&mut self.has_untaken_error).then(|| io::Error::from_raw_os_error(libc::ECONNRESET))
    }

    fn begin_call(&mut self, at: At) -> io::Result<()> {
        self.calls_this_turn += 1;
        self.touched = at;
        if std::mem::take(&mut self.is_interrupted) { Err(io::Error::from_raw_os_error(libc::EINTR)) } else { Ok(()) }
    }

    /// Looks at the bytes there.
    pub fn peek(&mut self, buffer: &mut [u8], at: At) -> io::Result<usize> {
        assert!(!self.is_open, "a connection is peeked at only until it is open");
        self.begin_call(at)?;
        let head = self.head.unread();
        let mut count = head.len();
        buffer[..count].copy_from_slice(head);
        let most = self.mark.filter(|&mark| count > 0 || mark > self.read).map_or(self.unread(), |mark| mark - self.read);
        let most = most.min((buffer.len() - count) as u64) as usize;
        let start = (self.read as usize + self.salt) % PERIOD;
        buffer[count..count + most].copy_from_slice(&CONTENT[start..start + most]);
        count += most;
        match (count, self.is_reset, self.is_finished) {
            (0, true, _) => Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
            (0, _, false) => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            _ => Ok(count),
        }
    }

    /// Reads up to `most` bytes of the header, if it was not read yet.
    pub fn read_head(&mut self, buffer: &mut [u8], is_draining: bool, at: At) -> Option<io::Result<usize>> {
        let unread = self.head.unread();
        if unread.is_empty() {
            return None;
        }
        assert!(!self.is_open, "the header is read before the connection is open");
        let is_exact = self.head.is_whole() && buffer.len() == unread.len();
        assert!(is_exact || is_draining, "exactly the header is read: {} bytes of {}", buffer.len(), unread.len());
        let count = unread.len().min(buffer.len());
        Some(self.begin_call(at).map(|()| {
            self.head.read += count;
            count
        }))
    }

    /// Begins a read. Returns the number of bytes there, up to `most`; 0 at the end.
    pub fn begin_read(&mut self, most: usize, is_splice: bool, at: At) -> io::Result<usize> {
        assert!(self.our_fin.is_some() || !self.is_pending, "invariant 2: read while something is pending");
        let ends_here = self.is_finished || self.is_reset;
        assert!(!self.is_known_empty || self.had_urgent || ends_here || self.is_listed, "a read that only hears EAGAIN");
        self.begin_call(at)?;
        if self.unread() == 0 {
            self.is_known_empty = false;
            self.saw_fin |= self.is_finished;
            return match (self.is_reset, self.is_finished) {
                (true, _) => Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
                (_, true) => Ok(0),
                _ => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            };
        }
        // A read stops before the urgent byte, unless it starts with it. A splice never goes past it.
        let mut limit = self.unread();
        if let Some(mark) = self.mark
            && (is_splice || mark > self.read)
        {
            limit = limit.min(mark - self.read);
        }
        if limit == 0 {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        Ok(most.min(limit as usize))
    }

    /// Notes the bytes read, of `most` requested, and returns them.
    pub fn take(&mut self, count: usize, most: usize, at: At) -> &'static [u8] {
        let start = (self.read as usize + self.salt) % PERIOD;
        self.read += count as u64;
        self.mark = self.mark.filter(|&mark| mark >= self.read);
        self.read_this_turn += count;
        self.is_known_empty = count < most && self.unread() == 0;
        if self.our_fin.is_none() {
            self.may_be_idle = false;
            self.last_read = at;
        }
        &CONTENT[start..start + count]
    }

    /// Begins a write. Returns the number of bytes, of `offered`, that there is room for.
    pub fn begin_write(&mut self, offered: usize, at: At) -> io::Result<usize> {
        assert!(offered > 0 && self.our_fin.is_none(), "nothing to send");
        assert!(!self.is_known_full || self.is_listed, "a write that only hears EAGAIN");
        let result = self.begin_call(at);
        if !std::mem::replace(&mut self.is_pending, true) {
            self.pending_since = at;
        }
        self.pending_bytes = offered as u64;
        result?;
        if self.is_reset {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let count = self.room().min(offered as u64) as usize;
        self.is_pending = count < offered;
        self.pending_bytes -= count as u64;
        self.wants_room |= self.is_pending;
        self.is_known_full = self.is_pending;
        if count == 0 { Err(io::Error::from_raw_os_error(libc::EAGAIN)) } else { Ok(count) }
    }

    /// Notes that bytes were taken from the server: echo, in order, and lines of the server's own in between. Returns whether the peer's
    /// kernel has acknowledged them already, and that makes an edge.
    pub fn put(&mut self, bytes: &[u8], at: At, epoch: u64) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let expected = &CONTENT[(self.echoed as usize + self.salt) % PERIOD..];
            let most = rest.len().min(expected.len()).min((self.read - self.echoed) as usize);
            let mut count = most;
            if !self.notice.is_empty() || rest[..most] != expected[..most] || most == 0 {
                count = rest.iter().position(|byte| byte.is_ascii()).unwrap_or(rest.len());
                assert!(count == 0 || self.notice.is_empty(), "invariant 1: bytes within a notice");
                assert!(count <= most && rest[..count] == expected[..count], "invariant 1: something else was echoed");
            }
            if count == 0 {
                count = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |place| place + 1);
                self.notice.extend(&rest[..count]);
                if self.notice.ends_with(b"\n") {
                    let line = String::from_utf8(std::mem::take(&mut self.notice)).expect("a notice is text");
                    assert!(["HEARTBEAT\n", "ALARM\n"].contains(&&*line) || line.starts_with("Server status: "), "{line}");
                }
            } else {
                self.echoed += count as u64;
            }
            rest = &rest[count..];
        }
        self.sent += bytes.len() as u64;
        self.is_prompt && self.acknowledge(u64::MAX, at, epoch)
    }

    /// Our FIN goes out.
    pub fn shutdown(&mut self, at: At, epoch: u64) -> io::Result<()> {
        assert!(!self.is_pending, "invariant 1: a FIN before everything was sent");
        self.calls_this_turn += 1;
        if self.is_reset {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        assert_eq!(self.echoed, self.read, "invariant 8: a FIN before everything was echoed");
        self.our_fin = Some(at);
        if self.is_prompt {
            self.acknowledge(u64::MAX, at, epoch);
        }
        Ok(())
    }
}

/// A queue of connections that wait to be accepted.
pub type Backlog = VecDeque<usize>;
