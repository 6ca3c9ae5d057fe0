//! A user and a group, by name or number.

use std::fmt;
use std::str::FromStr;

use nix::unistd::{Gid, Group, Uid, User};

/// The ID that setresuid(2) and setresgid(2) take for "unchanged". It is no user or group.
const UNCHANGED: u32 = u32::MAX;

/// The reason why a text names no user that a process can become.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A name or number before or after the colon is missing.
    #[error("a user, or a user and a group, is expected: NAME or NAME:GROUP")]
    Empty,
    /// The name is neither in the user database nor a number.
    #[error("there is no user '{0}' on this host (see 'getent passwd')")]
    NoUser(String),
    /// The name is neither in the group database nor a number.
    #[error("there is no group '{0}' on this host (see 'getent group')")]
    NoGroup(String),
    /// The number of the user is not in the user database, which would name its group.
    #[error("user {0} is not in the user database, so its group is unknown: give it, too, as {0}:GROUP")]
    GroupUnknown(u32),
    /// The user is root.
    #[error("'{0}' is root (user 0): name a user without its rights")]
    RootUser(String),
    /// The group is root's.
    #[error("the group of '{0}' is root's (group 0): name another group, as USER:GROUP")]
    RootGroup(String),
    /// The database could not be read.
    #[error("cannot look up '{name}': {reason}")]
    Lookup {
        /// The name or number.
        name: String,
        /// The error of getpwnam_r(3), getpwuid_r(3) or getgrnam_r(3).
        reason: String,
    },
}

/// A user and a group that a process can become. Neither is root.
///
/// Reads `NAME[:GROUP]`, as chown(1) does: each is a name, or a number if no name matches. Without a group it is the user's own group.
///
/// ```
/// use edgecho::service::privileges::Identity;
///
/// let identity: Identity = "65534:65534".parse()?;
/// assert_eq!((identity.uid(), identity.gid()), (65534, 65534));
/// assert!("root".parse::<Identity>().is_err());
/// # Ok::<(), edgecho::service::privileges::IdentityError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    text: String,
    uid: u32,
    gid: u32,
}

impl Identity {
    /// Returns the user ID, which is not 0.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns the group ID, which is not 0.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }
}

/// Writes the text that was read, and the IDs.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (user {}, group {})", self.text, self.uid, self.gid)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let (name, group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (text, None),
        };
        if name.is_empty() || group.is_some_and(str::is_empty) {
            return Err(IdentityError::Empty);
        }
        let (uid, own_group) = find_user(name)?;
        if uid == 0 {
            return Err(IdentityError::RootUser(name.to_owned()));
        }
        let gid = match (group, own_group) {
            (Some(group), _) => find_group(group)?,
            (None, Some(gid)) => gid,
            (None, None) => return Err(IdentityError::GroupUnknown(uid)),
        };
        if gid == 0 {
            return Err(IdentityError::RootGroup(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), uid, gid })
    }
}

/// Returns the ID of a user, and its own group if the database has the user.
fn find_user(name: &str) -> Result<(u32, Option<u32>), IdentityError> {
    let failed = |error: nix::Error| IdentityError::Lookup { name: name.to_owned(), reason: error.to_string() };
    if let Some(user) = unless_absent(User::from_name(name)).map_err(failed)? {
        return Ok((user.uid.as_raw(), Some(user.gid.as_raw())));
    }
    let uid = number(name).ok_or_else(|| IdentityError::NoUser(name.to_owned()))?;
    let user = unless_absent(User::from_uid(Uid::from_raw(uid))).map_err(failed)?;
    Ok((uid, user.map(|user| user.gid.as_raw())))
}

fn find_group(name: &str) -> Result<u32, IdentityError> {
    let failed = |error: nix::Error| IdentityError::Lookup { name: name.to_owned(), reason: error.to_string() };
    match unless_absent(Group::from_name(name)).map_err(failed)? {
        Some(group) => Ok(Gid::as_raw(group.gid)),
        None => number(name).ok_or_else(|| IdentityError::NoGroup(name.to_owned())),
    }
}

/// Takes an error that stands for "not found" as that. getpwnam_r(3) and getgrnam_r(3), ERRORS: "0 or ENOENT or ESRCH or EBADF or EPERM or
/// ...". A root folder without a database is such a case.
fn unless_absent<T>(found: nix::Result<Option<T>>) -> nix::Result<Option<T>> {
    match found {
        Err(nix::Error::ENOENT | nix::Error::ESRCH | nix::Error::EBADF | nix::Error::EPERM) => Ok(None),
        found => found,
    }
}

/// Reads an ID in decimal digits.
fn number(text: &str) -> Option<u32> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit()); // u32::from_str takes a sign
    text.parse().ok().filter(|&id| is_decimal && id != UNCHANGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(u32, u32), IdentityError> {
        text.parse::<Identity>().map(|identity| (identity.uid(), identity.gid()))
    }

    #[test]
    fn a_user_and_a_group_are_names_or_numbers() {
        let nobody = User::from_name("nobody").expect("the database").expect("every host has this user");
        let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
        assert_eq!(parse("nobody"), Ok((uid, gid)));
        assert_eq!(parse(&uid.to_string()), Ok((uid, gid)));
        assert_eq!(parse("nobody:4242"), Ok((uid, 4242)));
        assert_eq!(parse("4242:4243"), Ok((4242, 4243)));
        assert_eq!("4242:4243".parse::<Identity>().expect("IDs").to_string(), "4242:4243 (user 4242, group 4243)");
    }

    #[test]
    fn a_missing_database_has_no_names_and_a_broken_one_is_an_error() {
        for error in [nix::Error::ENOENT, nix::Error::ESRCH, nix::Error::EBADF, nix::Error::EPERM] {
            assert_eq!(unless_absent::<()>(Err(error)), Ok(None));
        }
        for error in [nix::Error::EIO, nix::Error::EMFILE, nix::Error::ENOMEM] {
            assert_eq!(unless_absent::<()>(Err(error)), Err(error));
        }
        assert_eq!(unless_absent(Ok(Some(7))), Ok(Some(7)));
    }

    #[test]
    fn root_is_refused_under_every_name() {
        for text in ["root", "0", "00", "root:4242", "0:4242", "000:1"] {
            assert!(matches!(parse(text), Err(IdentityError::RootUser(_))), "{text}");
        }
        for text in ["4242:0", "4242:root", "nobody:00"] {
            assert!(matches!(parse(text), Err(IdentityError::RootGroup(_))), "{text}");
        }
    }

    #[test]
    fn names_that_mean_nobody_are_refused() {
        for text in ["", ":", ":1", "nobody:", "4242:"] {
            assert_eq!(parse(text), Err(IdentityError::Empty), "{text}");
        }
        // 4294967295 is -1, with which setresuid(2) changes nothing.
        for text in
            ["no such user", "+4242:1", "-1:1", "4294967295:1", "4294967296:1", "99999999999999999999:1", "\0", "0x10:1"]
        {
            assert!(matches!(parse(text), Err(IdentityError::NoUser(_))), "{text}: {:?}", parse(text));
        }
        for text in ["4242:no such group", "4242:-1", "4242:4294967295", "4242:1:2"] {
            assert!(matches!(parse(text), Err(IdentityError::NoGroup(_))), "{text}: {:?}", parse(text));
        }
        assert_eq!(parse("4242"), Err(IdentityError::GroupUnknown(4242)));
    }
}
