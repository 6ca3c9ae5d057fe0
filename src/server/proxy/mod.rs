//! The PROXY protocol: a load balancer sends a header in front of each connection's first byte, with the address of the client.
//!
//! ```text
//!             a trusted peer                       a whole header
//!   accept4(2) -----------> waiting for its header --------------> an ordinary connection
//!      |                        |          |
//!      | any other peer         | timeout  | invalid
//!      v                        v          v
//!   closed (require), or    closed, or a   closed
//!   a connection (optional) connection
//! ```
//!
//! A waiting connection is only peeked at (recv(2), `MSG_PEEK`). When its header is whole, exactly that is read; what follows stays in the
//! socket. The connection is then watched under its own key. epoll(7) reports what is there already once more, so it takes the usual path
//! from its first byte.
//!
//! The headers follow the [specification](https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt).

mod binary;
mod header;
mod parse;
#[cfg(test)]
mod samples;
mod text;
mod trusted;
mod waiting;

pub use header::{Header, HeaderError, MAX_HEADER_BYTES, Parsed, Version};
pub use parse::parse;
pub(super) use waiting::{Admission, Decision, Waiting};
