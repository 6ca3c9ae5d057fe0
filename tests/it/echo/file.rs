//! The echo of a file that the sender changes after sendfile(2).

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use edgecho::sys::socket::unread_bytes;
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::start;
use crate::for_both_servers;
use crate::scratch::Scratch;
use crate::support::client::{assert_same, pattern, receive};
use crate::support::{PATIENCE, Process, Server, wait_until};

for_both_servers!(
    with_copy_an_echo_does_not_change_when_the_senders_file_does,
    without_copy_an_echo_that_is_not_read_changes_with_the_senders_file,
);

/// Sends a file with sendfile(2), overwrites it when all of the echo has arrived and none of it is read, and returns the echo and what
/// the file held before.
fn echo_of_a_file_that_changes(process: &Process) -> (Vec<u8>, Vec<u8>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // The whole echo must fit into our receive queue. Without CAP_NET_ADMIN, the queue is as large as the kernel allows.
    if setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).is_err() {
        socket.set_recv_buffer_size(16 << 20).expect("SO_RCVBUF");
    }
    let length = (socket.recv_buffer_size().expect("SO_RCVBUF") / 4).min(2 << 20);
    socket.connect(&process.address.into()).expect("connect");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");

    let (before, after) = (pattern(1, length), pattern(2, length));
    let scratch = Scratch::new();
    let file = File::options().read(true).write(true).create_new(true).open(scratch.file("sent")).expect("a new file");
    file.write_all_at(&before, 0).expect("a disk with room");
    let mut sent = 0;
    while sent < length {
        sent += sendfile(&stream, &file, None, length - sent).expect("sendfile");
    }
    wait_until("the echo is back", || unread_bytes(stream.as_fd()).expect("SIOCINQ") == length);
    file.write_all_at(&after, 0).expect("a disk with room");

    (receive(&stream, length), before)
}

fn with_copy_an_echo_does_not_change_when_the_senders_file_does(server: Server) {
    let process = Process::start(server, &["--copy"]).expect("it was compiled");
    let (back, before) = echo_of_a_file_that_changes(&process);
    assert_same(&back, &before);
    process.terminate();
}

/// Without `--copy`, splice(2) passes the sender's own pages on. Timing decides how much of the stream takes that way.
fn without_copy_an_echo_that_is_not_read_changes_with_the_senders_file(server: Server) {
    let process = start(server);
    let (back, before) = echo_of_a_file_that_changes(&process);
    let changed = back.iter().zip(&before).filter(|(back, before)| back != before).count();
    assert!(changed > 0, "none of {} bytes changed: the limit that is documented is gone", before.len());
    process.terminate();
}
