//! `Connection` over a scripted stream: whatever the kernel does, and in whatever order it reports events, the invariants hold.
//! 1. What was echoed is a prefix of what was sent, and at an orderly close the two are equal.
//! 2. It is read only while its outbox is empty.
//! 3. No edge is lost: when the kernel has nothing more to tell, nothing is left undone.
//! 4. No turn works without bound.

mod scripted;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use edgecho::protocol::{Echo, Post, Protocol, Reply, SessionId};
use edgecho::server::{Connection, Ending, Host, Peer, Progress};
use edgecho::stream::Pipe;
use edgecho::sys::epoll::EpollFlags;
use proptest::prelude::*;

use scripted::{Outside, Shared, Socket, meanwhile, outside};

/// Small, so that full reads are as frequent as short ones.
const BUFFER_BYTES: usize = 16;
const BUDGET_BYTES: usize = 40;

/// A read and a write for each buffer, and at either end a flush, a FIN, a splice that brings nothing, and a read that brings nothing.
const MOST_CALLS: usize = 2 * (BUDGET_BYTES + BUFFER_BYTES) + 5;

/// A connection, the kernel under it, and the loop's memory of it.
struct World<P> {
    kernel: Shared,
    host: Host<P>,
    connection: Connection<Shared, ()>,
    pipe: Pipe,
    /// The first half of a turn is a call of its own, as it is where many are read before any is answered.
    is_in_halves: bool,
    is_ready: bool,
    is_watched_for_room: bool,
    ending: Option<Ending>,
}

impl World<Echo> {
    fn new(is_in_halves: bool) -> Self {
        Self::with(Echo, is_in_halves)
    }
}

/// Returns a key as a slot map makes them. The default is the null key, which a secondary map takes for that of a closed connection.
fn session() -> SessionId {
    slotmap::KeyData::from_ffi(1 << 32 | 1).into()
}

/// Echo that takes a limited number of bytes at a time, and leaves the others.
struct Nibble(usize);

impl Protocol for Nibble {
    type Session = ();

    fn open(&mut self, _reply: &mut impl Reply) {}

    fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        let taken = input.len().min(self.0);
        reply.send(&input[..taken]);
        reply.leave(input.len() - taken);
    }

    fn drained(&mut self, (): &mut (), reply: &mut impl Reply) {
        assert_eq!(reply.pending_bytes(), 0);
    }
}

impl<P: Protocol<Session = ()>> World<P> {
    fn with(protocol: P, is_in_halves: bool) -> Self {
        let kernel = Shared(Rc::new(RefCell::new(Socket::new(MOST_CALLS, 1))));
        let connection = Connection::new(kernel.clone(), ());
        let pipe = Pipe::new().expect("a pipe");
        Self {
            kernel,
            host: Host::new(protocol),
            connection,
            pipe,
            is_in_halves,
            is_ready: false,
            is_watched_for_room: false,
            ending: None,
        }
    }

    /// Gives the connection a turn, as the server's loop does. Returns whether there was anything to do.
    fn turn(&mut self) -> bool {
        if self.ending.is_some() {
            return false;
        }
        let mut edges = std::mem::replace(&mut self.kernel.0.borrow_mut().edges, EpollFlags::empty());
        if !self.is_watched_for_room {
            // EPOLLOUT is not requested. The kernel, too, reports it only together with other events.
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
        let (peer, mut post) = (Peer::from(SocketAddr::from(([127, 0, 0, 1], 9))), Post::default());
        let mut turn = edgecho::server::Turn { id: session(), peer: &peer, post: &mut post, pipe: Some(&mut self.pipe) };
        let mut buffer = [0; BUFFER_BYTES];
        let progress = if self.is_in_halves && self.connection.needs_only_read() {
            match self.connection.read(&mut buffer) {
                Ok(0) => Progress::Ended(Ending::ByPeer),
                Ok(count) => match self.connection.respond(&mut self.host, &buffer[..count], &mut turn) {
                    Ok(()) if self.connection.is_quiet() => Progress::Waiting,
                    Ok(()) => self.connection.advance(&mut self.host, &mut buffer, BUDGET_BYTES - count, &mut turn),
                    Err(error) => Progress::Ended(Ending::Failed(error)),
                },
                Err(progress) => progress,
            }
        } else {
            self.connection.advance(&mut self.host, &mut buffer, BUDGET_BYTES, &mut turn)
        };
        assert!(self.pipe.is_empty(), "what one connection leaves in the pipe, another would be sent");
        let mut kernel = self.kernel.0.borrow_mut();
        assert!(kernel.read_this_turn < BUDGET_BYTES + BUFFER_BYTES, "invariant 4: {} bytes", kernel.read_this_turn);
        self.is_ready = matches!(progress, Progress::More);
        match progress {
            Progress::Ended(ending) => self.ending = Some(ending),
            Progress::Waiting if self.connection.needs_room() && !self.is_watched_for_room => {
                self.is_watched_for_room = true;
                kernel.edges = kernel.state(); // EPOLL_CTL_MOD reports what is ready already
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

/// Returns events between the turns, and events within them.
fn schedule() -> impl Strategy<Value = (Vec<Outside>, Vec<Outside>)> {
    (prop::collection::vec(outside(), 0..60), prop::collection::vec(meanwhile(), 0..20))
}

fn play<P: Protocol<Session = ()>>(world: &mut World<P>, events: Vec<Outside>, meanwhile: Vec<Outside>) {
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

/// Plays a schedule, and then lets the peer take everything and finish.
fn check_orderly<P: Protocol<Session = ()>>(
    world: &mut World<P>,
    events: Vec<Outside>,
    meanwhile: Vec<Outside>,
) -> Result<(), TestCaseError> {
    play(world, events, meanwhile);
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
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// A peer that sends, half-closes and takes everything in the end gets everything, whatever came between.
    #[test]
    fn an_orderly_peer_gets_every_byte((events, meanwhile) in schedule(), is_in_halves in any::<bool>()) {
        check_orderly(&mut World::new(is_in_halves), events, meanwhile)?;
    }

    /// A protocol that leaves input is offered it again until it has taken all. Only then the connection ends.
    #[test]
    fn an_orderly_peer_gets_every_byte_from_a_protocol_that_leaves_input((events, meanwhile) in schedule(), bytes in 1_usize..20) {
        check_orderly(&mut World::with(Nibble(bytes), false), events, meanwhile)?;
    }

    /// A reset at any point ends the connection, and what was echoed until then is a prefix.
    #[test]
    fn a_reset_at_any_point_ends_it((events, meanwhile) in schedule(), rest in prop::collection::vec(outside(), 0..10), is_in_halves in any::<bool>()) {
        let mut world = World::new(is_in_halves);
        play(&mut world, events, meanwhile);
        world.kernel.0.borrow_mut().happen(Outside::Reset);
        play(&mut world, rest, Vec::new());
        world.run_dry();
        prop_assert!(world.ending.is_some(), "invariant 3: the reset was not heard");
        world.check_prefix();
    }

    /// Closed from our side at any point: what was read is sent, then our FIN, then what comes is discarded until the peer's.
    #[test]
    fn closing_at_any_point_flushes_then_sends_fin((events, meanwhile) in schedule(), rest in schedule(), is_in_halves in any::<bool>()) {
        let mut world = World::new(is_in_halves);
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
