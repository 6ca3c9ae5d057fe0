//! Input that a protocol leaves unread, and output that the peer takes slowly.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgecho::protocol::{Echo, Protocol, Reply, Timer};
use edgecho::server::Server;

use super::Running;
use crate::support::client::{assert_same, connect, finish, pattern, read_to_fin, reset};
use crate::support::{pause, wait_until};

/// Takes up to three bytes at a time, answers each with a kilobyte, and notes what it is called for, without repetitions.
#[derive(Default)]
struct Nibbler {
    /// Takes nothing before [`Post::resume`].
    is_shy: bool,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

impl Nibbler {
    fn note(&self, call: &'static str) {
        let mut calls = self.calls.lock().expect("no panic");
        if calls.last() != Some(&call) {
            calls.push(call);
        }
    }
}

impl Protocol for Nibbler {
    type Session = ();

    fn open(&mut self, _reply: &mut impl Reply) {}

    fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        assert!(reply.pending_bytes() == 0, "input is offered only when nothing is pending");
        let taken = if self.is_shy { 0 } else { input.len().min(3) };
        self.note(if taken > 0 { "takes some" } else { "takes nothing" });
        for byte in &input[..taken] {
            reply.send(&[*byte; 1024]);
        }
        reply.leave(input.len() - taken);
        if self.is_shy {
            reply.set_timer(Timer::once(1, Duration::from_millis(20)));
        }
    }

    fn on_timer(&mut self, (): &mut (), _timer: u32, reply: &mut impl Reply) {
        self.is_shy = false;
        self.note("timer");
        let id = reply.id();
        reply.post().resume(id);
    }

    fn drained(&mut self, (): &mut (), reply: &mut impl Reply) {
        assert_eq!(reply.pending_bytes(), 0);
        self.note("drained");
    }

    fn finish(&mut self, (): &mut (), reply: &mut impl Reply) {
        self.note("finish");
        reply.send(b"end");
    }
}

/// Returns the answer of a [`Nibbler`].
fn nibbled(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|&byte| [byte; 1024]).chain(*b"end").collect()
}

#[test]
fn left_input_is_offered_again_until_all_is_taken_and_then_the_fin_is_told() {
    for is_shy in [false, true] {
        let nibbler = Nibbler { is_shy, ..Nibbler::default() };
        let calls = Arc::clone(&nibbler.calls);
        let server = Running::start(nibbler, Server::builder());
        let stream = connect(server.address());
        let bytes = pattern(1, 20_000);
        (&stream).write_all(&bytes).expect("send");
        finish(&stream);
        if !is_shy {
            server.stall();
        }
        assert_same(&read_to_fin(&stream), &nibbled(&bytes));
        drop(stream);
        let statistics = server.end().statistics;
        assert_eq!(statistics.pending_bytes, 0, "{statistics}");
        assert!(statistics.most_pending_bytes < 64 << 10, "one read and three answers: {statistics}");
        let calls = calls.lock().expect("no panic");
        assert_eq!(
            (calls.last(), calls.iter().filter(|call| **call == "finish").count()),
            (Some(&"finish"), 1),
            "{calls:?}"
        );
        if is_shy {
            assert_eq!(calls[..3], ["takes nothing", "timer", "takes some"], "{calls:?}");
        } else {
            assert!(calls.contains(&"drained"), "{calls:?}");
        }
    }
}

/// Takes nothing, and closes after a while.
struct Refuser;

impl Protocol for Refuser {
    type Session = ();

    fn open(&mut self, _reply: &mut impl Reply) {}

    fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        reply.leave(input.len());
        reply.set_timer(Timer::once(1, Duration::from_millis(20)));
    }

    fn on_timer(&mut self, (): &mut (), _timer: u32, reply: &mut impl Reply) {
        reply.close();
    }
}

#[test]
fn a_timer_can_close_a_connection_whose_peer_has_finished_and_whose_input_is_left() {
    let server = Running::start(Refuser, Server::builder());
    let stream = connect(server.address());
    (&stream).write_all(b"never taken").expect("send");
    finish(&stream);
    assert_eq!(read_to_fin(&stream), b"");
    wait_until("it is closed", || server.handle.statistics().expect("it is running").open == 0);
    server.end();
}

#[test]
fn a_timer_posted_to_a_protocol_that_only_answers_never_comes_and_costs_nothing() {
    let server = Running::start(Echo, Server::builder());
    server.handle.post(|post| post.set_timer(Timer::every(1, Duration::from_millis(1)))).expect("it is running");
    let turns = || server.handle.statistics().expect("it is running").turns;
    let before = turns();
    let stream = connect(server.address());
    pause(Duration::from_millis(50)); // the timer would come 50 times
    assert!(turns() - before < 10, "the loop sleeps");
    drop(stream);
    server.end();
}

#[test]
fn a_connection_that_is_closed_with_left_input_leaves_nothing_behind() {
    let server = Running::start(Nibbler { is_shy: true, ..Nibbler::default() }, Server::builder());
    let stream = connect(server.address());
    (&stream).write_all(b"never taken").expect("send");
    let figures = || server.handle.statistics().expect("it is running");
    wait_until("it is counted as memory", || figures().pending_bytes == 11);
    reset(stream);
    wait_until("it is closed", || figures().open == 0);
    assert_eq!(figures().pending_bytes, 0);
    server.end();
}

/// Sends a stream without end, as the peer takes it: from `open` on by way of `drained` alone.
struct Stream {
    drains: Arc<AtomicUsize>,
}

const PORTION: usize = 16 << 20;

impl Protocol for Stream {
    type Session = usize;

    fn open(&mut self, reply: &mut impl Reply) -> usize {
        reply.send(&vec![0; PORTION]);
        1
    }

    fn receive(&mut self, _session: &mut usize, _input: &[u8], _reply: &mut impl Reply) {}

    fn drained(&mut self, portions: &mut usize, reply: &mut impl Reply) {
        self.drains.fetch_add(1, Ordering::Relaxed);
        if *portions < 4 {
            *portions += 1;
            reply.send(&vec![0; PORTION]);
        }
    }
}

#[test]
fn drained_is_told_each_time_that_all_is_sent_and_also_after_the_fin() {
    let drains = Arc::new(AtomicUsize::new(0));
    let server = Running::start(Stream { drains: Arc::clone(&drains) }, Server::builder());
    let stream = connect(server.address());
    finish(&stream);
    assert_eq!(read_to_fin(&stream).len(), 4 * PORTION, "more than the sockets hold at once");
    assert_eq!(drains.load(Ordering::Relaxed), 4);
    let statistics = server.end().statistics;
    assert!(statistics.most_pending_bytes <= PORTION as u64, "{statistics}");
}
