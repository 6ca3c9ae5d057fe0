//! The errors of giving up privileges.

use std::io;

use super::identity::Identity;

/// The reason why privileges could not be given up. The program must end: it may have given up some of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process is not root, and is not the user and group that it should become.
    #[error(
        "cannot become {identity}: the process runs as user {uid} and group {gid}, and only root can change that; start it as root, or as \
         this user"
    )]
    NotRoot {
        /// The user and group to become.
        identity: Identity,
        /// The effective user ID of the process.
        uid: u32,
        /// The effective group ID of the process.
        gid: u32,
    },
    /// A step failed.
    #[error("cannot {step}: {error}")]
    Step {
        /// The step, with its system call.
        step: &'static str,
        /// The error of the call.
        error: io::Error,
    },
    /// All steps succeeded, but a thread has not given up everything.
    #[error("a thread keeps rights of root: {0}")]
    Kept(String),
    /// A thread has capabilities. Without root, a thread that started before [`Privileges::give_up`](super::Privileges::give_up) keeps its own.
    #[error("a thread keeps rights of root: thread {number} '{name}' keeps {capabilities} ({set})")]
    KeptCapabilities {
        /// The thread's ID.
        number: String,
        /// The thread's name.
        name: String,
        /// The capabilities, such as `CAP_NET_RAW, CAP_CHOWN`.
        capabilities: String,
        /// The set as proc(5) calls it, such as `CapPrm`.
        set: &'static str,
    },
    /// All steps succeeded, but setresuid(2) makes the process root again.
    #[error(
        "the process can become root again (setresuid): something between it and the kernel pretends that it is not root"
    )]
    RootAgain,
}

impl Error {
    /// Returns a function that names the failed step, for `map_err`.
    pub(super) fn step(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Step { step, error }
    }
}
