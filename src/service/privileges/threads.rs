//! The rights of each thread, as proc(5) shows them.

use std::fs;
use std::io;

/// The rights that each thread should have left.
pub(super) struct Expected {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The supplementary groups could not be left.
    pub(super) has_groups: bool,
    /// The bounding set could not be emptied.
    pub(super) has_bounding_set: bool,
}

/// Looks at each thread of this process, and returns a description of the first right that should be gone.
///
/// # Errors
/// Returns the error of reading `/proc/self/task`.
pub(super) fn find_kept(expected: &Expected) -> io::Result<Option<String>> {
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        let status = match fs::read_to_string(thread.path().join("status")) {
            Ok(status) => status,
            // It has ended since.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => continue,
            Err(error) => return Err(error),
        };
        if let Some(line) = kept_line(&status, expected) {
            let number = thread.file_name();
            return Ok(Some(format!("thread {} has {line}", number.to_string_lossy())));
        }
    }
    Ok(None)
}

/// Returns the first line of a `status` file that differs from what is expected. A line that is missing differs.
fn kept_line(status: &str, expected: &Expected) -> Option<String> {
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
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = value.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "));
        if value.as_ref() != Some(&expected) {
            return Some(format!("{name}: {}", value.as_deref().unwrap_or("(not shown)")));
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
        assert_eq!(kept_line(STATUS, &expected), None);
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
            let line = kept_line(&STATUS.replace(from, to), &expected).expect("a right is left");
            assert!(line.starts_with(name), "{from}: {line}");
        }
    }

    #[test]
    fn what_a_process_without_root_cannot_change_is_not_expected() {
        let status = STATUS.replace("Groups:\t ", "Groups:\t27 100 ").replace("CapBnd:\t0000", "CapBnd:\t01ff");
        assert!(kept_line(&status, &Expected { uid: 7, gid: 8, has_groups: true, has_bounding_set: true }).is_none());
        assert!(kept_line(&status, &Expected { uid: 7, gid: 8, has_groups: false, has_bounding_set: true }).is_some());
    }
}
