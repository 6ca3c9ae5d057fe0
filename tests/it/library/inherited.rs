//! Sockets that another process has opened and passes on.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use edgecho::protocol::Echo;
use edgecho::server::{Builder, Error, Inherited, Server, Stage};
use nix::sys::socket::{MsgFlags, send};
use socket2::{Domain, Protocol as Transport, Socket, Type};

use super::Running;
use crate::scratch::Scratch;
use crate::support::client::{assert_same, connect, echo, finish, pattern, read_to_fin};
use crate::support::eventually;

const ANY_PORT: &str = "127.0.0.1:0";

/// Starts a server on a copy of a socket.
fn start_on(socket: &TcpListener, builder: Builder) -> Running {
    let socket = socket.try_clone().expect("a copy");
    let mut server = builder.signals(false).bind_with(Echo, [socket.into()]).expect("a server");
    let handle = server.handle().expect("a handle");
    Running { handle, thread: std::thread::spawn(move || server.run()) }
}

fn listener(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).expect("a listener");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Sends a message, finishes, and reads its echo up to the FIN.
fn exchange(stream: &TcpStream, seed: u64) {
    let message = pattern(seed, 3_000);
    (&mut &*stream).write_all(&message).expect("send");
    finish(stream);
    assert_same(&read_to_fin(stream), &message);
}

#[test]
fn each_descriptor_that_is_not_a_listening_tcp_socket_is_refused_by_number_and_name() {
    let scratch = Scratch::new();
    let (_listener, address) = listener(ANY_PORT);
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    bound.bind(&ANY_PORT.parse::<SocketAddr>().expect("an address").into()).expect("bind");
    let mut descriptors: Vec<(OwnedFd, &str)> = vec![
        (std::fs::File::open("/dev/null").expect("a file").into(), "it is not a socket;"),
        (UdpSocket::bind(ANY_PORT).expect("a socket").into(), "it is a UDP socket;"),
        (UnixListener::bind(scratch.file("socket")).expect("a socket").into(), "it is a UNIX socket;"),
        (connect(address).into(), "it is a TCP socket that does not listen;"),
        (bound.into(), "it is a TCP socket that does not listen;"),
    ];
    if let Ok(other) = Socket::new(Domain::IPV4, Type::STREAM, Some(Transport::MPTCP)) {
        descriptors.push((other.into(), "it is a socket of the IP protocol 262;"));
    }
    for (descriptor, reason) in descriptors {
        let number = descriptor.as_raw_fd();
        let socket = Inherited::new(descriptor, "web");
        let Err(error) = Server::builder().signals(false).bind_with(Echo, [socket]) else { panic!("it serves: {reason}") };
        let error = error.to_string();
        let start = format!("cannot serve the inherited descriptor {number} (\"web\"): {reason}");
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn a_server_with_inherited_sockets_listens_on_no_other_address_unless_asked_to() {
    let (four, four_address) = listener(ANY_PORT);
    let (six, six_address) = listener("[::1]:0");
    let sockets = || [&four, &six].map(|socket| Inherited::from(socket.try_clone().expect("a copy")));
    let server = Server::builder().signals(false).bind_with(Echo, sockets()).expect("a server");
    assert_eq!(server.local_addresses().collect::<Vec<_>>(), [four_address, six_address]);
    drop(server);
    let builder = Server::builder().listen(ANY_PORT.parse().expect("an address")).signals(false);
    let server = builder.bind_with(Echo, sockets()).expect("a server");
    let addresses: Vec<_> = server.local_addresses().collect();
    assert_eq!((&addresses[..2], addresses.len()), (&[four_address, six_address] as &[_], 3));
}

#[test]
fn an_option_that_only_the_opener_can_set_is_refused_unless_the_socket_has_it() {
    let open = |address: &str, prepare: fn(&Socket)| {
        let address: SocketAddr = address.parse().expect("an address");
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        prepare(&socket);
        socket.bind(&address.into()).expect("bind");
        socket.listen(8).expect("listen");
        Inherited::new(socket.into(), "")
    };
    let shared = |socket: Inherited| {
        Server::builder().configure(|config| config.sockets.reuse_port = true).signals(false).bind_with(Echo, [socket])
    };
    let six_only = |socket: Inherited| {
        Server::builder().configure(|config| config.sockets.ipv6_only = true).signals(false).bind_with(Echo, [socket])
    };
    let error = shared(open(ANY_PORT, |_| {})).err().expect("too late");
    assert!(matches!(error, Error::TooLate { option: "sockets.reuse_port", .. }), "{error}");
    assert!(error.to_string().ends_with("which is bound already; in systemd.socket(5), use ReusePort=yes"), "{error}");
    shared(open(ANY_PORT, |socket| socket.set_reuse_port(true).expect("SO_REUSEPORT"))).expect("it is shared");
    let error = six_only(open("[::]:0", |socket| socket.set_only_v6(false).expect("IPV6_V6ONLY"))).err().expect("too late");
    assert!(error.to_string().ends_with("use BindIPv6Only=ipv6-only"), "{error}");
    six_only(open("[::]:0", |socket| socket.set_only_v6(true).expect("IPV6_V6ONLY"))).expect("it has the option");
    let error = six_only(open(ANY_PORT, |_| {})).err().expect("there is no IPv6 address");
    assert!(error.to_string().starts_with("sockets.ipv6_only has no effect"), "{error}");
}

#[test]
fn an_urgent_byte_of_a_client_that_was_queued_before_the_server_comes_back_at_its_place() {
    let (socket, address) = listener(ANY_PORT);
    let mut client = connect(address);
    client.write_all(b"before ").expect("send");
    send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("send");
    client.write_all(b" after").expect("send");
    finish(&client);
    let server = start_on(&socket, Server::builder());
    assert_eq!(read_to_fin(&client), b"before ! after");
    server.end();
}

#[test]
fn a_drain_leaves_the_queue_of_an_inherited_socket_to_the_next_server() {
    let (socket, address) = listener(ANY_PORT);
    // The first generation has a single place, so that clients are queued when the drain begins. It ends in order, without time, or at once.
    for (round, drain_ms) in [(0, 5_000), (1, 0), (2, 5_000)] {
        let one_place = Server::builder().configure(|config| {
            config.limits.max_connections = Some(1);
            config.timeouts.drain = Duration::from_millis(drain_ms);
        });
        let first = start_on(&socket, one_place);
        let served = connect(address);
        echo(&served, b"hello");
        let queued: Vec<_> = (0..5).map(|_| connect(address)).collect();
        if round == 2 {
            first.handle.stop();
        } else {
            first.handle.drain();
        }
        let late = connect(address);
        drop(served);
        let summary = first.thread.join().expect("no panic").expect("no error");
        assert_eq!(summary.statistics.accepted, 1, "only one client had a place, in round {round}");
        let second = start_on(&socket, Server::builder());
        for (seed, stream) in (0..).zip(queued.iter().chain([&late])) {
            exchange(stream, seed);
        }
        assert_eq!(second.end().statistics.accepted, 6);
    }
}

#[test]
fn clients_of_a_shared_socket_do_not_wake_a_server_that_has_left_it() {
    let (socket, address) = listener(ANY_PORT);
    let server = start_on(&socket, Server::builder());
    let open = connect(address);
    echo(&open, b"hello");
    server.handle.drain();
    let events = || {
        let statistics = server.handle.statistics().expect("a client is open");
        assert_eq!(statistics.stage, Stage::Draining);
        statistics.events
    };
    let before = events();
    // The echo shows that the server has had the event of the new client, if there was one.
    let connect_and_echo = |_| {
        let queued = connect(address);
        echo(&open, b"hello");
        queued
    };
    let queued: Vec<_> = (0..20).map(connect_and_echo).collect();
    let events = events() - before;
    assert!(events < 30, "{events} events for 20 echoes: the {} new clients woke the loop", queued.len());
    drop(open);
    server.end();
}

#[test]
fn a_socket_that_another_process_shuts_down_ends_the_server_only_if_it_is_the_last_one() {
    let ((one, one_address), (other, other_address)) = (listener(ANY_PORT), listener(ANY_PORT));
    let sockets = [&one, &other].map(|socket| Inherited::from(socket.try_clone().expect("a copy")));
    let mut server = Server::builder().signals(false).bind_with(Echo, sockets).expect("a server");
    let server = Running { handle: server.handle().expect("a handle"), thread: std::thread::spawn(move || server.run()) };
    let stream = connect(one_address);
    echo(&stream, b"before");
    let shut_down = |socket: &TcpListener| {
        socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Both).expect("shut down");
    };
    shut_down(&one);
    echo(&stream, b"the connection stays");
    echo(&connect(other_address), b"and so does the other socket");
    assert!(server.handle.statistics().is_some(), "it runs");
    shut_down(&other);
    let error = server.thread.join().expect("no panic").expect_err("it accepts nothing more").to_string();
    assert!(error.starts_with("cannot accept connections (accept4): Invalid argument"), "{error}");
}

/// `O_NONBLOCK` belongs to the socket, not to the descriptor: another process that has the socket open can clear it (open(2)).
#[test]
fn a_socket_that_another_process_makes_blocking_does_not_block_the_server() {
    let (socket, address) = listener(ANY_PORT);
    let server = start_on(&socket, Server::builder());
    let first = connect(address);
    for _ in 0..5 {
        echo(&first, b"before");
        socket.set_nonblocking(false).expect("blocking");
        let newcomer = connect(address);
        echo(&newcomer, b"the server had accepted all, and tried once more");
        echo(&first, b"after");
    }
    eventually("the server makes the socket non-blocking again", || {
        socket2::SockRef::from(&socket).nonblocking().expect("O_NONBLOCK").then_some(())
    });
    socket.set_nonblocking(false).expect("blocking");
    drop(first);
    assert_eq!(server.end().aborted, 0);
}
