//! Users, groups and capabilities of a process: credentials(7), capabilities(7). nix makes the calls for users, groups and core dumps; the
//! others go through libc.
//!
//! The kernel keeps credentials per thread. [`set_groups`], [`set_group`] and [`set_user`] change all threads, because the C library sends
//! them a signal (nptl(7)). All other functions here change the calling thread, and [`set_dumpable`] the whole process.

use std::io;

use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

use super::check;

/// The real, effective and saved ID of a user or group (credentials(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// The real ID: the owner of the process.
    pub real: u32,
    /// The effective ID, which the kernel checks. The filesystem ID follows it.
    pub effective: u32,
    /// The saved ID, which the process may make effective again.
    pub saved: u32,
}

impl Ids {
    /// Returns whether all three are `id`.
    #[must_use]
    pub fn are_all(&self, id: u32) -> bool {
        (self.real, self.effective, self.saved) == (id, id, id)
    }
}

/// Returns the user IDs of the calling thread: getresuid(2).
///
/// # Errors
/// None are known.
pub fn user() -> io::Result<Ids> {
    let ids = getresuid()?;
    Ok(Ids { real: ids.real.as_raw(), effective: ids.effective.as_raw(), saved: ids.saved.as_raw() })
}

/// Returns the group IDs of the calling thread: getresgid(2).
///
/// # Errors
/// None are known.
pub fn group() -> io::Result<Ids> {
    let ids = getresgid()?;
    Ok(Ids { real: ids.real.as_raw(), effective: ids.effective.as_raw(), saved: ids.saved.as_raw() })
}

/// Returns the supplementary groups of the calling thread: getgroups(2).
///
/// # Errors
/// None are known.
pub fn groups() -> io::Result<Vec<u32>> {
    Ok(getgroups()?.into_iter().map(Gid::as_raw).collect())
}

/// Sets all three user IDs of all threads: setresuid(2). Leaving user 0 clears the permitted, effective and ambient capabilities of each
/// thread (capabilities(7), "Effect of user ID changes on capabilities").
///
/// # Errors
/// `EPERM`: the thread lacks `CAP_SETUID`, and the ID is none of its own. `EINVAL`: the user namespace does not map the ID. `EAGAIN`: out
/// of kernel memory.
pub fn set_user(id: u32) -> io::Result<()> {
    let id = Uid::from_raw(id);
    Ok(setresuid(id, id, id)?)
}

/// Sets all three group IDs of all threads: setresgid(2).
///
/// # Errors
/// `EPERM`: the thread lacks `CAP_SETGID`, and the ID is none of its own. `EINVAL`: the user namespace does not map the ID.
pub fn set_group(id: u32) -> io::Result<()> {
    let id = Gid::from_raw(id);
    Ok(setresgid(id, id, id)?)
}

/// Sets the supplementary groups of all threads: setgroups(2).
///
/// # Errors
/// `EPERM`: the thread lacks `CAP_SETGID`, or its user namespace denies the call (user_namespaces(7)). `EINVAL`: too many groups.
pub fn set_groups(ids: &[u32]) -> io::Result<()> {
    let ids: Vec<Gid> = ids.iter().copied().map(Gid::from_raw).collect();
    Ok(setgroups(&ids)?)
}

bitflags::bitflags! {
    /// A set of capabilities (capabilities(7)): bit N stands for the capability with number N.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Capabilities: u64 {
        /// `CAP_SETGID`: change groups.
        const SETGID = 1 << 6;
        /// `CAP_SETUID`: change users.
        const SETUID = 1 << 7;
        /// `CAP_SETPCAP`: drop capabilities from the bounding set.
        const SETPCAP = 1 << 8;
        /// `CAP_NET_BIND_SERVICE`: listen on ports below 1024.
        const NET_BIND_SERVICE = 1 << 10;

        const _ = !0;
    }
}

/// The capability sets of a thread that capget(2) and capset(2) access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySets {
    /// The capabilities that the kernel checks.
    pub effective: Capabilities,
    /// The capabilities that the thread may make effective.
    pub permitted: Capabilities,
    /// The capabilities that can survive an execve(2).
    pub inheritable: Capabilities,
}

impl CapabilitySets {
    /// Three empty sets.
    pub const EMPTY: Self =
        Self { effective: Capabilities::empty(), permitted: Capabilities::empty(), inheritable: Capabilities::empty() };
}

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h: 64 bits, as two `struct __user_cap_data_struct`.
const VERSION: u32 = 0x2008_0522;

/// A `struct __user_cap_header_struct`. The process ID 0 means the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// A `struct __user_cap_data_struct`: 32 bits of each set.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Returns the capability sets of the calling thread: capget(2).
///
/// # Errors
/// `ENOSYS`: the kernel was built without capabilities for several users.
pub fn capabilities() -> io::Result<CapabilitySets> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: the kernel reads and writes one header, and with this version writes two data structs. All of them outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } as libc::c_int)?;
    let set = |field: fn(&Data) -> u32| {
        Capabilities::from_bits_retain(u64::from(field(&data[0])) | u64::from(field(&data[1])) << 32)
    };
    Ok(CapabilitySets {
        effective: set(|data| data.effective),
        permitted: set(|data| data.permitted),
        inheritable: set(|data| data.inheritable),
    })
}

/// Sets the capability sets of the calling thread: capset(2). What leaves the permitted set also leaves the ambient set.
///
/// # Errors
/// `EPERM`: the permitted set would grow, the effective set is not a part of it, or the inheritable set would grow without `CAP_SETPCAP`.
pub fn set_capabilities(sets: CapabilitySets) -> io::Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let half = |shift: u32| {
        let bits = |set: Capabilities| (set.bits() >> shift) as u32; // the other half is in the other struct
        Data { effective: bits(sets.effective), permitted: bits(sets.permitted), inheritable: bits(sets.inheritable) }
    };
    let data = [half(0), half(32)];
    // SAFETY: the kernel reads one header, and with this version two data structs. All of them outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } as libc::c_int)?;
    Ok(())
}

/// An argument of prctl(2) that must be 0. The C library takes it as an unsigned long, from a variable argument list: an int would leave its
/// upper half undefined.
const UNUSED: libc::c_ulong = 0;

/// "Set", as an argument of prctl(2).
const ON: libc::c_ulong = 1;

/// Returns whether the capability `number` is in the bounding set of the calling thread: prctl(2), `PR_CAPBSET_READ`.
///
/// # Errors
/// `EINVAL`: the kernel has no capability with this number.
pub fn is_in_bounding_set(number: u32) -> io::Result<bool> {
    // SAFETY: the call takes numbers only.
    let result = check(unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), UNUSED, UNUSED, UNUSED) })?;
    Ok(result == 1)
}

/// Removes the capability `number` from the bounding set of the calling thread: prctl(2), `PR_CAPBSET_DROP`. The permitted set is not
/// changed.
///
/// # Errors
/// `EPERM`: the thread lacks `CAP_SETPCAP`. `EINVAL`: the kernel has no capability with this number.
pub fn drop_from_bounding_set(number: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), UNUSED, UNUSED, UNUSED) })?;
    Ok(())
}

/// Empties the ambient set of the calling thread: prctl(2), `PR_CAP_AMBIENT_CLEAR_ALL`. Since Linux 4.3.
///
/// # Errors
/// `EINVAL`: the kernel has no ambient set.
pub fn clear_ambient_set() -> io::Result<()> {
    let clear_all = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong; // 4
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear_all, UNUSED, UNUSED, UNUSED) })?;
    Ok(())
}

/// Keeps execve(2) from giving the calling thread, and threads that it starts, new rights: prctl(2), `PR_SET_NO_NEW_PRIVS`. Cannot be
/// undone.
///
/// # Errors
/// None are known.
pub fn forbid_new_privileges() -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, ON, UNUSED, UNUSED, UNUSED) })?;
    Ok(())
}

/// Sets whether the process leaves a core dump, and whether other processes of its user may trace it: prctl(2), `PR_SET_DUMPABLE`. A change
/// of user or group resets this.
///
/// # Errors
/// None are known.
pub fn set_dumpable(is_dumpable: bool) -> io::Result<()> {
    Ok(prctl::set_dumpable(is_dumpable)?)
}

/// Returns whether the process leaves a core dump: prctl(2), `PR_GET_DUMPABLE`.
///
/// # Errors
/// None are known.
pub fn is_dumpable() -> io::Result<bool> {
    Ok(prctl::get_dumpable()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a set in the notation of proc(5).
    fn status(name: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("proc(5)");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a number")
    }

    #[test]
    fn capabilities_are_read_and_given_up_for_one_thread() {
        let before = capabilities().expect("capget");
        assert_eq!(before.permitted.bits(), status("CapPrm"));
        assert_eq!(before.effective.bits(), status("CapEff"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                set_capabilities(CapabilitySets::EMPTY).expect("capset");
                assert_eq!(capabilities().expect("capget"), CapabilitySets::EMPTY);
                assert_eq!((status("CapPrm"), status("CapEff"), status("CapInh")), (0, 0, 0));
                let all = CapabilitySets { permitted: Capabilities::all(), ..CapabilitySets::EMPTY };
                assert_eq!(set_capabilities(all).expect_err("they are gone").raw_os_error(), Some(libc::EPERM));
                clear_ambient_set().expect("prctl");
                assert_eq!(status("CapAmb"), 0);
                assert!(drop_from_bounding_set(0).is_err(), "that takes CAP_SETPCAP");
            });
        });
        assert_eq!(capabilities().expect("capget"), before, "the other thread is unchanged");
        assert_eq!(is_in_bounding_set(0).expect("prctl"), status("CapBnd") & 1 == 1);
        assert!(is_in_bounding_set(64).is_err(), "there is no such capability");
    }

    #[test]
    fn users_and_groups_are_read() {
        let (user, group) = (user().expect("getresuid"), group().expect("getresgid"));
        assert!(user.are_all(user.real) && group.are_all(group.real), "{user:?} {group:?}");
        assert!(!Ids { saved: user.real + 1, ..user }.are_all(user.real));
        assert!(groups().expect("getgroups").len() < 65537);
    }
}
