//! The programs of the host.

use std::path::PathBuf;

use crate::support::skip;

/// Returns the path of a program, or none if it is not installed. Reports the test as skipped then.
pub fn tool(test: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(sbin).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        skip(test, &format!("{name} is not installed"));
    }
    found
}

#[test]
fn a_program_is_found_on_the_path() {
    assert!(tool("a_program_is_found_on_the_path", "sh").is_some_and(|path| path.ends_with("sh")));
}
