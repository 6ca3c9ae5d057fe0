//! A TCP echo service for Linux on raw epoll, built to be used as ground truth: it returns every byte that it was sent, in
//! order, and makes no system call that it could do without.
//!
//! The crate is a stack of layers, each of which uses only those below it:
//!
//! | module | what it holds |
//! |---|---|
//! | [`server`] | the server: accepting, connections, pending writes, the drain |
//! | `client` | `ping` and `flood`, with the feature `client` |
//! | [`protocol`] | what is done with the bytes of a connection |
//! | [`stream`] | what a connection is made of, at either end: a stream that never blocks, and its pending writes |
//! | [`event`] | the event loop: readiness, deadlines, signals; knows nothing of echo |
//! | [`sys`] | one function a system call; the only `unsafe` code of the crate |
//!
//! To run a server from a program of one's own:
//!
//! ```no_run
//! use edgecho::protocol::Echo;
//! use edgecho::server::{Config, Server};
//!
//! let config = Config { listen: vec!["127.0.0.1:7777".parse()?], ..Config::default() };
//! let mut server = Server::bind(Echo, &config)?;
//! for address in server.local_addresses() {
//!     println!("listening on {address}");
//! }
//! let summary = server.run()?;
//! assert_eq!(summary.aborted, 0, "every client got all of its bytes");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Two things are left to that program, as they concern all of it:
//!
//! - The crate writes to no standard stream. It emits `tracing` events, from within the event loop: a subscriber that blocks, because
//!   nobody reads what it writes, blocks the server. SIGUSR1 has the statistics emitted as the message of an event at level `INFO`
//!   with the target `edgecho::statistics`.
//! - Where a file can reach the limit on its size (`ulimit -f`), the program should ignore SIGXFSZ, with
//!   [`sys::signal::ignore`]. Otherwise the signal ends it.

#[cfg(not(target_os = "linux"))]
compile_error!("edgecho is built on epoll(7), signalfd(2) and accept4(2): it needs Linux");

#[cfg(feature = "client")]
pub mod client;
pub mod event;
mod name;
pub mod protocol;
pub mod server;
pub mod stream;
#[allow(unsafe_code, reason = "the one place where it is at home")]
pub mod sys;
mod throttle;
