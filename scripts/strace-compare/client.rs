//! The client of `scripts/strace-compare.sh`: it runs one scenario against a traced server, step by step.
//!
//! After each step the client waits until the server is back in epoll_wait(2), so that the scenario decides what the server does,
//! and not the timing. Where the server has to find several changes at once, it is stopped (SIGSTOP) while they are made.
#![allow(missing_docs, unreachable_pub, reason = "a program, not a library")]

#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, SockRef, Socket, Type};
use support::client::{assert_same, connect, echo, finish, pattern, read_to_fin, reset};
use support::{eventually, proc};

/// Run a scenario against a traced server
#[derive(Debug, Parser)]
struct Options {
    /// Name of the scenario
    scenario: String,
    /// Address of the server
    address: SocketAddr,
    /// Process id of the server
    pid: u32,
    /// File that strace writes to
    trace: PathBuf,
}

/// A server under strace.
struct Traced(Options);

impl Traced {
    /// Runs a step that wakes the server, and waits until the server sleeps again.
    fn after<T>(&self, step: impl FnOnce() -> T) -> T {
        let before = proc::sleeps(self.0.pid);
        let result = step();
        eventually("the server is back in epoll_wait", || {
            (proc::sleeps(self.0.pid) > before && proc::state(self.0.pid) == 'S').then_some(())
        });
        result
    }

    fn connect(&self) -> TcpStream {
        self.after(|| connect(self.0.address))
    }

    fn echo(&self, stream: &TcpStream, message: &[u8]) {
        self.after(|| echo(stream, message));
    }

    fn close(&self, stream: TcpStream) {
        self.after(|| drop(stream));
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.pid as i32), signal).expect("the server is running");
    }

    /// Runs steps while the server is stopped, so that it finds all of their events at once.
    fn while_stopped<T>(&self, steps: impl FnOnce() -> T) -> T {
        let stops = || std::fs::read_to_string(&self.0.trace).expect("the trace").matches("stopped by SIGSTOP").count();
        let before = stops();
        self.signal(Signal::SIGSTOP);
        eventually("the server stops", || (stops() > before).then_some(()));
        let result = steps();
        self.after(|| self.signal(Signal::SIGCONT));
        result
    }

    /// Sends `length` bytes without reading, until the outbox of the server is full; then runs `meanwhile`; then reads the echo. The
    /// kernel decides the sizes of the reads and sends.
    fn stall(&self, length: usize, meanwhile: impl FnOnce()) {
        let stream = connect(self.0.address);
        let bytes = pattern(1, length);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (&stream).write_all(&bytes).expect("send");
                finish(&stream);
            });
            // Bytes are pending: the server watches the connection for room, and sleeps.
            eventually("the outbox fills", || {
                let trace = std::fs::read_to_string(&self.0.trace).expect("the trace");
                (trace.contains("EPOLL_CTL_MOD") && proc::state(self.0.pid) == 'S').then_some(())
            });
            meanwhile();
            assert_same(&read_to_fin(&stream), &bytes);
        });
    }

    /// Sends SIGTERM, and connects two clients more than the server has free descriptors, while the server is stopped. Returns the
    /// last two separately: they have sent a line and wait in the accept queue.
    fn sigterm_at_the_descriptor_limit(&self) -> (Vec<TcpStream>, Vec<TcpStream>) {
        let limit = descriptor_limit(self.0.pid);
        let places = limit as usize - proc::descriptors_below(self.0.pid, limit);
        let mut streams = self.while_stopped(|| {
            self.signal(Signal::SIGTERM);
            let streams: Vec<_> = (0..places + 2).map(|_| connect(self.0.address)).collect();
            for mut stream in &streams[places..] {
                stream.write_all(b"let me in\n").expect("send");
            }
            streams
        });
        let queued = streams.split_off(places);
        (streams, queued)
    }

    fn run(&self) {
        match self.0.scenario.as_str() {
            "one-line" => {
                let stream = self.connect();
                self.echo(&stream, b"hello\n");
                self.close(stream);
            }
            "ten-lines-in-one-segment" => {
                let stream = self.connect();
                self.echo(&stream, b"one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n");
                self.close(stream);
            }
            "binary" => {
                let stream = self.connect();
                self.echo(&stream, &(0..=255).collect::<Vec<u8>>());
                self.echo(&stream, &pattern(1, 5_000));
                self.close(stream);
            }
            "ten-clients-at-once" => {
                let streams: Vec<_> = self.while_stopped(|| {
                    let greet = |mut stream: &TcpStream| stream.write_all(b"hello\n").expect("send");
                    (0..10).map(|_| connect(self.0.address)).inspect(greet).collect()
                });
                for mut stream in streams {
                    let mut back = [0; 6];
                    stream.read_exact(&mut back).expect("receive");
                    assert_eq!(&back, b"hello\n");
                    self.echo(&stream, b"and again\n");
                    self.close(stream);
                }
            }
            "half-close" => {
                let stream = self.connect();
                self.echo(&stream, b"hello\n");
                self.after(|| finish(&stream));
                assert_eq!(read_to_fin(&stream), b"");
            }
            "half-close-behind-data" => {
                let stream = self.connect();
                self.while_stopped(|| {
                    (&stream).write_all(b"the last line\n").expect("send");
                    finish(&stream);
                });
                assert_eq!(read_to_fin(&stream), b"the last line\n");
            }
            "connect-and-leave" => {
                let stream = self.connect();
                self.close(stream);
                self.while_stopped(|| drop(connect(self.0.address)));
            }
            "reset" => {
                let stream = self.connect();
                self.echo(&stream, b"hello\n");
                self.after(|| reset(stream));
                let stream = self.connect();
                self.while_stopped(|| {
                    (&stream).write_all(b"nobody will read the echo of this\n").expect("send");
                    reset(stream);
                });
            }
            "reset-in-the-accept-queue" => self.while_stopped(|| reset(connect(self.0.address))),
            "larger-than-the-read-buffer" | "larger-than-the-read-buffer-and-copied" => {
                let stream = self.connect();
                let bytes = pattern(1, 60_000);
                self.while_stopped(|| {
                    (&stream).write_all(&bytes).expect("send");
                    // Everything has arrived when nothing is unacknowledged.
                    eventually("the kernel has it", || (unacknowledged(&stream) == 0).then_some(()));
                });
                let mut back = vec![0; bytes.len()];
                (&stream).read_exact(&mut back).expect("receive");
                assert_same(&back, &bytes);
                self.close(stream);
            }
            "exactly-the-read-buffer" => {
                let stream = self.connect();
                let bytes = pattern(1, 32 * 1024);
                self.while_stopped(|| (&stream).write_all(&bytes).expect("send"));
                let mut back = vec![0; bytes.len()];
                (&stream).read_exact(&mut back).expect("receive");
                assert_same(&back, &bytes);
                self.close(stream);
            }
            "urgent" => {
                let stream = self.connect();
                self.while_stopped(|| {
                    (&stream).write_all(b"before").expect("send");
                    SockRef::from(&stream).send_out_of_band(b"!").expect("urgent");
                    (&stream).write_all(b"behind").expect("send");
                });
                let mut back = [0; 13];
                (&stream).read_exact(&mut back).expect("receive");
                assert_eq!(&back, b"before!behind");
                self.close(stream);
            }
            "stop-and-continue" => {
                let stream = self.connect();
                self.while_stopped(|| {});
                self.echo(&stream, b"still here\n");
                self.close(stream);
            }
            "stalled-reader" => self.stall(16 << 20, || {}),
            "sigterm-when-idle" => {}
            "sigint-when-idle" => return self.signal(Signal::SIGINT),
            "sigterm-with-a-client" => {
                let stream = self.connect();
                self.echo(&stream, b"before\n");
                self.after(|| self.signal(Signal::SIGTERM));
                self.echo(&stream, b"behind\n");
                return drop(stream);
            }
            "sighup-with-a-client" => {
                let stream = self.connect();
                self.echo(&stream, b"before\n");
                self.after(|| self.signal(Signal::SIGHUP));
                self.echo(&stream, b"behind\n");
                return drop(stream);
            }
            "sigterm-at-the-descriptor-limit" => {
                let (connected, queued) = self.sigterm_at_the_descriptor_limit();
                for stream in connected {
                    self.close(stream);
                }
                let last = queued.len() - 1;
                for (index, stream) in queued.into_iter().enumerate() {
                    assert_eq!(read_line(&stream), "let me in\n");
                    if index == last { drop(stream) } else { self.close(stream) }
                }
                return;
            }
            "sigterm-with-clients-in-the-accept-queue" => {
                let streams = self.while_stopped(|| {
                    let streams: Vec<_> = (0..3).map(|_| connect(self.0.address)).collect();
                    self.signal(Signal::SIGTERM);
                    streams
                });
                for stream in &streams {
                    self.echo(stream, b"just in time\n");
                }
                let last = streams.len() - 1;
                for (index, stream) in streams.into_iter().enumerate() {
                    if index == last { drop(stream) } else { self.close(stream) }
                }
                return;
            }
            "sigterm-with-bytes-pending" => return self.stall(16 << 20, || self.after(|| self.signal(Signal::SIGTERM))),
            "drain-deadline" => {
                let stream = self.connect();
                self.echo(&stream, b"here to stay\n");
                self.signal(Signal::SIGTERM);
                assert_eq!(read_to_fin(&stream), b"");
                // Our FIN is the last event that the server waits for; input before it is discarded.
                eventually("the server sleeps", || (proc::state(self.0.pid) == 'S').then_some(()));
                self.after(|| (&stream).write_all(b"too late\n").expect("send"));
                return drop(stream);
            }
            "drain-deadline-and-nobody-leaves" => {
                let stream = self.connect();
                self.echo(&stream, b"here to stay\n");
                self.signal(Signal::SIGTERM);
                assert_eq!(read_to_fin(&stream), b"");
                // The client keeps its side open until the server has ended.
                return eventually("the server ends", || (!is_running(self.0.pid)).then_some(()));
            }
            "drain-deadline-at-the-descriptor-limit" => {
                let (connected, queued) = self.sigterm_at_the_descriptor_limit();
                for stream in connected {
                    assert_eq!(read_to_fin(&stream), b"");
                    self.close(stream);
                }
                let last = queued.len() - 1;
                for (index, stream) in queued.into_iter().enumerate() {
                    assert_eq!(read_to_fin(&stream), b"let me in\n");
                    if index == last { drop(stream) } else { self.close(stream) }
                }
                return;
            }
            "cut-off-with-clients-in-the-accept-queue" => {
                let streams = self.sigterm_at_the_descriptor_limit();
                eventually("the server ends", || (!is_running(self.0.pid)).then_some(()));
                return drop(streams);
            }
            "cut-off-before-the-echo-is-acknowledged" => {
                let stream = self.after(|| {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                    socket.set_recv_buffer_size(4096).expect("SO_RCVBUF"); // room for a part of the echo only
                    socket.connect(&self.0.address.into()).expect("connect");
                    TcpStream::from(socket)
                });
                self.while_stopped(|| {
                    (&stream).write_all(&pattern(1, 30_000)).expect("send");
                    eventually("the kernel has it", || (unacknowledged(&stream) == 0).then_some(()));
                });
                self.signal(Signal::SIGTERM);
                eventually("the server ends", || (!is_running(self.0.pid)).then_some(()));
                return drop(stream);
            }
            "second-signal" => {
                let stream = self.connect();
                self.echo(&stream, b"here to stay\n");
                self.after(|| self.signal(Signal::SIGINT));
                self.signal(Signal::SIGTERM);
                return eventually("the server ends", || (!is_running(self.0.pid)).then_some(()));
            }
            unknown => panic!("there is no scenario '{unknown}'"),
        }
        self.signal(Signal::SIGTERM);
    }
}

/// Returns the number of bytes that the peer's kernel has not acknowledged, or that were not sent yet.
fn unacknowledged(stream: &TcpStream) -> usize {
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let (near, far) = (stream.local_addr().expect("an address"), stream.peer_addr().expect("an address"));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc(5)");
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = row.filter(|row| row.len() > 4).find(|row| row[1].ends_with(&port(near)) && row[2].ends_with(&port(far)));
    let queues = row.expect("our own socket")[4].to_owned();
    usize::from_str_radix(queues.split(':').next().expect("proc(5)"), 16).expect("a number")
}

fn read_line(stream: &TcpStream) -> String {
    let mut line = String::new();
    std::io::BufReader::new(stream).read_line(&mut line).expect("receive");
    line
}

fn is_running(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn main() {
    let server = Traced(Options::parse());
    eventually("the server sleeps", || (proc::state(server.0.pid) == 'S').then_some(()));
    server.run();
}

/// Returns the soft limit of a process on open descriptors (proc(5), `limits`).
fn descriptor_limit(pid: u32) -> u32 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("the server is running");
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    soft.expect("proc(5)").parse().expect("a number")
}
