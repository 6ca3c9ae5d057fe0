//! A TCP echo service for Linux on raw epoll, for use as ground truth: it returns every byte in order and makes no avoidable system call per
//! message.
//!
//! The same event loop serves other protocols. A program implements [`Protocol`](protocol::Protocol), and the [`Server`](server::Server)
//! accepts connections, buffers what a socket has no room for, enforces limits and timeouts, and ends in order.
//!
//! # Example
//!
//! A server in a thread of its own, with a client that sends five bytes and gets them back:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{Shutdown, TcpStream};
//!
//! use edgecho::protocol::Echo;
//! use edgecho::server::Server;
//!
//! let mut server = Server::builder().listen("127.0.0.1:0".parse()?).signals(false).bind(Echo)?;
//! let address = server.local_addresses().next().expect("one listener");
//! let handle = server.handle()?;
//! let thread = std::thread::spawn(move || server.run());
//!
//! let mut client = TcpStream::connect(address)?;
//! client.write_all(b"hello")?;
//! client.shutdown(Shutdown::Write)?;
//! let mut echo = String::new();
//! client.read_to_string(&mut echo)?;
//! assert_eq!(echo, "hello");
//!
//! handle.drain(); // accept no more connections, and finish the open ones
//! let summary = thread.join().expect("no panic")?;
//! assert_eq!(summary.aborted, 0, "every client received all of its bytes");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program that does nothing else calls [`Server::run`](server::Server::run) on its main thread. SIGINT, SIGTERM and SIGHUP then start the
//! drain.
//!
//! # Modules
//!
//! The modules are layers. Each uses only the layers below it.
//!
//! | module | contents |
//! |---|---|
//! | `service` | features that a host expects of a daemon: socket activation, notification, the admin endpoint, privileges, the sandbox; needs the feature `service` |
//! | [`server`] | the server: listeners, connections, limits, timeouts, the drain |
//! | `client` | the load generator and probes behind `ping`, `flood` and `send`; needs the feature `client` |
//! | [`protocol`] | interpretation of a connection's bytes: echo, lines, frames, and the trait for other protocols |
//! | [`stream`] | parts of a connection at either end: non-blocking stream, outbox, pipe |
//! | [`event`] | the event loop: readiness, deadlines, signals |
//! | [`sys`] | one function per system call; the only `unsafe` code of the crate |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `cli` | yes | the program `edgecho`; includes all of the following |
//! | `client` | with `cli` | the module `client` |
//! | `collect` | with `cli` | the protocol `collect`, which writes received frames as JSON Lines |
//! | `proxy` | with `cli` | the PROXY protocol, with which load balancers pass on the address of a client |
//! | `service` | with `cli` | the module `service` |
//!
//! The features `host-tests`, `tools` and `c-reference` serve the repository's own scripts and tests.
//!
//! A library user sets `default-features = false`. The server then depends on `bitflags`, `libc`, `nix`, `signal-hook`, `slotmap`,
//! `thiserror` and `tracing` only.
//!
//! # Requirements on the program
//!
//! The crate leaves two decisions that concern the whole process to the program:
//!
//! - The crate writes to no standard stream. It emits `tracing` events from within the event loop, so a subscriber that blocks on a slow
//!   reader blocks the server. On SIGUSR1 the server emits its statistics as an event of level `INFO` with the target `edgecho::statistics`.
//! - If a file can reach the limit on file size (`ulimit -f`), the program should ignore SIGXFSZ with [`sys::signal::ignore`]. Otherwise the
//!   signal ends the process (setrlimit(2), `RLIMIT_FSIZE`).
//!
//! # Further reading
//!
//! In the repository:
//!
//! - `docs/library.md`: servers and protocols, step by step
//! - `examples/`: a Redis and an HTTP server
//! - `docs/architecture.md`: the design
//! - `docs/guarantees.md`: each promise, with its test
//! - `docs/how-an-epoll-server-works.md`: one connection from SYN to FIN, call by call

// docs.rs shows the feature that an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!("edgecho needs Linux: it uses epoll(7), signalfd(2) and accept4(2)");

#[cfg(feature = "client")]
pub mod client;
pub mod event;
mod name;
pub mod protocol;
pub mod server;
#[cfg(feature = "service")]
pub mod service;
#[cfg(any(feature = "client", feature = "proxy"))]
mod signatures;
pub mod stream;
#[allow(unsafe_code, reason = "the only module with unsafe code")]
pub mod sys;
mod throttle;
