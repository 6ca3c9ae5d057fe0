//! The whole server on a scripted kernel: readiness told in any order, wake-ups for nothing, events for connections that are gone,
//! connections that come and reset while others are served, several listeners, accept4(2) failing now and then. 10,000 schedules,
//! each made from a seed: a failing one is printed, and `EDGECHO_SEED=N cargo test --test server_schedules` plays it again.

mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use edgecho::event::{Events, Token, Wait};
use edgecho::protocol::Echo;
use edgecho::server::{Config, Kernel, Reason, Server, Summary};
use edgecho::stream::{Pipe, Stream};
use edgecho::sys::epoll::EpollFlags;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as ProptestConfig, RngAlgorithm, TestRng, TestRunner};
use support::scripted::{Outside, Shared, Socket, outside};

const LISTENERS: usize = 2;

/// No more than the server has room for.
const EVENTS_AT_ONCE: usize = 100;

/// A turn of 64 KiB in reads of 32 KiB, each with a write, and at either end a flush, a FIN, and a read that brings nothing;
/// and as much again for a connection that was left over from the turn before.
const MOST_CALLS: usize = 400;

/// What may be read between two waits: at each event 64 KiB and a buffer of 32 KiB, and for those who were left over 512 KiB and a buffer.
const MOST_BYTES_AN_EVENT: usize = (64 + 32) * 1024;
const MOST_LEFTOVER_BYTES: usize = (512 + 32) * 1024;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// Somebody connects to a listener.
    Connect(usize),
    /// More than may be accepted in a turn connect to a listener.
    ConnectMany(usize),
    /// Something happens to one of the connections.
    Peer(usize, Outside),
    /// The next accept fails.
    AcceptFails(i32),
    /// epoll_wait(2) returns, with the events in an order that this number decides.
    Turn(u64),
    /// It tells of a connection that has gone.
    Stale,
}

fn step() -> impl Strategy<Value = Step> {
    let errno = prop::sample::select(vec![libc::EINTR, libc::ECONNABORTED, libc::EPROTO, libc::EPERM, libc::EMFILE]);
    prop_oneof![
        4 => (0..LISTENERS).prop_map(Step::Connect),
        1 => (0..LISTENERS).prop_map(Step::ConnectMany),
        30 => (0_usize..12, outside()).prop_map(|(peer, outside)| Step::Peer(peer, outside)),
        1 => (0_usize..12).prop_map(|peer| Step::Peer(peer, Outside::Reset)),
        1 => errno.prop_map(Step::AcceptFails),
        12 => any::<u64>().prop_map(Step::Turn),
        1 => Just(Step::Stale),
    ]
}

/// A connection as the server has it.
struct Connected {
    socket: Shared,
    world: Rc<RefCell<World>>,
    number: usize,
}

impl Stream for Connected {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.recv(buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.send(bytes)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.socket.shutdown_write()
    }

    fn splice_into(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        self.socket.splice_into(pipe, most)
    }

    fn splice_from(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        self.socket.splice_from(pipe, most)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        if let Some((token, _)) = world.watched.remove(&self.number) {
            world.gone.push(token);
        }
    }
}

/// Everything outside of the server.
#[derive(Default)]
struct World {
    script: VecDeque<Step>,
    sockets: Vec<Shared>,
    queues: [VecDeque<usize>; LISTENERS],
    listener_edges: [bool; LISTENERS],
    accept_errors: VecDeque<i32>,
    watched: BTreeMap<usize, (Token, EpollFlags)>,
    gone: Vec<Token>,
    untold: Vec<(Token, EpollFlags)>,
    /// How many events the server was told of at its last wait.
    told: usize,
    signals: VecDeque<i32>,
    has_told_of_signals: bool,
    is_over: bool,
}

impl World {
    fn take(&mut self, step: Step) {
        match step {
            Step::Connect(listener) => {
                self.queues[listener].push_back(self.sockets.len());
                self.listener_edges[listener] = true;
                self.sockets.push(Shared(Rc::new(RefCell::new(Socket::new(MOST_CALLS, 1_500)))));
            }
            Step::ConnectMany(listener) => (0..70).for_each(|_| self.take(Step::Connect(listener))),
            Step::Peer(peer, outside) => {
                if let Some(socket) = self.sockets.get(peer) {
                    socket.0.borrow_mut().happen(outside);
                }
            }
            Step::AcceptFails(errno) => self.accept_errors.push_back(errno),
            Step::Turn(_) | Step::Stale => {}
        }
    }

    /// The script is at its end: all who are there take everything, and have nothing more to say.
    fn finish(&mut self) {
        self.is_over = true;
        self.accept_errors.clear();
        for socket in &self.sockets {
            let mut socket = socket.0.borrow_mut();
            socket.happen(Outside::Take(1_000_000));
            socket.happen(Outside::Finish);
        }
    }

    fn events(&mut self, order: u64, with_stale: bool) -> Vec<(Token, EpollFlags)> {
        let mut events = Vec::new();
        let mut read_bytes = 0;
        for (number, &(token, interest)) in &self.watched {
            let mut socket = self.sockets[*number].0.borrow_mut();
            socket.calls_this_turn = 0;
            read_bytes += std::mem::take(&mut socket.read_this_turn);
            let always = EpollFlags::ERR | EpollFlags::HUP;
            let edges = std::mem::replace(&mut socket.edges, EpollFlags::empty()) & (interest | always);
            if !edges.is_empty() {
                events.push((token, edges));
            }
        }
        let most = std::mem::take(&mut self.told) * MOST_BYTES_AN_EVENT + MOST_LEFTOVER_BYTES;
        assert!(read_bytes <= most, "invariant 4: {read_bytes} bytes were read in one turn, of {most}");
        for (index, edge) in self.listener_edges.iter_mut().enumerate() {
            if std::mem::take(edge) {
                events.push((Server::<Echo, Scripted>::listener_token(index), EpollFlags::IN));
            }
        }
        if !self.signals.is_empty() && !std::mem::replace(&mut self.has_told_of_signals, true) {
            events.push((Server::<Echo, Scripted>::signals_token(), EpollFlags::IN));
        }
        if with_stale {
            events.extend(self.gone.iter().map(|&token| (token, EpollFlags::IN | EpollFlags::OUT | EpollFlags::HUP)));
        }
        // Any order will do, as long as the seed decides it.
        events.sort_by_key(|(token, _)| {
            format!("{token:?}").bytes().fold(order, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
        });
        events
    }
}

#[derive(Clone)]
struct Scripted(Rc<RefCell<World>>);

impl Kernel for Scripted {
    type Stream = Connected;
    type Listener = usize;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&mut self, events: &mut Events, wait: Wait) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        loop {
            let mut order = 0;
            let mut with_stale = false;
            while let Some(step) = world.script.pop_front() {
                match step {
                    Step::Turn(number) => {
                        order = number;
                        break;
                    }
                    Step::Stale => with_stale = true,
                    step => world.take(step),
                }
            }
            if world.script.is_empty() && !world.is_over {
                world.finish();
            }
            // As many as the server has room for, and the others the next time, when some may concern who has gone since.
            let mut told = std::mem::take(&mut world.untold);
            told.extend(world.events(order, with_stale));
            world.untold = told.split_off(told.len().min(EVENTS_AT_ONCE));
            if !told.is_empty() || wait == Wait::Poll {
                world.told = told.len();
                events.fill(told);
                return Ok(());
            }
            if !world.script.is_empty() {
                continue;
            }
            // Nothing more will happen by itself. The server may wait for a pause to pass, or for the signal that ends it.
            if let Wait::Until(at) = wait
                && at < Instant::now() + Duration::from_millis(1_500)
            {
                // The server looks at the real clock: only real time ends its pause.
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                events.fill([]);
                return Ok(());
            }
            assert!(!world.has_told_of_signals, "invariant 3: the server waits for what will never come");
            assert!(
                world.queues.iter().all(VecDeque::is_empty),
                "invariant 3: somebody waits to be accepted, and would for ever"
            );
            world.signals.push_back(libc::SIGTERM);
        }
    }

    fn watch(&mut self, stream: &Connected, token: Token, interest: EpollFlags) -> io::Result<()> {
        self.0.borrow_mut().watched.insert(stream.number, (token, interest));
        let mut socket = stream.socket.0.borrow_mut();
        socket.edges = socket.state();
        Ok(())
    }

    fn rewatch(&mut self, stream: &Connected, token: Token, interest: EpollFlags) -> io::Result<()> {
        self.watch(stream, token, interest)
    }

    fn accept(&mut self, &listener: &usize) -> io::Result<(Connected, SocketAddr)> {
        let mut world = self.0.borrow_mut();
        if let Some(errno) = world.accept_errors.pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let number = world.queues[listener].pop_front().ok_or_else(|| io::Error::from_raw_os_error(libc::EAGAIN))?;
        let socket = world.sockets[number].clone();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1_000 + number as u16));
        Ok((Connected { socket, world: Rc::clone(&self.0), number }, peer))
    }

    fn next_signal(&mut self) -> io::Result<Option<i32>> {
        Ok(self.0.borrow_mut().signals.pop_front())
    }
}

/// Plays one schedule, from the first connection to the end of the drain.
fn play(script: Vec<Step>) -> (Summary, Rc<RefCell<World>>) {
    let world = Rc::new(RefCell::new(World { script: script.into(), ..World::default() }));
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let listeners = (0..LISTENERS).map(|index| (index, address(index as u16 + 1)));
    let server =
        Server::on_kernel(Echo, &Config::default(), Scripted(Rc::clone(&world)), listeners).expect("a good configuration");
    (server.run().expect("no fault here ends it"), world)
}

fn check(seed: u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let script = prop::collection::vec(step(), 1..120).new_tree(&mut runner).expect("a schedule").current();

    let (summary, world) = play(script);
    let world = world.borrow();
    assert_eq!(summary.aborted, 0, "invariant 8: somebody was cut off");
    assert_eq!(summary.statistics.accepted, world.sockets.len() as u64, "everybody was let in");
    assert!(world.watched.is_empty(), "a connection was left open");
    for (number, socket) in world.sockets.iter().enumerate() {
        let socket = socket.0.borrow();
        assert!(socket.sent_by_peer.starts_with(&socket.echoed), "invariant 1: {number} got something else");
        if !socket.is_reset {
            assert_eq!(socket.echoed.len(), socket.sent_by_peer.len(), "invariant 1: {number} did not get everything");
        }
    }
    let closed = |reason| summary.statistics.closed_for(reason);
    assert_eq!(closed(Reason::Peer) + closed(Reason::Reset), summary.statistics.accepted);
}

#[test]
fn every_schedule_ends_with_every_byte_echoed() {
    let seeds = match std::env::var("EDGECHO_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("EDGECHO_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..10_000,
    };
    for seed in seeds {
        if std::panic::catch_unwind(|| check(seed)).is_err() {
            panic!("EDGECHO_SEED={seed} cargo test --test server_schedules plays this schedule again");
        }
    }
}

/// Many who have much to say: none of them has more than a share of a turn, all come to their end, and the loop asks the kernel for news
/// after each share.
#[test]
fn a_turn_is_bounded_however_many_have_much_to_say() {
    const FIREHOSES: usize = 30;
    let mut script = vec![Step::Connect(0); FIREHOSES];
    script.push(Step::Turn(1));
    for peer in 0..FIREHOSES {
        script.push(Step::Peer(peer, Outside::Take(10_000)));
        script.push(Step::Peer(peer, Outside::Send(2_000)));
    }
    script.push(Step::Turn(2));
    let (summary, world) = play(script);
    let world = world.borrow();
    assert!(world.sockets.iter().all(|socket| socket.0.borrow().echoed.len() == 2_000 * 1_500));
    // 3 MB each, of which 96 KiB at the event and the rest in shares of up to 544 KiB.
    let shares = (FIREHOSES * 2_000 * 1_500 - FIREHOSES * MOST_BYTES_AN_EVENT) / MOST_LEFTOVER_BYTES;
    assert!(summary.statistics.turns as usize >= shares, "{} turns for {shares} shares", summary.statistics.turns);
}
