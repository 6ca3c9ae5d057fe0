//! A scripted socket: the kernel's side of one connection, and the peer behind it. Bytes, room, FIN, reset, urgent marks and
//! interrupted calls happen when a test says so, between the server's calls or in the middle of its turn; the socket checks that
//! the server makes no call that it could do without, and reads only while nothing is pending.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::rc::Rc;

use edgecho::stream::{Pipe, Stream};
use edgecho::sys::epoll::EpollFlags;
use proptest::prelude::*;

use crate::support::client::pattern;

/// An event outside of the server.
#[derive(Debug, Clone, Copy)]
pub enum Outside {
    /// The peer sends this many more bytes.
    Send(usize),
    /// The peer sends an urgent byte.
    SendUrgent,
    /// The peer reads this many bytes, which makes room for as many.
    Take(usize),
    /// The peer sends its FIN.
    Finish,
    /// The peer resets the connection.
    Reset,
    /// The next call is interrupted.
    Interrupt,
    /// The loop hands the connection its events, and gives it a turn.
    Turn,
    /// epoll reports nothing new (epoll(7): a wake-up may be spurious).
    Spurious,
}

/// The kernel's side of one socket.
#[derive(Debug)]
pub struct Socket {
    pub sent_by_peer: Vec<u8>,
    /// Not yet read by the server.
    pub unread: VecDeque<u8>,
    /// A read has come back short since the last edge: another one would only hear `EAGAIN`.
    pub is_known_empty: bool,
    /// A write has come back short since the last edge.
    pub is_known_full: bool,
    pub had_urgent: bool,
    /// The number of bytes of `unread` before the last urgent one.
    pub mark: Option<usize>,
    pub is_finished: bool,
    pub is_reset: bool,
    pub is_interrupted: bool,
    pub room: usize,
    /// A write has found no room since there was some last: only then does room make an edge (tcp(7), `SOCK_NOSPACE`).
    pub wants_room: bool,
    pub echoed: Vec<u8>,
    pub has_our_fin: bool,
    /// The events that epoll_wait(2) will report.
    pub edges: EpollFlags,
    /// Events during the server's turn, each before one call.
    pub meanwhile: VecDeque<Outside>,
    pub calls_this_turn: usize,
    /// More calls than this in one turn are too many.
    pub most_calls: usize,
    /// The factor of all sizes that are sent and read.
    pub scale: usize,
    pub read_this_turn: usize,
    /// Bytes that went to the server while it was to echo.
    pub owed: usize,
    pub is_closing: bool,
}

#[derive(Debug, Clone)]
pub struct Shared(pub Rc<RefCell<Socket>>);

impl Socket {
    pub fn new(most_calls: usize, scale: usize) -> Self {
        Self {
            sent_by_peer: Vec::new(),
            unread: VecDeque::new(),
            is_known_empty: false,
            is_known_full: false,
            had_urgent: false,
            mark: None,
            is_finished: false,
            is_reset: false,
            is_interrupted: false,
            room: 0,
            wants_room: false,
            echoed: Vec::new(),
            has_our_fin: false,
            edges: EpollFlags::empty(),
            meanwhile: VecDeque::new(),
            calls_this_turn: 0,
            most_calls,
            scale,
            read_this_turn: 0,
            owed: 0,
            is_closing: false,
        }
    }

    /// Returns all flags that hold now: an edge reports the whole state, not only the change.
    pub fn state(&self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::IN, !self.unread.is_empty() || self.is_finished || self.is_reset);
        flags.set(EpollFlags::PRI, self.mark.is_some());
        flags.set(EpollFlags::RDHUP, self.is_finished || self.is_reset);
        flags.set(EpollFlags::OUT, self.room > 0 || self.is_reset);
        flags.set(EpollFlags::HUP, self.is_reset || (self.is_finished && self.has_our_fin));
        flags.set(EpollFlags::ERR, self.is_reset);
        flags
    }

    pub fn happen(&mut self, event: Outside) {
        if self.is_reset {
            return;
        }
        match event {
            Outside::Send(_) | Outside::SendUrgent | Outside::Finish if self.is_finished => return,
            Outside::Send(count) => {
                let bytes = pattern(self.sent_by_peer.len() as u64, count * self.scale);
                self.sent_by_peer.extend(&bytes);
                self.unread.extend(&bytes);
            }
            Outside::SendUrgent => {
                self.had_urgent = true;
                self.mark = Some(self.unread.len());
                self.sent_by_peer.push(b'!');
                self.unread.push_back(b'!');
            }
            Outside::Take(count) => {
                self.room += count * self.scale;
                if !std::mem::take(&mut self.wants_room) {
                    return;
                }
            }
            Outside::Finish => self.is_finished = true,
            Outside::Reset => self.is_reset = true,
            Outside::Interrupt => {
                self.is_interrupted = true;
                return;
            }
            Outside::Spurious | Outside::Turn => {}
        }
        self.edges = self.state();
        self.is_known_empty &= !self.edges.contains(EpollFlags::IN);
        self.is_known_full &= !self.edges.contains(EpollFlags::OUT);
    }

    pub fn call(&mut self) -> io::Result<()> {
        self.calls_this_turn += 1;
        assert!(self.calls_this_turn <= self.most_calls, "invariant 4: {} calls in one turn", self.calls_this_turn);
        if let Some(event) = self.meanwhile.pop_front() {
            self.happen(event);
        }
        if std::mem::take(&mut self.is_interrupted) { Err(io::Error::from_raw_os_error(libc::EINTR)) } else { Ok(()) }
    }

    /// Begins a read. Returns whether there is something to read; if not, the stream has ended.
    fn begin_read(&mut self) -> io::Result<bool> {
        if !self.is_closing {
            assert_eq!(self.owed, self.echoed.len(), "invariant 2: read while something is pending");
        }
        let ends_here = self.is_finished || self.is_reset;
        assert!(!self.is_known_empty || self.had_urgent || ends_here, "a read that only hears EAGAIN");
        self.call()?;
        if !self.unread.is_empty() {
            return Ok(true);
        }
        self.is_known_empty = false;
        match (self.is_reset, self.is_finished) {
            (true, _) => Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
            (_, true) => Ok(false),
            _ => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        }
    }

    /// Begins a write. Returns the number of bytes, of those offered, that there is room for.
    fn begin_write(&mut self, offered: usize) -> io::Result<usize> {
        assert!(offered > 0 && !self.has_our_fin, "nothing to send");
        assert!(!self.is_known_full, "a write that only hears EAGAIN");
        self.call()?;
        if self.is_reset {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let count = offered.min(self.room);
        self.room -= count;
        self.wants_room |= count < offered;
        self.is_known_full = count < offered && self.edges.is_empty();
        if count == 0 { Err(io::Error::from_raw_os_error(libc::EAGAIN)) } else { Ok(count) }
    }
}

impl Stream for Shared {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        if !kernel.begin_read()? {
            return Ok(0);
        }
        // A read stops before the urgent byte, unless it starts with it.
        let limit = kernel.mark.filter(|&mark| mark > 0).unwrap_or(usize::MAX);
        let count = buffer.len().min(kernel.unread.len()).min(limit);
        for (slot, byte) in buffer.iter_mut().zip(kernel.unread.drain(..count)) {
            *slot = byte;
        }
        kernel.mark = kernel.mark.and_then(|mark| mark.checked_sub(count));
        kernel.read_this_turn += count;
        // Unless epoll has yet to report an edge for what was read just now: the server cannot know of it.
        kernel.is_known_empty = count < buffer.len() && kernel.unread.is_empty() && kernel.edges.is_empty();
        if !kernel.is_closing {
            kernel.owed += count;
        }
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        let count = kernel.begin_write(bytes.len())?;
        kernel.echoed.extend(&bytes[..count]);
        Ok(count)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let mut kernel = self.0.borrow_mut();
        assert_eq!(kernel.owed, kernel.echoed.len(), "invariant 1: a FIN before everything was sent");
        kernel.calls_this_turn += 1;
        if kernel.is_reset {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        kernel.has_our_fin = true;
        if kernel.is_finished {
            kernel.edges = kernel.state();
        }
        Ok(())
    }

    /// It never goes past an urgent byte, and sometimes moves less than there is: a pipe holds a limited number of pieces.
    fn splice_into(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        assert!(!kernel.is_closing && pipe.is_empty(), "what is in the pipe goes to the peer, and nothing else does");
        if !kernel.begin_read()? {
            return Ok(0);
        }
        let pieces = if kernel.unread.len().is_multiple_of(3) { most.div_ceil(2) } else { most };
        let count = pieces.min(kernel.unread.len()).min(kernel.mark.unwrap_or(usize::MAX));
        if count == 0 {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        let bytes: Vec<u8> = kernel.unread.drain(..count).collect();
        kernel.mark = kernel.mark.map(|mark| mark - count);
        kernel.read_this_turn += count;
        kernel.owed += count;
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(&bytes)?;
        assert_eq!(pipe.fill(reader.as_fd(), count)?, count);
        Ok(count)
    }

    fn splice_from(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        let count = kernel.begin_write(most)?;
        let (mut reader, writer) = io::pipe()?;
        assert_eq!(pipe.pour(writer.as_fd(), count)?, count);
        let mut bytes = vec![0; count];
        reader.read_exact(&mut bytes)?;
        kernel.echoed.extend(&bytes);
        Ok(count)
    }
}

/// Events that may also happen during the server's turn.
pub fn meanwhile() -> impl Strategy<Value = Outside> {
    prop_oneof![
        6 => (1_usize..60).prop_map(Outside::Send),
        1 => Just(Outside::SendUrgent),
        6 => (1_usize..60).prop_map(Outside::Take),
        1 => Just(Outside::Finish),
        1 => Just(Outside::Interrupt),
        1 => Just(Outside::Spurious),
    ]
}

pub fn outside() -> impl Strategy<Value = Outside> {
    prop_oneof![8 => meanwhile(), 5 => Just(Outside::Turn)]
}
