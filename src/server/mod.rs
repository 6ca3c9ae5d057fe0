//! The server: wait, accept, serve what is ready, keep deadlines, drain.

mod accept;
mod bind;
mod config;
mod connection;
mod connections;
mod drain;
mod due;
mod error;
mod fault;
mod handle;
mod kernel;
mod pressure;
mod requests;
mod run;
mod serve;
mod statistics;
mod time;
mod tokens;
mod turn;

pub use config::{AddressError, Builder, Config, ConfigError, Keepalive, Limits, ListenAddress, SocketOptions, Timeouts};
pub use connection::{Connection, Ending, Host, Peer, Progress, Turn};
pub use error::Error;
pub use fault::Fault;
pub use handle::{Handle, PostError};
pub use kernel::{Kernel, Linux};
pub use run::{Server, Summary};
pub use statistics::{Reason, Statistics};
