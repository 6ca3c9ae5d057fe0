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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_the_kernel_says_and_may_be_set_to_what_it_is() {
        let limit = descriptors().expect("getrlimit");
        assert!(limit.soft > 3 && limit.soft <= limit.hard, "{limit:?}");
        set_descriptors(limit).expect("nothing changes");
        assert_eq!(descriptors().expect("getrlimit"), limit);
        assert!(set_descriptors(Limit { soft: limit.hard, hard: limit.soft - 1 }).is_err());
    }
}
