//! Resource limits of the process: getrlimit(2), setrlimit(2), through nix.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A resource limit: the soft limit is enforced, and the hard limit bounds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The enforced limit.
    pub soft: u64,
    /// The maximum of the soft limit. Only a privileged process may raise it.
    pub hard: u64,
}

/// Returns the descriptor limit, one more than the largest descriptor number that the process may open: getrlimit(2), `RLIMIT_NOFILE`.
///
/// # Errors
/// None are known for this resource.
pub fn descriptors() -> io::Result<Limit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(Limit { soft, hard })
}

/// Sets the descriptor limit: setrlimit(2), `RLIMIT_NOFILE`.
///
/// # Errors
/// `EINVAL`: the soft limit exceeds the hard limit. `EPERM`: an unprivileged process raises the hard limit, or the hard limit exceeds
/// `/proc/sys/fs/nr_open`.
pub fn set_descriptors(limit: Limit) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NOFILE, limit.soft, limit.hard)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_can_be_read_and_set_to_its_own_value() {
        let limit = descriptors().expect("getrlimit");
        assert!(limit.soft > 3 && limit.soft <= limit.hard, "{limit:?}");
        set_descriptors(limit).expect("the limit is unchanged");
        assert_eq!(descriptors().expect("getrlimit"), limit);
        assert!(set_descriptors(Limit { soft: limit.hard, hard: limit.soft - 1 }).is_err());
    }
}
