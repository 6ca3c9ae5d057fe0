//! The reason why a server did not start, or has ended.

use std::process::ExitCode;

use edgecho::server::Error;

use super::errors;
use crate::cli::status::{FAILURE, WRONG_FLAG};
use crate::cli::stderr;

/// The reason why the server did not start, or has ended.
#[derive(Debug)]
pub(super) struct Failure {
    /// A message with flags instead of fields.
    pub(super) text: String,
    pub(super) status: u8,
}

impl Failure {
    /// Returns the failure of a part of the service, which has a message of its own.
    pub(super) fn new(error: impl std::fmt::Display) -> Self {
        Self { text: error.to_string(), status: FAILURE }
    }

    /// Prints the failure, and returns the exit status. It is no log line: -q must not hide the reason for the exit.
    pub(super) fn report(self) -> ExitCode {
        stderr::say(format_args!("error: {}", self.text));
        ExitCode::from(self.status)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = if matches!(error, Error::Config(_)) { WRONG_FLAG } else { FAILURE };
        Self { text: errors::describe(&error), status }
    }
}
