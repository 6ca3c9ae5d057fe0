//! The server: one thread, one epoll set, one loop.
//!
//! ```text
//!            edge                        budget used up
//!   epoll ---------> on_connection_event --------------> ready queue
//!     ^                      |                                |
//!     |                   advance  <------- next turn --------+
//!     |                      |
//!     +------ Waiting -------+------ Ended ------> close(2)
//! ```
//!
//! [`Server::run`] is the story: resume queued work, wait, dispatch each event, answer, keep time. Each part of the server owns its state,
//! decides, and returns what to do; the server does it. The files in reading order:
//!
//! | file | content |
//! |---|---|
//! | `run` | [`Server`], the loop, and accepting |
//! | `receive` | from an accepted connection to an open one, with the PROXY protocol |
//! | `serve` | a connection from open to close |
//! | `due` | what the server does when its time has come: timeouts, retries, the drain |
//! | `bind` | from a [`Config`] to a listening server |
//! | `inherited`, `socket_options` | sockets that another process has opened, and the options of all |
//! | `turn` | the buffers of one turn: read all, then answer |
//! | `connections` | the slot table and the ready queue |
//! | `connection/` | the state machine of one connection |
//! | `proxy/` | the PROXY protocol: connections that wait for their header (feature `proxy`) |
//! | `accept/` | listeners, their pauses, and the limits on connections |
//! | `pressure/` | back pressure: the rate limit and the memory limit |
//! | `time/` | the clock, timeouts, heartbeats, and the timers of protocols |
//! | `drain` | the stages from the first signal to the last byte |
//! | `config/` | [`Config`], its builder, and addresses |
//! | `requests`, `handle` | requests of the protocol, and of other threads |
//! | `observer` | [`Observer`]: code of the program that the loop calls |
//! | `tokens`, `kernel`, `statistics`, `error`, `fault` | what all of them use |

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
mod inherited;
mod kernel;
mod observer;
mod pressure;
#[cfg(feature = "proxy")]
pub mod proxy;
mod receive;
mod requests;
mod run;
mod serve;
mod socket_options;
mod statistics;
mod time;
mod tokens;
mod turn;

pub use config::{AddressError, Builder, Config, ConfigError, Keepalive, Limits, ListenAddress, SocketOptions, Timeouts};
#[cfg(feature = "proxy")]
pub use config::{ProxyMode, ProxyOptions};
pub use connection::{Connection, Ending, Host, Peer, Progress, Turn};
pub use drain::Stage;
pub use error::Error;
pub use fault::Fault;
pub use handle::{Handle, PostError, StatisticsError};
pub use inherited::Inherited;
pub use kernel::{Kernel, Linux};
pub use observer::{Observer, View};
pub use run::{Server, Summary};
#[cfg(feature = "service")]
pub(crate) use statistics::ErrnoName;
pub use statistics::{Reason, Statistics, TurnTimes};
