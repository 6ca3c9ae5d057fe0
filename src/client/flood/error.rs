//! The reasons why a flood could not run.

use std::io;

use super::options::OptionsError;
use crate::client::connect::ConnectError;

/// The reason why a flood could not run. The text includes the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The options are invalid.
    #[error("{0}")]
    Options(OptionsError),
    /// No connection could be used.
    #[error("cannot flood {target}: {error}")]
    Connect {
        /// The target.
        target: String,
        /// The first error of a connection.
        error: ConnectError,
    },
    /// A system call failed that the flood cannot do without.
    #[error("cannot {what}: {error}")]
    System {
        /// The action that failed.
        what: &'static str,
        /// The error of the system.
        error: io::Error,
    },
}

impl From<OptionsError> for Error {
    fn from(error: OptionsError) -> Self {
        Self::Options(error)
    }
}
