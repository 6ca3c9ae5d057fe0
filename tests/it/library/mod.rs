//! The library as its users build on it: the examples run in threads of this process, and clients use real sockets.

mod ending;
mod inherited;
mod input;
mod notify;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::examples::{chat, discard, login, store};
use crate::support::client::{assert_same, connect, connect_with_receive_buffer, echo, finish, pattern, read_to_fin, stuff};
use crate::support::{eventually, pause, raise_descriptor_limit, wait_until};
use edgecho::protocol::{Echo, Post, Protocol, Recipients, Reply, SessionId, Timer};
use edgecho::server::{Builder, Error, Handle, PostError, Server, Summary};

/// A server in a thread of its own.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    thread: JoinHandle<Result<Summary, Error>>,
}

impl Running {
    pub(crate) fn start<P: Protocol + Send + 'static>(protocol: P, builder: Builder) -> Self
    where
        P::Session: Send,
    {
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut server = builder.listen("127.0.0.1:0".parse().expect("an address")).signals(false).bind(protocol)?;
            sender.send(server.handle().expect("a handle")).expect("somebody waits for it");
            server.run()
        });
        Self { handle: receiver.recv().expect("a server"), thread }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.handle.local_addresses()[0]
    }

    /// Waits until bytes are pending and none have gone out for a while.
    pub(crate) fn stall(&self) {
        let (mut last, mut looks) = (0, 0);
        eventually("the server waits for its peer", || {
            let statistics = self.handle.statistics()?;
            looks = if statistics.pending_bytes > 0 && statistics.sent_bytes == last { looks + 1 } else { 0 };
            last = statistics.sent_bytes;
            (looks > 20).then_some(())
        });
    }

    pub(crate) fn end(self) -> Summary {
        self.handle.drain();
        self.thread.join().expect("no panic").expect("no error")
    }
}

fn lines(stream: &TcpStream) -> BufReader<&TcpStream> {
    BufReader::new(stream)
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    line
}

#[test]
fn a_thousand_members_hear_one_and_a_deaf_member_holds_up_nobody() {
    const MEMBERS: usize = 1_000;
    const SAID: usize = 200;
    raise_descriptor_limit();
    let builder = Server::builder().configure(|config| {
        config.limits.outbox_limit = 4096;
        config.timeouts.write = None;
    });
    let room = Running::start(chat::Chat::default(), builder);
    let deaf = connect(room.address());
    let members: Vec<TcpStream> = (0..MEMBERS).map(|_| connect(room.address())).collect();
    let mut readers: Vec<_> = members.iter().map(lines).collect();
    for reader in &mut readers {
        assert!(line(reader).starts_with("Welcome, "));
    }
    let name = members[0].local_addr().expect("an address");
    let mut speaker = &members[0];
    for number in 0..SAID {
        speaker.write_all(format!("{number} {}\n", "x".repeat(500)).as_bytes()).expect("send");
        for reader in &mut readers {
            assert!(line(reader).starts_with(&format!("{name}: {number} x")), "each once, and in order");
        }
    }
    // The member that reads nothing got what its socket took and what its outbox may hold. The rest was skipped.
    let statistics = room.handle.statistics().expect("it is running");
    assert!(statistics.pending_bytes <= 4096, "{statistics}");
    assert!(statistics.sent_bytes as usize >= MEMBERS * SAID * 500, "{statistics}");
    drop((readers, deaf));
    for member in &members {
        finish(member);
    }
    drop(members);
    let summary = room.end();
    assert_eq!(summary.aborted, 0);
}

#[test]
fn members_leave_in_order_and_the_others_are_told() {
    let room = Running::start(chat::Chat::default(), Server::builder());
    let (one, other) = (connect(room.address()), connect(room.address()));
    let (mut hears_one, mut hears_other) = (lines(&one), lines(&other));
    assert!(line(&mut hears_one).ends_with("Members: 1\n") && line(&mut hears_other).ends_with("Members: 2\n"));
    (&other).write_all(b"bye\nquit\n").expect("send");
    assert!(line(&mut hears_one).ends_with(": bye\n"));
    assert!(line(&mut hears_other).ends_with(": bye\n"));
    assert_eq!(line(&mut hears_other), "", "closed");
    drop(hears_other);
    drop(other);
    assert_eq!(line(&mut hears_one), "A member left. Members: 1\n");
    drop(hears_one);
    drop(one);
    assert_eq!(room.end().aborted, 0);
}

#[test]
fn a_member_that_speaks_and_leaves_at_once_still_hears_itself() {
    let room = Running::start(chat::Chat::default(), Server::builder());
    for _ in 0..50 {
        let stream = connect(room.address());
        (&stream).write_all(b"last words\n").expect("send");
        finish(&stream);
        let heard = String::from_utf8(read_to_fin(&stream)).expect("text");
        assert!(heard.contains(": last words\n"), "{heard}");
    }
    assert_eq!(room.end().aborted, 0);
}

#[test]
fn the_store_answers_every_line() {
    let store = Running::start(store::Store::default(), Server::builder());
    let stream = connect(store.address());
    (&stream).write_all(b"GET a\nSET a 1 2 3\nGET a\r\nDELETE a\nDELETE a\nWHAT\n").expect("send");
    finish(&stream);
    let answers = String::from_utf8(read_to_fin(&stream)).expect("text");
    assert!(answers.starts_with("NONE\nOK\nVALUE 1 2 3\nOK\nNONE\nERROR "), "{answers}");
    drop(stream);
    store.end();
}

#[test]
fn discard_takes_what_its_limit_allows_and_returns_nothing() {
    let server = Running::start(discard::Discard::default(), discard::limited(Server::builder(), 1 << 20));
    let stream = connect(server.address());
    let start = Instant::now();
    let bytes = pattern(1, 1 << 20);
    (&stream).write_all(&bytes).expect("send");
    finish(&stream);
    assert_same(&read_to_fin(&stream), b"");
    // A tenth of a second's worth may come at once.
    assert!(start.elapsed() > Duration::from_millis(700), "{:?}", start.elapsed());
    drop(stream);
    assert_eq!(server.end().statistics.received_bytes, 1 << 20);
}

#[test]
fn each_state_of_a_login_has_its_time() {
    let patience = Duration::from_millis(200);
    let server = Running::start(login::Login { patience }, Server::builder());
    let stream = connect(server.address());
    (&stream).write_all(b"Ada\nfriend\nand on\n").expect("send");
    let mut reader = lines(&stream);
    assert_eq!([0, 1, 2, 3].map(|_| line(&mut reader)), ["Name?\n", "Word?\n", "Hello, Ada.\n", "and on\n"]);
    pause(2 * patience);
    (&stream).write_all(b"still in\n").expect("send");
    assert_eq!(line(&mut reader), "still in\n");
    for said in ["", "Ada\n"] {
        let slow = connect(server.address());
        let start = Instant::now();
        (&slow).write_all(said.as_bytes()).expect("send");
        let answer = String::from_utf8(read_to_fin(&slow)).expect("text");
        assert!(answer.ends_with("Too slow.\n") && answer.contains("Word?") != said.is_empty(), "{answer}");
        assert!(start.elapsed() >= patience, "never early");
    }
    let wrong = connect(server.address());
    (&wrong).write_all(b"Ada\nfoe\n").expect("send");
    assert!(read_to_fin(&wrong).ends_with(b"No.\n"));
    drop((reader, wrong));
    drop(stream);
    server.end();
}

/// Counts, and sends each count to all clients and to one.
struct Clockwork {
    ticks: u64,
    first: Option<SessionId>,
}

impl Protocol for Clockwork {
    type Session = u32;

    fn start(&mut self, post: &mut Post) {
        post.set_timer(Timer::every(1, Duration::from_millis(20)));
        post.set_timer(Timer::once(2, Duration::from_millis(5)));
        post.cancel_timer(2);
    }

    fn open(&mut self, reply: &mut impl Reply) -> u32 {
        self.first.get_or_insert(reply.id());
        reply.set_timer(Timer::every(9, Duration::from_millis(50)));
        0
    }

    fn receive(&mut self, _session: &mut u32, _input: &[u8], _reply: &mut impl Reply) {}

    fn on_timer(&mut self, session: &mut u32, timer: u32, reply: &mut impl Reply) {
        assert_eq!(timer, 9);
        *session += 1;
        reply.send(format!("own {session}\n").as_bytes());
    }

    fn on_server_timer(&mut self, timer: u32, post: &mut Post) {
        assert_eq!(timer, 1, "the other was taken back");
        self.ticks += 1;
        post.send(Recipients::All, format!("tick {}\n", self.ticks).as_bytes());
        if let Some(first) = self.first {
            post.send(Recipients::One(first), b"first\n");
            post.send(Recipients::Others(first), b"other\n");
        }
    }
}

#[test]
fn timers_of_the_server_and_of_each_connection_come_by_their_schedule() {
    let server = Running::start(Clockwork { ticks: 0, first: None }, Server::builder());
    let (one, other) = (connect(server.address()), connect(server.address()));
    let start = Instant::now();
    let hear = |stream: &TcpStream| {
        (0..40)
            .map({
                let mut reader = BufReader::new(stream.try_clone().expect("a clone"));
                move |_| line(&mut reader)
            })
            .collect::<Vec<_>>()
    };
    let (first, second) = (hear(&one), hear(&other));
    let count = |heard: &[String], word: &str| heard.iter().filter(|line| line.starts_with(word)).count();
    assert!(count(&first, "first") > 10 && count(&first, "other") == 0, "{first:?}");
    assert!(count(&second, "other") > 10 && count(&second, "first") == 0, "{second:?}");
    let own: Vec<&String> = first.iter().filter(|line| line.starts_with("own")).collect();
    assert!(own.iter().zip(1..).all(|(line, number)| **line == format!("own {number}\n")), "{own:?}");
    assert!(start.elapsed() >= Duration::from_millis(20) * (count(&first, "tick") as u32 - 1), "never early");
    drop((one, other));
    server.end();
}

#[test]
fn a_handle_asks_and_is_answered_until_the_server_has_ended() {
    let server = Running::start(Echo, Server::builder());
    let stream = connect(server.address());
    echo(&stream, b"hello");
    let other = server.handle.clone();
    assert_eq!(other.local_addresses(), [server.address()]);
    let statistics = other.statistics().expect("it is running");
    assert_eq!((statistics.open, statistics.received_bytes), (1, 5));
    other.drain();
    other.drain();
    echo(&stream, b"served on");
    drop(stream);
    let summary = server.thread.join().expect("no panic").expect("no error");
    assert_eq!((summary.aborted, summary.interrupted_by), (0, None));
    assert!(other.statistics().is_none());
    other.stop();

    let server = Running::start(Echo, Server::builder());
    let stream = connect_with_receive_buffer(server.address(), 64 << 10);
    stuff(&stream, &vec![0; 32 << 20]);
    wait_until("bytes are pending", || server.handle.statistics().is_some_and(|figures| figures.pending_bytes > 0));
    server.handle.stop();
    let summary = server.thread.join().expect("no panic").expect("no error");
    assert_eq!(summary.aborted, 1, "who is stopped cuts off");
}

/// The dependencies of the library without the command line.
#[test]
fn the_library_alone_depends_on_little() {
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "tree",
        "--edges",
        "normal",
        "--no-default-features",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--locked",
        "--offline",
    ]);
    let output = command.output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let mut crates: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    crates.sort_unstable();
    crates.dedup();
    // The second list is what thiserror's macro is made of: nothing of it is in the program.
    let mut expected = vec![
        "bitflags",
        "cfg-if",
        "edgecho",
        "errno",
        "libc",
        "nix",
        "once_cell",
        "pin-project-lite",
        "signal-hook",
        "signal-hook-registry",
        "slotmap",
        "thiserror",
        "tracing",
        "tracing-core",
    ];
    expected.extend(["proc-macro2", "quote", "syn", "thiserror-impl", "unicode-ident"]);
    expected.sort_unstable();
    assert_eq!(crates, expected);
}

#[test]
fn the_chat_room_of_the_docs_is_the_one_that_is_tested() {
    let read = |path| std::fs::read_to_string(path).expect(path);
    let (page, chat) = (read("docs/library.md"), read("examples/chat.rs"));
    let code = chat.split_once("\n\n").expect("a head and the code").1;
    let code: Vec<&str> = code.lines().filter(|line| !line.starts_with("#[allow")).collect();
    assert!(page.contains(&code.join("\n")), "docs/library.md has another chat room");
}

#[test]
fn other_threads_post_to_a_server_until_it_has_ended() {
    let server = Running::start(Echo, Server::builder());
    let stream = connect(server.address());
    echo(&stream, b"it is open");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let handle = server.handle.clone();
            std::thread::spawn(move || handle.post(|post| post.send(Recipients::All, b"posted\n")))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic").expect("it is running"));
    let mut reader = lines(&stream);
    assert_eq!([0; 4].map(|_| line(&mut reader)), ["posted\n"; 4]);

    // While the server is busy with one post, the others wait, but not without bound.
    let (release, is_released) = mpsc::channel::<()>();
    server.handle.post(move |_| is_released.recv().expect("released")).expect("it is running");
    let refused = (0..10_000).find_map(|_| server.handle.post(|_| {}).err());
    assert_eq!(refused, Some(PostError::Full));
    release.send(()).expect("it waits");
    drop(reader);
    drop(stream);
    let handle = server.handle.clone();
    server.end();
    assert_eq!(handle.post(|_| unreachable!("the server has ended")), Err(PostError::Ended));
}

/// Panics at the byte `!`.
struct Fragile;

impl Protocol for Fragile {
    type Session = ();

    fn open(&mut self, _reply: &mut impl Reply) {}

    fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        assert!(!input.contains(&b'!'), "no exclamation marks, {}", reply.peer().ip());
        reply.send(input);
    }
}

#[test]
fn a_panic_of_the_protocol_is_an_error_and_ends_the_server() {
    let server = Running::start(Fragile, Server::builder());
    let (one, other) = (connect(server.address()), connect(server.address()));
    echo(&one, b"one");
    echo(&other, b"other");
    (&one).write_all(b"!").expect("send");
    let error = server.thread.join().expect("the panic ends there").expect_err("an error");
    assert_eq!(error.to_string(), "the protocol panicked: no exclamation marks, 127.0.0.1");
    for mut stream in [&one, &other] {
        let end = stream.read(&mut [0]);
        assert!(end.as_ref().is_ok_and(|count| *count == 0) || end.is_err(), "closed: {end:?}");
    }
    assert!(server.handle.statistics().is_none(), "the handle sees the end");
    assert_eq!(server.handle.post(|_| {}), Err(PostError::Ended));
    server.handle.drain();
}
