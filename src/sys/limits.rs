//! Resource limits of the process: getrlimit(2). nix makes the calls.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A soft limit, which is in force, and the hard limit up to which the process may raise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is in force.
    pub soft: u64,
    /// The ceiling of the soft limit; only a privileged process may raise it.
    pub hard: u64,
}

/// getrlimit(2), `RLIMIT_NOFILE`: one more than the largest descriptor number that the process may open.
///
/// # Errors
/// None that this resource could bring about.
pub fn descriptors() -> io::Result<Limit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(Limit { soft, hard })
}

/// setrlimit(2), `RLIMIT_NOFILE`.
///
/// # Errors
/// `EINVAL`: the soft limit is above the hard one. `EPERM`: the hard limit would rise, or is above `/proc/sys/fs/nr_open`.
pub fn set_descriptors(limit: Limit) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NOFILE, limit.soft, limit.hard)?)
}
