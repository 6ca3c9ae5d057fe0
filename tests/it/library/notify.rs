//! The notifier and observers, in a loop that this test can stop.

use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use edgecho::protocol::{Echo, Protocol, Reply};
use edgecho::server::{Observer, Server, Stage, View};
use edgecho::service::notify::Notifier;

use super::Running;
use crate::scratch::Scratch;
use crate::support::client::{connect, echo};
use crate::support::{PATIENCE, pause};

/// Hangs at each input, until the test lets it go on.
struct Hangs(Receiver<()>);

impl Protocol for Hangs {
    type Session = ();

    fn open(&mut self, _reply: &mut impl Reply) {}

    fn receive(&mut self, (): &mut (), input: &[u8], reply: &mut impl Reply) {
        self.0.recv().expect("the test lets it go on");
        reply.send(input);
    }
}

#[test]
fn a_loop_that_hangs_does_not_feed_the_watchdog() {
    let scratch = Scratch::new();
    let manager = UnixDatagram::bind(scratch.file("notify")).expect("a receiver");
    let watchdog = Duration::from_millis(200);
    let notifier = Notifier::connect(scratch.file("notify").as_ref(), Some(watchdog)).expect("connected");
    let (go_on, hangs) = mpsc::channel();
    let (sender, handles) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let builder = Server::builder().listen("127.0.0.1:0".parse().expect("an address")).signals(false);
        let mut server = builder.bind(Hangs(hangs)).expect("a server");
        server.set_observer(notifier);
        sender.send(server.handle().expect("a handle")).expect("the test waits for it");
        server.run()
    });
    let server = Running { handle: handles.recv().expect("a handle"), thread };
    let next = |patience: Duration| {
        let mut buffer = [0; 256];
        manager.set_read_timeout(Some(patience)).expect("a timeout");
        manager.recv(&mut buffer).ok().map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned())
    };
    assert_eq!(next(PATIENCE).as_deref(), Some("READY=1\nSTATUS=serving 0 connections"));
    for _ in 0..3 {
        assert_eq!(next(PATIENCE).as_deref(), Some("WATCHDOG=1"));
    }
    let client = connect(server.address());
    std::io::Write::write_all(&mut &client, b"hang").expect("send");
    // Drops the messages from before the loop hung, until nothing comes for five times the interval.
    while next(watchdog * 5 / 2).is_some() {}
    assert_eq!(next(watchdog * 5 / 2), None, "the loop hangs");
    go_on.send(()).expect("it waits");
    while next(PATIENCE).as_deref() != Some("WATCHDOG=1") {}
    drop(client);
    server.end();
    let last = std::iter::from_fn(|| next(Duration::from_millis(100)));
    assert!(last.into_iter().any(|message| message == "STOPPING=1"), "the drain was not notified");
}

/// Asks to be called after each of these times.
struct Alarms(Vec<Duration>, Sender<View>);

impl Observer for Alarms {
    fn observe(&mut self, view: &View) -> Option<Instant> {
        let _ = self.1.send(*view);
        self.0.pop().map(|after| view.now + after)
    }
}

#[test]
fn an_observer_is_called_at_its_time_and_after_a_change_and_else_never() {
    let step = Duration::from_millis(30);
    let (sender, views) = mpsc::channel();
    let mut server =
        Server::builder().listen("127.0.0.1:0".parse().expect("an address")).signals(false).bind(Echo).expect("a server");
    server.set_observer(Alarms(vec![step; 2], sender));
    let handle = server.handle().expect("a handle");
    let server = Running { handle, thread: std::thread::spawn(move || server.run()) };
    let next = || views.recv_timeout(PATIENCE).expect("a call");
    let times = [next().now, next().now, next().now];
    assert!(times[1] - times[0] >= step && times[2] - times[1] >= step, "{times:?}");
    pause(step * 4);
    assert!(views.try_recv().is_err(), "nothing has changed, and no time was asked for");
    let client = connect(server.address());
    echo(&client, b"hello");
    let view = next();
    assert_eq!((view.stage, view.open, view.accepted), (Stage::Serving, 1, 1));
    echo(&client, b"an echo changes nothing");
    assert!(views.try_recv().is_err(), "an echo changes nothing");
    server.handle.drain();
    assert_eq!(next().stage, Stage::Draining);
    drop(client);
    server.end();
}
