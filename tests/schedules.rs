//! `Connection` over a scripted stream: whatever the kernel does, and in whatever order it tells, the invariants hold.
//! 1. What was echoed is a prefix of what was sent, and at an orderly close the two are equal.
//! 2. It is read only while its outbox is empty.
//! 3. No edge is lost: when the kernel has nothing more to tell, nothing is left undone.
//! 4. No turn works without bound.

mod support;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use edgecho::protocol::Echo;
use edgecho::server::{Connection, Ending, Progress, Stream};
use edgecho::sys::epoll::EpollFlags;
use proptest::prelude::*;
use support::client::pattern;

/// Small, so that full reads are as frequent as short ones.
const BUFFER_BYTES: usize = 16;
const BUDGET_BYTES: usize = 40;

/// What happens outside of the server.
#[derive(Debug, Clone, Copy)]
enum Outside {
    /// The peer sends so many bytes more.
    Send(usize),
    /// The peer sends an urgent byte.
    SendUrgent,
    /// The peer takes so many bytes, which makes room for as many.
    Take(usize),
    /// The peer sends its FIN.
    Finish,
    /// The peer resets the connection.
    Reset,
    /// The next call is interrupted.
    Interrupt,
    /// The loop tells the connection what epoll has for it, and gives it a turn.
    Turn,
    /// epoll tells of nothing new (epoll(7): a wake-up may be spurious).
    Spurious,
}

/// The kernel's side of one socket.
#[derive(Debug)]
struct Kernel {
    sent_by_peer: Vec<u8>,
    /// Not yet read by the server.
    unread: VecDeque<u8>,
    /// A read has come back short since the last edge: another one would only hear `EAGAIN`.
    is_known_empty: bool,
    /// A write has come back short since the last edge.
    is_known_full: bool,
    had_urgent: bool,
    /// How many bytes of `unread` stand in front of the last urgent one.
    mark: Option<usize>,
    is_finished: bool,
    is_reset: bool,
    is_interrupted: bool,
    room: usize,
    /// A write has found no room since there was some last: only then does room make an edge (tcp(7), `SOCK_NOSPACE`).
    wants_room: bool,
    echoed: Vec<u8>,
    has_our_fin: bool,
    /// What epoll_wait(2) will tell.
    edges: EpollFlags,
    /// What happens while the server is in its turn, in front of one call each.
    meanwhile: VecDeque<Outside>,
    calls_this_turn: usize,
    read_this_turn: usize,
    /// Bytes that went to the server while it was to echo.
    owed: usize,
    is_closing: bool,
}

#[derive(Debug, Clone)]
struct Shared(Rc<RefCell<Kernel>>);

impl Kernel {
    fn new() -> Self {
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
            read_this_turn: 0,
            owed: 0,
            is_closing: false,
        }
    }

    /// All the flags that hold now: an edge tells the whole state, not only what has changed.
    fn state(&self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::IN, !self.unread.is_empty() || self.is_finished || self.is_reset);
        flags.set(EpollFlags::PRI, self.mark.is_some());
        flags.set(EpollFlags::RDHUP, self.is_finished || self.is_reset);
        flags.set(EpollFlags::OUT, self.room > 0 || self.is_reset);
        flags.set(EpollFlags::HUP, self.is_reset || (self.is_finished && self.has_our_fin));
        flags.set(EpollFlags::ERR, self.is_reset);
        flags
    }

    fn happen(&mut self, event: Outside) {
        if self.is_reset {
            return;
        }
        match event {
            Outside::Send(_) | Outside::SendUrgent | Outside::Finish if self.is_finished => return,
            Outside::Send(count) => {
                let bytes = pattern(self.sent_by_peer.len() as u64, count);
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
                self.room += count;
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

    fn call(&mut self) -> io::Result<()> {
        self.calls_this_turn += 1;
        // A read and a write for each buffer, and at either end a flush, a FIN, and a read that brings nothing.
        let most_calls = 2 * (BUDGET_BYTES + BUFFER_BYTES) + 4;
        assert!(self.calls_this_turn <= most_calls, "invariant 4: {} calls in one turn", self.calls_this_turn);
        if let Some(event) = self.meanwhile.pop_front() {
            self.happen(event);
        }
        if std::mem::take(&mut self.is_interrupted) { Err(io::Error::from_raw_os_error(libc::EINTR)) } else { Ok(()) }
    }
}

impl Stream for Shared {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        if !kernel.is_closing {
            assert_eq!(kernel.owed, kernel.echoed.len(), "invariant 2: read while something is pending");
        }
        let ends_here = kernel.is_finished || kernel.is_reset;
        assert!(!kernel.is_known_empty || kernel.had_urgent || ends_here, "a read that only hears EAGAIN");
        kernel.call()?;
        if kernel.unread.is_empty() {
            kernel.is_known_empty = false;
            return match (kernel.is_reset, kernel.is_finished) {
                (true, _) => Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
                (_, true) => Ok(0),
                _ => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            };
        }
        // A read stops in front of the urgent byte, but for a read that starts with it.
        let limit = kernel.mark.filter(|&mark| mark > 0).unwrap_or(usize::MAX);
        let count = buffer.len().min(kernel.unread.len()).min(limit);
        for (slot, byte) in buffer.iter_mut().zip(kernel.unread.drain(..count)) {
            *slot = byte;
        }
        kernel.mark = kernel.mark.and_then(|mark| mark.checked_sub(count));
        kernel.read_this_turn += count;
        // Unless an edge is still to be told of what was read just now: nobody could know that.
        kernel.is_known_empty = count < buffer.len() && kernel.unread.is_empty() && kernel.edges.is_empty();
        if !kernel.is_closing {
            kernel.owed += count;
        }
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kernel = self.0.borrow_mut();
        assert!(!bytes.is_empty() && !kernel.has_our_fin, "nothing to send");
        assert!(!kernel.is_known_full, "a write that only hears EAGAIN");
        kernel.call()?;
        if kernel.is_reset {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let count = bytes.len().min(kernel.room);
        kernel.room -= count;
        kernel.echoed.extend(&bytes[..count]);
        kernel.wants_room |= count < bytes.len();
        kernel.is_known_full = count < bytes.len() && kernel.edges.is_empty();
        if count == 0 { Err(io::Error::from_raw_os_error(libc::EAGAIN)) } else { Ok(count) }
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
}

/// A connection, the kernel under it, and the loop's memory of it.
struct World {
    kernel: Shared,
    connection: Connection<Shared, ()>,
    is_ready: bool,
    is_watched_for_room: bool,
    ending: Option<Ending>,
}

impl World {
    fn new() -> Self {
        let kernel = Shared(Rc::new(RefCell::new(Kernel::new())));
        let connection = Connection::new(kernel.clone(), ());
        Self { kernel, connection, is_ready: false, is_watched_for_room: false, ending: None }
    }

    /// What the server does with a connection in one turn of its loop. Gives whether there was anything to do.
    fn turn(&mut self) -> bool {
        if self.ending.is_some() {
            return false;
        }
        let mut edges = std::mem::replace(&mut self.kernel.0.borrow_mut().edges, EpollFlags::empty());
        if !self.is_watched_for_room {
            // Not asked for. What else is told always comes with it, in the kernel too.
            let was_only_room = edges == EpollFlags::OUT;
            edges.remove(EpollFlags::OUT);
            if was_only_room && !self.is_ready {
                return false;
            }
        }
        if edges.is_empty() && !self.is_ready {
            return false;
        }
        self.connection.on_event(edges);
        self.advance();
        true
    }

    fn advance(&mut self) {
        {
            let mut kernel = self.kernel.0.borrow_mut();
            kernel.calls_this_turn = 0;
            kernel.read_this_turn = 0;
        }
        let progress = self.connection.advance(&Echo, &mut [0; BUFFER_BYTES], BUDGET_BYTES);
        let mut kernel = self.kernel.0.borrow_mut();
        assert!(kernel.read_this_turn < BUDGET_BYTES + BUFFER_BYTES, "invariant 4: {} bytes", kernel.read_this_turn);
        self.is_ready = matches!(progress, Progress::More);
        match progress {
            Progress::Ended(ending) => self.ending = Some(ending),
            Progress::Waiting if self.connection.needs_room() && !self.is_watched_for_room => {
                self.is_watched_for_room = true;
                kernel.edges = kernel.state(); // EPOLL_CTL_MOD tells what is ready already
            }
            _ => {}
        }
    }

    fn close(&mut self) {
        if self.ending.is_none() {
            self.connection.close();
            self.kernel.0.borrow_mut().is_closing = true;
            self.advance();
        }
    }

    fn run_dry(&mut self) {
        for _ in 0..100_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("invariant 4: it never comes to rest");
    }

    fn check_prefix(&self) {
        let kernel = self.kernel.0.borrow();
        assert!(kernel.sent_by_peer.starts_with(&kernel.echoed), "invariant 1: not a prefix");
        assert_eq!(self.connection.sent_bytes(), kernel.echoed.len() as u64);
    }
}

/// What may happen while the server is in its turn, too.
fn meanwhile() -> impl Strategy<Value = Outside> {
    prop_oneof![
        6 => (1_usize..60).prop_map(Outside::Send),
        1 => Just(Outside::SendUrgent),
        6 => (1_usize..60).prop_map(Outside::Take),
        1 => Just(Outside::Finish),
        1 => Just(Outside::Interrupt),
        1 => Just(Outside::Spurious),
    ]
}

fn outside() -> impl Strategy<Value = Outside> {
    prop_oneof![8 => meanwhile(), 5 => Just(Outside::Turn)]
}

/// What happens between turns, and what happens within them.
fn schedule() -> impl Strategy<Value = (Vec<Outside>, Vec<Outside>)> {
    (prop::collection::vec(outside(), 0..60), prop::collection::vec(meanwhile(), 0..20))
}

fn play(world: &mut World, events: Vec<Outside>, meanwhile: Vec<Outside>) {
    world.kernel.0.borrow_mut().meanwhile = meanwhile.into();
    for event in events {
        match event {
            Outside::Turn => {
                world.turn();
            }
            event => world.kernel.0.borrow_mut().happen(event),
        }
        world.check_prefix();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_500, failure_persistence: None, ..ProptestConfig::default() })]

    /// A peer that sends, half-closes and takes everything in the end gets everything, whatever came between.
    #[test]
    fn an_orderly_peer_gets_every_byte((events, meanwhile) in schedule()) {
        let mut world = World::new();
        play(&mut world, events, meanwhile);
        world.run_dry();
        // Nothing more comes, and the peer takes all: whatever is still owed must flow without anything else happening.
        world.kernel.0.borrow_mut().happen(Outside::Take(1_000_000));
        world.run_dry();
        {
            let mut kernel = world.kernel.0.borrow_mut();
            prop_assert!(kernel.unread.is_empty(), "invariant 3: {} bytes left unread", kernel.unread.len());
            prop_assert_eq!(&kernel.echoed, &kernel.sent_by_peer, "invariant 3: bytes left unsent");
            kernel.happen(Outside::Finish);
        }
        world.run_dry();
        prop_assert!(matches!(world.ending, Some(Ending::ByPeer)), "invariant 3: {:?}", world.ending);
        let kernel = world.kernel.0.borrow();
        prop_assert_eq!(&kernel.echoed, &kernel.sent_by_peer);
    }

    /// A reset at any point ends the connection, and what was echoed until then is a prefix.
    #[test]
    fn a_reset_at_any_point_ends_it((events, meanwhile) in schedule(), rest in prop::collection::vec(outside(), 0..10)) {
        let mut world = World::new();
        play(&mut world, events, meanwhile);
        world.kernel.0.borrow_mut().happen(Outside::Reset);
        play(&mut world, rest, Vec::new());
        world.run_dry();
        prop_assert!(world.ending.is_some(), "invariant 3: the reset was not heard");
        world.check_prefix();
    }

    /// Closed from our side at any point: what was read is sent, then our FIN, then what comes is discarded until the peer's.
    #[test]
    fn closing_at_any_point_flushes_then_sends_fin((events, meanwhile) in schedule(), rest in schedule()) {
        let mut world = World::new();
        play(&mut world, events, meanwhile);
        world.close();
        play(&mut world, rest.0, rest.1);
        world.kernel.0.borrow_mut().happen(Outside::Take(1_000_000));
        world.run_dry();
        {
            let mut kernel = world.kernel.0.borrow_mut();
            prop_assert_eq!(kernel.owed, kernel.echoed.len(), "what was read is owed");
            if world.ending.is_none() {
                prop_assert!(kernel.has_our_fin, "invariant 3: no FIN");
            }
            kernel.happen(Outside::Finish);
        }
        world.run_dry();
        prop_assert!(matches!(world.ending, Some(Ending::InOrder | Ending::ByPeer)), "invariant 3: {:?}", world.ending);
        prop_assert!(world.kernel.0.borrow().unread.is_empty(), "closed with bytes unread: a reset");
        world.check_prefix();
    }
}
