//! The reasons why a ping could not continue.

use std::io;

use crate::client::connect::ConnectError;

/// The reason why a ping could not continue. The text includes the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The far end was never reached.
    #[error("cannot ping {target}: {error}")]
    Connect {
        /// The target.
        target: String,
        /// The error of the last attempt.
        error: ConnectError,
    },
    /// The report could not be written.
    #[error("cannot write the report: {0}")]
    Report(io::Error),
    /// A system call failed that the ping cannot do without.
    #[error("cannot {what}: {error}")]
    System {
        /// The action that failed.
        what: &'static str,
        /// The error of the system.
        error: io::Error,
    },
}

impl Error {
    /// For `map_err`: names the action that failed.
    pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::System { what, error }
    }
}
