//! Features that a host expects of a daemon. Each is off unless an option or the environment asks for it.
//!
//! The modules talk to the event loop through [`Handle`](crate::server::Handle).
//!
//! | module | content |
//! |---|---|
//! | [`activation`] | listening sockets that the service manager passes on |
//! | [`notify`] | the state of the service, for the service manager |
//! | [`admin`] | metrics, health and a live page over HTTP |
//! | [`privileges`] | root's rights, given up for good |
//! | [`sandbox`] | the list of allowed system calls |

pub mod activation;
pub mod admin;
pub mod notify;
pub mod privileges;
pub mod sandbox;
