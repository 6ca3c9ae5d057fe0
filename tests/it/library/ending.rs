//! The end of a server, seen by its protocol and by other threads.

use std::io::Write;
use std::thread::JoinHandle;

use edgecho::protocol::{Post, Protocol, Reply, SessionId};
use edgecho::server::{Error, Handle, Server};

use super::Running;
use crate::support::client::{connect, echo};

/// Echoes, and waits for a thread of its own when it is dropped.
struct Joins(Option<JoinHandle<()>>, std::sync::mpsc::Receiver<Handle>);

impl Protocol for Joins {
    type Session = ();

    fn open(&mut self, _reply: &mut impl Reply) {
        let handle = self.1.recv().expect("the test sends one");
        self.0 = Some(std::thread::spawn(move || while handle.statistics().is_some() {}));
    }

    fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        reply.send(input);
    }
}

impl Drop for Joins {
    fn drop(&mut self) {
        let thread = self.0.take().expect("a connection was opened");
        thread.join().expect("no panic");
    }
}

#[test]
fn a_thread_that_waits_for_an_answer_learns_that_the_server_has_ended_before_the_protocol_is_dropped() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = Running::start(Joins(None, receiver), Server::builder());
    sender.send(server.handle.clone()).expect("the protocol waits");
    let stream = connect(server.address());
    echo(&stream, b"hello");
    drop(stream);
    server.end();
}

/// Fails when a connection closes.
struct FailsAtTheEnd;

impl Protocol for FailsAtTheEnd {
    type Session = ();

    fn open(&mut self, _reply: &mut impl Reply) {}

    fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        reply.send(input);
    }

    fn close(&mut self, (): (), _id: SessionId, post: &mut Post) {
        post.fail("not saved".to_owned());
    }
}

#[test]
fn a_failure_while_the_last_connections_are_cut_off_is_the_result_of_the_run() {
    let server = Running::start(FailsAtTheEnd, Server::builder());
    let stream = connect(server.address());
    echo(&stream, b"hello");
    server.handle.stop();
    let error = server.thread.join().expect("no panic").expect_err("it fails");
    assert!(matches!(&error, Error::Protocol { reason, .. } if reason == "not saved"), "{error}");
}

/// Panics at input. The session is dropped with the server, and panics as well.
struct PanicsInDrop;

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

impl Protocol for PanicsInDrop {
    type Session = Bomb;

    fn open(&mut self, _reply: &mut impl Reply) -> Bomb {
        Bomb
    }

    fn receive(&mut self, _bomb: &mut Bomb, input: &[u8], _reply: &mut impl Reply) {
        panic!("received {} bytes", input.len());
    }
}

#[test]
fn a_panic_in_the_drop_of_a_session_does_not_leave_run() {
    let server = Running::start(PanicsInDrop, Server::builder());
    let stream = connect(server.address());
    (&stream).write_all(b"hello").expect("send");
    let error = server.thread.join().expect("run does not panic").expect_err("it fails");
    assert_eq!(error.to_string(), "the protocol panicked: received 5 bytes");
}
