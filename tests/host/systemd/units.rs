//! The units of packaging/systemd/, as systemd reads them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::scratch::Scratch;
use crate::support::{PROGRAM, run};
use crate::tools::tool;

const ANALYZE: &str = "systemd-analyze";
const SERVICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd/edgecho.service");
const SOCKET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd/edgecho.socket");

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let Some(analyze) = tool("systemd_finds_no_fault_in_the_units", ANALYZE) else { return };
    // The program is where cargo has put it, and its man pages are not installed.
    let scratch = Scratch::new();
    let copies = [SERVICE, SOCKET].map(|path| {
        let text = fs::read_to_string(path).expect("a unit").replace("/usr/bin/edgecho", PROGRAM);
        let copy = scratch.file(path.rsplit('/').next().expect("a name"));
        fs::write(&copy, text).expect("a file");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).expect("chmod");
        copy
    });
    let (status, stdout, stderr) = run(Command::new(analyze).args(["verify", "--man=no"]).args(copies));
    assert!(status.success() && stdout.is_empty() && stderr.is_empty(), "{status}: {stdout}{stderr}");
}

#[test]
fn the_exposure_of_the_service_is_at_most_1_5() {
    let Some(analyze) = tool("the_exposure_of_the_service_is_at_most_1_5", ANALYZE) else { return };
    let arguments = ["security", "--offline=true", "--threshold=15", "--no-pager", SERVICE];
    let (status, stdout, stderr) = run(Command::new(analyze).args(arguments));
    let overall = stdout.lines().find(|line| line.contains("Overall exposure level")).unwrap_or(&stderr);
    assert!(status.success(), "{overall}");
    println!("{overall}");
}

/// The drain ends before systemd kills the service.
#[test]
fn the_service_has_time_to_drain() {
    let unit = fs::read_to_string(SERVICE).expect("a unit");
    let seconds = |name: &str| -> u64 {
        let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.expect(name).parse().expect("seconds")
    };
    let timeouts = edgecho::server::Timeouts::default();
    assert!(seconds("TimeoutStopSec") > 2 * (timeouts.drain.as_secs() + 2));
    assert!(seconds("WatchdogSec") >= 10, "a busy host may delay the loop");
}
