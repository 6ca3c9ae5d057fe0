//! Privileges: root's rights, given up for good.
//!
//! A server starts as root to listen on a port below 1024, and then becomes another user. [`Privileges::prepare`] comes first, before the
//! program starts another thread: it sets what a thread passes on to the threads that it starts. [`Privileges::give_up`] comes when
//! everything that needs root is done. It changes the user of all threads, and then reads back what the kernel says about each.
//!
//! ```no_run
//! use edgecho::protocol::Echo;
//! use edgecho::server::Server;
//! use edgecho::service::privileges::{Identity, Privileges};
//!
//! let identity: Identity = "nobody".parse()?;
//! let privileges = Privileges::prepare(&identity)?;
//! let server = Server::builder().listen("127.0.0.1:7".parse()?).bind(Echo)?;
//! privileges.give_up()?;
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod identity;
mod threads;

use std::io;

pub use error::Error;
pub use identity::{Identity, IdentityError};

use crate::sys::credentials::{self, Capabilities, CapabilitySets};
use threads::Expected;

/// The number of capabilities that capget(2) can represent.
const CAPABILITIES: u32 = 64;

/// The privileges of a process that is about to give them up.
#[derive(Debug)]
#[must_use = "nothing is given up until `give_up`"]
pub struct Privileges {
    identity: Identity,
    /// The process is this user and group already.
    is_there: bool,
    has_rights: bool,
    has_bounding_set: bool,
}

impl Privileges {
    /// Prepares the process to become `identity`. Call it before the program starts another thread.
    ///
    /// Forbids new privileges (`no_new_privs`), and empties the inheritable, ambient and bounding capability sets. The bounding set remains
    /// if the process lacks `CAP_SETPCAP`, as without root; it has no effect then, because execve(2) gives no capabilities.
    ///
    /// # Errors
    /// [`Error::NotRoot`] if the process is neither root nor `identity`, and [`Error::Step`] if a call fails.
    pub fn prepare(identity: &Identity) -> Result<Self, Error> {
        let user = credentials::user().map_err(Error::step("read the user of the process (getresuid)"))?;
        let group = credentials::group().map_err(Error::step("read the group of the process (getresgid)"))?;
        let is_there = user.are_all(identity.uid()) && group.are_all(identity.gid());
        if !is_there && user.effective != 0 {
            let (uid, gid) = (user.effective, group.effective);
            return Err(Error::NotRoot { identity: identity.clone(), uid, gid });
        }
        credentials::forbid_new_privileges().map_err(Error::step("forbid new privileges (PR_SET_NO_NEW_PRIVS)"))?;
        credentials::clear_ambient_set().map_err(Error::step("empty the ambient capability set (PR_CAP_AMBIENT)"))?;
        let sets = credentials::capabilities().map_err(Error::step("read the capability sets (capget)"))?;
        let has_bounding_set = !sets.effective.contains(Capabilities::SETPCAP);
        if !has_bounding_set {
            empty_bounding_set().map_err(Error::step("empty the bounding capability set (PR_CAPBSET_DROP)"))?;
        }
        // A filter of system calls may forbid capset(2) where there is nothing to give up, as that of the unit in packaging/systemd does.
        if !sets.inheritable.is_empty() {
            let inheritable = Capabilities::empty();
            credentials::set_capabilities(CapabilitySets { inheritable, ..sets })
                .map_err(Error::step("empty the inheritable capability set (capset)"))?;
        }
        let has_rights = !is_there || sets != CapabilitySets::EMPTY;
        Ok(Self { identity: identity.clone(), is_there, has_rights, has_bounding_set })
    }

    /// Gives up all privileges of all threads, for good: supplementary groups, group, user, and all capabilities. The process is not
    /// dumpable afterwards: it leaves no core dump, and only root can trace it. A process that was not root keeps its supplementary groups,
    /// because only root can change them.
    ///
    /// Then checks each thread in `/proc/self/task`, and that the process cannot become root again.
    ///
    /// # Errors
    /// [`Error::Step`] if a call fails, [`Error::Kept`] or [`Error::KeptCapabilities`] if a thread keeps a right, and [`Error::RootAgain`].
    pub fn give_up(self) -> Result<(), Error> {
        let Self { identity, is_there, has_rights: _, has_bounding_set } = self;
        if !is_there {
            credentials::set_groups(&[]).map_err(Error::step("leave the supplementary groups (setgroups)"))?;
            credentials::set_group(identity.gid()).map_err(Error::step("change the group (setresgid)"))?;
            credentials::set_user(identity.uid()).map_err(Error::step("change the user (setresuid)"))?;
        }
        let sets = credentials::capabilities().map_err(Error::step("read the capability sets (capget)"))?;
        if sets != CapabilitySets::EMPTY {
            credentials::set_capabilities(CapabilitySets::EMPTY)
                .map_err(Error::step("give up the capabilities (capset)"))?;
        }
        credentials::set_dumpable(false).map_err(Error::step("forbid core dumps (PR_SET_DUMPABLE)"))?;

        let is_dumpable = credentials::is_dumpable().map_err(Error::step("read back whether a core is dumped"))?;
        if is_dumpable {
            return Err(Error::Kept("the process leaves a core dump".to_owned()));
        }
        let expected = Expected { uid: identity.uid(), gid: identity.gid(), has_groups: is_there, has_bounding_set };
        let kept = threads::find_kept(&expected)
            .map_err(Error::step("read back the rights of each thread (/proc/self/task/*/status); is /proc mounted?"))?;
        if let Some(kept) = kept {
            return Err(kept);
        }
        if credentials::set_user(0).is_ok() { Err(Error::RootAgain) } else { Ok(()) }
    }

    /// Returns whether the process had something to give up: it was another user or group, or had capabilities.
    #[must_use]
    pub fn has_rights(&self) -> bool {
        self.has_rights
    }

    /// Returns the user and group to become.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// Empties the bounding set of this thread. The kernel answers `EINVAL` for the first number that stands for no capability.
fn empty_bounding_set() -> io::Result<()> {
    for number in 0..CAPABILITIES {
        match credentials::is_in_bounding_set(number) {
            Ok(true) => credentials::drop_from_bounding_set(number)?,
            Ok(false) => {}
            Err(error) if number > 0 && error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
