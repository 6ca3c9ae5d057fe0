//! Socket activation: listening sockets that the service manager passes on (sd_listen_fds(3)).
//!
//! The environment is parsed here because an error has to name the descriptor, and because a process that only inherits the variables of its
//! parent has to ignore all of them, `LISTEN_FDNAMES` included.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;

use crate::server::Inherited;
use crate::sys::inherited;

/// The number of the first descriptor that a service manager passes on (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// The most descriptors that are taken. A process may have 2^20 by default (`fs.nr_open`, proc(5)).
const MOST: usize = 1 << 20;

/// An error in what the service manager passes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationError {
    /// A variable of the environment has no valid value.
    #[error("{variable} is {value:?}, which is not {expected}; it comes from the service manager (sd_listen_fds(3))")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// The expected value.
        expected: String,
    },
    /// A descriptor is not open.
    #[error(
        "cannot take descriptor {number} of the {count} in LISTEN_FDS (fcntl): {error}; the service manager has not passed it on"
    )]
    NotOpen {
        /// The number of the descriptor.
        number: RawFd,
        /// The value of `LISTEN_FDS`.
        count: usize,
        /// The kernel's error.
        error: io::Error,
    },
    /// A descriptor was opened by this process, or taken before.
    #[error(
        "descriptor {number} of the {count} in LISTEN_FDS was not passed on: this process has opened it, or has taken it before"
    )]
    NotInherited {
        /// The number of the descriptor.
        number: RawFd,
        /// The value of `LISTEN_FDS`.
        count: usize,
    },
}

/// Takes the sockets that the service manager passes on to this process, for [`Server::bind_with`](crate::server::Server::bind_with), which
/// checks that they are listening TCP sockets. Returns none if there are none, or if they are for another process (`LISTEN_PID`). Each
/// gets the flag `FD_CLOEXEC`.
///
/// Call it once, and do not open descriptors without `FD_CLOEXEC` before.
///
/// ```
/// assert!(edgecho::service::activation::take()?.is_empty(), "no service manager has started this test");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns an error for a wrong value of `LISTEN_PID`, `LISTEN_FDS` or `LISTEN_FDNAMES`, and for a descriptor that was not passed on.
pub fn take() -> Result<Vec<Inherited>, ActivationError> {
    if env::var_os("LISTEN_PID").is_none() {
        return Ok(Vec::new()); // without getpid(2): a plain server makes no call for what it does not use
    }
    let names = names_in(env::var_os, std::process::id())?;
    let count = names.len();
    let take = |(number, name): (RawFd, String)| {
        let not_open = |error| ActivationError::NotOpen { number, count, error };
        let found = inherited::Inherited::find(number).map_err(not_open)?;
        let found = found.ok_or(ActivationError::NotInherited { number, count })?;
        Ok(Inherited::new(found.take().map_err(not_open)?, name))
    };
    (FIRST..).zip(names).map(take).collect()
}

/// Returns the names of the sockets for the process `pid`, each of which may be empty.
fn names_in(variable: impl Fn(&'static str) -> Option<OsString>, pid: u32) -> Result<Vec<String>, ActivationError> {
    let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
    let wrong = |variable, value: &str, expected: &str| {
        Err(ActivationError::Variable { variable, value: value.to_owned(), expected: expected.to_owned() })
    };
    let Some(listen_pid) = text("LISTEN_PID") else { return Ok(Vec::new()) };
    match listen_pid.parse::<u32>() {
        Ok(other) if pid == other => {}
        Ok(_) => return Ok(Vec::new()),
        Err(_) => return wrong("LISTEN_PID", &listen_pid, "a process id"),
    }
    let Some(listen_fds) = text("LISTEN_FDS") else { return Ok(Vec::new()) };
    let count = match listen_fds.parse() {
        Ok(count) if count <= MOST => count,
        _ => return wrong("LISTEN_FDS", &listen_fds, "a number of descriptors"),
    };
    let Some(listen_names) = text("LISTEN_FDNAMES").filter(|_| count > 0) else { return Ok(vec![String::new(); count]) };
    let names: Vec<String> = listen_names.split(':').map(str::to_owned).collect();
    if names.len() == count { Ok(names) } else { wrong("LISTEN_FDNAMES", &listen_names, &format!("{count} names")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pid: Option<&str>, fds: Option<&str>, names: Option<&str>) -> Result<Vec<String>, String> {
        let value = |variable| match variable {
            "LISTEN_PID" => pid,
            "LISTEN_FDS" => fds,
            "LISTEN_FDNAMES" => names,
            _ => None,
        };
        names_in(|variable| value(variable).map(OsString::from), 7).map_err(|error| error.to_string())
    }

    #[test]
    fn sockets_are_counted_and_named() {
        assert_eq!(names(Some("7"), Some("2"), None), Ok(vec![String::new(); 2]));
        assert_eq!(names(Some("7"), Some("2"), Some("web:")), Ok(vec!["web".to_owned(), String::new()]));
        assert_eq!(names(Some("7"), Some("0"), Some("")), Ok(Vec::new()));
    }

    #[test]
    fn the_variables_of_another_process_are_ignored() {
        for (pid, fds) in [(None, Some("1")), (Some("8"), Some("1")), (Some("8"), Some("nonsense")), (Some("7"), None)] {
            assert_eq!(names(pid, fds, Some("a:b:c")), Ok(Vec::new()), "{pid:?} {fds:?}");
        }
    }

    #[test]
    fn a_wrong_variable_is_named_with_its_value() {
        for (pid, fds, fdnames, part) in [
            ("me", "1", None, "LISTEN_PID is \"me\", which is not a process id"),
            ("7", "one", None, "LISTEN_FDS is \"one\", which is not a number"),
            ("7", "-1", None, "LISTEN_FDS is \"-1\""),
            ("7", "", None, "LISTEN_FDS is \"\""),
            ("7", "4294967295", None, "LISTEN_FDS is"),
            ("7", "2", Some("web"), "LISTEN_FDNAMES is \"web\", which is not 2 names"),
        ] {
            let error = names(Some(pid), Some(fds), fdnames).expect_err(part);
            assert!(error.starts_with(part), "{error}");
        }
    }
}
