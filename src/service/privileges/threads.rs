//! The rights of each thread, as proc(5) shows them.

use std::fs;
use std::io;

use super::error::Error;

/// The rights that each thread should have left.
pub(super) struct Expected {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The supplementary groups could not be left.
    pub(super) has_groups: bool,
    /// The bounding set could not be emptied.
    pub(super) has_bounding_set: bool,
}

/// Names of capabilities, by number (capabilities(7), linux/capability.h).
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Returns the names of a set of capabilities in the notation of proc(5).
fn names(set: &str) -> Option<String> {
    let set = u64::from_str_radix(set, 16).ok()?;
    let name = |number: usize| NAMES.get(number).map_or_else(|| number.to_string(), |&name| name.to_owned());
    Some((0..64).filter(|number| set >> number & 1 == 1).map(name).collect::<Vec<_>>().join(", "))
}

/// Looks at each thread of this process, and returns an error for the first right that should be gone.
///
/// # Errors
/// Returns the error of reading `/proc/self/task`.
pub(super) fn find_kept(expected: &Expected) -> io::Result<Option<Error>> {
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        let status = match fs::read_to_string(thread.path().join("status")) {
            Ok(status) => status,
            // It has ended since.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => continue,
            Err(error) => return Err(error),
        };
        if let Some((field, value)) = kept_field(&status, expected) {
            let number = thread.file_name().to_string_lossy().into_owned();
            let name = field_of(&status, "Name").unwrap_or_default();
            return Ok(Some(match value.as_deref().filter(|_| field.starts_with("Cap")).and_then(names) {
                Some(capabilities) => Error::KeptCapabilities { number, name, capabilities, set: field },
                None => {
                    let value = value.as_deref().unwrap_or("(not shown)");
                    Error::Kept(format!("thread {number} '{name}' has {field}: {value}"))
                }
            }));
        }
    }
    Ok(None)
}

/// Returns a field of a `status` file, with one space between its words.
fn field_of(status: &str, name: &str) -> Option<String> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Returns the first field of a `status` file that differs from what is expected, and its value. A field that is missing differs.
fn kept_field(status: &str, expected: &Expected) -> Option<(&'static str, Option<String>)> {
    let ids = |id: u32| format!("{id} {id} {id} {id}");
    let none = "0000000000000000".to_owned();
    let fields = [
        ("Uid", Some(ids(expected.uid))), // real, effective, saved, filesystem
        ("Gid", Some(ids(expected.gid))),
        ("Groups", (!expected.has_groups).then(String::new)),
        ("CapInh", Some(none.clone())),
        ("CapPrm", Some(none.clone())),
        ("CapEff", Some(none.clone())),
        ("CapBnd", (!expected.has_bounding_set).then(|| none.clone())),
        ("CapAmb", Some(none)),
        ("NoNewPrivs", Some("1".to_owned())),
    ];
    for (name, expected) in fields {
        let Some(expected) = expected else { continue };
        let value = field_of(status, name);
        if value.as_ref() != Some(&expected) {
            return Some((name, value));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\techo\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t \nCapInh:\t0000000000000000\n\
        CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";

    #[test]
    fn each_right_that_is_left_is_found() {
        let expected = Expected { uid: 7, gid: 8, has_groups: false, has_bounding_set: false };
        assert_eq!(kept_field(STATUS, &expected), None);
        for (from, to) in [
            ("Uid:\t7\t7\t7\t7", "Uid:\t7\t7\t0\t7"),
            ("Uid:\t7\t7\t7\t7", "Uid:\t7\t7\t7\t0"),
            ("Gid:\t8\t8\t8\t8", "Gid:\t0\t8\t8\t8"),
            ("Groups:\t ", "Groups:\t0 "),
            ("CapInh:\t0000", "CapInh:\t0001"),
            ("CapPrm:\t0000", "CapPrm:\t0001"),
            ("CapEff:\t0000", "CapEff:\t0001"),
            ("CapBnd:\t0000", "CapBnd:\t0001"),
            ("CapAmb:\t0000", "CapAmb:\t0001"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("NoNewPrivs", "Other"),
        ] {
            let name = from.split(':').next().expect("a name");
            let (field, _) = kept_field(&STATUS.replace(from, to), &expected).expect("a right is left");
            assert_eq!(field, name, "{from}");
        }
    }

    #[test]
    fn a_set_of_capabilities_is_shown_by_names() {
        assert_eq!(names("0000000000000400").as_deref(), Some("CAP_NET_BIND_SERVICE"));
        assert_eq!(names("8000010000000001").as_deref(), Some("CAP_CHOWN, CAP_CHECKPOINT_RESTORE, 63"));
        assert_eq!(names("(not shown)"), None);
    }

    #[test]
    fn what_a_process_without_root_cannot_change_is_not_expected() {
        let status = STATUS.replace("Groups:\t ", "Groups:\t27 100 ").replace("CapBnd:\t0000", "CapBnd:\t01ff");
        assert!(kept_field(&status, &Expected { uid: 7, gid: 8, has_groups: true, has_bounding_set: true }).is_none());
        assert!(kept_field(&status, &Expected { uid: 7, gid: 8, has_groups: false, has_bounding_set: true }).is_some());
    }
}
